//! Another generation of bucketing for an environment: whom it moves is told beforehand.

use model::Rejected;
use serde_json::{Value, json};

use crate::change::{Change, change_key};
use crate::meters::wall_ms;
use crate::registry::{Registry, compile, kept};
use crate::request::Request;

/// In the history, in place of a key.
const EVERY_FLAG: &str = "*";

impl Registry {
    /// Another generation of bucketing moves users; how many is told.
    pub(crate) async fn rebucket(
        &mut self,
        request: &Request,
        index: usize,
        to: flags::Bucketing,
        force: bool,
        agreed: Option<String>,
    ) -> Result<Value, Rejected> {
        let name = self.environments[index].config.name.clone();
        if self.environments[index].bucketing == to {
            return Err(Rejected::new("conflict", format!("{name} has this bucketing already")));
        }
        let moves = self.moves(index, to);
        let running: Vec<&str> = self
            .flags
            .values()
            .filter(|flag| flag.settings(&name).trial.is_some_and(|trial| trial.is_running()))
            .map(|flag| flag.key.as_str())
            .collect();
        if !running.is_empty() && !force {
            let most = moves.iter().map(|(_, share)| *share).fold(0.0, f64::max) * 100.0;
            let message = format!("users of {} are watched in {name}, and up to {most:.1} % of them would move", running.join(", "));
            return Err(Rejected::new("conflict", message).hint("end that first, or say --rebucket"));
        }
        if agreed.is_none() && self.environments[index].config.second_person {
            return self.propose(request, index, &format!("another bucketing in {name}")).await;
        }
        let old = std::mem::replace(&mut self.environments[index].bucketing, to);
        if let Err(error) = compile(self.sources(index)) {
            self.environments[index].bucketing = old;
            return Err(Rejected::new("invalid", error));
        }
        let said = format!("{name} has bucketing {} now, it had {}", kept(&to), kept(&old)).replace('"', "");
        let change = Change {
            number: self.next_number(),
            at_ms: wall_ms(),
            who: request.who.clone(),
            why: request.why.clone(),
            environment: Some(name.clone()),
            key: EVERY_FLAG.to_owned(),
            action: request.action.name().to_owned(),
            said: said.clone(),
            agreed,
            before: None,
            after: None,
        };
        let number = change.number;
        let puts = vec![(format!("flagenv/{name}"), kept(&(&name, to))), (change_key(EVERY_FLAG, number), kept(&change))];
        if let Err(error) = self.commit(puts, Vec::new()).await {
            self.environments[index].bucketing = old;
            self.owe_back([(format!("flagenv/{name}"), Some(kept(&(&name, old)))), (change_key(EVERY_FLAG, number), None)]);
            return Err(error);
        }
        self.publish(index);
        // Whom shares draw is told by the bucketing.
        self.renew_trials(&name).await;
        self.tell("flag_bucketing", format!("{}: {said}", request.who));
        let moves: Vec<Value> = moves.into_iter().map(|(key, share)| json!({ "flag": key, "moves": share })).collect();
        Ok(json!({ "change": number, "said": said, "moves": moves }))
    }

    /// Per flag with shares: which part of made-up users would get another variant.
    pub(crate) fn moves(&self, index: usize, to: flags::Bucketing) -> Vec<(String, f64)> {
        const USERS: usize = 10_000;
        let now = compile(self.sources(index));
        let then = compile(flags_with(self.sources(index), to));
        let (Ok(now), Ok(then)) = (now, then) else { return Vec::new() };
        let now_s = (wall_ms() / 1_000) as i64;
        let share = |key: &str| {
            let moved = (0..USERS).filter(|user| {
                let context = flags::Context::of(format!("user-{user}"));
                let variant = |set: &flags::Set| set.evaluate(key, &context, now_s).ok().and_then(|it| it.variant.map(str::to_owned));
                variant(&now) != variant(&then)
            });
            moved.count() as f64 / USERS as f64
        };
        now.flags().filter(|flag| flag.has_targeting()).map(|flag| (flag.key().to_owned(), share(flag.key()))).collect()
    }
}

fn flags_with(sources: crate::effective::Sources<'_>, bucketing: flags::Bucketing) -> crate::effective::Sources<'_> {
    crate::effective::Sources { bucketing, ..sources }
}
