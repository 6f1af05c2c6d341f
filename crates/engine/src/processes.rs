//! Starts and stops the targets that are ours. The intent is kept before the process exists; it waits for `go` until its pid
//! is durable.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use model::{Runtime, ServiceName, Signal, TargetId, VersionName};

use crate::edge::{ExitStatus, Process, Spawn};
use crate::engine::Caretaker;
use crate::store::Batch;
use crate::targets::{Entry, Kept, Life};

impl Caretaker {
    /// Starts a missing target of a version.
    pub(crate) async fn start_target(&mut self, service: &ServiceName, version: &VersionName) -> Result<(), String> {
        let Some(port) = self.free_port() else { return Err("no free port in the range `ports`".to_owned()) };
        let id = TargetId::new(&uuid::Uuid::now_v7().to_string()).expect("a uuid is a valid id");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let kept = Kept { id: id.clone(), service: service.clone(), version: version.clone(), address, process: None, ours: true };
        self.keep_target(&kept).await?;
        let spawn = self.spawn_of(&kept)?;
        self.targets.insert(id.clone(), Entry {
            kept,
            life: Life::Spawning,
            healthy: false,
            fallen: false,
            detail: "not asked yet".to_owned(),
            tries: 0,
            began_at: self.now(),
            checks: None,
        });
        if let Some(folder) = spawn.output.parent() {
            std::fs::create_dir_all(folder).map_err(|error| format!("cannot make {}: {error}", folder.display()))?;
        }
        self.processes.spawn(&id, &spawn)
    }

    pub(crate) async fn keep_target(&self, kept: &Kept) -> Result<(), String> {
        let value = serde_json::to_string(kept).expect("plain data");
        let batch = Batch { puts: vec![(format!("target/{}", kept.id), value)], ..Batch::default() };
        self.store.commit(batch).await.map_err(|error| error.to_string())
    }

    fn spawn_of(&self, kept: &Kept) -> Result<Spawn, String> {
        let desired = self.desired.services.get(&kept.service).ok_or("the service is gone")?;
        let Runtime::Process { command, env, cwd, user, .. } = &desired.run.runtime else {
            return Err("not a process".to_owned());
        };
        let port = kept.address.port().to_string();
        let fill = |text: &str| text.replace("{version}", kept.version.as_str()).replace("{port}", &port);
        Ok(Spawn {
            command: command.iter().map(|word| fill(word)).collect(),
            env: environment(env.iter().map(|(key, value)| (key.clone(), fill(value))), &[
                ("PORT", port.as_str()),
                ("CHANGEOVER_SERVICE", kept.service.as_str()),
                ("CHANGEOVER_VERSION", kept.version.as_str()),
            ]),
            cwd: cwd.clone(),
            user: user.clone(),
            output: self.log_file(&kept.service, &kept.version),
            result: None,
        })
    }

    pub(crate) fn log_file(&self, service: &ServiceName, version: &VersionName) -> std::path::PathBuf {
        self.config.state_dir.join("logs").join(service.as_str()).join(format!("{version}.log"))
    }

    fn free_port(&mut self) -> Option<u16> {
        let range = self.desired.ports;
        let used: Vec<u16> = self.targets.values().map(|entry| entry.kept.address.port()).collect();
        for _ in range.first..=range.last {
            let port = self.next_port.clamp(range.first, range.last);
            self.next_port = if port >= range.last { range.first } else { port + 1 };
            // Another program may still take it in between; then the version fails to bind and is started on another port.
            if !used.contains(&port) && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
                return Some(port);
            }
        }
        None
    }

    pub(crate) async fn spawned(&mut self, id: &TargetId, process: Process) {
        if self.gate_spawned(id).await {
            return;
        }
        let Some(entry) = self.targets.get_mut(id) else { return };
        entry.kept.process = Some(process);
        let kept = entry.kept.clone();
        let kept_well = self.keep_target(&kept).await;
        let go = kept_well.and_then(|()| self.processes.go(id));
        match go {
            Ok(()) => {
                if let Some(entry) = self.targets.get_mut(id) {
                    if entry.life == Life::Spawning {
                        entry.life = Life::Running;
                    }
                }
                self.begin_checks(id);
            }
            Err(error) => self.start_failed(&kept, &format!("cannot start {}: {error}", kept.version)).await,
        }
    }

    pub(crate) fn begin_checks(&mut self, id: &TargetId) {
        let Some(entry) = self.targets.get_mut(id) else { return };
        let Some(desired) = self.desired.services.get(&entry.kept.service) else { return };
        let check = crate::health::check(id.clone(), entry.kept.address, desired.health.clone(), self.inputs.clone());
        if let Some(old) = entry.checks.replace(tokio::spawn(check)) {
            old.abort();
        }
    }

    /// Stops a target: the service's signal first, `KILL` after its grace. `static` ones are only forgotten.
    pub(crate) async fn stop_target(&mut self, id: &TargetId) {
        let now = self.now();
        let Some(entry) = self.targets.get_mut(id) else { return };
        if matches!(entry.life, Life::Stopping { .. }) {
            return;
        }
        let runtime = self.desired.services.get(&entry.kept.service).map(|desired| &desired.run.runtime);
        let (signal, grace_ms) = match runtime {
            Some(Runtime::Process { stop_signal, stop_grace_ms, .. }) => (*stop_signal, *stop_grace_ms),
            _ => (Signal::Term, 10_000),
        };
        if !entry.kept.ours {
            self.forget_target(id).await;
            return;
        }
        entry.life = Life::Stopping { kill_at: now + grace_ms };
        entry.healthy = false;
        if let Some(checks) = entry.checks.take() {
            checks.abort();
        }
        let _ = self.processes.signal(id, number(signal));
    }

    pub(crate) async fn forget_target(&mut self, id: &TargetId) {
        let batch = Batch { deletes: vec![format!("target/{id}")], ..Batch::default() };
        if let Err(error) = self.store.commit(batch).await {
            eprintln!("cannot forget target {id}: {error}");
        }
        self.targets.remove(id);
        let _ = self.processes.forget(id);
    }

    /// A process ended: by our will, or a fault that is counted and told.
    pub(crate) async fn exited(&mut self, id: &TargetId, status: ExitStatus) {
        if self.gate_exited(id, status).await {
            return;
        }
        let Some(entry) = self.targets.get(id) else {
            let _ = self.processes.forget(id);
            return;
        };
        let kept = entry.kept.clone();
        let stopping = matches!(entry.life, Life::Stopping { .. });
        self.forget_target(id).await;
        if stopping {
            self.tell(&kept.service, "target_stopped", format!("{} stopped ({status})", kept.version)).await;
        } else {
            let text = format!("{} ended by itself: {status}", kept.version);
            self.tell(&kept.service, "target_exited", text.clone()).await;
            self.exited_by_itself(&kept, &text).await;
        }
        self.reconcile_all().await;
    }

    pub(crate) fn kill_overdue(&mut self) {
        let now = self.now();
        let overdue: Vec<TargetId> = self.targets.values()
            .filter(|entry| matches!(entry.life, Life::Stopping { kill_at } if kill_at <= now))
            .map(|entry| entry.kept.id.clone())
            .collect();
        for id in overdue {
            let _ = self.processes.signal(&id, number(Signal::Kill));
        }
    }
}

/// Ours first, then the service's, then what changeover gives.
pub(crate) fn environment(own: impl Iterator<Item = (String, String)>, given: &[(&str, &str)]) -> Vec<(String, String)> {
    let mut all: BTreeMap<String, String> =
        std::env::vars().filter(|(key, _)| !key.starts_with("CHANGEOVER_")).collect();
    all.extend(given.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
    all.extend(own);
    all.into_iter().collect()
}

fn number(signal: Signal) -> i32 {
    use nix::sys::signal::Signal as Nix;
    (match signal {
        Signal::Term => Nix::SIGTERM,
        Signal::Int => Nix::SIGINT,
        Signal::Quit => Nix::SIGQUIT,
        Signal::Hup => Nix::SIGHUP,
        Signal::Usr1 => Nix::SIGUSR1,
        Signal::Usr2 => Nix::SIGUSR2,
        Signal::Kill => Nix::SIGKILL,
    }) as i32
}
