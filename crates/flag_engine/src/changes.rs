//! Carrying out what was asked: tried, kept, then published; or put before a second person.

use model::Rejected;
use serde_json::{Value, json};

use crate::change::{Change, Proposal, References, change_key, number_key};
use crate::flag::{Flag, Origin};
use crate::meters::wall_ms;
use crate::registry::{Registry, compile, kept};
use crate::request::{Action, Request};
use crate::writes::Write;

/// More would be forgotten anyway.
const PROPOSALS_MAX: usize = 1_000;
/// Repositories whose references are remembered.
const REPOSITORIES_MAX: usize = 1_000;
/// Evaluations that are younger keep a flag from being archived.
const RECENT_MS: u64 = 7 * 24 * 3_600 * 1_000;

impl Registry {
    /// Which environment is meant: the only one, or the one that is named.
    pub(crate) fn environment(&self, named: Option<&str>) -> Result<usize, Rejected> {
        let names = || self.environments.iter().map(|it| it.config.name.as_str()).collect::<Vec<_>>().join(", ");
        match named {
            Some(name) => self.environments.iter().position(|it| it.config.name == name).ok_or_else(|| {
                Rejected::new("not_found", format!("there is no environment `{name}`")).hint(format!("there are: {}", names()))
            }),
            None if self.environments.len() == 1 => Ok(0),
            None => Err(Rejected::new("invalid", "which environment?").hint(format!("say --environment with one of: {}", names()))),
        }
    }

    /// `agreed`: the second person, where one is needed.
    pub(crate) async fn write(&mut self, request: Request, agreed: Option<String>) -> Result<Value, Rejected> {
        let everywhere = request.action.is_everywhere();
        let named = request.environment.as_deref();
        if everywhere {
            within(&request, None)?;
        }
        if let Action::Revert { change, force } = request.action {
            return self.revert(&request, change, force, agreed).await;
        }
        let index = if everywhere { 0 } else { self.environment(named)? };
        if !everywhere {
            within(&request, Some(&self.environments[index].config.name))?;
        }
        if let Action::Bucketing { to, rebucket } = request.action {
            return self.rebucket(&request, index, to, rebucket, agreed).await;
        }
        let write = self.decided(index, &request.action, &request.who)?;
        self.carry_out(&request, (!everywhere).then_some(index), write, agreed).await
    }

    fn decided(&self, index: usize, action: &Action, who: &str) -> Result<Write, Rejected> {
        if let Action::Archive { key, force: false } = action {
            self.is_unused(key)?;
        }
        self.before(index, |before| before.write(action, who))
    }

    /// Nobody has asked for it lately, and no code that was scanned names it.
    fn is_unused(&self, key: &str) -> Result<(), Rejected> {
        let hint = "take it out of the code first, or say --force";
        let places: usize = self.references.values().filter_map(|it| it.places.get(key)).map(Vec::len).sum();
        if places > 0 {
            let names: Vec<&str> =
                self.references.values().filter(|it| it.places.contains_key(key)).map(|it| it.repository.as_str()).collect();
            let at = if places == 1 { "one place".to_owned() } else { format!("{places} places") };
            let message = format!("`{key}` stands at {at} in the code of {}", names.join(", "));
            return Err(Rejected::new("conflict", message).hint(hint));
        }
        let now_ms = wall_ms();
        for environment in &self.environments {
            let last_ms = self.meters.read(&environment.config.name, key).last_ms;
            if last_ms > 0 && now_ms.saturating_sub(last_ms) < RECENT_MS {
                let minutes = now_ms.saturating_sub(last_ms) / 60_000;
                let message = format!("`{key}` was asked for {minutes} min ago in {}", environment.config.name);
                return Err(Rejected::new("conflict", message).hint(hint));
            }
        }
        Ok(())
    }

    /// `index`: the environment, absent when it concerns all.
    pub(crate) async fn carry_out(
        &mut self,
        request: &Request,
        index: Option<usize>,
        write: Write,
        agreed: Option<String>,
    ) -> Result<Value, Rejected> {
        let key = write.flag.key.clone();
        let concerned: Vec<usize> = index.map_or_else(|| (0..self.environments.len()).collect(), |index| vec![index]);
        if agreed.is_none()
            && !request.action.needs_no_second()
            && let Some(index) = concerned.iter().find(|index| self.environments[**index].config.second_person)
        {
            return self.propose(request, *index, &write.said).await;
        }
        let before = self.flags.insert(key.clone(), write.flag.clone());
        // Of a file's flag the first change made nothing: before it, the file alone counted.
        let was = before.clone().or_else(|| matches!(write.flag.origin, Origin::File).then(|| Flag::of_file(&key, write.flag.created_ms)));
        let can_revert = was.is_some();
        let is_off = matches!(request.action, Action::Off { .. });
        let (mut warnings, mut made) = (Vec::new(), Vec::new());
        for index in &concerned {
            match compile(self.sources(*index)) {
                Ok(set) => {
                    if let Err(rejected) = self.sound(*index, &key, &request.action) {
                        self.put_back(&key, before);
                        return Err(rejected);
                    }
                    let of_it = set.warnings().iter().filter(|it| it.flag.as_ref() == Some(&key));
                    warnings.extend(of_it.map(|it| it.message.clone()));
                    made.push((*index, Some(set)));
                }
                // Another flag's trouble keeps none on.
                Err(_) if is_off => made.push((*index, None)),
                Err(error) => {
                    self.put_back(&key, before);
                    return Err(Rejected::new("invalid", error));
                }
            }
        }
        let change = Change {
            number: self.next_number(),
            at_ms: wall_ms(),
            who: request.who.clone(),
            why: request.why.clone(),
            environment: index.map(|index| self.environments[index].config.name.clone()),
            key: key.clone(),
            action: request.action.name().to_owned(),
            said: write.said.clone(),
            agreed,
            before: was,
            after: Some(write.flag),
        };
        let number = change.number;
        let (puts, deletes) = Self::puts(&change);
        if let Err(error) = self.commit(puts, deletes).await {
            match (index, &request.action) {
                (Some(index), Action::Off { .. }) => {
                    let environment = self.environments[index].config.name.clone();
                    if !self.switched_off_anyway(change, &environment, &error) {
                        warnings.push(format!("it is off, but a restart would not know it: {}", error.message));
                    }
                }
                _ => {
                    // The disk may have it all the same; after a restart it must not be in force.
                    let was = before.as_ref().map(kept);
                    self.owe_back([(format!("flag/{key}"), was), (change_key(&key, number), None), (number_key(number), None)]);
                    self.put_back(&key, before);
                    return Err(error);
                }
            }
        }
        for (index, set) in made {
            match set {
                Some(set) => self.publish_set(index, set),
                None => self.publish_off(index),
            }
        }
        self.follow_trials().await;
        let why = request.why.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
        self.tell(&format!("flag_{}", request.action.name()), format!("{}: {}{why}", request.who, write.said));
        Ok(json!({ "change": number, "said": write.said, "warnings": warnings, "can_revert": can_revert }))
    }

    /// Its rules can be evaluated, also while it is off and nobody sees them.
    fn sound(&self, index: usize, key: &str, action: &Action) -> Result<(), Rejected> {
        let sources = self.sources(index);
        // Switching off never fails for what its rules, or evaluators and flags that they name, have become.
        if matches!(action, Action::Off { .. }) {
            return Ok(());
        }
        let Some(flag) = sources.defined(key) else { return Ok(()) };
        // What it needs is not looked at while it is off.
        if matches!(action, Action::Require { .. }) {
            sources.rules_of(key).map_err(|error| Rejected::new("invalid", error))?;
        }
        let document = json!({ "flags": { key: flag }, "$evaluators": sources.files.evaluators });
        let set = flags::Set::from_json(&document.to_string(), sources.bucketing);
        let problems = set.as_ref().map_or_else(|problems| problems.as_slice(), flags::Set::warnings);
        let broken = problems.iter().find(|it| it.severity != flags::Severity::Warning);
        broken.map_or(Ok(()), |broken| {
            let rejected = Rejected::new("invalid", format!("`{key}` could never be answered: {}", broken.message));
            Err(Rejected { hint: broken.hint.clone(), ..rejected })
        })
    }

    fn put_back(&mut self, key: &str, before: Option<Flag>) {
        match before {
            Some(flag) => self.flags.insert(key.to_owned(), flag),
            None => self.flags.remove(key),
        };
    }

    pub(crate) async fn propose(&mut self, request: &Request, index: usize, said: &str) -> Result<Value, Rejected> {
        if self.proposals.len() >= PROPOSALS_MAX {
            return Err(Rejected::new("conflict", format!("{PROPOSALS_MAX} proposals wait already")).hint("decide them first"));
        }
        let proposal = Proposal { number: self.next_number(), at_ms: wall_ms(), request: request.clone() };
        let row = format!("flagproposal/{:012}", proposal.number);
        if let Err(error) = self.commit(vec![(row.clone(), kept(&proposal))], Vec::new()).await {
            self.owe_back([(row, None)]);
            return Err(error);
        }
        let number = proposal.number;
        self.proposals.insert(number, proposal);
        let environment = &self.environments[index].config.name;
        self.tell("flag_proposed", format!("{} proposes: {said} (proposal {number})", request.who));
        let waits = format!("{environment} asks for a second person: changeover flags approve {number}");
        Ok(json!({ "proposal": number, "said": format!("proposed, nothing was changed yet: {said}"), "waits": waits }))
    }

    pub(crate) async fn decide(&mut self, number: u64, agree: bool, who: String) -> Result<Value, Rejected> {
        let Some(proposal) = self.proposals.get(&number).cloned() else {
            let hint = "see `changeover flags proposals`";
            return Err(Rejected::new("not_found", format!("there is no proposal {number}")).hint(hint));
        };
        if agree && proposal.request.who == who {
            let hint = "somebody else must say `changeover flags approve`; you may say `changeover flags reject`";
            return Err(Rejected::new("conflict", format!("{who} proposed it")).hint(hint));
        }
        let answer = if agree { self.write(proposal.request, Some(who.clone())).await? } else { json!({ "said": "rejected" }) };
        let row = format!("flagproposal/{number:012}");
        if let Err(error) = self.commit(Vec::new(), vec![row.clone()]).await {
            // What was agreed to is in force already.
            if !agree {
                return Err(error);
            }
            self.owe([(row, None)]);
        }
        self.proposals.remove(&number);
        self.tell(if agree { "flag_approved" } else { "flag_rejected" }, format!("{who}: proposal {number}"));
        Ok(answer)
    }

    /// Of a change, the flag as it was before: in the environment that it concerned, or what concerns all.
    async fn revert(&mut self, request: &Request, number: u64, force: bool, agreed: Option<String>) -> Result<Value, Rejected> {
        let unknown = || Rejected::new("not_found", format!("there is no change {number}")).hint("see `changeover flags history`");
        let unavailable = |error: store::StoreError| Rejected::new("unavailable", format!("nothing was changed: {error}"));
        let found = self.store.values_in_time(&number_key(number)).await.map_err(unavailable)?;
        let key = found.first().and_then(|(_, text)| serde_json::from_str::<String>(text).ok()).ok_or_else(unknown)?;
        let history = changes_of(self.store.values_in_time(&changes_prefix(Some(&key))).await.map_err(unavailable)?, Some(&key));
        let change = history.iter().find(|change| change.number == number).ok_or_else(unknown)?;
        within(request, change.environment.as_deref())?;
        let Some(before) = &change.before else {
            return Err(Rejected::new("conflict", format!("change {number} made `{key}`")).hint("archive it instead"));
        };
        let later: Vec<String> = history
            .iter()
            .filter(|other| other.number > number && other.environment == change.environment)
            .map(|other| other.number.to_string())
            .collect();
        if !later.is_empty() && !force {
            let hint = "revert the newest first, or say --force to lose them";
            return Err(Rejected::new("conflict", format!("`{key}` was changed since: {}", later.join(", "))).hint(hint));
        }
        let Some(now) = self.flags.get(&key) else { return Err(unknown()) };
        let (mut flag, mut but) = (now.clone(), "");
        let index = match &change.environment {
            Some(environment) => {
                let index = self.environment(Some(environment))?;
                let mut settings = before.settings(environment);
                settings.changed_ms = wall_ms();
                let runs = |flag: &Flag| flag.settings(environment).trial.filter(crate::trial::Trial::is_running).map(|it| it.number);
                if runs(now).is_some() {
                    but = ", and the rollout or experiment that ran ends";
                }
                // What was watched then cannot be watched on: its counts are of other users.
                if settings.trial.as_ref().is_some_and(crate::trial::Trial::is_running) {
                    (settings.trial, but) =
                        (None, ", but the rollout or experiment of then does not go on: everybody gets what there was before");
                }
                flag.environments.insert(environment.clone(), settings);
                Some(index)
            }
            None => {
                let was = before.clone();
                if was.archived.is_some() && flag.archived.is_none() {
                    if !force {
                        self.is_unused(&key)?;
                    }
                    self.before(0, |before| before.archivable(&key).map(drop))?;
                }
                (flag.owner, flag.description, flag.life, flag.archived) = (was.owner, was.description, was.life, was.archived);
                None
            }
        };
        let said = format!("{key} is again as it was before change {number}{but}");
        self.carry_out(request, index, Write { flag, said }, agreed).await
    }

    pub(crate) async fn refer(&mut self, references: References) -> Result<Value, Rejected> {
        if self.references.len() >= REPOSITORIES_MAX && !self.references.contains_key(&references.repository) {
            return Err(Rejected::new("conflict", format!("{REPOSITORIES_MAX} repositories are known already")));
        }
        self.commit(vec![(format!("flagrefs/{}", references.repository), kept(&references))], Vec::new()).await?;
        let keys = references.places.len();
        self.references.insert(references.repository.clone(), references);
        Ok(json!({ "keys": keys }))
    }

    /// Flags of files are described there.
    pub(crate) fn is_ours(&self, key: &str) -> bool {
        self.flags.get(key).is_some_and(|flag| matches!(flag.origin, Origin::Store(_)))
    }
}

fn changes_prefix(key: Option<&str>) -> String {
    key.map_or("flagchange/".to_owned(), |key| format!("flagchange/{key}/"))
}

fn changes_of(values: Vec<(String, String)>, key: Option<&str>) -> Vec<Change> {
    let mut changes: Vec<Change> = values.iter().filter_map(|(_, text)| serde_json::from_str(text).ok()).collect();
    // `a/` begins `a/b/` too.
    changes.retain(|change| key.is_none_or(|key| change.key == key));
    changes.sort_by_key(|change| change.number);
    changes
}

/// Changes, newest first. It may take long, so not in the loop that switches off.
pub(crate) async fn history(store: store::Store, key: Option<String>, limit: usize) -> Value {
    let values = store.values(&changes_prefix(key.as_deref())).await;
    let mut changes = changes_of(values, key.as_deref());
    changes.reverse();
    changes.truncate(limit);
    json!({ "changes": changes })
}

/// Whoever may change one environment only changes nothing of others. `concerned`: absent, all.
fn within(request: &Request, concerned: Option<&str>) -> Result<(), Rejected> {
    match request.bound_to.as_deref() {
        Some(own) if concerned != Some(own) => {
            let message =
                format!("this token is for the environment `{own}` only, and that concerns {}", concerned.unwrap_or("all of them"));
            Err(Rejected::new("forbidden", message).hint("use one with the scope `write` or `act`"))
        }
        _ => Ok(()),
    }
}
