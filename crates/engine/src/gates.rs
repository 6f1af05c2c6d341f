//! Gates: what must pass between healthy and the switch. Commands run as jobs of the keeper, whose result outlives us, so
//! that a migration runs exactly once per release.

use std::path::PathBuf;
use std::time::Duration;

use model::{GateKind, Runtime, ServiceName, TargetId};
use release::{Event, Release, State};

use crate::command::Input;
use crate::edge::{ExitStatus, Process, Spawn};
use crate::engine::Caretaker;
use crate::logs::last_lines;
use crate::probe;
use crate::processes::environment;

/// A gate's command that runs.
pub(crate) struct Job {
    pub service: ServiceName,
    pub gate: usize,
    pub deadline: u64,
    /// Names its files: the same for every attempt.
    pub files: TargetId,
}

/// The process of a job, as it is kept.
#[derive(serde::Serialize, serde::Deserialize)]
struct Attempt {
    id: TargetId,
    process: Process,
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
        let Some(gate_wanted) = release.settings.gates.get(gate).cloned() else { return };
        if release.migrated.contains(&gate_wanted.name) {
            return self.gate_done(&release.service.clone(), gate, Ok(())).await;
        }
        let id = Self::job_id(release, gate);
        if self.jobs.values().any(|job| job.files == id) {
            return;
        }
        self.tell(&release.service, "gate_began", format!("gate       {} …", gate_wanted.name)).await;
        let timeout = Duration::from_millis(gate_wanted.timeout_ms);
        let (command, irreversible) = match &gate_wanted.kind {
            GateKind::Http { path, status } => {
                return self.ask_gate(release, gate, path.clone(), *status, timeout);
            }
            GateKind::Command { command } => (command.clone(), false),
            GateKind::Migrate { command, irreversible } => (command.clone(), *irreversible),
        };
        let deadline = self.now() + gate_wanted.timeout_ms;
        let job = Job { service: release.service.clone(), gate, deadline, files: id.clone() };
        // Of an earlier life: its exit is told again, or its result is there.
        if let Some(earlier) = self.earlier_attempt(&id) {
            let _ = self.processes.adopt(&earlier.id, &earlier.process);
            self.jobs.insert(earlier.id, job);
            return;
        }
        if irreversible && let Err(error) = self.mark_irreversible(&release.service, &gate_wanted.name).await {
            return self.gate_done(&release.service.clone(), gate, Err(error)).await;
        }
        // Each attempt is a process of its own name: one that was never let go may still be on its way out.
        let attempt = uuid::Uuid::now_v7().simple().to_string();
        let process = TargetId::new(&format!("gate-{attempt}")).expect("a uuid is a valid id");
        match self.spawn_job(release, gate, &id, &process, command) {
            Ok(()) => drop(self.jobs.insert(process, job)),
            Err(error) => self.gate_done(&release.service.clone(), gate, Err(error)).await,
        }
    }

    /// The migration of this release that was interrupted, so that nobody knows whether it finished.
    pub(crate) fn interrupted_migration(&self, release: &Release) -> Option<String> {
        let gates = release.settings.gates.iter().enumerate();
        gates
            .filter(|(_, gate)| matches!(gate.kind, GateKind::Migrate { .. }) && !release.migrated.contains(&gate.name))
            .find(|(number, _)| {
                let id = Self::job_id(release, *number);
                self.job_file(&id, "began").exists() && !self.job_file(&id, "result").exists()
            })
            .map(|(_, gate)| gate.name.clone())
    }

    /// Files of jobs are kept as long as their release may be looked at or tried again: until the next one has ended.
    pub(crate) fn forget_jobs(&self) {
        let known: Vec<&str> = self.services.values().filter_map(|service| Some(service.release.as_ref()?.id.as_str())).collect();
        let Ok(entries) = std::fs::read_dir(self.config.state_dir.join("jobs")) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name();
            if !known.iter().any(|id| name.to_string_lossy().starts_with(id)) {
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
        let url = address.map(|address| format!("http://{address}")).unwrap_or_default();
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
                        ("CHANGEOVER_GATE", release.settings.gates[gate].name.as_str()),
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

    fn ask_gate(&self, release: &Release, gate: usize, path: String, status: (u16, u16), timeout: Duration) {
        let inputs = self.inputs.clone();
        let (service, id) = (release.service.clone(), release.id.clone());
        let address = self.first_address(&release.service, &release.candidate);
        tokio::spawn(async move {
            let result = match address {
                None => Err("the candidate has no target".to_owned()),
                Some(address) => match probe::get(address, None, &path, timeout).await {
                    Ok(got) if (status.0..=status.1).contains(&got) => Ok(format!("GET {path} → {got}")),
                    Ok(got) => Err(format!("GET http://{address}{path} → {got}")),
                    Err(error) => Err(format!("GET http://{address}{path} → {error}")),
                },
            };
            let _ = inputs.send(Input::GateFinished { service, release: id, gate, result });
        });
    }

    fn earlier_attempt(&self, files: &TargetId) -> Option<Attempt> {
        serde_json::from_slice(&std::fs::read(self.job_file(files, "process")).ok()?).ok()
    }

    /// Its pid is durable before it is let go.
    pub(crate) async fn gate_spawned(&mut self, id: &TargetId, process: &Process) -> bool {
        let Some(job) = self.jobs.get(id) else { return false };
        let path = self.job_file(&job.files, "process");
        let attempt = serde_json::to_vec(&Attempt { id: id.clone(), process: process.clone() }).expect("plain data");
        let durable = std::fs::File::create(&path).and_then(|mut file| {
            std::io::Write::write_all(&mut file, &attempt)?;
            file.sync_all()
        });
        let go = durable.map_err(|error| format!("cannot write {}: {error}", path.display())).and_then(|()| self.processes.go(id));
        if let Err(error) = go {
            self.gate_spawn_failed(id, error).await;
        }
        true
    }

    pub(crate) async fn gate_spawn_failed(&mut self, id: &TargetId, error: String) -> bool {
        let Some(job) = self.jobs.remove(id) else { return false };
        self.gate_done(&job.service, job.gate, Err(error)).await;
        true
    }

    pub(crate) async fn gate_exited(&mut self, id: &TargetId, status: ExitStatus) -> bool {
        let Some(job) = self.jobs.remove(id) else { return false };
        let _ = self.processes.forget(id);
        let result = self.job_result(&job);
        if result.is_none() && NEVER_BEGAN.contains(&status) && !self.job_file(&job.files, "began").exists() {
            let _ = std::fs::remove_file(self.job_file(&job.files, "process"));
            if let Some(release) = self.running_release(&job.service).cloned() {
                Box::pin(self.run_gate(&release, job.gate)).await;
            }
            return true;
        }
        let status = result.unwrap_or(status);
        let result = match status {
            ExitStatus::Code(0) => Ok(()),
            ExitStatus::Unknown => Err("it was interrupted; whether it finished is unknown, and it is not run twice".to_owned()),
            other => Err(format!("{other}{}", last_lines(&self.job_file(&job.files, "log"), 0))),
        };
        self.gate_done(&job.service, job.gate, result).await;
        true
    }

    /// What the job's own parent wrote down, also when keeper and worker were dead.
    fn job_result(&self, job: &Job) -> Option<ExitStatus> {
        let text = std::fs::read_to_string(self.job_file(&job.files, "result")).ok()?;
        serde_json::from_str(&text).ok()
    }

    pub(crate) async fn gate_done(&mut self, service: &ServiceName, gate: usize, result: Result<(), String>) {
        let name = self
            .services
            .get(service)
            .and_then(|service| service.running_release())
            .filter(|release| matches!(release.state, State::Gating { gate: now } if now == gate))
            .map(|release| release.settings.gates[gate].name.clone());
        let Some(name) = name else { return };
        let event = match result {
            Ok(()) => Event::GatePassed { gate },
            Err(reason) => Event::GateFailed { gate, reason: format!("gate {name} failed: {reason}") },
        };
        Box::pin(self.apply(service, event)).await;
    }

    /// Gates of an earlier life that have ended, and those whose time is up.
    pub(crate) async fn look_at_gates(&mut self) {
        let now = self.now();
        let done: Vec<TargetId> = self.jobs.iter().filter(|(_, job)| self.job_result(job).is_some()).map(|(id, _)| id.clone()).collect();
        for id in done {
            self.gate_exited(&id, ExitStatus::Unknown).await;
        }
        let overdue: Vec<TargetId> = self.jobs.iter().filter(|(_, job)| job.deadline <= now).map(|(id, _)| id.clone()).collect();
        for id in overdue {
            let _ = self.processes.signal(&id, nix::sys::signal::Signal::SIGKILL as i32);
            self.gate_spawn_failed(&id, "it did not end in time".to_owned()).await;
        }
    }
}

/// How a process ends that was never let go, or that a dead keeper took with it.
const NEVER_BEGAN: [ExitStatus; 2] = [ExitStatus::Code(125), ExitStatus::Unknown];
