//! What remains of the previous version: it runs for a while, is stopped in place for a while, and goes.
//!
//! **Invariants**: a target is marked as frozen, durably, before it is stopped, and is marked no more only after it was told to go on: a
//! worker after us does the same again. Nobody is sent to a target that is marked. Not here: when a stage ends (`release::Service`).

use model::{ServiceName, TargetId, VersionName};
use nix::sys::signal::Signal;
use release::Settings;

use crate::engine::Caretaker;
use crate::releases::in_words;
use crate::targets::Life;

impl Caretaker {
    pub(crate) async fn look_at_standby(&mut self, name: &ServiceName) {
        let Some(service) = self.services.get(name) else { return };
        let Some(next) = service.standby_over(self.now()) else { return };
        let version = service.standby.as_ref().map(|standby| standby.version.to_string()).unwrap_or_default();
        let told = match &next.standby {
            Some(_) => vec![],
            None => vec![("standby_ended", format!("{version} is stopped; a rollback would start it"))],
        };
        if self.advance(next, "standby_ended", told).await.is_ok() {
            self.reconcile(name).await;
        }
    }

    /// Stops in place what is to be frozen, well, and has nothing left to do: what never answered would have to start when it is needed.
    pub(crate) async fn freeze(&mut self, name: &ServiceName) {
        if self.ending.is_some() || !self.all_acknowledged() || self.data_plane.has_forerunners() {
            return;
        }
        let Some(version) = self.to_be_frozen(name) else { return };
        let due: Vec<TargetId> = self
            .targets
            .values()
            .filter(|entry| entry.serves(name, &version) && entry.kept.ours && !entry.kept.frozen)
            .filter(|entry| entry.life == Life::Running && entry.healthy && self.data_plane.in_flight_of(&entry.kept.id) == 0)
            .map(|entry| entry.kept.id.clone())
            .collect();
        for id in due {
            let Some(entry) = self.targets.get_mut(&id) else { continue };
            entry.kept.frozen = true;
            let kept = entry.kept.clone();
            if self.keep_target(&kept).await.is_err() {
                // It costs a processor some longer.
                if let Some(entry) = self.targets.get_mut(&id) {
                    entry.kept.frozen = false;
                }
                return;
            }
            if let Some(entry) = self.targets.get_mut(&id) {
                (entry.healthy, entry.assumed, entry.detail) = (false, false, "frozen".to_owned());
                if let Some(checks) = entry.checks.take() {
                    checks.abort();
                }
            }
            self.publish();
            let _ = self.processes.signal(&id, Signal::SIGSTOP as i32);
            let text = format!("{version} is frozen: it keeps its memory and uses no processor; a rollback lets it go on first");
            self.tell(name, "target_frozen", text).await;
        }
    }

    /// What is not to be frozen any more goes on, and counts when it has answered: the kernel accepts connections for a process that is
    /// stopped.
    pub(crate) async fn thaw(&mut self, name: &ServiceName) {
        let frozen = self.to_be_frozen(name);
        let marked = self.targets.values().filter(|entry| entry.kept.service == *name && entry.kept.frozen && !entry.leaves());
        let due: Vec<TargetId> =
            marked.filter(|entry| Some(&entry.kept.version) != frozen.as_ref()).map(|entry| entry.kept.id.clone()).collect();
        for id in due {
            let _ = self.processes.signal(&id, Signal::SIGCONT as i32);
            let now = self.now();
            let Some(entry) = self.targets.get_mut(&id) else { continue };
            entry.kept.frozen = false;
            entry.began_at = now;
            let kept = entry.kept.clone();
            // A disk that refuses keeps nobody from going back: a worker after us would let it go on once more.
            if let Err(error) = self.keep_target(&kept).await {
                eprintln!("service {name}: {} goes on, but that is not kept: {error}", kept.version);
            }
            self.check_from_now(&id, true);
        }
    }

    /// Never one that is followed because it was good before.
    fn to_be_frozen(&self, name: &ServiceName) -> Option<VersionName> {
        self.services.get(name).and_then(|service| self.routed(service).frozen().cloned())
    }

    /// After a start: what is marked is stopped, also when the worker before ended between the two.
    pub(crate) fn freeze_again(&self) {
        for entry in self.targets.values().filter(|entry| entry.kept.frozen && !entry.leaves()) {
            let _ = self.processes.signal(&entry.kept.id, Signal::SIGSTOP as i32);
        }
    }
}

/// What is told at a switch of the version that served before.
pub(crate) fn kept_line(stable: &VersionName, settings: &Settings) -> String {
    let [hot, frozen] = [settings.standby_ms, settings.frozen_ms].map(|ms| in_words(ms as f64));
    match (settings.standby_ms, settings.frozen_ms) {
        (0, 0) => String::new(),
        (1.., 0) => format!("; {stable} is kept hot for {hot}"),
        (0, 1..) => format!("; {stable} is then frozen for {frozen}"),
        (1.., 1..) => format!("; {stable} is kept hot for {hot}, then frozen for {frozen}"),
    }
}
