//! One service over its releases: who serves, what was confirmed, what was rejected, what stands by.

use std::collections::BTreeSet;

use model::{Mode, Moment, ReleaseId, ServiceName, VersionName};
use serde::{Deserialize, Serialize};

use crate::clockwork::{Event, Illegal, Kind, Outcome, Release, Settings, State, step};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    pub name: ServiceName,
    /// Who serves when no release runs.
    pub active: Option<VersionName>,
    /// Confirmed versions, oldest first; the last one is `active`.
    pub confirmed: Vec<VersionName>,
    /// Taken back once: a later `rollback` does not return to them.
    pub rejected: BTreeSet<VersionName>,
    pub standby: Option<Standby>,
    /// The running release, or the last one.
    pub release: Option<Release>,
    /// The number of the next release.
    pub next_number: u64,
    pub mode: Mode,
    /// Stopped by a person: no version runs until `start`.
    pub stopped: bool,
}

/// The previous version, still running for rollback.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standby {
    pub version: VersionName,
    pub until: Moment,
}

pub struct Deploy {
    pub id: ReleaseId,
    pub version: VersionName,
    pub settings: Settings,
    pub who: String,
    pub message: Option<String>,
    pub began_at_ms: u64,
}

/// What a rollback would do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rollback {
    /// The running release goes back to stable.
    TakeBack { to: Option<VersionName> },
    /// A release of its own, back to this version.
    Begin { to: VersionName, hot: bool },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// A release runs already.
    Running { release: Box<Release> },
    /// Serves already.
    Serving { version: VersionName },
    /// No other confirmed version to go back to.
    NothingToReturnTo,
    /// This version was never confirmed.
    NeverConfirmed { version: VersionName },
    /// A migration of the release cannot be undone.
    Irreversible { gate: String },
    Stopped,
    Illegal(Illegal),
}

const CONFIRMED_MAX: usize = 50;

impl Service {
    pub fn new(name: ServiceName) -> Self {
        Self {
            name,
            active: None,
            confirmed: Vec::new(),
            rejected: BTreeSet::new(),
            standby: None,
            release: None,
            next_number: 1,
            mode: Mode::Serve,
            stopped: false,
        }
    }

    /// The release that has not ended.
    pub fn running_release(&self) -> Option<&Release> {
        self.release.as_ref().filter(|release| !matches!(release.state, State::Ended { .. }))
    }

    pub fn serving(&self) -> Option<&VersionName> {
        match self.running_release() {
            Some(release) => release.serving(),
            None => self.active.as_ref(),
        }
    }

    /// Versions whose targets must run now; the one that serves first.
    pub fn must_run(&self) -> Vec<VersionName> {
        if self.stopped {
            return Vec::new();
        }
        let release = self.running_release();
        let mut versions: Vec<VersionName> = Vec::new();
        let all = self.serving().into_iter()
            .chain(release.and_then(|release| release.stable.as_ref()))
            .chain(release.map(|release| &release.candidate))
            .chain(self.standby.as_ref().map(|standby| &standby.version));
        for version in all {
            if !versions.contains(version) {
                versions.push(version.clone());
            }
        }
        versions
    }

    /// Begins a release of `deploy.version`.
    pub fn deploy(&self, deploy: Deploy, now: Moment) -> Result<Self, Refusal> {
        if let Some(release) = self.running_release() {
            return Err(Refusal::Running { release: Box::new(release.clone()) });
        }
        if self.stopped {
            return Err(Refusal::Stopped);
        }
        if self.active.as_ref() == Some(&deploy.version) {
            return Err(Refusal::Serving { version: deploy.version });
        }
        let mut next = self.begin(Kind::Deploy, deploy, State::Starting, now);
        // A person who deploys a rejected version again has changed their mind.
        next.rejected.remove(&next.release.as_ref().expect("just begun").candidate.clone());
        Ok(next)
    }

    /// What `rollback` would do; pure, so that `status` can say it beforehand.
    pub fn plan_rollback(&self, to: Option<&VersionName>, forced: bool) -> Result<Rollback, Refusal> {
        if let Some(release) = self.running_release() {
            if let (Some(gate), false) = (&release.irreversible, forced) {
                return Err(Refusal::Irreversible { gate: gate.clone() });
            }
            return Ok(Rollback::TakeBack { to: release.stable.clone() });
        }
        if self.stopped {
            return Err(Refusal::Stopped);
        }
        let last = self.release.as_ref().filter(|last| Some(&last.candidate) == self.active.as_ref());
        if let (Some(gate), false) = (last.and_then(|last| last.irreversible.as_ref()), forced) {
            return Err(Refusal::Irreversible { gate: gate.clone() });
        }
        let to = match to {
            Some(version) if !self.confirmed.contains(version) => {
                return Err(Refusal::NeverConfirmed { version: version.clone() });
            }
            Some(version) if Some(version) == self.active.as_ref() => {
                return Err(Refusal::Serving { version: version.clone() });
            }
            Some(version) => version,
            None => self.previous().ok_or(Refusal::NothingToReturnTo)?,
        };
        let hot = self.standby.as_ref().is_some_and(|standby| &standby.version == to);
        Ok(Rollback::Begin { to: to.clone(), hot })
    }

    fn previous(&self) -> Option<&VersionName> {
        self.confirmed.iter().rev()
            .find(|version| Some(*version) != self.active.as_ref() && !self.rejected.contains(*version))
    }

    /// Begins the release that goes back to `deploy.version`; at once when it is `hot`, else after it became healthy.
    pub fn roll_back(&self, deploy: Deploy, hot: bool, now: Moment) -> Self {
        self.begin(Kind::Rollback, deploy, if hot { State::Switching } else { State::Starting }, now)
    }

    fn begin(&self, kind: Kind, deploy: Deploy, state: State, now: Moment) -> Self {
        let release = Release {
            id: deploy.id,
            number: self.next_number,
            service: self.name.clone(),
            kind,
            candidate: deploy.version,
            stable: self.active.clone(),
            settings: deploy.settings,
            state,
            entered_at: now,
            irreversible: None,
            who: deploy.who,
            message: deploy.message,
            began_at_ms: deploy.began_at_ms,
        };
        Self { release: Some(release), next_number: self.next_number + 1, ..self.clone() }
    }

    /// Moves the running release by an event.
    pub fn apply(&self, event: &Event, now: Moment) -> Result<Self, Illegal> {
        let release = self.running_release().ok_or(Illegal { state: "ended", event: event.name() })?;
        let mut next = Self { release: Some(step(release, event, now)?), ..self.clone() };
        next.settle(now);
        Ok(next)
    }

    /// When the release has ended: what it leaves behind.
    fn settle(&mut self, now: Moment) {
        let Some(release) = self.release.clone() else { return };
        let State::Ended { ending } = &release.state else { return };
        if ending.outcome != Outcome::Promoted {
            self.rejected.insert(release.candidate.clone());
            return;
        }
        if release.kind == Kind::Rollback {
            self.rejected.extend(release.stable.clone());
        }
        self.confirmed.retain(|version| *version != release.candidate);
        self.confirmed.push(release.candidate.clone());
        if self.confirmed.len() > CONFIRMED_MAX {
            self.confirmed.remove(0);
        }
        self.active = Some(release.candidate);
        self.standby = match release.stable {
            Some(version) if release.settings.standby_ms > 0 => {
                Some(Standby { version, until: now + release.settings.standby_ms })
            }
            _ => None,
        };
    }
}
