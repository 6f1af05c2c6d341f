//! How an engine begins: what is kept is read, what runs is adopted; and how it lets go, for another one to begin.
//!
//! **Invariant**: beginning again from what is kept finishes whatever was half done. Not here: what happens in between.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use model::{Desired, Moment, ServiceName, Snapshot, TargetId};
use release::Service;
use store::{Reserve, Store, StoreError};
use tokio::sync::{broadcast, mpsc};

use super::{Caretaker, Config, Ended, boot_id};
use crate::command::{Engine, Rejected};
use crate::cost::Costs;
use crate::edge::{DataPlane, FlagPlane, Processes};
use crate::fault_points;
use crate::targets::{Entry, Kept, Life};

/// In the state folder.
pub const STATE_FILE: &str = "state.db";
/// Keys that are needed at a start.
const LOADED: [&str; 7] = ["service/", "target/", "desired", "good", "paused", "clock", Costs::KEYS];

/// Whoever takes over waits no longer.
pub(super) const RELEASE_MAX_MS: u64 = 2_000;

/// When, and in which boot, state was last kept.
#[derive(serde::Serialize, serde::Deserialize)]
pub(super) struct Clock {
    pub(super) boot_id: String,
    pub(super) now: Moment,
}

/// Opens the store, adopts what runs, and begins to drive. Returns the way in and the task, which ends after `Down` or a release.
pub async fn start(
    config: Config,
    data_plane: Arc<dyn DataPlane>,
    processes: Arc<dyn Processes>,
    flags: Arc<dyn FlagPlane>,
) -> Result<(Engine, tokio::task::JoinHandle<Ended>), StoreError> {
    let (store, loaded) = Store::open(&config.state_dir.join(STATE_FILE), &LOADED)?;
    let (reserve, taken_back) = Reserve::open(&config.state_dir.join("takeback.ring")).map_err(StoreError::Reserve)?;
    let (inputs, inbox) = mpsc::unbounded_channel();
    let (happenings, _) = broadcast::channel(1024);
    let stored = |prefix: &str| -> Vec<String> {
        loaded.values.iter().filter(|(key, _)| key.starts_with(prefix)).map(|(_, value)| value.clone()).collect()
    };
    let desired = config.desired.clone().or_else(|| stored("desired").first().and_then(|text| serde_json::from_str(text).ok()));
    let desired = desired.unwrap_or_else(|| Desired {
        listeners: BTreeMap::new(),
        services: BTreeMap::new(),
        ports: model::PortRange { first: 21_000, last: 21_999 },
        access_log: model::AccessLog { scope: model::AccessLogScope::Failed, format: model::AccessLogFormat::Json },
        api: None,
        flags: None,
    });
    let services: BTreeMap<ServiceName, Service> = stored("service/")
        .iter()
        // One service's broken row never takes another down.
        .filter_map(|text| serde_json::from_str::<Service>(text).map_err(|error| eprintln!("a stored service is unreadable: {error}")).ok())
        .map(|service| (service.name.clone(), service))
        .collect();
    let kept: Vec<Kept> = stored("target/").iter().filter_map(|text| serde_json::from_str(text).ok()).collect();
    let engine = Engine { inputs: inputs.clone(), happenings: happenings.clone(), store: store.clone() };
    let good = stored("good").first().and_then(|text| serde_json::from_str(text).ok());
    let mut caretaker = Caretaker {
        next_port: desired.ports.first,
        config,
        desired,
        shelved: None,
        services,
        targets: BTreeMap::new(),
        jobs: HashMap::new(),
        asking: HashSet::new(),
        store,
        data_plane,
        processes,
        flags,
        inputs,
        happenings,
        last_seq: loaded.last_seq,
        unsure: Vec::new(),
        published: Arc::new(Snapshot::default()),
        acknowledged: 0,
        doors: crate::doors::Doors::default(),
        reserve,
        unsaved: false,
        not_before: 0,
        analyses: BTreeMap::new(),
        tried: HashMap::new(),
        warned: HashSet::new(),
        mirrors: HashMap::new(),
        restarts: HashMap::new(),
        watches: HashMap::new(),
        switching: Vec::new(),
        restarting: Vec::new(),
        paused: BTreeMap::new(),
        good: crate::pause::Watched::default(),
        rotating: crate::logs::Rotating::default(),
        costs: Costs::read(&loaded.values),
        next_second: 0,
        switch_began: HashMap::new(),
        last_switch_us: HashMap::new(),
        ending: None,
        releasing: None,
    };
    let pinned: Option<crate::pause::Pinned> = stored("paused").first().and_then(|text| serde_json::from_str(text).ok());
    let pinned = pinned.filter(|pinned| !pinned.is_empty());
    if pinned.is_some() || fault_points::crashes() >= crate::pause::CRASHES_MAX {
        caretaker.pause(good, pinned);
    }
    if caretaker.config.desired.is_some() {
        // Whoever succeeds this worker, however soon, follows what it followed. A disk that refuses is tried again later.
        let _ = caretaker.keep_desired(&caretaker.desired).await;
    }
    caretaker.recover_analyses().await;
    caretaker.after_a_reboot(stored("clock").first().and_then(|text| serde_json::from_str(text).ok()));
    let task = tokio::spawn(caretaker.run(inbox, kept, taken_back));
    Ok((engine, task))
}

/// Whether this binary understands a copy of the state, in this folder; the error is for people. What a start reads is read, strictly.
pub fn rehearse(folder: &Path) -> Result<(), String> {
    let (_, loaded) = Store::open(&folder.join(STATE_FILE), &LOADED).map_err(|error| match std::error::Error::source(&error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    })?;
    let understood = |key: &str, value: &str| match key {
        _ if key.starts_with("service/") => serde_json::from_str::<Service>(value).map(drop),
        _ if key.starts_with("target/") => serde_json::from_str::<Kept>(value).map(drop),
        "desired" => serde_json::from_str::<Desired>(value).map(drop),
        "good" => serde_json::from_str::<crate::pause::Good>(value).map(drop),
        "paused" => serde_json::from_str::<crate::pause::Pinned>(value).map(drop),
        "clock" => serde_json::from_str::<Clock>(value).map(drop),
        _ => Ok(()),
    };
    for (key, value) in &loaded.values {
        understood(key, value).map_err(|error| format!("it does not understand what is kept as `{key}`: {error}"))?;
    }
    Ok(())
}

impl Caretaker {
    /// Whether another worker may go on from what is kept. Whatever is half done it would finish, too: this only spares whoever waits for an
    /// answer.
    pub(super) fn lets_go(&self) -> bool {
        let Some(until) = self.releasing else { return false };
        let spawns = self.targets.values().any(|entry| entry.life == Life::Spawning);
        let is_quiet = self.switching.is_empty() && self.restarting.is_empty() && self.all_acknowledged() && !self.unsaved && !spawns;
        is_quiet || self.now() >= until
    }

    /// To ask again would do it twice.
    pub(super) fn answer_half_done(&mut self) {
        let switching = self.switching.drain(..).map(|it| (it.service, it.reply));
        for (service, reply) in switching.chain(self.restarting.drain(..).map(|it| (it.service, it.reply))) {
            let rejected = Rejected::new("unavailable", "it was begun, and changeover is replaced before it is done");
            let _ = reply.send(Err(rejected.hint(format!("see what came of it: changeover status {service}"))));
        }
    }

    /// After a start: adopt processes, listen, perform the effects that were open.
    pub(super) async fn recover(&mut self, kept: Vec<Kept>) {
        for it in kept {
            let id = it.id.clone();
            let process = it.process.clone();
            let (ours, known, frozen) = (it.ours, self.services.contains_key(&it.service), it.frozen);
            let life = if it.stopping { Life::Stopping { kill_at: self.now() + it.stop.grace_ms } } else { Life::Running };
            let mut entry = Entry::new(it, life, self.now());
            entry.assumed = life == Life::Running && (process.is_some() || !ours) && !frozen;
            self.targets.insert(id.clone(), entry);
            match process {
                // Whether one that is stopped in place stays so is looked at when all is known.
                Some(process) if ours && (life != Life::Running || frozen) => {
                    let _ = self.processes.adopt(&id, &process);
                }
                Some(process) if ours => {
                    let _ = self.processes.adopt(&id, &process);
                    self.begin_checks(&id);
                }
                // Its pid never became durable: it was never let go.
                None if ours => self.forget_target(&id).await,
                _ if known => self.begin_checks(&id),
                _ => {}
            }
        }
        // A disk that refuses keeps nobody from being served.
        let desired = self.desired.clone();
        self.follow_desired(&desired).await;
        self.unsaved = true;
        self.recover_jobs();
        let names: Vec<ServiceName> = self.services.keys().cloned().collect();
        for name in names {
            Box::pin(self.perform(&name)).await;
        }
        self.freeze_again();
        // Their service left the file while they were finishing.
        let lost: Vec<TargetId> = self
            .targets
            .values()
            .filter(|entry| !self.services.contains_key(&entry.kept.service))
            .map(|entry| entry.kept.id.clone())
            .collect();
        for id in lost {
            self.retire_target(&id).await;
        }
    }

    /// Moments count from boot. In another boot, what was left of a stay lasts as long again, and a state begins anew.
    fn after_a_reboot(&mut self, clock: Option<Clock>) {
        let now = self.now();
        let boot_id = boot_id();
        let Some(then) = clock.filter(|clock| clock.boot_id != boot_id) else { return };
        for service in self.services.values_mut() {
            if let Some(release) = &mut service.release {
                release.entered_at = now;
                release.prepare_again();
                if let Some(paused) = &mut release.paused {
                    paused.since = now;
                }
            }
            for stays in [&mut service.standby, &mut service.kept].into_iter().flatten() {
                stays.until = now + stays.until.saturating_sub(then.now);
            }
        }
        for analysis in self.analyses.values_mut() {
            analysis.begin_anew();
        }
        self.unsaved = true;
    }
}
