//! After crashes in a row: the last state under which the worker lived serves, and no release is driven, until a person looks.
//!
//! What is kept for it is small: the configuration, and which version each service served.

use std::collections::BTreeMap;

use model::{Desired, Moment, ServiceName, VersionName};
use release::Service;
use serde::{Deserialize, Serialize};
use store::Batch;

use crate::command::Rejected;
use crate::engine::{Caretaker, unavailable};

/// So many crashes within the keeper's window (10 s) are no accident.
pub(crate) const CRASHES_MAX: u32 = 3;
/// What was lived with for so long is good.
const GOOD_AFTER_MS: u64 = 10_000;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Good {
    pub desired: Desired,
    pub serving: BTreeMap<ServiceName, Option<VersionName>>,
}

/// The version that serves, per paused service.
pub(crate) type Pinned = BTreeMap<ServiceName, Option<VersionName>>;

/// Since when the present is as it is, and what was kept last.
#[derive(Default)]
pub(crate) struct Watched {
    now: Option<(Good, Moment)>,
    kept: Option<Good>,
}

impl Caretaker {
    /// Comes up paused. Called before anything is routed. `earlier`: it was paused already, so.
    pub(crate) fn pause(&mut self, good: Option<Good>, earlier: Option<Pinned>) {
        eprintln!(
            "error: the worker crashed {CRASHES_MAX} times within seconds: releases are paused and what served well before serves; \
            look at the messages above, then `changeover resume`"
        );
        let serving = earlier.or_else(|| good.as_ref().map(|good| good.serving.clone())).unwrap_or_default();
        self.paused = self
            .services
            .iter()
            .map(|(name, service)| (name.clone(), serving.get(name).cloned().unwrap_or_else(|| service.serving().cloned())))
            .collect();
        let Some(good) = good else { return };
        // Only put aside: what was applied since counts again after `resume`, and what it added is kept meanwhile.
        let applied = std::mem::replace(&mut self.desired, good.desired);
        for (name, listener) in &applied.listeners {
            self.desired.listeners.entry(name.clone()).or_insert_with(|| listener.clone());
        }
        for (name, service) in &applied.services {
            self.desired.services.entry(name.clone()).or_insert_with(|| service.clone());
        }
        self.shelved = Some(applied);
    }

    async fn keep_paused(&mut self) -> Result<(), Rejected> {
        let put = ("paused".to_owned(), serde_json::to_string(&self.paused).expect("plain data"));
        self.store.commit(Batch { puts: vec![put], ..Batch::default() }).await.map_err(|error| unavailable(&error))
    }

    /// A person has looked at this service.
    pub(crate) async fn unpause(&mut self, name: &ServiceName) {
        if self.paused.remove(name).is_some() {
            let _ = self.keep_paused().await;
        }
    }

    pub(crate) async fn unpause_all(&mut self) -> Result<Vec<ServiceName>, Rejected> {
        let paused = std::mem::take(&mut self.paused);
        if let Err(error) = self.keep_paused().await {
            self.paused = paused;
            return Err(error);
        }
        if let Some(applied) = self.shelved.take() {
            let old = std::mem::replace(&mut self.desired, applied);
            self.follow_desired(&old).await;
        }
        Ok(paused.into_keys().collect())
    }

    /// Tells those who follow a release why it does not go on.
    pub(crate) async fn tell_pause(&mut self) {
        if !self.paused.is_empty()
            && let Err(error) = self.keep_paused().await
        {
            eprintln!("error: that releases are paused is not kept: {}", error.message);
        }
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
