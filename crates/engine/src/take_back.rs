//! Taking traffic back: the one thing that acts although its state could not be made durable. What it did is then recorded in
//! the reserved space, and replayed first at the next start.

use model::{ReleaseId, ServiceName, VersionName};
use release::{Event, Service, Settings};
use serde::{Deserialize, Serialize};
use store::{Batch, Reserve};

use crate::engine::Caretaker;
use crate::fault_points;

/// A service that was taken back although its state could not be made durable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum TakenBack {
    /// In mid-release, to its stable version.
    Release {
        service: ServiceName,
        release: ReleaseId,
        #[serde(default = "aborted")]
        outcome: release::Outcome,
        reason: String,
    },
    /// Afterwards, to a version that was confirmed before. `number` is the release that this one would be.
    /// `hot`: it runs, and serves at once; else it starts first.
    Version {
        service: ServiceName,
        from: Option<VersionName>,
        to: VersionName,
        number: u64,
        #[serde(default)]
        hot: bool,
    },
}

fn aborted() -> release::Outcome {
    release::Outcome::Aborted
}

impl TakenBack {
    /// Only a person's reason can be too long for its slot.
    fn fitting(self) -> Self {
        match self {
            Self::Release { ref service, ref release, outcome, .. } if !Reserve::fits(&self) => {
                Self::Release { service: service.clone(), release: release.clone(), outcome, reason: "taken back".to_owned() }
            }
            fits => fits,
        }
    }
}

impl Caretaker {
    /// Makes `next` the state, durable or not.
    pub(crate) async fn take_back(&mut self, next: Service, cause: &str, told: (&str, String), record: TakenBack) {
        let name = next.name.clone();
        // Whoever takes back has looked.
        self.paused.remove(&name);
        let _urgent = self.store.urgent();
        let before = self.running_release(&name).map_or("none", |release| release.state.name());
        let number = next.release.as_ref().map_or(0, |release| release.number);
        let Err(error) = self.advance(next.clone(), cause, vec![told]).await else { return };
        let recorded = self.reserve.record(record.fitting());
        fault_points::crash(number, (before, cause), "persisted");
        match recorded {
            Ok(()) => eprintln!("service {name}: taken back; kept in the reserved space, because {}", error.message),
            Err(also) => eprintln!("error: service {name}: taken back, but not durably: {}; {also}", error.message),
        }
        self.services.insert(name, next);
    }

    /// Before anything else at a start. A record whose state has moved on since means nothing any more.
    pub(crate) fn replay(&mut self, records: Vec<TakenBack>) {
        let now = self.now();
        for record in records {
            let next = match &record {
                TakenBack::Release { service, release, outcome, reason } => {
                    let running = self.services.get(service).filter(|it| it.running_release().is_some_and(|it| it.id == *release));
                    let event = Event::TakenBack { outcome: *outcome, reason: reason.clone() };
                    running.and_then(|service| service.apply(&event, now).ok())
                }
                TakenBack::Version { service, from, to, number, hot } => self.replay_version(service, from.as_ref(), to, *number, *hot),
            };
            if let Some(next) = next {
                eprintln!("service {}: taken back before the restart, and stays so", next.name);
                self.services.insert(next.name.clone(), next);
                self.unsaved = true;
            }
        }
    }

    fn replay_version(&self, name: &ServiceName, from: Option<&VersionName>, to: &VersionName, number: u64, hot: bool) -> Option<Service> {
        let service = self.services.get(name)?;
        let desired = self.desired.services.get(name)?;
        let same = service.running_release().is_none() && service.next_number == number && service.active.as_ref() == from;
        if !same {
            return None;
        }
        let settings = Settings::rollback(&desired.strategy, desired.health.start_timeout_ms);
        let deploy = self.new_release(to.clone(), Vec::new(), settings, "rollback before the restart".to_owned(), None);
        Some(service.roll_back(deploy, hot, self.now()))
    }

    /// Writes what is in memory, once the disk answers again.
    pub(crate) async fn save_again(&mut self) {
        if !self.unsaved || self.store.is_stuck() || self.now() < self.not_before {
            return;
        }
        let mut puts: Vec<(String, String)> = self
            .services
            .values()
            .map(|service| (format!("service/{}", service.name), serde_json::to_string(service).expect("plain data")))
            .collect();
        let desired = self.shelved.as_ref().unwrap_or(&self.desired);
        puts.push(("desired".to_owned(), serde_json::to_string(desired).expect("plain data")));
        puts.push(("paused".to_owned(), serde_json::to_string(&self.paused).expect("plain data")));
        match self.store.commit(Batch { puts, ..Batch::default() }).await {
            Ok(()) => self.unsaved = false,
            Err(_) => self.not_before = self.now() + 1_000,
        }
    }
}
