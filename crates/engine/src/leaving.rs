//! How a target leaves: no new request, those that run finish, then the stop signal, then `KILL`. Also the end of the worker.

use std::time::Duration;

use model::{ServiceName, TargetId};

use crate::command::{Input, Rejected};
use crate::engine::{Caretaker, Ending, Reply};
use crate::targets::Life;

/// A restart whose answer waits until the old targets have been replaced.
pub(crate) struct Restarting {
    pub service: ServiceName,
    pub reply: Reply,
    pub failed: Option<String>,
}

impl Caretaker {
    /// No request goes to the target from the next routing on; when those that run have finished it is stopped.
    pub(crate) async fn retire_target(&mut self, id: &TargetId) {
        let now = self.now();
        let Some(entry) = self.targets.get_mut(id) else { return };
        match entry.life {
            _ if !entry.kept.ours => self.forget_target(id).await,
            Life::Running => entry.life = Life::Leaving { stop_at: now + entry.kept.stop.drain_ms },
            Life::Spawning => self.stop_target(id).await,
            Life::Leaving { .. } | Life::Stopping { .. } => {}
        }
    }

    /// Stops those that have drained, kills those whose grace is over.
    pub(crate) async fn look_at_leaving(&mut self) {
        let now = self.now();
        let known = self.all_acknowledged() && !self.data_plane.has_forerunners();
        let drained: Vec<TargetId> = self
            .targets
            .values()
            .filter(|entry| match entry.life {
                Life::Leaving { stop_at } => stop_at <= now || known && self.data_plane.in_flight_of(&entry.kept.id) == 0,
                _ => false,
            })
            .map(|entry| entry.kept.id.clone())
            .collect();
        for id in drained {
            self.stop_target(&id).await;
        }
        for entry in self.targets.values() {
            if let Life::Leaving { stop_at } = entry.life {
                let (drain_ms, left_ms) = (entry.kept.stop.drain_ms, stop_at.saturating_sub(now));
                self.data_plane.end_tunnels_of(&entry.kept.id, Duration::from_millis(drain_ms), Duration::from_millis(left_ms));
            }
        }
        self.kill_overdue();
        self.look_at_restarts().await;
    }

    /// A target whose replacement is healthy leaves; one whose replacement is gone stays.
    async fn look_at_restarts(&mut self) {
        let waiting: Vec<(TargetId, ServiceName, TargetId)> = self
            .targets
            .values()
            .filter(|entry| !entry.leaves())
            .filter_map(|entry| Some((entry.kept.id.clone(), entry.kept.service.clone(), entry.replaced_by.clone()?)))
            .collect();
        for (old, service, new) in waiting {
            let start_max_ms = self.desired.services.get(&service).map_or(0, |desired| desired.health.start_timeout_ms);
            let now = self.now();
            let replacement = self.targets.get(&new).filter(|entry| !entry.leaves());
            if let Some(entry) = replacement.filter(|entry| !entry.healthy) {
                if now.saturating_sub(entry.began_at) > start_max_ms {
                    self.stop_target(&new).await;
                }
                continue;
            }
            let replacement = replacement.map(|entry| entry.healthy);
            if let Some(entry) = self.targets.get_mut(&old) {
                entry.replaced_by = None;
            }
            if replacement == Some(true) {
                self.retire_target(&old).await;
            } else {
                let text = "the new process did not become healthy; the old one serves on".to_owned();
                self.tell(&service, "restart_failed", text.clone()).await;
                self.restarting.iter_mut().filter(|it| it.service == service).for_each(|it| it.failed = Some(text.clone()));
            }
            self.publish();
        }
        let targets = &self.targets;
        let is_over = |it: &Restarting| {
            !targets.values().any(|entry| entry.kept.service == it.service && (entry.replaced_by.is_some() || entry.leaves()))
        };
        for over in self.restarting.extract_if(.., |it| is_over(it)) {
            let answer = match over.failed {
                Some(why) => Err(Rejected::new("failed", why).hint(format!("changeover logs {}", over.service))),
                None => Ok(serde_json::json!({ "service": over.service })),
            };
            let _ = over.reply.send(answer);
        }
    }

    /// The worker leaves: clients first, then the versions' processes, unless they stay. Asked a second time, it does not wait.
    pub(crate) async fn begin_ending(&mut self, keep_versions: bool, reply: Option<Reply>) {
        let again = self.ending.is_some();
        let ending = self.ending.get_or_insert_with(|| Ending { keep_versions, drained: false, replies: Vec::new() });
        ending.keep_versions &= keep_versions;
        ending.replies.extend(reply);
        if again {
            return self.corridor_drained().await;
        }
        let (drain, inputs) = (self.data_plane.drain(), self.inputs.clone());
        tokio::spawn(async move {
            drain.await;
            let _ = inputs.send(Input::CorridorDrained);
        });
    }

    pub(crate) async fn corridor_drained(&mut self) {
        let Some(ending) = &mut self.ending else { return };
        ending.drained = true;
        if ending.keep_versions {
            return;
        }
        let ids: Vec<TargetId> = self.targets.values().filter(|entry| entry.kept.ours).map(|entry| entry.kept.id.clone()).collect();
        for id in ids {
            self.stop_target(&id).await;
        }
    }

    /// Whether everything that must end before us has ended; answers who waits for it.
    pub(crate) fn has_ended(&mut self) -> bool {
        let Some(ending) = &mut self.ending else { return false };
        let waits = !ending.drained || !ending.keep_versions && self.targets.values().any(|entry| entry.kept.ours);
        if waits {
            return false;
        }
        for reply in ending.replies.drain(..) {
            let _ = reply.send(Ok(serde_json::json!({})));
        }
        let _ = self.processes.leave(ending.keep_versions);
        true
    }
}
