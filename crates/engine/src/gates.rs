//! Gates: what must pass between healthy and the switch. Commands run as jobs of the keeper, whose result outlives us, so
//! that a migration runs exactly once per release.

use std::path::PathBuf;
use std::time::Duration;

use model::{GateKind, ReleaseId, Runtime, ServiceName, TargetId};
use release::{Event, Release};

use crate::releases::in_words;

use crate::command::Input;
use crate::edge::{ExitStatus, Process, Spawn};
use crate::engine::Caretaker;
use crate::logs::last_lines;
use crate::probe;
use crate::processes::environment;

/// A gate's command that runs.
#[derive(Clone)]
pub(crate) struct Job {
    pub service: ServiceName,
    pub release: ReleaseId,
    pub gate: usize,
    pub migrates: bool,
    pub timeout_ms: u64,
    pub deadline: u64,
    /// Names its files: the same for every attempt.
    pub files: TargetId,
}

/// The process of a job, as it is kept.
#[derive(serde::Serialize, serde::Deserialize)]
struct Attempt {
    id: TargetId,
    process: Process,
    service: ServiceName,
    release: ReleaseId,
    gate: usize,
    migrates: bool,
    timeout_ms: u64,
}

impl Caretaker {
    fn job_id(release: &Release, gate: usize) -> TargetId {
        TargetId::new(&format!("{}-gate-{gate}", release.id)).expect("an id with a suffix is valid")
    }

    fn job_file(&self, id: &TargetId, ending: &str) -> PathBuf {
        self.config.state_dir.join("jobs").join(format!("{id}.{ending}"))
    }

    /// Performs `Effect::RunGate`; again after a crash, without running a command twice.
    pub(crate) async fn run_gate(&mut self, release: &Release, gate: usize) {
        let Some(gate_wanted) = release.settings.gate(gate).cloned() else { return };
        if release.migrated.contains(&gate_wanted.name) {
            return self.gate_done(release, gate, Ok(())).await;
        }
        let id = Self::job_id(release, gate);
        if self.jobs.values().any(|job| job.files == id) {
            return;
        }
        // Two never run at once; looked at again when it has ended.
        if self.jobs.values().any(|job| job.service == release.service && job.migrates) {
            let text = format!("gate       {} waits for the migration of an earlier release to end", gate_wanted.name);
            return self.tell(&release.service, "gate_waits", text).await;
        }
        if let GateKind::Approval { otherwise_passes } = gate_wanted.kind {
            let key = (release.id.clone(), gate);
            if self.asking.insert(key) {
                let left = in_words(gate_wanted.timeout_ms.saturating_sub(self.now().saturating_sub(release.entered_at)) as f64);
                let otherwise = if otherwise_passes { "it goes on" } else { "it is taken back" };
                let (name, service) = (&gate_wanted.name, &release.service);
                let text = format!("waiting    {name}: for `changeover promote {service}`; without it, {otherwise} in {left}");
                self.tell(service, "awaiting_approval", text).await;
            }
            return;
        }
        self.tell(&release.service, "gate_began", format!("gate       {} …", gate_wanted.name)).await;
        let timeout = Duration::from_millis(gate_wanted.timeout_ms);
        let (command, irreversible) = match &gate_wanted.kind {
            GateKind::Http { path, status } => {
                return self.ask_gate(release, gate, path.clone(), *status, timeout);
            }
            GateKind::Approval { .. } => return,
            GateKind::Command { command } => (command.clone(), false),
            GateKind::Migrate { command, irreversible } => (command.clone(), *irreversible),
        };
        let deadline = self.now() + gate_wanted.timeout_ms;
        let migrates = matches!(gate_wanted.kind, GateKind::Migrate { .. });
        let timeout_ms = gate_wanted.timeout_ms;
        let job =
            Job { service: release.service.clone(), release: release.id.clone(), gate, migrates, timeout_ms, deadline, files: id.clone() };
        // Of an earlier life: its exit is told again, or its result is there.
        if let Some(earlier) = self.earlier_attempt(&id) {
            let _ = self.processes.adopt(&earlier.id, &earlier.process);
            self.jobs.insert(earlier.id, job);
            return;
        }
        if irreversible && let Err(error) = self.mark_irreversible(&release.service, &gate_wanted.name).await {
            return self.gate_done(release, gate, Err(error)).await;
        }
        // Each attempt is a process of its own name: one that was never let go may still be on its way out.
        let attempt = uuid::Uuid::now_v7().simple().to_string();
        let process = TargetId::new(&format!("gate-{attempt}")).expect("a uuid is a valid id");
        match self.spawn_job(release, gate, &id, &process, command) {
            Ok(()) => drop(self.jobs.insert(process, job)),
            Err(error) => self.gate_done(release, gate, Err(error)).await,
        }
    }

    /// Of a release that ended while a migration of it ran: those that passed all the same, or the one of which nobody knows.
    pub(crate) fn migrations_since(&self, release: &Release) -> Result<Vec<String>, Unfinished> {
        let mut passed = Vec::new();
        for (number, gate) in release.settings.all_gates().enumerate() {
            let id = Self::job_id(release, number);
            if !matches!(gate.kind, GateKind::Migrate { .. }) || !self.job_file(&id, "began").exists() {
                continue;
            }
            match self.result_of(&id) {
                Some(ExitStatus::Code(0)) => passed.push(gate.name.clone()),
                Some(_) => {}
                None if self.jobs.values().any(|job| job.files == id) => return Err(Unfinished::Runs { gate: gate.name.clone() }),
                None => return Err(Unfinished::Interrupted { gate: gate.name.clone() }),
            }
        }
        Ok(passed)
    }

    /// After a start: jobs that outlived the worker, also those of releases that have ended.
    pub(crate) fn recover_jobs(&mut self) {
        let Ok(entries) = std::fs::read_dir(self.config.state_dir.join("jobs")) else { return };
        for path in entries.flatten().map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|it| it == "process")) {
            let Some(files) = path.file_stem().and_then(|stem| TargetId::new(&stem.to_string_lossy()).ok()) else { continue };
            let Some(attempt) = self.earlier_attempt(&files).filter(|_| self.result_of(&files).is_none()) else { continue };
            let Attempt { id, process, service, release, gate, migrates, timeout_ms } = attempt;
            let deadline = self.now() + timeout_ms;
            let _ = self.processes.adopt(&id, &process);
            self.jobs.insert(id, Job { service, release, gate, migrates, timeout_ms, deadline, files });
        }
    }

    /// Files of jobs are kept as long as their release may be looked at or tried again: until the next one has ended.
    pub(crate) fn forget_jobs(&self) {
        let known: Vec<&str> = self.services.values().filter_map(|service| Some(service.release.as_ref()?.id.as_str())).collect();
        let Ok(entries) = std::fs::read_dir(self.config.state_dir.join("jobs")) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let runs = self.jobs.values().any(|job| name.to_string_lossy().starts_with(job.files.as_str()));
            if !runs && !known.iter().any(|id| name.to_string_lossy().starts_with(id)) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }

    fn spawn_job(&self, release: &Release, gate: usize, id: &TargetId, process: &TargetId, command: Vec<String>) -> Result<(), String> {
        let desired = self.desired.services.get(&release.service).ok_or("the service is gone")?;
        let (cwd, user, env) = match &desired.run.runtime {
            Runtime::Process { cwd, user, env, .. } => (cwd.clone(), user.clone(), env.clone()),
            Runtime::Static => (self.config.folder.clone(), None, std::collections::BTreeMap::new()),
        };
        let address = self.first_address(&release.service, &release.candidate);
        let port = address.map(|address| address.port().to_string()).unwrap_or_default();
        let url = address.map(|address| format!("{}://{address}", probe::scheme(desired.tls.is_some()))).unwrap_or_default();
        let fill = |text: &str| text.replace("{version}", release.candidate.as_str()).replace("{port}", &port).replace("{url}", &url);
        let folder = self.config.state_dir.join("jobs");
        std::fs::create_dir_all(&folder).map_err(|error| format!("cannot make {}: {error}", folder.display()))?;
        self.processes.spawn(
            process,
            &Spawn {
                command: command.iter().map(|word| fill(word)).collect(),
                env: environment(
                    env.into_iter(),
                    &[
                        ("CHANGEOVER_SERVICE", release.service.as_str()),
                        ("CHANGEOVER_VERSION", release.candidate.as_str()),
                        ("CHANGEOVER_RELEASE", release.id.as_str()),
                        ("CHANGEOVER_GATE", release.settings.gate(gate).map_or("", |gate| &gate.name)),
                        ("CHANGEOVER_URL", url.as_str()),
                    ],
                ),
                cwd,
                user,
                output: self.job_file(id, "log"),
                result: Some(self.job_file(id, "result")),
            },
        )
    }

    fn ask_gate(&mut self, release: &Release, gate: usize, path: String, status: (u16, u16), timeout: Duration) {
        if !self.asking.insert((release.id.clone(), gate)) {
            return;
        }
        let inputs = self.inputs.clone();
        let release = Box::new(release.clone());
        let address = self.first_address(&release.service, &release.candidate);
        let speech = self.speech(&release.service);
        tokio::spawn(async move {
            let scheme = probe::scheme(speech.trust.is_some());
            let result = match address {
                None => Err("the candidate has no target".to_owned()),
                Some(address) => match probe::get(address, &speech, None, &path, timeout).await {
                    Ok(got) if (status.0..=status.1).contains(&got) => Ok(format!("GET {path} → {got}")),
                    Ok(got) => Err(format!("GET {scheme}://{address}{path} → {got}")),
                    Err(error) => Err(format!("GET {scheme}://{address}{path} → {error}")),
                },
            };
            let _ = inputs.send(Input::GateFinished { release, gate, result });
        });
    }

    fn earlier_attempt(&self, files: &TargetId) -> Option<Attempt> {
        serde_json::from_slice(&std::fs::read(self.job_file(files, "process")).ok()?).ok()
    }

    /// Its pid is durable before it is let go.
    pub(crate) async fn gate_spawned(&mut self, id: &TargetId, process: &Process) -> bool {
        let Some(job) = self.jobs.get(id).cloned() else { return false };
        if !self.is_awaited(&job) {
            // Its release was taken back meanwhile: it never begins.
            self.jobs.remove(id);
            let _ = self.processes.signal(id, nix::sys::signal::Signal::SIGKILL as i32);
            return true;
        }
        let path = self.job_file(&job.files, "process");
        let Job { service, release, gate, migrates, timeout_ms, .. } = job;
        let attempt = Attempt { id: id.clone(), process: process.clone(), service, release, gate, migrates, timeout_ms };
        let durable = write_durably(path, serde_json::to_vec(&attempt).expect("plain data")).await;
        let go = durable.and_then(|()| self.processes.go(id));
        if let Err(error) = go {
            let _ = self.processes.signal(id, nix::sys::signal::Signal::SIGKILL as i32);
            self.gate_spawn_failed(id, error).await;
        }
        true
    }

    fn is_awaited(&self, job: &Job) -> bool {
        self.running_release(&job.service).is_some_and(|it| it.id == job.release && it.state.gate() == Some(job.gate))
    }

    pub(crate) async fn gate_spawn_failed(&mut self, id: &TargetId, error: String) -> bool {
        let Some(job) = self.jobs.remove(id) else { return false };
        self.job_done(&job, Err(error)).await;
        true
    }

    pub(crate) async fn gate_exited(&mut self, id: &TargetId, status: ExitStatus) -> bool {
        let Some(job) = self.jobs.remove(id) else { return false };
        let _ = self.processes.forget(id);
        let result = self.result_of(&job.files);
        if result.is_none() && NEVER_BEGAN.contains(&status) && !self.job_file(&job.files, "began").exists() {
            let _ = std::fs::remove_file(self.job_file(&job.files, "process"));
            self.gate_again(&job.service).await;
            return true;
        }
        let result = match result.unwrap_or(status) {
            ExitStatus::Code(0) => Ok(()),
            ExitStatus::Unknown => Err("it was interrupted; whether it finished is unknown, and it is not run twice".to_owned()),
            other => Err(format!("{other}{}", last_lines(&self.job_file(&job.files, "log"), 0))),
        };
        self.job_done(&job, result).await;
        true
    }

    /// What the job's own parent wrote down, also when keeper and worker were dead.
    fn result_of(&self, files: &TargetId) -> Option<ExitStatus> {
        let text = std::fs::read_to_string(self.job_file(files, "result")).ok()?;
        serde_json::from_str(&text).ok()
    }

    async fn job_done(&mut self, job: &Job, result: Result<(), String>) {
        match self.running_release(&job.service).filter(|release| release.id == job.release).cloned() {
            Some(release) => self.gate_done(&release, job.gate, result).await,
            // Its release has ended meanwhile; the next one may have waited for it.
            None => self.gate_again(&job.service).await,
        }
    }

    /// Runs the gate that the service's release is at, unless it runs.
    async fn gate_again(&mut self, service: &ServiceName) {
        let Some(release) = self.running_release(service).cloned() else { return };
        if let Some(gate) = release.state.gate() {
            Box::pin(self.run_gate(&release, gate)).await;
        }
    }

    pub(crate) async fn gate_done(&mut self, release: &Release, gate: usize, result: Result<(), String>) {
        let service = &release.service;
        let name = self
            .running_release(service)
            .filter(|running| running.id == release.id && running.state.gate() == Some(gate))
            .and_then(|running| running.settings.gate(gate))
            .map(|gate| gate.name.clone());
        let Some(name) = name else { return };
        let event = match result {
            Ok(()) => Event::GatePassed { gate },
            Err(reason) => {
                let reason = format!("gate {name} failed: {reason}");
                let running = self.running_release(service);
                // A migration has ruled stable out: a person decides, and until then it is held.
                if running.is_some_and(|it| it.irreversible.is_some() && it.state.step().is_some()) {
                    return Box::pin(self.regressed(service, reason)).await;
                }
                Event::GateFailed { gate, reason }
            }
        };
        Box::pin(self.apply(service, event)).await;
    }

    /// A gate that nobody works on: what came of it could not be kept.
    pub(crate) async fn look_at_gate(&mut self, release: &Release, gate: usize) {
        if let Some(GateKind::Approval { otherwise_passes }) = release.settings.gate(gate).map(|gate| gate.kind.clone()) {
            return self.look_at_approval(release, gate, otherwise_passes).await;
        }
        if release.paused.is_some() && release.irreversible.is_some() {
            return;
        }
        let is_asked = self.asking.contains(&(release.id.clone(), gate));
        // Its own, or a migration that it waits for: when that ends, it goes on.
        let has_job =
            self.jobs.values().any(|job| job.release == release.id && job.gate == gate || job.service == release.service && job.migrates);
        if !is_asked && !has_job && self.now() >= self.not_before {
            self.not_before = self.now() + GATE_AGAIN_MS;
            Box::pin(self.run_gate(release, gate)).await;
        }
    }

    /// Nobody approved in time.
    async fn look_at_approval(&mut self, release: &Release, gate: usize, otherwise_passes: bool) {
        if !self.asking.contains(&(release.id.clone(), gate)) {
            return Box::pin(self.run_gate(release, gate)).await;
        }
        let timeout_ms = release.settings.gate(gate).map_or(0, |gate| gate.timeout_ms);
        if self.now().saturating_sub(release.entered_at) < timeout_ms || self.now() < self.not_before {
            return;
        }
        let result = if otherwise_passes { Ok(()) } else { Err(format!("nobody approved within {}", in_words(timeout_ms as f64))) };
        self.gate_done(release, gate, result).await;
    }

    /// Gates of an earlier life that have ended, those whose time is up, and those that nobody waits for any more.
    pub(crate) async fn look_at_gates(&mut self) {
        let now = self.now();
        let done: Vec<TargetId> =
            self.jobs.iter().filter(|(_, job)| self.result_of(&job.files).is_some()).map(|(id, _)| id.clone()).collect();
        for id in done {
            self.gate_exited(&id, ExitStatus::Unknown).await;
        }
        let jobs: Vec<(TargetId, Job)> = self.jobs.iter().map(|(id, job)| (id.clone(), job.clone())).collect();
        for (id, job) in jobs {
            // A migration is not broken off: it finishes, and the next release waits for it.
            if job.deadline <= now || !self.is_awaited(&job) && !job.migrates {
                let _ = self.processes.signal(&id, nix::sys::signal::Signal::SIGKILL as i32);
                self.gate_spawn_failed(&id, "it did not end in time".to_owned()).await;
            }
        }
    }
}

/// Why a release cannot be tried again.
pub(crate) enum Unfinished {
    Runs { gate: String },
    Interrupted { gate: String },
}

/// So often a gate is begun again whose outcome could not be kept.
const GATE_AGAIN_MS: u64 = 1_000;
/// A disk that takes longer hangs.
const WRITE_MAX: Duration = Duration::from_secs(1);

async fn write_durably(path: PathBuf, content: Vec<u8>) -> Result<(), String> {
    let shown = path.display().to_string();
    let written = tokio::task::spawn_blocking(move || {
        let mut file = std::fs::File::create(&path)?;
        std::io::Write::write_all(&mut file, &content)?;
        file.sync_all()
    });
    match tokio::time::timeout(WRITE_MAX, written).await {
        Ok(Ok(written)) => written.map_err(|error| format!("cannot write {shown}: {error}")),
        _ => Err(format!("cannot write {shown}: the disk does not answer")),
    }
}

/// How a process ends that was never let go, or that a dead keeper took with it.
const NEVER_BEGAN: [ExitStatus; 2] = [ExitStatus::Code(125), ExitStatus::Unknown];
