//! The rollouts and experiments that run: once a second a look at each rollout, kept before it is acted upon.
//!
//! **Invariants**: only a healthy verdict raises a share; nothing measured is never a pass; taking back also acts when the disk
//! refuses. Not here: the clockwork (release::rollout), the statistics (judge), counting (watch).

use std::path::PathBuf;
use std::sync::Arc;

use judge::{Scales, Share, Tallies, Tally, scales_of_users};
use model::Rejected;
use release::rollout::{Effect, Event, Outcome, Rollout, State, step};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use telemetry::Draw;

use crate::change::{Change, change_key, number_key};
use crate::effective::Sources;
use crate::flag::Flag;
use crate::meters::{steady_from, steady_ms, wall_ms};
use crate::people::People;
use crate::registry::{Registry, kept};
use crate::said::{Said, weigh};
use crate::trial::{Trial, What, settle};
use crate::watch::{CLOSING_S, Watch};

/// One trial that runs, by environment and flag.
pub(crate) struct Running {
    pub(crate) watch: Arc<Watch>,
    rollout: Option<Judged>,
}

/// What a rollout's judge has seen; kept with every look.
#[derive(Clone, Serialize, Deserialize)]
struct Judged {
    number: u64,
    scales: Scales,
    said: Said,
}

pub(crate) type Place = (String, String);

fn people_file(number: u64) -> String {
    format!("experiment-{number}.users")
}

fn scales_key(place: &Place) -> String {
    format!("flagscales/{}/{}", place.0, place.1)
}

impl Registry {
    fn trials_of(&self) -> Vec<(Place, Trial)> {
        let names = self.environments.iter().map(|it| &it.config.name);
        let of = |name: &String| {
            let living = self.flags.values().filter(|flag| flag.archived.is_none());
            let running = living.filter_map(|flag| Some((flag.key.clone(), flag.environments.get(name)?.trial.clone()?)));
            running.filter(|(_, trial)| trial.is_running()).map(|(key, trial)| ((name.clone(), key), trial)).collect::<Vec<_>>()
        };
        names.flat_map(of).collect()
    }

    /// Every trial that should run is watched, no other; after every change.
    pub(crate) async fn follow_trials(&mut self) {
        let wanted = self.trials_of();
        self.unwatched.retain(|place| wanted.iter().any(|(it, _)| it == place));
        let gone: Vec<Place> = self
            .trials
            .iter()
            .filter(|(place, running)| !wanted.iter().any(|(it, trial)| it == *place && trial.number == running.watch.number))
            .map(|(place, _)| place.clone())
            .collect();
        for place in gone {
            if let Some(running) = self.trials.remove(&place) {
                self.write_people(&place, &running);
            }
            if let Some(meter) = self.meters.meter(&place.0, &place.1) {
                meter.watch.store(None);
            }
        }
        for (place, trial) in wanted {
            if !self.trials.contains_key(&place) {
                match self.begin(&place, &trial).await {
                    Ok(running) => {
                        self.unwatched.remove(&place);
                        self.trials.insert(place.clone(), running);
                    }
                    Err(error) => {
                        if self.unwatched.insert(place.clone()) {
                            self.tell("flag_trial_failed", format!("{}: cannot be watched: {error}", place.1));
                        }
                        continue;
                    }
                }
            }
            let running = &self.trials[&place];
            if let Some(rules) = self.rules_of_needy(&place) {
                running.watch.follow_rules(rules);
            }
            if let Some(rollout) = trial.rollout() {
                running.watch.draw(Draw { epoch: rollout.epoch, before: rollout.before() }, rollout.weight());
            }
            if let Some(meter) = self.meters.meter(&place.0, &place.1) {
                meter.watch.store(Some(running.watch.clone()));
            }
        }
    }

    /// The rules of a flag that needs others: those may have changed.
    fn rules_of_needy(&self, place: &Place) -> Option<Option<flags::Set>> {
        let index = self.environments.iter().position(|it| it.config.name == place.0)?;
        let sources = self.sources(index);
        if sources.settings(&place.1).requires.is_empty() {
            return None;
        }
        rules_alone(sources, &place.1).ok()
    }

    /// A file has changed: whom rules decide for may be others now.
    pub(crate) async fn renew_trials(&mut self, environment: &str) {
        let gone: Vec<_> = self.trials.extract_if(.., |place, _| place.0 == environment).collect();
        gone.iter().for_each(|(place, running)| self.write_people(place, running));
        self.follow_trials().await;
    }

    /// An experiment's users of the last second.
    fn write_people(&self, place: &Place, running: &Running) {
        let path = self.people_file(running.watch.number);
        if let Some(Err(error)) = running.watch.people(|people| people.write(&path)) {
            eprintln!("error: the experiment of {} cannot be kept: {error}", place.1);
        }
    }

    async fn begin(&self, place: &Place, trial: &Trial) -> Result<Running, String> {
        let index = self.environments.iter().position(|it| it.config.name == place.0).ok_or("its environment is gone")?;
        let (key, bucketing) = (place.1.as_str(), self.environments[index].bucketing);
        let rules = rules_alone(self.sources(index), key)?;
        match &trial.what {
            What::Rollout { variant, control, rollout } => {
                let criteria = rollout.plan.criteria.names();
                let watch = Watch::of_rollout(trial.number, key, bucketing, rules, [variant, control], criteria);
                let judged = match self.judged(place, trial.number).await? {
                    Some(mut judged) => {
                        steady_from(judged.said.at_s * 1_000);
                        judged.scales.abandon();
                        judged
                    }
                    None => {
                        let mut scales = scales_of_users(judge::Plan::default(), criteria, CLOSING_S);
                        begin_step(&mut scales, rollout);
                        Judged { number: trial.number, scales, said: Said::default() }
                    }
                };
                Ok(Running { watch: Arc::new(watch), rollout: Some(judged) })
            }
            What::Experiment { design, window_ms, .. } => {
                let people = People::open(design, *window_ms, &self.people_file(trial.number)).map_err(|error| error.to_string())?;
                let watch = Watch::of_experiment(trial.number, key, bucketing, rules, people);
                Ok(Running { watch: Arc::new(watch), rollout: None })
            }
        }
    }

    /// What was kept of a rollout's looks. The error is for people.
    async fn judged(&self, place: &Place, number: u64) -> Result<Option<Judged>, String> {
        let stored = self.store.values_in_time(&scales_key(place)).await.map_err(|error| error.to_string())?;
        // Of `a` before that of `a-b`, which begins with it.
        let judged = stored.first().and_then(|(_, text)| serde_json::from_str::<Judged>(text).ok());
        Ok(judged.filter(|judged| judged.number == number))
    }

    fn people_file(&self, number: u64) -> PathBuf {
        self.state_dir.join(people_file(number))
    }

    /// Once a second.
    pub(crate) async fn look_at_trials(&mut self) {
        if !self.unwatched.is_empty() {
            self.follow_trials().await;
        }
        let now_s = steady_ms() / 1_000;
        let places: Vec<Place> = self.trials.keys().cloned().collect();
        for place in places {
            let Some(running) = self.trials.get(&place) else { continue };
            if running.rollout.is_some() {
                self.look_at_rollout(&place, now_s).await;
                continue;
            }
            self.write_people(&place, running);
        }
    }

    async fn look_at_rollout(&mut self, place: &Place, now_s: u64) {
        let Some(flag) = self.flags.get(&place.1).cloned() else { return };
        let settings = flag.settings(&place.0);
        let Some(trial) = settings.trial.clone().filter(Trial::is_running) else { return };
        let (Some(rollout), Some(running)) = (trial.rollout().cloned(), self.trials.get(place)) else { return };
        let Some(mut judged) = running.rollout.clone().filter(|judged| judged.said.at_s < now_s) else { return };
        let Some((cells, observed)) = running.watch.read(now_s) else { return };
        let mut turn = Turn { rollout, told: Vec::new() };
        if judged.said.at_s > 0 && turn.rollout.paused.is_some() {
            judged.scales.was_paused(now_s - judged.said.at_s);
        }
        if matches!(turn.rollout.state, State::Raising { .. }) && judged.said.at_s > 0 {
            // The set was published at least a look ago.
            judged.scales.acknowledged(now_s);
            let epoch = turn.rollout.epoch;
            turn.go(&Event::Acknowledged { epoch }, now_s, &mut judged.scales);
        } else if matches!(turn.rollout.state, State::Judging { .. }) && judged.scales.is_due(now_s) {
            turn.go(&Event::EpochDue, now_s, &mut judged.scales);
            judged.scales.acknowledged(now_s);
        }
        let tally = |arm: telemetry::ArmCounts| Tally { drawn: arm.drawn, ended: arm.ended, answering: arm.answering, bad: arm.bad };
        for cell in cells {
            judged.scales.put(cell.epoch, cell.second, Tallies { candidate: tally(cell.candidate), stable: tally(cell.stable) });
        }
        let outcome = judged.scales.look(now_s);
        let (action, said) = weigh(&judged.scales, &outcome, &turn.rollout, &observed, &trial.what, now_s);
        judged.said = said;
        let (step, reason) = (judged.scales.step(), judged.said.sentence.clone());
        turn.go(&Event::Judged { step, action, reason }, now_s, &mut judged.scales);
        self.keep(place, flag, trial, turn, judged, wall_ms()).await;
    }

    /// Keeps a look, then acts on it.
    async fn keep(&mut self, place: &Place, mut flag: Flag, trial: Trial, turn: Turn, judged: Judged, now_ms: u64) {
        let settings = flag.settings(&place.0);
        let before = flag.clone();
        let moved = trial.rollout() != Some(&turn.rollout);
        let weighs_otherwise = trial.rollout().map(Rollout::weight) != Some(turn.rollout.weight());
        let is_back = turn.rollout.is_ended() && turn.rollout.weight() == 0;
        let mut next = settle(&settings, trial.with_rollout(turn.rollout.clone()), now_ms);
        if !weighs_otherwise {
            next.changed_ms = settings.changed_ms;
        }
        flag.environments.insert(place.0.clone(), next);
        let (mut puts, deletes) = (vec![(scales_key(place), kept(&judged))], Vec::new());
        let mut change = None;
        if !turn.told.is_empty() {
            let said = format!("{} in {}: {}", place.1, place.0, turn.told.join("; "));
            let made = Change {
                number: self.next_number(),
                at_ms: now_ms,
                who: "changeover".to_owned(),
                why: Some(judged.said.sentence.clone()),
                environment: Some(place.0.clone()),
                key: place.1.clone(),
                action: action_name(&turn.rollout).to_owned(),
                said,
                agreed: None,
                before: Some(before),
                after: Some(flag.clone()),
            };
            puts.extend(Self::puts(&made).0);
            change = Some(made);
        } else if moved {
            puts.push((format!("flag/{}", place.1), kept(&flag)));
        }
        let _urgent = is_back.then(|| self.store.urgent());
        if let Err(error) = self.commit(puts, deletes).await {
            let Some(change) = change.clone().filter(|_| is_back) else {
                // The disk may have it all the same; after a restart it must not be in force.
                let mut rows = vec![(format!("flag/{}", place.1), self.flags.get(&place.1).map(kept))];
                rows.push((scales_key(place), self.trials.get(place).and_then(|it| it.rollout.as_ref()).map(kept)));
                if let Some(change) = &change {
                    rows.push((change_key(&change.key, change.number), None));
                    rows.push((number_key(change.number), None));
                }
                self.owe_back(rows);
                return eprintln!("error: a look at the rollout of {} could not be kept: {}", place.1, error.message);
            };
            // Told on standard error; whoever follows the rollout sees that it is back.
            let _ = self.switched_off_anyway(change, &place.0, &error);
        }
        if let Some(running) = self.trials.get_mut(place) {
            running.rollout = Some(judged);
        }
        self.flags.insert(place.1.clone(), flag);
        if weighs_otherwise || turn.rollout.is_ended() {
            let index = self.environments.iter().position(|it| it.config.name == place.0);
            index.into_iter().for_each(|index| if is_back { self.publish_off(index) } else { self.publish(index) });
        }
        if moved {
            self.follow_trials().await;
        }
        if let Some(change) = change {
            self.tell(&format!("flag_{}", change.action), change.said);
        }
    }

    /// The newest trial of a flag, with what is known.
    pub(crate) async fn trial(&self, key: &str, environment: Option<&str>) -> Result<Value, Rejected> {
        let index = self.environment(environment)?;
        let name = self.environments[index].config.name.clone();
        self.before(index, |before| before.flag(key))?;
        let none = || {
            let hint = format!("begin one with `changeover flags rollout {key}` or `changeover flags experiment {key}`");
            Rejected::new("not_found", format!("`{key}` has no rollout and no experiment in {name}")).hint(hint)
        };
        let trial = self.flags.get(key).and_then(|flag| flag.environments.get(&name)?.trial.clone()).ok_or_else(none)?;
        let mut report = trial.summary();
        report["key"] = key.into();
        report["environment"] = name.clone().into();
        let place = (name, key.to_owned());
        let running = self.trials.get(&place).filter(|running| running.watch.number == trial.number);
        if trial.rollout().is_some() {
            let judged = match running {
                Some(running) => running.rollout.clone(),
                None => self.judged(&place, trial.number).await.map_err(|error| Rejected::new("unavailable", error))?,
            };
            report["look"] = json!(judged.map(|judged| judged.said));
        }
        if let What::Experiment { design, window_ms, .. } = &trial.what {
            let path = self.people_file(trial.number);
            let read = |people: &mut People| {
                // What somebody was shown is not forgotten by a crash.
                let _ = people.write(&path);
                (json!(people.report(steady_ms() / 1_000)), people.waiting(), people.is_full())
            };
            let asked = match running {
                Some(running) => running.watch.people(read),
                None => People::open(design, *window_ms, &path).ok().map(|mut people| read(&mut people)),
            };
            if let Some((result, waiting, is_full)) = asked {
                report["report"] = result;
                report["waiting"] = waiting.into();
                report["is_full"] = is_full.into();
            }
        }
        Ok(report)
    }
}

/// A rollout on its way through the events of one look.
struct Turn {
    rollout: Rollout,
    told: Vec<String>,
}

impl Turn {
    fn go(&mut self, event: &Event, now_s: u64, scales: &mut Scales) {
        // What means nothing in this state any more changes nothing.
        let Ok(next) = step(&self.rollout, event, now_s) else { return };
        self.rollout = next.rollout;
        for effect in next.effects {
            match effect {
                Effect::SetWeight { .. } if !self.rollout.is_ended() => begin_step(scales, &self.rollout),
                Effect::OpenEpoch { .. } => drop(scales.open_next(now_s)),
                Effect::SetWeight { .. } => {}
                Effect::Report { text } => self.told.push(text),
            }
        }
    }
}

fn begin_step(scales: &mut Scales, rollout: &Rollout) {
    let Some(step) = rollout.step() else { return };
    scales.limits(rollout.plan.every_s, rollout.plan.max_step_s);
    scales.begin_step(step, Share::of_raise(rollout.before(), rollout.weight()), rollout.next_weight());
}

fn action_name(rollout: &Rollout) -> &'static str {
    match &rollout.state {
        State::Ended { outcome: Outcome::Promoted, .. } => "promoted",
        State::Ended { outcome: Outcome::RolledBack, .. } => "rolled_back",
        State::Ended { outcome: Outcome::Aborted, .. } => "aborted",
        State::Ended { outcome: Outcome::Withdrawn, .. } => "withdrawn",
        State::Planned | State::Raising { .. } | State::Judging { .. } => "raised",
    }
}

/// The flag without its trial and without a default: who gets a variant from that, gets it from a rule. Absent without rules.
fn rules_alone(sources: Sources<'_>, key: &str) -> Result<Option<flags::Set>, String> {
    let Some(flag) = sources.rules_of(key)? else { return Ok(None) };
    let document = json!({ "flags": { key: flag }, "$evaluators": sources.files.evaluators });
    let set = flags::Set::from_json(&document.to_string(), sources.bucketing);
    set.map(Some).map_err(|problems| problems.first().map(ToString::to_string).unwrap_or_default())
}
