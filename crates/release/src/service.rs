//! One service over its releases: who serves, what was confirmed, what was rejected, what stands by.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use model::{Mode, Moment, ReleaseId, ServiceName, VersionName};
use serde::{Deserialize, Serialize};

use crate::clockwork::{Illegal, step};
use crate::state::{Event, Kind, Outcome, Paused, Release, Settings, State};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Service {
    pub name: ServiceName,
    /// Who serves when no release runs.
    pub active: Option<VersionName>,
    /// Confirmed versions, oldest first; the last one is `active`.
    pub confirmed: Vec<VersionName>,
    /// Taken back once: a later `rollback` does not return to them.
    pub rejected: BTreeSet<VersionName>,
    pub standby: Option<Standby>,
    /// A candidate that was taken back and still runs, to be looked at or tried again; nobody is sent there.
    #[serde(default)]
    pub kept: Option<Standby>,
    /// The running release, or the last one.
    pub release: Option<Release>,
    /// Begins when the running release has ended.
    #[serde(default)]
    pub queued: Option<Queued>,
    /// The number of the next release.
    pub next_number: u64,
    pub mode: Mode,
    /// Stopped by a person: no version runs until `start`.
    pub stopped: bool,
    /// How long versions took from start to healthy, the last time; milliseconds.
    #[serde(default)]
    pub start_ms: BTreeMap<VersionName, u64>,
    /// The same from frozen to healthy.
    #[serde(default)]
    pub thaw_ms: BTreeMap<VersionName, u64>,
    /// Confirmed versions that served before a migration that cannot be undone, and that migration: going back there is for a
    /// person who forces it.
    #[serde(default)]
    pub behind: BTreeMap<VersionName, String>,
}

/// A release that waits for the running one to end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Queued {
    /// The number it will have.
    pub number: u64,
    pub deploy: Deploy,
}

/// The previous version, kept for rollback.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standby {
    pub version: VersionName,
    pub until: Moment,
    /// It is stopped in place until then; else it runs.
    #[serde(default)]
    pub is_frozen: bool,
    /// One that runs is frozen for this long afterwards.
    #[serde(default)]
    pub frozen_ms: u64,
}

impl Standby {
    pub fn hot(version: VersionName, until: Moment) -> Self {
        Self { version, until, is_frozen: false, frozen_ms: 0 }
    }

    fn of(version: VersionName, settings: &Settings, now: Moment) -> Option<Self> {
        let (standby_ms, frozen_ms) = (settings.standby_ms, settings.frozen_ms);
        match standby_ms {
            1.. => Some(Self { frozen_ms, ..Self::hot(version, now + standby_ms) }),
            0 => Self { frozen_ms, ..Self::hot(version, now) }.after(now),
        }
    }

    /// The next stage, of one whose time is over; nothing remains of one that was frozen.
    fn after(self, now: Moment) -> Option<Self> {
        let is_next = !self.is_frozen && self.frozen_ms > 0;
        is_next.then(|| Self { until: now + self.frozen_ms, is_frozen: true, frozen_ms: 0, ..self })
    }
}

/// What remains of a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It runs.
    Hot,
    /// It is stopped in place, its memory kept.
    Frozen,
    /// It must start again.
    Stopped,
}

impl Standing {
    pub fn name(self) -> &'static str {
        match self {
            Self::Hot => "hot",
            Self::Frozen => "frozen",
            Self::Stopped => "stopped",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Deploy {
    pub id: ReleaseId,
    pub version: VersionName,
    /// Where it runs, when it is not started by us.
    #[serde(default)]
    pub addresses: Vec<SocketAddr>,
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

#[derive(Debug, Clone, PartialEq)]
pub enum Refusal {
    /// A release runs already.
    Running {
        release: Box<Release>,
    },
    /// Another release waits for the running one already.
    Queued {
        number: u64,
        who: String,
    },
    /// Serves already.
    Serving {
        version: VersionName,
    },
    /// No other confirmed version to go back to.
    NothingToReturnTo,
    /// The running release would be taken back to this version, not to the one that was named.
    FirstBack {
        to: VersionName,
    },
    /// A rollback to this version is being carried out.
    OnItsWay {
        to: VersionName,
    },
    /// The last release did not fail.
    NothingToRetry,
    /// This version was never confirmed.
    NeverConfirmed {
        version: VersionName,
    },
    /// A migration of the release cannot be undone.
    Irreversible {
        gate: String,
    },
    Stopped,
    /// No release runs.
    NothingRuns,
    /// The release has no steps to be held at.
    NoSteps,
    /// It serves everybody, or is on its way back.
    PastTheSteps {
        state: &'static str,
    },
    NotPaused,
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
            kept: None,
            release: None,
            queued: None,
            next_number: 1,
            mode: Mode::Serve,
            stopped: false,
            start_ms: BTreeMap::new(),
            thaw_ms: BTreeMap::new(),
            behind: BTreeMap::new(),
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
        let baseline = release.and_then(Release::baseline);
        let all = self
            .serving()
            .into_iter()
            .chain(release.and_then(|release| release.stable.as_ref()))
            .chain(release.map(|release| &release.candidate))
            .chain(baseline.as_ref())
            .chain(self.standby.as_ref().map(|standby| &standby.version))
            .chain(self.kept.as_ref().map(|kept| &kept.version));
        for version in all {
            if !versions.contains(version) {
                versions.push(version.clone());
            }
        }
        versions
    }

    /// What remains of a version for a rollback.
    pub fn standing(&self, version: &VersionName) -> Standing {
        match self.standby.as_ref().filter(|standby| standby.version == *version) {
            None => Standing::Stopped,
            Some(standby) if standby.is_frozen => Standing::Frozen,
            Some(_) => Standing::Hot,
        }
    }

    /// Of those that must run, the one that is to be stopped in place: nobody is sent there, and no release needs it.
    pub fn frozen(&self) -> Option<&VersionName> {
        let version = &self.standby.as_ref().filter(|standby| standby.is_frozen)?.version;
        let is_needed = self.running_release().is_some_and(|release| {
            release.candidate == *version || release.stable.as_ref() == Some(version) || release.serving() == Some(version)
        });
        (!is_needed && !self.stopped).then_some(version)
    }

    /// When the time of a stage of the standby is over: with the next one, or without a standby.
    pub fn standby_over(&self, now: Moment) -> Option<Self> {
        let over = self.standby.as_ref().filter(|standby| standby.until <= now && self.running_release().is_none())?;
        Some(Self { standby: over.clone().after(now), ..self.clone() })
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
        Ok(self.begin_deploy(self.next_number, deploy, now))
    }

    fn begin_deploy(&self, number: u64, deploy: Deploy, now: Moment) -> Self {
        let mut next = self.begin(number, Kind::Deploy, deploy, State::Starting, now);
        // A person who deploys a rejected version again has changed their mind.
        next.rejected.remove(&next.release.as_ref().expect("just begun").candidate.clone());
        next
    }

    /// The version of the last release, when that one was not promoted.
    pub fn to_retry(&self) -> Result<&Release, Refusal> {
        if let Some(release) = self.running_release() {
            return Err(Refusal::Running { release: Box::new(release.clone()) });
        }
        let last = self.release.as_ref().filter(|last| last.kind == Kind::Deploy && Some(&last.candidate) != self.active.as_ref());
        last.ok_or(Refusal::NothingToRetry)
    }

    /// Begins the last release once more; migrations that passed do not run again.
    pub fn retry(&self, deploy: Deploy, now: Moment) -> Result<Self, Refusal> {
        let last = self.to_retry()?.clone();
        let mut next = self.deploy(deploy, now)?;
        if let Some(release) = next.release.as_mut() {
            (release.migrated, release.irreversible) = (last.migrated, last.irreversible);
        }
        Ok(next)
    }

    /// Puts a release behind the running one.
    pub fn queue(&self, deploy: Deploy) -> Result<Self, Refusal> {
        if let Some(queued) = &self.queued {
            return Err(Refusal::Queued { number: queued.number, who: queued.deploy.who.clone() });
        }
        let queued = Some(Queued { number: self.next_number, deploy });
        Ok(Self { queued, next_number: self.next_number + 1, ..self.clone() })
    }

    /// Takes the running release back and puts another one behind it: traffic first goes to stable, the superseded candidate
    /// drains and stops, then the other begins. A rollback is not taken back: what it left was rejected.
    pub fn supersede(&self, deploy: Deploy, now: Moment) -> Result<Self, Refusal> {
        self.check_reversible(false)?;
        let reason = format!("superseded by {} (release {})", deploy.version, self.next_number);
        let queued = Self { queued: None, ..self.clone() }.queue(deploy)?;
        if self.rolling_back_to().is_some() {
            return Ok(queued);
        }
        let event = Event::TakenBack { outcome: Outcome::Superseded, reason };
        // When it is on its way back already, the other one just waits.
        Ok(queued.apply(&event, now).unwrap_or(queued))
    }

    /// Where the running release goes back to, as long as it does.
    fn rolling_back_to(&self) -> Option<&VersionName> {
        let release = self.running_release().filter(|release| release.kind == Kind::Rollback)?;
        let goes = !matches!(release.state, State::Returning { .. } | State::Retiring { .. });
        goes.then_some(&release.candidate)
    }

    /// What was queued, when nothing runs any more. The queued release is dropped when its version serves already.
    pub fn begin_queued(&self, now: Moment) -> Option<Self> {
        let queued = self.queued.as_ref().filter(|_| self.running_release().is_none())?;
        let next = Self { queued: None, ..self.clone() };
        if self.stopped || self.active.as_ref() == Some(&queued.deploy.version) {
            return Some(next);
        }
        Some(next.begin_deploy(queued.number, queued.deploy.clone(), now))
    }

    /// Whether traffic may go back from the running release.
    pub fn check_reversible(&self, forced: bool) -> Result<(), Refusal> {
        match self.running_release().and_then(|release| release.irreversible.as_ref()) {
            Some(gate) if !forced => Err(Refusal::Irreversible { gate: gate.clone() }),
            _ => Ok(()),
        }
    }

    /// What `rollback` would do; pure, so that `status` can say it beforehand.
    pub fn plan_rollback(&self, to: Option<&VersionName>, forced: bool) -> Result<Rollback, Refusal> {
        // Asked twice, it would return to what was just rejected.
        if let Some(to) = self.rolling_back_to() {
            return Err(Refusal::OnItsWay { to: to.clone() });
        }
        if let Some(release) = self.running_release() {
            self.check_reversible(forced)?;
            return match (&release.stable, to) {
                (Some(stable), Some(to)) if stable != to => Err(Refusal::FirstBack { to: stable.clone() }),
                (stable, _) => Ok(Rollback::TakeBack { to: stable.clone() }),
            };
        }
        if self.stopped {
            return Err(Refusal::Stopped);
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
        if let Some(gate) = self.behind.get(to).filter(|_| !forced) {
            return Err(Refusal::Irreversible { gate: gate.clone() });
        }
        Ok(Rollback::Begin { to: to.clone(), hot: self.standing(to) == Standing::Hot })
    }

    fn previous(&self) -> Option<&VersionName> {
        self.confirmed.iter().rev().find(|version| Some(*version) != self.active.as_ref() && !self.rejected.contains(*version))
    }

    /// Begins the release that goes back to `deploy.version`; at once when it is `hot`, else after it became healthy.
    pub fn roll_back(&self, deploy: Deploy, hot: bool, now: Moment) -> Self {
        self.begin(self.next_number, Kind::Rollback, deploy, if hot { State::Switching } else { State::Starting }, now)
    }

    fn begin(&self, number: u64, kind: Kind, deploy: Deploy, state: State, now: Moment) -> Self {
        let release = Release {
            id: deploy.id,
            number,
            service: self.name.clone(),
            kind,
            candidate: deploy.version,
            addresses: deploy.addresses,
            stable: self.active.clone(),
            settings: deploy.settings,
            state,
            entered_at: now,
            paused: None,
            irreversible: None,
            migrated: BTreeSet::new(),
            who: deploy.who,
            message: deploy.message,
            began_at_ms: deploy.began_at_ms,
        };
        Self { release: Some(release), kept: None, next_number: self.next_number.max(number + 1), ..self.clone() }
    }

    /// Holds the running release at its step. Asked again, the first one stands.
    pub fn pause(&self, who: &str, why: Option<String>, now: Moment) -> Result<Self, Refusal> {
        let mut next = self.clone();
        let release = next.release.as_mut().filter(|release| !release.state.is_ended()).ok_or(Refusal::NothingRuns)?;
        if release.settings.steps().is_empty() {
            return Err(Refusal::NoSteps);
        }
        if release.state.is_past_the_steps() {
            return Err(Refusal::PastTheSteps { state: release.state.name() });
        }
        release.paused.get_or_insert(Paused { who: who.to_owned(), why, since: now });
        Ok(next)
    }

    /// The running release goes on. Returns for how long it was held, too.
    pub fn unpause(&self, now: Moment) -> Result<(Self, u64), Refusal> {
        let mut next = self.clone();
        let release = next.release.as_mut().filter(|release| !release.state.is_ended()).ok_or(Refusal::NothingRuns)?;
        let paused = release.paused.take().ok_or(Refusal::NotPaused)?;
        Ok((next, now.saturating_sub(paused.since)))
    }

    /// Moves the running release by an event.
    pub fn apply(&self, event: &Event, now: Moment) -> Result<Self, Illegal> {
        let release = self.running_release().ok_or(Illegal { state: "ended", event: event.name() })?;
        let mut next = Self { release: Some(step(release, event, now)?), ..self.clone() };
        match event {
            // Whoever takes back by hand does not want the next release to begin by itself.
            Event::TakenBack { outcome: Outcome::Aborted, .. } => next.queued = None,
            Event::TargetsBecameHealthy => {
                let frozen = self.standing(&release.candidate) == Standing::Frozen;
                let took_ms = if frozen { &mut next.thaw_ms } else { &mut next.start_ms };
                took_ms.insert(release.candidate.clone(), now.saturating_sub(release.entered_at));
            }
            _ => {}
        }
        next.settle(now);
        Ok(next)
    }

    /// When the release has ended: what it leaves behind.
    fn settle(&mut self, now: Moment) {
        let Some(release) = self.release.clone() else { return };
        let State::Ended { ending } = &release.state else { return };
        // Only confirmed versions are gone back to.
        let confirmed = &self.confirmed;
        self.rejected.retain(|version| confirmed.contains(version));
        if ending.outcome != Outcome::Promoted {
            // A rollback that a person ended says nothing against where it led.
            if release.kind == Kind::Deploy || ending.outcome == Outcome::Failed {
                self.rejected.insert(release.candidate.clone());
            }
            let keep_ms = release.settings.canary.as_ref().map_or(0, |canary| canary.keep_ms);
            // What did not start has nothing to show; what was superseded is not wanted.
            if keep_ms > 0 && !matches!(ending.outcome, Outcome::Failed | Outcome::Superseded) {
                self.kept = Some(Standby::hot(release.candidate, now + keep_ms));
            }
            return;
        }
        self.rejected.remove(&release.candidate);
        self.behind.remove(&release.candidate);
        if let Some(gate) = &release.irreversible {
            self.behind.extend(self.confirmed.iter().filter(|it| **it != release.candidate).map(|it| (it.clone(), gate.clone())));
        }
        if release.kind == Kind::Rollback {
            self.rejected.extend(release.stable.clone());
        }
        self.confirmed.retain(|version| *version != release.candidate);
        self.confirmed.push(release.candidate.clone());
        if self.confirmed.len() > CONFIRMED_MAX {
            self.confirmed.remove(0);
        }
        self.start_ms.retain(|version, _| self.confirmed.contains(version));
        self.thaw_ms.retain(|version, _| self.confirmed.contains(version));
        self.behind.retain(|version, _| self.confirmed.contains(version));
        self.active = Some(release.candidate);
        self.standby = release.stable.and_then(|version| Standby::of(version, &release.settings, now));
    }
}
