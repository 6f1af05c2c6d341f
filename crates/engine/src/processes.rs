//! Starts and stops the targets that are ours. The intent is kept before the process exists; it waits for `go` until its pid
//! is durable.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use model::{Runtime, ServiceName, Signal, TargetId, VersionName};
use store::Batch;

use crate::edge::{ExitStatus, Process, Spawn};
use crate::engine::{Caretaker, boot_id};
use crate::targets::{Entry, Kept, Life, Stop};

impl Caretaker {
    /// Starts a missing target of a version.
    pub(crate) async fn start_target(&mut self, service: &ServiceName, version: &VersionName) -> Result<TargetId, String> {
        let Some(port) = self.free_port() else { return Err("no free port in the range `ports`".to_owned()) };
        let id = TargetId::new(&uuid::Uuid::now_v7().to_string()).expect("a uuid is a valid id");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let (service, version, stop) = (service.clone(), version.clone(), self.stop_of(service));
        let log_from = std::fs::metadata(self.log_file(&service, &version)).map_or(0, |log| log.len());
        let kept =
            Kept { id: id.clone(), service, version, address, process: None, ours: true, stop, log_from, stopping: false, frozen: false };
        let spawn = self.spawn_of(&kept)?;
        // Asked first: making one hangs on a disk that hangs, even where it exists.
        if let Some(folder) = spawn.output.parent().filter(|folder| !folder.is_dir()) {
            std::fs::create_dir_all(folder).map_err(|error| format!("cannot make {}: {error}", folder.display()))?;
        }
        self.keep_target(&kept).await?;
        self.targets.insert(id.clone(), Entry::new(kept, Life::Spawning, self.now()));
        if let Err(error) = self.processes.spawn(&id, &spawn) {
            self.forget_target(&id).await;
            return Err(error);
        }
        Ok(id)
    }

    fn stop_of(&self, service: &ServiceName) -> Stop {
        let Some(desired) = self.desired.services.get(service) else { return Stop::default() };
        let drain_ms = desired.strategy.drain_ms;
        match &desired.run.runtime {
            Runtime::Process { stop_signal, stop_grace_ms, .. } => Stop { signal: *stop_signal, grace_ms: *stop_grace_ms, drain_ms },
            Runtime::Static => Stop { drain_ms, ..Stop::default() },
        }
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
        // A fresh baseline is stable under another name.
        let version = kept.version.as_str().trim_end_matches(release::BASELINE);
        let fill = |text: &str| text.replace("{version}", version).replace("{port}", &port);
        Ok(Spawn {
            command: command.iter().map(|word| fill(word)).collect(),
            env: environment(
                env.iter().map(|(key, value)| (key.clone(), fill(value))),
                &[("PORT", port.as_str()), ("CHANGEOVER_SERVICE", kept.service.as_str()), ("CHANGEOVER_VERSION", version)],
            ),
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
        if self.gate_spawned(id, &process).await {
            return;
        }
        let Some(entry) = self.targets.get_mut(id) else { return };
        entry.kept.process = Some(process);
        let kept = entry.kept.clone();
        let kept_well = self.keep_target(&kept).await;
        let go = kept_well.and_then(|()| self.processes.go(id));
        match go {
            Ok(()) => {
                if let Some(entry) = self.targets.get_mut(id)
                    && entry.life == Life::Spawning
                {
                    entry.life = Life::Running;
                }
                let now = self.now();
                self.costs.began(id, now);
                self.begin_checks(id);
            }
            Err(error) => {
                // It waits for a go that never comes.
                self.stop_target(id).await;
                self.start_failed(&kept, &format!("cannot start {}: {error}", kept.version)).await;
            }
        }
    }

    pub(crate) fn begin_checks(&mut self, id: &TargetId) {
        self.check_from_now(id, false);
    }

    /// `was_well`: one good answer is enough, and whose port it is was seen before.
    pub(crate) fn check_from_now(&mut self, id: &TargetId, was_well: bool) {
        let Some(speech) = self.targets.get(id).map(|entry| self.speech(&entry.kept.service)) else { return };
        let Some(entry) = self.targets.get_mut(id) else { return };
        let Some(desired) = self.desired.services.get(&entry.kept.service) else { return };
        let (processes, port) = (self.processes.clone(), entry.kept.address.port());
        let owned = entry
            .kept
            .process
            .clone()
            .filter(|_| entry.kept.ours && !was_well)
            .map(|process| -> crate::health::Owned { Box::new(move || processes.listens(&process, port)) });
        let rise = if was_well { 1 } else { desired.health.rise };
        let health = model::Health { rise, ..desired.health.clone() };
        let asked = crate::health::Asked { address: entry.kept.address, speech, health };
        let check = crate::health::check(id.clone(), asked, owned, self.inputs.clone());
        if let Some(old) = entry.checks.replace(tokio::spawn(check)) {
            old.abort();
        }
    }

    /// How targets of a service are spoken to.
    pub(crate) fn speech(&self, service: &ServiceName) -> crate::probe::Speech {
        let Some(desired) = self.desired.services.get(service) else { return crate::probe::Speech::default() };
        crate::probe::Speech {
            trust: desired.tls.as_ref().map(|settings| self.config.keyring.trust(settings)),
            proxy_protocol: desired.target_proxy_protocol,
            protocol: desired.protocol,
        }
    }

    /// Stops a target: the service's signal first, `KILL` after its grace. `static` ones are only forgotten.
    pub(crate) async fn stop_target(&mut self, id: &TargetId) {
        let now = self.now();
        let Some(entry) = self.targets.get_mut(id) else { return };
        if matches!(entry.life, Life::Stopping { .. }) {
            return;
        }
        let grace_ms = entry.kept.stop.grace_ms;
        if !entry.kept.ours {
            self.forget_target(id).await;
            return;
        }
        entry.life = Life::Stopping { kill_at: now + grace_ms };
        entry.healthy = false;
        if let Some(checks) = entry.checks.take() {
            checks.abort();
        }
        // So that a worker after us does not take its end for a fault. A disk that refuses keeps nobody running.
        entry.kept.stopping = true;
        let kept = entry.kept.clone();
        if let Err(error) = self.keep_target(&kept).await {
            eprintln!("service {}: {} is stopped, but that is not kept: {error}", kept.service, kept.version);
        }
        self.signal_to_stop(id);
    }

    /// One that is stopped in place hears the signal when it goes on.
    fn signal_to_stop(&self, id: &TargetId) {
        let Some(kept) = self.targets.get(id).map(|entry| &entry.kept) else { return };
        let _ = self.processes.signal(id, number(kept.stop.signal));
        if kept.frozen {
            let _ = self.processes.signal(id, nix::sys::signal::Signal::SIGCONT as i32);
        }
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
        let Some(entry) = self.targets.get_mut(id) else {
            let _ = self.processes.forget(id);
            return;
        };
        let kept = entry.kept.clone();
        let stopping = entry.leaves();
        entry.gone();
        if stopping {
            self.tell(&kept.service, "target_stopped", format!("{} stopped ({status})", kept.version)).await;
        } else {
            let text = format!("{} ended by itself: {status}", kept.version);
            self.tell(&kept.service, "target_exited", text.clone()).await;
            // With the machine everything ended; that is no fault of a version's.
            if kept.process.as_ref().is_none_or(|process| process.boot_id == boot_id()) {
                self.exited_by_itself(&kept, &text).await;
            }
        }
        // Only now: a worker that dies before hears of the exit again.
        self.forget_target(id).await;
        self.reconcile_all().await;
    }

    /// Another program answers on its port: it starts anew on another one.
    pub(crate) async fn port_taken(&mut self, id: &TargetId) {
        let Some(kept) = self.targets.get(id).map(|entry| entry.kept.clone()) else { return };
        let text =
            format!("another process listens on port {}, which {} was given; it starts on another port", kept.address.port(), kept.version);
        self.tell(&kept.service, "port_taken", text.clone()).await;
        self.exited_by_itself(&kept, &text).await;
        self.stop_target(id).await;
    }

    /// A keeper that died may have taken our signals with it.
    pub(crate) fn signal_again(&self) {
        for entry in self.targets.values().filter(|entry| matches!(entry.life, Life::Stopping { .. }) && entry.kept.ours) {
            self.signal_to_stop(&entry.kept.id);
        }
    }

    pub(crate) fn kill_overdue(&mut self) {
        let now = self.now();
        let overdue: Vec<TargetId> = self
            .targets
            .values()
            .filter(|entry| matches!(entry.life, Life::Stopping { kill_at } if kill_at <= now))
            .map(|entry| entry.kept.id.clone())
            .collect();
        for id in overdue {
            let _ = self.processes.signal(&id, number(Signal::Kill));
        }
    }

    /// Those of versions that nobody can go back to are not asked after any more.
    pub(crate) async fn forget_static(&mut self, name: &ServiceName) {
        let Some(service) = self.services.get(name) else { return };
        let known: Vec<TargetId> = self
            .targets
            .values()
            .filter(|entry| entry.kept.service == *name && !entry.kept.ours && !service.confirmed.contains(&entry.kept.version))
            .map(|entry| entry.kept.id.clone())
            .collect();
        for id in known {
            self.forget_target(&id).await;
        }
    }

    /// Of a version that runs elsewhere: exactly these addresses, unless none are given.
    pub(crate) async fn set_static(&mut self, name: &ServiceName, version: &VersionName, addresses: &[SocketAddr]) -> Result<(), String> {
        if addresses.is_empty() {
            return Ok(());
        }
        let known: Vec<(TargetId, SocketAddr)> = self
            .targets
            .values()
            .filter(|entry| !entry.kept.ours && entry.serves(name, version))
            .map(|entry| (entry.kept.id.clone(), entry.kept.address))
            .collect();
        for (id, _) in known.iter().filter(|(_, address)| !addresses.contains(address)) {
            self.forget_target(id).await;
        }
        for address in addresses.iter().filter(|address| !known.iter().any(|(_, known)| known == *address)) {
            let id = TargetId::new(&uuid::Uuid::now_v7().to_string()).expect("a uuid is a valid id");
            let (service, version, stop) = (name.clone(), version.clone(), self.stop_of(name));
            let kept = Kept {
                id: id.clone(),
                service,
                version,
                address: *address,
                process: None,
                ours: false,
                stop,
                log_from: 0,
                stopping: false,
                frozen: false,
            };
            self.keep_target(&kept).await?;
            self.targets.insert(id.clone(), Entry::new(kept, Life::Running, self.now()));
            self.begin_checks(&id);
        }
        Ok(())
    }
}

/// Ours first, then the service's, then what changeover gives.
pub(crate) fn environment(own: impl Iterator<Item = (String, String)>, given: &[(&str, &str)]) -> Vec<(String, String)> {
    let mut all: BTreeMap<String, String> = std::env::vars().filter(|(key, _)| !key.starts_with("CHANGEOVER_")).collect();
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
