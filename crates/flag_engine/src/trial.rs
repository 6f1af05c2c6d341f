//! A trial: users get one of several variants by shares, and are watched: a rollout or an experiment. Plain data, and what may be
//! done with it. Not here: counting (watch, experiment), looking (trials).

use judge::experiment::{Design, Goal, VariantShare};
use model::{Rejected, WEIGHT_SUM, Weight};
use release::rollout::{Criteria, Event, Plan, Rollout, Steps, step};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::effective::Sources;
use crate::flag::{Flag, Settings};
use crate::writes::{Before, Write};

/// A step without a decision for so many times its least duration has expired, and for this long at least.
const EXPIRES_AFTER: u64 = 6;
const EXPIRES_MIN_S: u64 = 1_800;
/// Between two looks nothing could be seen.
const EVERY_MIN_MS: u64 = 1_000;
/// Of one false winner or loser in the whole experiment.
const ALPHA: f64 = 0.05;
/// What the data plane saw of the request that carried the evaluation.
pub const REQUESTS: &str = "requests";

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// The change that began it.
    pub number: u64,
    pub begun_ms: u64,
    /// In parts per 10,000, the first at the low end of the users' places; in force while it runs.
    pub shares: Vec<(String, u32)>,
    pub what: What,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    Rollout {
        variant: String,
        /// What users get who do not get `variant` yet.
        control: String,
        rollout: Rollout,
    },
    Experiment {
        design: Design,
        /// So long after its first exposure a user's outcomes count.
        window_ms: u64,
        ended: Option<Ended>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    pub at_ms: u64,
    /// Everybody gets this variant since.
    pub keep: String,
}

/// Step by step more users get `variant`, each step judged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WantedRollout {
    pub key: String,
    /// What the flag answers when it is on, when absent.
    pub variant: Option<String>,
    /// Rising; the last is all users.
    pub steps: Vec<Weight>,
    /// The least time of a step.
    pub every_ms: u64,
    /// What is compared: [`REQUESTS`], or the name of an outcome that clients report.
    pub criteria: Vec<String>,
}

/// Users get variants by shares, and goals are measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WantedExperiment {
    pub key: String,
    /// Parts per 10,000 that sum to 10,000.
    pub shares: Vec<(String, u32)>,
    /// What the others are compared with; the variant that is answered when it is off, or the last one, when absent.
    pub control: Option<String>,
    pub goals: Vec<Goal>,
    /// So long after its first exposure a user's outcomes count.
    pub window_ms: u64,
}

impl Trial {
    pub fn is_running(&self) -> bool {
        match &self.what {
            What::Rollout { rollout, .. } => !rollout.is_ended(),
            What::Experiment { ended, .. } => ended.is_none(),
        }
    }

    pub fn rollout(&self) -> Option<&Rollout> {
        match &self.what {
            What::Rollout { rollout, .. } => Some(rollout),
            What::Experiment { .. } => None,
        }
    }

    /// For lists.
    pub fn summary(&self) -> Value {
        match &self.what {
            What::Rollout { variant, control, rollout } => json!({
                "kind": "rollout",
                "number": self.number,
                "begun_ms": self.begun_ms,
                "variant": variant,
                "control": control,
                "weight": rollout.weight(),
                "steps": rollout.plan.steps.weights(),
                "step": rollout.step(),
                "criteria": rollout.plan.criteria.names(),
                "every_s": rollout.plan.every_s,
                "state": rollout.state,
                "paused": rollout.paused,
            }),
            What::Experiment { design, window_ms, ended } => json!({
                "kind": "experiment",
                "number": self.number,
                "begun_ms": self.begun_ms,
                "shares": self.shares,
                "control": design.control,
                "goals": design.goals,
                "window_ms": window_ms,
                "ended": ended,
            }),
        }
    }

    /// The rollout as it becomes, and the shares that follow from it.
    pub(crate) fn with_rollout(&self, next: Rollout) -> Self {
        let What::Rollout { variant, control, .. } = &self.what else { return self.clone() };
        let weight = u32::from(next.weight());
        let shares = vec![(variant.clone(), weight), (control.clone(), u32::from(WEIGHT_SUM) - weight)];
        let what = What::Rollout { variant: variant.clone(), control: control.clone(), rollout: next };
        Self { shares, what, ..self.clone() }
    }
}

/// The settings of an environment after its trial has moved: what has ended leaves its result behind.
pub(crate) fn settle(settings: &Settings, trial: Trial, now_ms: u64) -> Settings {
    let mut settings = Settings { changed_ms: now_ms, ..settings.clone() };
    if let What::Rollout { variant, control, rollout } = &trial.what
        && rollout.is_ended()
    {
        settings.serve = Some(if rollout.weight() == WEIGHT_SUM { variant.clone() } else { control.clone() });
    }
    if let What::Experiment { ended: Some(ended), .. } = &trial.what {
        settings.serve = Some(ended.keep.clone());
    }
    settings.trial = Some(trial);
    settings
}

impl Before<'_> {
    /// What everybody gets now whom no rule decides for.
    fn answered_now(&self, key: &str, settings: &Settings) -> Option<String> {
        if !settings.on {
            return self.sources.off_variant(key);
        }
        self.sources.defined(key).and_then(|flag| flag["defaultVariant"].as_str().map(str::to_owned))
    }

    fn free(&self, key: &str) -> Result<(Flag, Settings), Rejected> {
        let (flag, settings) = self.living(key)?;
        if settings.trial.as_ref().is_some_and(Trial::is_running) {
            let hint = format!("see `changeover flags report {key}`, or end it with `changeover flags end {key}`");
            let message = format!("a rollout or an experiment of `{key}` runs in {} already", self.sources.environment);
            return Err(Rejected::new("conflict", message).hint(hint));
        }
        Ok((flag, settings))
    }

    pub(crate) fn rollout(&self, wanted: &WantedRollout, number: u64) -> Result<Write, Rejected> {
        let key = &wanted.key;
        let (flag, settings) = self.free(key)?;
        let variant = wanted.variant.clone().or_else(|| on_variant(self.sources, key));
        let variant = variant
            .ok_or_else(|| Rejected::new("invalid", format!("which variant of `{key}` is rolled out?")).hint("say it with --variant"))?;
        self.has_variant(key, &variant)?;
        let control = self.answered_now(key, &settings);
        let control = control.ok_or_else(|| {
            let hint = "make one, or switch it on with the old variant first: changeover flags target KEY --serve VARIANT";
            Rejected::new("invalid", format!("`{key}` has no variant that everybody gets now, which `{variant}` could be compared with"))
                .hint(hint)
        })?;
        if control == variant {
            let message = format!("everybody gets `{variant}` already in {}", self.sources.environment);
            return Err(Rejected::new("conflict", message)
                .hint(format!("roll out another one with --variant, or first `changeover flags off {key}`")));
        }
        let invalid = |error: release::rollout::InvalidPlan| Rejected::new("invalid", error.to_string());
        if wanted.every_ms < EVERY_MIN_MS {
            return Err(Rejected::new("invalid", "a step lasts at least a second").hint("such as --every 10m"));
        }
        if wanted.criteria.is_empty() {
            let hint = "say --requests when the service's requests come through this proxy and their id is in the context, or \
                        --outcome NAME for what clients report";
            return Err(Rejected::new("invalid", "a rollout without criteria would only wait and raise").hint(hint));
        }
        let every_s = wanted.every_ms.div_ceil(1_000);
        let plan = Plan {
            steps: Steps::new(wanted.steps.clone()).map_err(invalid)?,
            criteria: Criteria::new(wanted.criteria.clone()).map_err(invalid)?,
            every_s,
            max_step_s: (every_s * EXPIRES_AFTER).max(EXPIRES_MIN_S),
        };
        let begun = step(&Rollout::new(plan), &Event::Started, self.now_ms / 1_000).expect("a plan can be started").rollout;
        let what = What::Rollout { variant: variant.clone(), control: control.clone(), rollout: begun.clone() };
        let trial = Trial { number, begun_ms: self.now_ms, shares: Vec::new(), what }.with_rollout(begun);
        let first = f64::from(wanted.steps[0]) / 100.0;
        let environment = self.sources.environment;
        let said = format!("{key}: {first} % of users get `{variant}` in {environment}, the others `{control}`");
        let settings = Settings { on: true, serve: Some(control), trial: Some(trial), ..settings };
        Ok(self.put(flag, settings, said))
    }

    pub(crate) fn experiment(&self, wanted: &WantedExperiment, number: u64) -> Result<Write, Rejected> {
        let key = &wanted.key;
        let (flag, settings) = self.free(key)?;
        let invalid = |message: String, hint: &str| Err(Rejected::new("invalid", message).hint(hint));
        for (variant, _) in &wanted.shares {
            self.has_variant(key, variant)?;
        }
        let sum: u64 = wanted.shares.iter().map(|(_, share)| u64::from(*share)).sum();
        if sum != u64::from(WEIGHT_SUM) {
            let said = format!("the shares sum to {} %, not to 100 %", sum as f64 / 100.0);
            return invalid(said, "such as --shares blue=50,green=50");
        }
        let names: std::collections::BTreeSet<&String> = wanted.shares.iter().map(|(name, _)| name).collect();
        if wanted.goals.is_empty() {
            return invalid("an experiment without a goal shows nothing".to_owned(), "such as --goal checkout, or --goal revenue:mean");
        }
        if wanted.window_ms < EVERY_MIN_MS {
            return invalid("users need a second at least".to_owned(), "such as --window 1h");
        }
        let off = self.sources.off_variant(key).filter(|off| names.contains(off));
        let last = wanted.shares.last().map(|(name, _)| name.clone());
        let control = wanted.control.clone().or(off).or(last).unwrap_or_default();
        if !names.contains(&control) {
            return invalid(format!("the control `{control}` has no share"), "give it one in --shares");
        }
        // Whoever has no targeting key gets the last one.
        let mut shares: Vec<(String, u32)> = wanted.shares.iter().filter(|(name, _)| *name != control).cloned().collect();
        shares.extend(wanted.shares.iter().filter(|(name, _)| *name == control).cloned());
        let variants = shares.iter().map(|(name, share)| VariantShare { name: name.clone(), share: *share }).collect();
        let design = Design { variants, control: control.clone(), goals: wanted.goals.clone(), alpha: ALPHA };
        design.check().map_err(|error| Rejected::new("invalid", error.to_string()))?;
        let what = What::Experiment { design, window_ms: wanted.window_ms, ended: None };
        let trial = Trial { number, begun_ms: self.now_ms, shares, what };
        let others: Vec<String> = names.iter().filter(|name| ***name != control).map(|name| format!("`{name}`")).collect();
        let said = format!("{key}: {} compared with `{control}` in {}", others.join(", "), self.sources.environment);
        let settings = Settings { on: true, trial: Some(trial), ..settings };
        Ok(self.put(flag, settings, said))
    }

    fn running(&self, key: &str) -> Result<(Flag, Settings, Trial), Rejected> {
        let (flag, settings) = self.living(key)?;
        let trial = settings.trial.clone().filter(Trial::is_running);
        let none = || Rejected::new("conflict", format!("no rollout and no experiment of `{key}` runs in {}", self.sources.environment));
        let trial = trial.ok_or_else(none)?;
        Ok((flag, settings, trial))
    }

    pub(crate) fn pause_trial(&self, key: &str, pause: bool, who: &str) -> Result<Write, Rejected> {
        let (flag, settings, trial) = self.running(key)?;
        let What::Rollout { rollout, .. } = &trial.what else {
            let hint = format!("it has no steps; end it with `changeover flags end {key}`");
            return Err(Rejected::new("conflict", format!("`{key}` is in an experiment")).hint(hint));
        };
        let who = who.to_owned();
        let event = if pause { Event::Paused { who, why: None } } else { Event::Resumed { who } };
        let next = moved(rollout, &event, self.now_ms)?;
        let at = f64::from(next.weight()) / 100.0;
        let said = if pause { format!("{key} stays at {at} % of users") } else { format!("{key} goes on from {at} % of users") };
        Ok(self.put(flag, Settings { trial: Some(trial.with_rollout(next)), ..settings }, said))
    }

    /// `keep`: everybody gets it; else what there was before.
    pub(crate) fn end_trial(&self, key: &str, keep: Option<&str>, who: &str) -> Result<Write, Rejected> {
        let (flag, settings, trial) = self.running(key)?;
        if let Some(keep) = keep {
            self.has_variant(key, keep)?;
        }
        let (settings, kept) = self.ended(&settings, &trial, keep, who)?;
        let said = format!("{key}: ended in {}, everybody gets `{kept}`", self.sources.environment);
        Ok(self.put(flag, settings, said))
    }

    fn ended(&self, settings: &Settings, trial: &Trial, keep: Option<&str>, who: &str) -> Result<(Settings, String), Rejected> {
        match &trial.what {
            What::Rollout { variant, control, rollout } => {
                let is_promoted = keep == Some(variant.as_str());
                let event = match rollout.step().filter(|_| is_promoted) {
                    Some(step) => Event::AdvancedByHand { step, full: true, who: who.to_owned() },
                    None => Event::Aborted { reason: format!("by {who}") },
                };
                let mut next = settle(settings, trial.with_rollout(moved(rollout, &event, self.now_ms)?), self.now_ms);
                let kept = keep.unwrap_or(control).to_owned();
                next.serve = Some(kept.clone());
                Ok((next, kept))
            }
            What::Experiment { design, window_ms, .. } => {
                let keep = keep.unwrap_or(&design.control).to_owned();
                let ended = Some(Ended { at_ms: self.now_ms, keep: keep.clone() });
                let what = What::Experiment { design: design.clone(), window_ms: *window_ms, ended };
                Ok((settle(settings, Trial { what, ..trial.clone() }, self.now_ms), keep))
            }
        }
    }
}

/// What is switched off is not watched on: everybody has what there was before the trial.
pub(crate) fn without_trial(settings: Settings, reason: &str, now_ms: u64) -> Settings {
    let Some(trial) = settings.trial.clone().filter(Trial::is_running) else { return settings };
    let ended = match &trial.what {
        What::Rollout { rollout, .. } => {
            let aborted = moved(rollout, &Event::Aborted { reason: reason.to_owned() }, now_ms);
            aborted.map_or_else(|_| trial.clone(), |aborted| trial.with_rollout(aborted))
        }
        What::Experiment { design, window_ms, .. } => {
            let ended = Some(Ended { at_ms: now_ms, keep: design.control.clone() });
            let what = What::Experiment { design: design.clone(), window_ms: *window_ms, ended };
            Trial { what, ..trial.clone() }
        }
    };
    settle(&settings, ended, now_ms)
}

fn moved(rollout: &Rollout, event: &Event, now_ms: u64) -> Result<Rollout, Rejected> {
    step(rollout, event, now_ms / 1_000).map(|next| next.rollout).map_err(|error| Rejected::new("conflict", error.to_string()))
}

/// What the flag answers when it is on: of a file's flag the variant that is `true`.
fn on_variant(sources: Sources<'_>, key: &str) -> Option<String> {
    if let Some(Flag { origin: crate::flag::Origin::Store(definition), .. }) = sources.flags.get(key) {
        return Some(definition.on.clone());
    }
    let variants = sources.files.flags.get(key)?.get("variants")?.as_object()?;
    variants.iter().find(|(_, value)| **value == Value::Bool(true)).map(|(name, _)| name.clone())
}
