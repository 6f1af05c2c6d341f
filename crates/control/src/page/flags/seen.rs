//! The caretaker's answers as the page reads them. What is absent, new or odd becomes a default: a page that shows less beats none.

use std::collections::BTreeMap;

use flag_engine::Life;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::page::seen::fields;

pub(super) fn read<T: DeserializeOwned + Default>(value: Value) -> T {
    serde_json::from_value(value).unwrap_or_default()
}

fields! {
    List {
        flags: Vec<Line>,
        environments: Vec<Environment>,
    }
    Environment {
        environment: String,
        /// Why what stands in its files is not what it serves.
        problem: Option<String>,
        second_person: bool,
    }
    /// A flag.
    Line {
        key: String,
        owner: Option<String>,
        description: Option<String>,
        life: Option<Life>,
        created_ms: u64,
        expired: bool,
        from_file: bool,
        stage: String,
        environments: BTreeMap<String, InEnvironment>,
        definitions: Map<String, Value>,
        // Of the debt alone, from here.
        keeps: Option<Keeps>,
        since_ms: u64,
        dependents: Vec<String>,
        references: BTreeMap<String, References>,
        /// Repositories that were scanned.
        scanned: u64,
        no_owner: bool,
    }
    InEnvironment {
        on: bool,
        /// `everybody`: a variant or null; or `by_rule`.
        answers: Map<String, Value>,
        /// While a trial runs.
        shares: Vec<(String, u32)>,
        trial: Option<Trial>,
        requires: Vec<Requirement>,
        changed_ms: u64,
        evaluations: BTreeMap<String, u64>,
        last_evaluated_ms: Option<u64>,
    }
    Requirement {
        flag: String,
        variants: Vec<String>,
    }
    Trial {
        /// `rollout` or `experiment`.
        kind: String,
        begun_ms: u64,
        // Of a rollout.
        variant: String,
        control: String,
        weight: u32,
        steps: Vec<u32>,
        step: Option<usize>,
        every_s: u64,
        state: Value,
        paused: Option<Paused>,
        look: Option<Look>,
        // Of an experiment.
        shares: Vec<(String, u32)>,
        window_ms: u64,
        ended: Option<Ended>,
        report: Option<Report>,
        waiting: u64,
        is_full: bool,
    }
    Paused {
        who: String,
    }
    /// What a rollout's judge saw last.
    Look {
        verdict: String,
        sentence: String,
        /// 1 decides.
        evidence_worse: f64,
        evidence_better: f64,
        /// Per criterion: users of the variant, bad ones; users of the control, bad ones.
        seen: BTreeMap<String, (u64, u64, u64, u64)>,
    }
    Ended {
        at_ms: u64,
        keep: String,
    }
    Report {
        level: f64,
        excluded: u64,
        ratio: Ratio,
        goals: Vec<GoalReport>,
    }
    Ratio {
        is_mismatched: bool,
        sentence: String,
    }
    GoalReport {
        goal: Goal,
        variants: Vec<VariantReport>,
        comparisons: Vec<Comparison>,
        note: String,
    }
    Goal {
        name: String,
        /// `conversion`, or an object.
        kind: Value,
        better: String,
    }
    VariantReport {
        variant: String,
        users: u64,
        value: Option<f64>,
        interval: Option<Interval>,
    }
    Interval {
        low: Option<f64>,
        high: Option<f64>,
    }
    Comparison {
        verdict: String,
        sentence: String,
    }
    History {
        changes: Vec<Change>,
    }
    Change {
        number: u64,
        at_ms: u64,
        who: String,
        why: Option<String>,
        environment: Option<String>,
        said: String,
        agreed: Option<String>,
        /// Null: that change made the flag.
        before: Value,
    }
    Proposals {
        proposals: Vec<Proposal>,
    }
    Proposal {
        number: u64,
        at_ms: u64,
        request: Request,
    }
    Request {
        who: String,
        why: Option<String>,
        environment: Option<String>,
        /// Its name, and what it is about.
        action: Map<String, Value>,
    }
    Schedules {
        schedules: Vec<Schedule>,
    }
    Schedule {
        key: String,
        environment: String,
        on: bool,
        at_ms: u64,
        who: String,
    }
    Debt {
        flags: Vec<Line>,
        ready_after_ms: u64,
        now_ms: u64,
    }
    /// What the code keeps when the flag is taken out of it.
    Keeps {
        variant: Option<String>,
        value: Value,
    }
    References {
        commit: Option<String>,
        places: Vec<CodePlace>,
    }
    CodePlace {
        file: String,
        line: u64,
        kind: String,
    }
}
