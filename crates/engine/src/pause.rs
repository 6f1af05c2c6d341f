//! After crashes in a row: the last state under which the worker lived serves, and no release is driven, until a person looks.
//!
//! What is kept for it is small: the configuration, and which version each service served.

use std::collections::BTreeMap;

use model::{Desired, Moment, ServiceName, VersionName};
use release::Service;
use serde::{Deserialize, Serialize};

use crate::engine::Caretaker;
use crate::store::Batch;

/// So many crashes within the keeper's window (10 s) are no accident.
pub(crate) const CRASHES_MAX: u32 = 3;
/// What was lived with for so long is good.
const GOOD_AFTER_MS: u64 = 10_000;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Good {
    pub desired: Desired,
    pub serving: BTreeMap<ServiceName, Option<VersionName>>,
}

/// Since when the present is as it is, and what was kept last.
#[derive(Default)]
pub(crate) struct Watched {
    now: Option<(Good, Moment)>,
    kept: Option<Good>,
}

impl Caretaker {
    /// Comes up paused. Called before anything is routed.
    pub(crate) fn pause(&mut self, good: Option<Good>) {
        eprintln!(
            "error: the worker crashed {CRASHES_MAX} times within seconds: releases are paused and what served well before serves; \
            look at the messages above, then `changeover resume`"
        );
        let serving = good.as_ref().map(|good| good.serving.clone()).unwrap_or_default();
        self.paused = self
            .services
            .iter()
            .map(|(name, service)| (name.clone(), serving.get(name).cloned().unwrap_or_else(|| service.serving().cloned())))
            .collect();
        if let Some(good) = good {
            self.desired = good.desired;
        }
    }

    /// Tells those who follow a release why it does not go on.
    pub(crate) async fn tell_pause(&mut self) {
        let names: Vec<ServiceName> = self.paused.keys().cloned().collect();
        for name in names {
            let text = "paused     the worker crashed several times in a row; look at what `up` printed, then: changeover resume";
            self.tell(&name, "paused", text.to_owned()).await;
        }
    }

    /// The service as it is routed: while paused, the version that was good serves and no release runs.
    pub(crate) fn routed(&self, service: &Service) -> Service {
        match self.paused.get(&service.name) {
            Some(good) => Service { active: good.clone(), release: None, standby: None, ..service.clone() },
            None => service.clone(),
        }
    }

    /// Versions that must run, the one that serves first; while paused, the good one too.
    pub(crate) fn must_run(&self, service: &Service) -> Vec<VersionName> {
        let mut versions = self.routed(service).must_run();
        for version in service.must_run() {
            if !versions.contains(&version) {
                versions.push(version);
            }
        }
        versions
    }

    /// Keeps what has been good for a while, for the next time.
    pub(crate) async fn look_at_good(&mut self) {
        if !self.paused.is_empty() {
            return;
        }
        let serving = self.services.iter().map(|(name, service)| (name.clone(), service.serving().cloned())).collect();
        let now = self.now();
        let good = Good { desired: self.desired.clone(), serving };
        match &self.good.now {
            Some((same, since)) if *same == good => {
                if now < since + GOOD_AFTER_MS || self.good.kept.as_ref() == Some(&good) {
                    return;
                }
                let put = ("good".to_owned(), serde_json::to_string(&good).expect("plain data"));
                if self.store.commit(Batch { puts: vec![put], ..Batch::default() }).await.is_ok() {
                    self.good.kept = Some(good);
                }
            }
            _ => self.good.now = Some((good, now)),
        }
    }
}
