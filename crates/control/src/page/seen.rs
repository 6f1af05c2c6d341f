//! The engine's status as the page reads it. What is absent, new or odd becomes a default: a page that shows less beats none.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

pub(crate) fn lenient<'de, D: Deserializer<'de>, T: DeserializeOwned + Default>(deserializer: D) -> Result<T, D::Error> {
    let value = Value::deserialize(deserializer)?;
    Ok(serde_json::from_value(value).unwrap_or_default())
}

macro_rules! fields {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* })*) => {
        $(
            $(#[$doc])*
            #[derive(Debug, Clone, Default, serde::Deserialize)]
            pub(crate) struct $name {
                $(
                    $(#[$field_doc])*
                    #[serde(default, deserialize_with = "crate::page::seen::lenient")]
                    pub(crate) $field: $type,
                )*
            }
        )*
    };
}

pub(crate) use fields;

fields! {
    Status {
        services: Vec<Service>,
        not_open: Vec<NotOpen>,
    }
    NotOpen {
        address: String,
        error: String,
    }
    Service {
        service: String,
        serves: Option<String>,
        mode: Value,
        stopped: bool,
        release: Option<Release>,
        targets: Vec<Target>,
        healthy: u64,
        wanted: u64,
        rate: Option<f64>,
        errors: Option<f64>,
        p99_ms: Option<f64>,
        rollback: Rollback,
        paused: Value,
        queued: Option<Queued>,
        kept: Option<Kept>,
        last_switch_us: Option<f64>,
        confirmed: Vec<String>,
        rejected: Vec<String>,
    }
    Target {
        version: String,
        address: String,
        healthy: bool,
        frozen: bool,
        last_answer: String,
    }
    /// A version that was taken back and still runs.
    Kept {
        version: String,
        left_ms: u64,
    }
    Queued {
        number: u64,
        version: String,
    }
    /// What a rollback would do.
    Rollback {
        to: Option<String>,
        standby: String,
        took_us: Option<f64>,
        left_ms: Option<u64>,
        start_ms: Option<u64>,
        thaw_ms: Option<u64>,
        irreversible: Option<String>,
    }
    /// The running one, or the last one.
    Release {
        number: u64,
        candidate: String,
        stable: Option<String>,
        state: String,
        who: String,
        message: Option<String>,
        ending: Option<Ending>,
        strategy: String,
        /// Parts per 10,000.
        weight: Option<u32>,
        /// From 0.
        step: Option<usize>,
        steps: Vec<Step>,
        step_age_ms: Option<u64>,
        paused: Option<Paused>,
        waits: Option<String>,
        /// Why nothing is compared, as the file says.
        unjudged: Option<String>,
        versions: Vec<Version>,
        analysis: Option<Analysis>,
        /// Only of a stored one.
        began_at_ms: Option<u64>,
    }
    Ending {
        outcome: String,
        reason: String,
    }
    Step {
        weight: u32,
        dwell_ms: Option<u64>,
        max_ms: Option<u64>,
    }
    Paused {
        who: String,
        why: Option<String>,
    }
    Version {
        version: String,
        rate: Option<f64>,
        errors: Option<f64>,
        p50_ms: Option<f64>,
        p99_ms: Option<f64>,
        requests: Option<u64>,
        bad: Option<u64>,
    }
    Analysis {
        step: Option<usize>,
        verdict: String,
        reason: String,
        action: String,
        sentence: String,
        split: Option<Split>,
        metrics: Vec<Metric>,
    }
    Split {
        ok: Option<bool>,
    }
    Metric {
        name: String,
        kind: String,
        state: String,
        /// 1 decides; below 0 is nothing.
        worse: Option<f64>,
        better: Option<f64>,
        candidate_text: Option<String>,
        stable_text: Option<String>,
        sentence: String,
        more_s: Option<f64>,
    }
}

impl Status {
    pub(crate) fn read(value: &Value) -> Self {
        serde_json::from_value(value.clone()).unwrap_or_default()
    }

    pub(crate) fn service(&self, name: &str) -> Option<&Service> {
        self.services.iter().find(|service| service.service == name)
    }
}

impl Service {
    pub(crate) fn running(&self) -> Option<&Release> {
        self.release.as_ref().filter(|release| release.ending.is_none())
    }
}

impl Release {
    /// A release as it is stored.
    pub(crate) fn read_stored(value: &Value) -> Self {
        let mut release: Self = serde_json::from_value(value.clone()).unwrap_or_default();
        let state = &value["state"];
        let name = state.as_str().or_else(|| state.as_object().and_then(|it| it.keys().next()).map(String::as_str));
        release.state = name.unwrap_or_default().to_owned();
        if let Ok(ending) = serde_json::from_value::<Ending>(state["ended"]["ending"].clone())
            && !ending.outcome.is_empty()
        {
            release.ending = Some(ending);
        }
        release
    }

    pub(crate) fn is_canary(&self) -> bool {
        self.strategy == "canary"
    }

    /// Parts per 10,000 of the traffic.
    pub(crate) fn candidate_weight(&self) -> u32 {
        if let Some(weight) = self.weight {
            return weight;
        }
        // A stored one has its state only.
        if ["switching", "draining", "watching"].contains(&self.state.as_str()) { 10_000 } else { 0 }
    }

    /// The step that it is at, or was at when it ended.
    pub(crate) fn at_step(&self) -> usize {
        let last = self.steps.len().saturating_sub(1);
        let looked = self.analysis.as_ref().and_then(|analysis| analysis.step);
        match self.step {
            None if self.candidate_weight() >= 10_000 => last,
            step => step.or(looked).unwrap_or_default(),
        }
    }

    /// What a form was filled in for: when it is no longer so, nothing is done.
    pub(crate) fn expectation(&self) -> String {
        format!("{}/{}/{}", self.number, self.state, self.step.map_or("-".to_owned(), |step| step.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_odd_is_left_out() {
        let status = Status::read(&serde_json::json!({ "services": [
            { "service": "web", "healthy": "two", "rate": null, "release": { "number": 3, "state": "x", "steps": 7, "analysis": [] } },
        ], "not_open": null, "new": {} }));
        let service = status.service("web").expect("it is there");
        let release = service.release.as_ref().expect("a release");
        assert_eq!((service.healthy, release.number, release.steps.len()), (0, 3, 0));
        assert_eq!(release.expectation(), "3/x/-");
    }

    #[test]
    fn a_stored_release_has_its_state_and_its_ending() {
        let ended = serde_json::json!({ "number": 1, "state": { "ended": { "ending": { "outcome": "failed", "reason": "no" } } } });
        let release = Release::read_stored(&ended);
        assert_eq!((release.state.as_str(), release.ending.map(|it| it.reason)), ("ended", Some("no".to_owned())));
        let gating = Release::read_stored(&serde_json::json!({ "number": 1, "state": { "gating": { "gate": 0 } } }));
        assert_eq!((gating.state.as_str(), gating.ending.is_none()), ("gating", true));
    }
}
