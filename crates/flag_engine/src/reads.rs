//! What can be asked about flags, answered as JSON for API, command line and page.

use model::Rejected;
use serde_json::{Map, Value, json};

use crate::changes::history;
use crate::debt::{Answers, Facts, keeps, stage};
use crate::flag::{Flag, Life, Origin, expires_ms};
use crate::meters::wall_ms;
use crate::registry::Registry;

#[derive(Debug, Clone, PartialEq)]
pub enum Question {
    List,
    /// Everything about one flag, with its definition per environment.
    Flag {
        key: String,
    },
    /// Newest first.
    History {
        key: Option<String>,
        limit: usize,
    },
    Debt,
    Proposals,
    Schedules,
    /// The newest trial of a flag in an environment.
    Trial {
        key: String,
        environment: Option<String>,
    },
    /// What a context gets, and why.
    Evaluate {
        key: String,
        environment: Option<String>,
        context: Map<String, Value>,
    },
    /// The set of an environment, as it is served.
    Document {
        environment: Option<String>,
    },
}

type Dependents<'a> = std::collections::BTreeMap<&'a str, std::collections::BTreeSet<&'a str>>;

impl Registry {
    pub(crate) async fn answer(&self, question: Question) -> Result<Value, Rejected> {
        match question {
            Question::List => Ok(self.list()),
            Question::Flag { key } => self.flag(&key),
            Question::History { key, limit } => Ok(history(self.store.clone(), key, limit).await),
            Question::Debt => Ok(self.debt()),
            Question::Proposals => Ok(json!({ "proposals": self.proposals.values().collect::<Vec<_>>() })),
            Question::Schedules => Ok(json!({ "schedules": self.schedules.values().collect::<Vec<_>>() })),
            Question::Trial { key, environment } => self.trial(&key, environment.as_deref()).await,
            Question::Evaluate { key, environment, context } => self.evaluate(&key, environment.as_deref(), context),
            Question::Document { environment } => {
                let index = self.environment(environment.as_deref())?;
                crate::effective::document(self.sources(index)).map_err(|error| Rejected::new("conflict", error))
            }
        }
    }

    /// Of all environments, archived ones too, sorted.
    pub(crate) fn keys(&self) -> std::collections::BTreeSet<&str> {
        (0..self.environments.len()).flat_map(|index| self.sources(index).keys()).collect()
    }

    fn list(&self) -> Value {
        let dependents = self.dependents();
        let flags: Vec<Value> = self.keys().into_iter().map(|key| self.line(key, &self.facts(key, &dependents))).collect();
        let environments: Vec<Value> = self
            .environments
            .iter()
            .map(|it| {
                json!({ "environment": it.config.name, "bucketing": it.bucketing, "problem": it.problem,
                "second_person": it.config.second_person })
            })
            .collect();
        json!({ "flags": flags, "environments": environments })
    }

    /// By flag, who needs it anywhere.
    fn dependents(&self) -> Dependents<'_> {
        let mut dependents = Dependents::new();
        for flag in self.flags.values().filter(|flag| flag.archived.is_none()) {
            for requirement in flag.environments.values().flat_map(|it| &it.requires) {
                dependents.entry(&requirement.flag).or_default().insert(&flag.key);
            }
        }
        dependents
    }

    fn line(&self, key: &str, facts: &Facts) -> Value {
        let record = self.record(key);
        let environments: Map<String, Value> = self
            .environments
            .iter()
            .enumerate()
            .filter(|(index, _)| self.sources(*index).has(key))
            .map(|(index, environment)| (environment.config.name.clone(), self.in_environment(key, index)))
            .collect();
        json!({
            "key": key,
            "owner": record.owner,
            "description": record.description,
            "life": record.life,
            "created_ms": record.created_ms,
            "expired": record.is_expired(facts.now_ms),
            "from_file": !self.is_ours(key),
            "stage": stage(facts),
            "environments": environments,
        })
    }

    fn in_environment(&self, key: &str, index: usize) -> Value {
        let sources = self.sources(index);
        let settings = sources.settings(key);
        let used = self.meters.read(&self.environments[index].config.name, key);
        json!({
            "on": settings.on,
            "answers": match self.answers(key, index) {
                Answers::One(variant) => json!({ "everybody": variant }),
                Answers::Several => json!({ "by_rule": true }),
            },
            "shares": settings.trial.as_ref().filter(|trial| trial.is_running()).map(|trial| &trial.shares),
            "trial": settings.trial.as_ref().map(crate::trial::Trial::summary),
            "requires": settings.requires,
            "changed_ms": settings.changed_ms,
            "evaluations": used.counts,
            "last_evaluated_ms": (used.last_ms > 0).then_some(used.last_ms),
        })
    }

    /// What is kept of it; of a file's flag, what its metadata say.
    pub(crate) fn record(&self, key: &str) -> Flag {
        if let Some(flag) = self.flags.get(key).filter(|flag| matches!(flag.origin, Origin::Store(_))) {
            return flag.clone();
        }
        let metadata = self.environments.iter().find_map(|it| it.from_files.flags.get(key)?.get("metadata").cloned());
        let text = |name: &str| metadata.as_ref().and_then(|it| it.get(name)?.as_str().map(str::to_owned));
        let mut flag = self.flags.get(key).cloned().unwrap_or_else(|| Flag::of_file(key, 0));
        flag.owner = text("owner");
        flag.description = text("description");
        if let Some(expires_ms) = metadata.as_ref().and_then(Value::as_object).and_then(expires_ms) {
            flag.life = Life::Temporary { expires_ms };
        }
        if let Some(reason) = text("permanent") {
            flag.life = Life::Permanent { reason };
        }
        flag
    }

    fn answers(&self, key: &str, index: usize) -> Answers {
        let sources = self.sources(index);
        let settings = sources.settings(key);
        let Some(defined) = sources.defined(key) else { return Answers::One(None) };
        if !settings.on {
            return Answers::One(sources.off_variant(key));
        }
        if defined["state"] == "DISABLED" {
            return Answers::One(None);
        }
        let has_rule = defined.get("targeting").and_then(Value::as_object).is_some_and(|rule| !rule.is_empty());
        if has_rule || !settings.requires.is_empty() || settings.trial.is_some_and(|trial| trial.is_running()) {
            return Answers::Several;
        }
        Answers::One(defined["defaultVariant"].as_str().map(str::to_owned))
    }

    fn facts(&self, key: &str, dependents: &Dependents<'_>) -> Facts {
        let record = self.record(key);
        let there: Vec<usize> = (0..self.environments.len()).filter(|index| self.sources(*index).has(key)).collect();
        let name = |index: usize| self.environments[index].config.name.clone();
        let last_ms = there.iter().map(|index| self.meters.read(&name(*index), key).last_ms).max().unwrap_or_default();
        Facts {
            now_ms: wall_ms(),
            archived: record.archived.is_some(),
            life: Some(record.life.clone()),
            touched: !record.environments.is_empty() || !self.is_ours(key),
            answers: there.iter().map(|index| (name(*index), self.answers(key, *index))).collect(),
            since_ms: there.iter().map(|index| self.sources(*index).settings(key).changed_ms).max().unwrap_or_default(),
            last_evaluated_ms: (last_ms > 0).then_some(last_ms),
            dependents: dependents.get(key).into_iter().flatten().map(|key| (*key).to_owned()).collect(),
            ready_after_ms: self.config.ready_after_ms,
        }
    }

    fn debt(&self) -> Value {
        let dependents = self.dependents();
        let all = self.keys().into_iter().map(|key| {
            let facts = self.facts(key, &dependents);
            let record = self.record(key);
            let value = keeps(&facts).map(|variant| {
                let defined = (0..self.environments.len()).find_map(|index| self.sources(index).defined(key));
                let value = variant.as_ref().and_then(|name| defined?.get("variants")?.get(name).cloned());
                json!({ "variant": variant, "value": value })
            });
            let references: Map<String, Value> = self
                .references
                .values()
                .filter_map(|it| Some((it.repository.clone(), json!({ "commit": it.commit, "places": it.places.get(key)? }))))
                .collect();
            let mut line = self.line(key, &facts);
            let more = json!({
                "keeps": value,
                "since_ms": facts.since_ms,
                "dependents": facts.dependents,
                "references": references,
                "scanned": self.references.len(),
                "no_owner": record.owner.is_none() && !matches!(record.life, Life::KillSwitch | Life::Permanent { .. }),
            });
            if let (Value::Object(line), Value::Object(more)) = (&mut line, more) {
                line.extend(more);
            }
            line
        });
        json!({ "flags": all.collect::<Vec<_>>(), "ready_after_ms": self.config.ready_after_ms, "now_ms": wall_ms() })
    }

    fn flag(&self, key: &str) -> Result<Value, Rejected> {
        self.before(0, |before| before.flag(key))?;
        let mut line = self.line(key, &self.facts(key, &self.dependents()));
        let definitions = self.environments.iter().enumerate().filter_map(|(index, environment)| {
            let definition = crate::effective::definition(self.sources(index), key).ok()??;
            Some((environment.config.name.clone(), definition))
        });
        line["definitions"] = Value::Object(definitions.collect());
        Ok(line)
    }

    fn evaluate(&self, key: &str, environment: Option<&str>, context: Map<String, Value>) -> Result<Value, Rejected> {
        let index = self.environment(environment)?;
        let set = crate::registry::compile(self.sources(index)).map_err(|error| Rejected::new("conflict", error))?;
        let context = flags::Context::from_object(context);
        match set.evaluate(key, &context, (wall_ms() / 1_000) as i64) {
            Ok(evaluation) => Ok(json!({
                "key": key,
                "environment": self.environments[index].config.name,
                "variant": evaluation.variant,
                "value": evaluation.value.map(flags::Variant::value),
                "reason": evaluation.reason.as_str(),
            })),
            Err(flags::EvaluationError::FlagNotFound { .. }) => {
                let found = self.before(index, |before| before.living(key).map(drop));
                Err(found.err().unwrap_or_else(|| Rejected::new("not_found", format!("there is no flag `{key}`"))))
            }
            Err(error) => Err(Rejected::new("conflict", error.to_string())),
        }
    }
}
