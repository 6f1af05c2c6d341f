//! What a person asks: each command is decided, persisted, performed and answered here.

use std::net::SocketAddr;

use model::{Mode, ReleaseId, Runtime, ServiceName, TargetId, VersionName};
use release::{Deploy, Event, Outcome, Refusal, Rollback, Service, Settings};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::command::{Command, Rejected};
use crate::engine::{Caretaker, Ending, Waiting, wall_ms};
use crate::reserve::TakenBack;
use crate::targets::{Entry, Kept, Life};

type Reply = oneshot::Sender<Result<Value, Rejected>>;

impl Caretaker {
    pub(crate) async fn command(&mut self, command: Command, reply: Reply) {
        let answer = match command {
            Command::Deploy { service, version, addresses, message, who, supersede } => {
                self.deploy(&service, version, addresses, message, who, supersede).await
            }
            Command::Promote { service, who } => self.promote(&service, &who).await,
            Command::Abort { service, who, reason } => {
                let reason = reason.unwrap_or_else(|| format!("aborted by {who}"));
                self.abort(&service, Outcome::Aborted, reason).await
            }
            Command::Rollback { service, to, force, who } => {
                return self.rollback(&service, to, force, who, reply).await;
            }
            Command::SetMode { service, mode, who } => self.set_mode(&service, mode, &who).await,
            Command::Stop { service, who } => self.set_stopped(&service, true, &who).await,
            Command::Start { service, who } => self.set_stopped(&service, false, &who).await,
            Command::Restart { service, who } => self.restart(&service, &who).await,
            Command::Apply { desired, .. } => match self.adopt_desired(*desired).await {
                Ok(lines) => Ok(json!({ "changes": lines })),
                Err(error) => Err(Rejected::new("unavailable", error)),
            },
            Command::Plan { desired } => Ok(json!({ "changes": crate::desired::plan(&self.desired, &desired) })),
            Command::Status => Ok(self.status()),
            Command::LogFile { service, version } => self.log_of(&service, version),
            Command::Down { keep_versions } => return self.begin_ending(keep_versions, Some(reply)).await,
        };
        let _ = reply.send(answer);
    }

    pub(crate) fn service(&self, name: &ServiceName) -> Result<&Service, Rejected> {
        self.services.get(name).ok_or_else(|| {
            let known: Vec<&str> = self.services.keys().map(ServiceName::as_str).collect();
            let hint = if known.is_empty() { "no service is defined in changeover.yaml".to_owned() } else { format!("there is: {}", known.join(", ")) };
            Rejected::new("not_found", format!("there is no service `{name}`")).hint(hint)
        })
    }

    async fn deploy(
        &mut self,
        name: &ServiceName,
        version: VersionName,
        addresses: Vec<SocketAddr>,
        message: Option<String>,
        who: String,
        supersede: bool,
    ) -> Result<Value, Rejected> {
        self.service(name)?;
        let desired = self.desired.services.get(name)
            .ok_or_else(|| Rejected::new("not_found", format!("service `{name}` is not in changeover.yaml any more")))?
            .clone();
        let is_static = matches!(desired.run.runtime, Runtime::Static);
        if is_static && addresses.is_empty() && self.first_address(name, &version).is_none() {
            return Err(Rejected::new("invalid", format!("`{name}` runs elsewhere (`runtime: static`): the addresses of {version} are missing"))
                .hint(format!("changeover deploy {name} --version {version} --address 10.0.0.7:8080")));
        }
        if !is_static && !addresses.is_empty() {
            return Err(Rejected::new("invalid", format!("`{name}` is started by changeover: it takes no `--address`")));
        }
        // Deploying the stable version again in mid-release is a rollback.
        if let Some(release) = self.running_release(name) {
            if release.stable.as_ref() == Some(&version) {
                let reason = format!("{version} deployed again by {who}");
                return self.abort(name, Outcome::Aborted, reason).await;
            }
            if supersede {
                let reason = format!("superseded by {version}");
                self.abort(name, Outcome::Superseded, reason).await?;
                return Err(Rejected::new("conflict", "the running release is being superseded").hint("again in a moment"));
            }
        }
        let settings = Settings::deploy(&desired.strategy, desired.health.start_timeout_ms);
        let deploy = self.new_release(version, settings, who, message);
        let next = self.service(name)?.deploy(deploy, self.now()).map_err(|refusal| refused(name, &refusal))?;
        let release = next.release.clone().expect("just begun");
        let (from, candidate) = (release.stable.clone(), release.candidate.clone());
        let text = match &from {
            Some(stable) => format!("{name} {stable} → {candidate}   release {}, blue/green", release.number),
            None => format!("{name} → {candidate}   release {}, first deployment: no steps, it serves when healthy", release.number),
        };
        self.advance(next, vec![("began", text)]).await?;
        self.restarts.remove(&(name.clone(), candidate.clone()));
        if is_static {
            for address in addresses {
                self.add_static(name, &candidate, address).await.map_err(|error| Rejected::new("unavailable", error))?;
            }
        }
        self.perform(name).await;
        Ok(json!({ "service": name, "release": release.number, "id": release.id, "from": from, "candidate": candidate }))
    }

    pub(crate) fn new_release(&self, version: VersionName, settings: Settings, who: String, message: Option<String>) -> Deploy {
        let id = ReleaseId::new(&uuid::Uuid::now_v7().to_string()).expect("a uuid is a valid id");
        Deploy { id, version, settings, who, message, began_at_ms: wall_ms() }
    }

    async fn add_static(&mut self, name: &ServiceName, version: &VersionName, address: SocketAddr) -> Result<(), String> {
        let id = TargetId::new(&uuid::Uuid::now_v7().to_string()).expect("a uuid is a valid id");
        let kept = Kept { id: id.clone(), service: name.clone(), version: version.clone(), address, process: None, ours: false };
        self.keep_target(&kept).await?;
        self.targets.insert(id.clone(), Entry {
            kept,
            life: Life::Running,
            healthy: false,
            fallen: false,
            detail: "not asked yet".to_owned(),
            tries: 0,
            began_at: self.now(),
            checks: None,
        });
        self.begin_checks(&id);
        Ok(())
    }

    async fn promote(&mut self, name: &ServiceName, who: &str) -> Result<Value, Rejected> {
        let service = self.service(name)?;
        let Some(release) = service.running_release() else {
            return Err(Rejected::new("conflict", format!("no release of {name} is running")));
        };
        let next = service.apply(&Event::Promoted, self.now()).map_err(|illegal| {
            Rejected::new("conflict", format!("release {} of {name} does not wait for a promotion: it is {}", release.number, illegal.state))
        })?;
        let number = release.number;
        self.advance(next, vec![("promotion", format!("promoted by {who}"))]).await?;
        self.perform(name).await;
        Ok(json!({ "service": name, "release": number }))
    }

    /// Takes traffic back in mid-release.
    async fn abort(&mut self, name: &ServiceName, outcome: Outcome, reason: String) -> Result<Value, Rejected> {
        let service = self.service(name)?;
        let Some(release) = service.running_release().cloned() else {
            return Err(Rejected::new("conflict", format!("no release of {name} is running")));
        };
        let event = Event::TakenBack { outcome, reason: reason.clone() };
        match service.apply(&event, self.now()) {
            Ok(next) => {
                let record = TakenBack::Release { service: name.clone(), release: release.id.clone(), reason: reason.clone() };
                self.take_back(next, reason, record).await;
                self.perform(name).await;
            }
            // It is on its way back already.
            Err(_) => {}
        }
        Ok(json!({ "service": name, "release": release.number, "to": release.stable, "candidate": release.candidate }))
    }

    async fn rollback(&mut self, name: &ServiceName, to: Option<VersionName>, force: bool, who: String, reply: Reply) {
        let began = std::time::Instant::now();
        let planned = self.service(name).and_then(|service| {
            service.plan_rollback(to.as_ref(), force).map_err(|refusal| refused(name, &refusal))
        });
        match planned {
            Err(rejected) => drop(reply.send(Err(rejected))),
            Ok(Rollback::TakeBack { to }) => {
                let from = self.running_release(name).map(|release| release.candidate.clone());
                let served = self.running_release(name).is_some_and(|release| release.state.serves_candidate());
                let answer = self.abort(name, Outcome::Aborted, format!("rolled back by {who}")).await;
                match answer {
                    Ok(_) if served && !self.all_acknowledged() => {
                        self.switching.push(Waiting { service: name.clone(), reply, from, to, hot: true, began });
                    }
                    Ok(_) => {
                        let took_us = began.elapsed().as_micros() as u64;
                        let _ = reply.send(Ok(json!({ "service": name, "from": from, "to": to, "hot": true, "took_us": took_us })));
                    }
                    Err(rejected) => drop(reply.send(Err(rejected))),
                }
            }
            Ok(Rollback::Begin { to, hot }) => {
                let hot = hot && self.targets.values().any(|entry| entry.serves(name, &to) && entry.healthy);
                let Some(desired) = self.desired.services.get(name) else {
                    let _ = reply.send(Err(Rejected::new("not_found", format!("service `{name}` is gone"))));
                    return;
                };
                let settings = Settings::rollback(&desired.strategy, desired.health.start_timeout_ms);
                let deploy = self.new_release(to.clone(), settings, who.clone(), Some("rollback".to_owned()));
                let service = self.services.get(name).expect("looked up above");
                let from = service.active.clone();
                let next = service.roll_back(deploy, hot, self.now());
                let number = next.release.as_ref().map(|release| release.number);
                self.restarts.remove(&(name.clone(), to.clone()));
                let record = TakenBack::Version {
                    service: name.clone(),
                    from: from.clone(),
                    to: to.clone(),
                    number: number.unwrap_or_default(),
                };
                self.take_back(next, format!("rollback to {to} by {who}"), record).await;
                if hot {
                    self.switching.push(Waiting { service: name.clone(), reply, from, to: Some(to), hot, began });
                } else {
                    let _ = reply.send(Ok(json!({ "service": name, "release": number, "from": from, "to": to, "hot": false })));
                }
                self.perform(name).await;
            }
        }
    }

    async fn set_mode(&mut self, name: &ServiceName, mode: Mode, who: &str) -> Result<Value, Rejected> {
        let next = Service { mode: mode.clone(), ..self.service(name)?.clone() };
        let text = match mode {
            Mode::Serve => format!("serves again ({who})"),
            Mode::Hold { .. } => format!("requests wait ({who})"),
            Mode::Maintenance { .. } => format!("maintenance ({who})"),
        };
        self.advance(next, vec![("mode", text)]).await?;
        self.publish();
        Ok(json!({ "service": name }))
    }

    async fn set_stopped(&mut self, name: &ServiceName, stopped: bool, who: &str) -> Result<Value, Rejected> {
        let service = self.service(name)?;
        if let Some(release) = service.running_release() {
            return Err(refused(name, &Refusal::Running { release: Box::new(release.clone()) }));
        }
        let next = Service { stopped, ..service.clone() };
        let what = if stopped { "stopped" } else { "started" };
        self.advance(next, vec![(what, format!("{what} by {who}"))]).await?;
        self.restarts.retain(|(service, _), _| service != name);
        self.reconcile(name).await;
        self.publish();
        Ok(json!({ "service": name }))
    }

    /// One target after the other would need more than one: the version's targets are stopped, supervision starts them again.
    async fn restart(&mut self, name: &ServiceName, who: &str) -> Result<Value, Rejected> {
        let service = self.service(name)?;
        let Some(version) = service.serving().cloned() else {
            return Err(Rejected::new("conflict", format!("nothing was deployed to {name} yet")));
        };
        self.tell(name, "restarted", format!("{version} restarted by {who}")).await;
        let ids: Vec<TargetId> = self.targets.values()
            .filter(|entry| entry.serves(name, &version) && entry.kept.ours)
            .map(|entry| entry.kept.id.clone())
            .collect();
        for _ in &ids {
            let _ = self.start_target(name, &version).await;
        }
        for id in ids {
            self.stop_target(&id).await;
        }
        self.publish();
        Ok(json!({ "service": name, "version": version }))
    }

    fn log_of(&self, name: &ServiceName, version: Option<VersionName>) -> Result<Value, Rejected> {
        let service = self.service(name)?;
        let version = version.or_else(|| service.serving().cloned())
            .ok_or_else(|| Rejected::new("not_found", format!("nothing was deployed to {name} yet")))?;
        let file = self.log_file(name, &version);
        if !file.exists() {
            return Err(Rejected::new("not_found", format!("{name} {version} has no log")));
        }
        Ok(json!({ "file": file }))
    }

    /// The worker leaves: without or with the versions' processes.
    pub(crate) async fn begin_ending(&mut self, keep_versions: bool, reply: Option<Reply>) {
        let ending = self.ending.get_or_insert_with(|| Ending { keep_versions, replies: Vec::new() });
        ending.keep_versions &= keep_versions;
        ending.replies.extend(reply);
        if !ending.keep_versions {
            let ids: Vec<TargetId> = self.targets.values().filter(|entry| entry.kept.ours).map(|entry| entry.kept.id.clone()).collect();
            for id in ids {
                self.stop_target(&id).await;
            }
        }
    }

    /// Whether everything that must end before us has ended; answers who waits for it.
    pub(crate) fn has_ended(&mut self) -> bool {
        let Some(ending) = &mut self.ending else { return false };
        let waits = !ending.keep_versions && self.targets.values().any(|entry| entry.kept.ours);
        if waits {
            return false;
        }
        for reply in ending.replies.drain(..) {
            let _ = reply.send(Ok(json!({})));
        }
        let _ = self.processes.leave(ending.keep_versions);
        true
    }
}

/// A refusal in words: what, and how to go on.
fn refused(name: &ServiceName, refusal: &Refusal) -> Rejected {
    match refusal {
        Refusal::Running { release } => {
            let message = release.message.as_ref().map(|message| format!(": \"{message}\"")).unwrap_or_default();
            Rejected::new("conflict", format!("a release of {name} is already running (release {}, {}{message})", release.number, release.who))
                .hint(format!("replace it with `--supersede`, or stop it with `changeover abort {name}`"))
        }
        Refusal::Serving { version } => Rejected::new("conflict", format!("{version} of {name} serves already")),
        Refusal::NothingToReturnTo => {
            Rejected::new("conflict", format!("{name} has no other confirmed version to go back to"))
                .hint(format!("see `changeover history {name}`; `--to VERSION` goes to an older one"))
        }
        Refusal::NeverConfirmed { version } => {
            Rejected::new("not_found", format!("{version} of {name} was never confirmed"))
                .hint(format!("deploy it: changeover deploy {name} --version {version}"))
        }
        Refusal::Irreversible { gate } => {
            Rejected::new("conflict", format!("the migration `{gate}` of this release cannot be undone"))
                .hint("when the old version can work with the new data: `--force`")
        }
        Refusal::Stopped => Rejected::new("conflict", format!("{name} is stopped")).hint(format!("changeover start {name}")),
        Refusal::Illegal(illegal) => Rejected::new("conflict", format!("{} means nothing in {}", illegal.event, illegal.state)),
    }
}
