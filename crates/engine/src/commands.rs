//! What a person asks: each command is decided, persisted, performed and answered here.

use std::net::SocketAddr;

use model::{Mode, ReleaseId, Runtime, ServiceName, TargetId, VersionName};
use release::{Deploy, Event, Outcome, Refusal, Rollback, Service, Settings};
use serde_json::{Value, json};

use crate::command::{Command, Rejected, WantedDeploy, WhenRunning};
use crate::engine::{Caretaker, Reply, Waiting, wall_ms};
use crate::fault_points;
use crate::gates::Unfinished;
use crate::leaving::Restarting;
use crate::releases::began;
use crate::take_back::TakenBack;

impl Caretaker {
    pub(crate) async fn command(&mut self, command: Command, reply: Reply) {
        let answer = match command {
            Command::Deploy(wanted) => self.deploy(wanted).await,
            Command::Retry { service, who } => self.retry(&service, who).await,
            Command::Promote { service, who, full, step, why } => return self.promote(&service, &who, (full, step, why), reply).await,
            Command::Pause { service, who, why } => self.pause_release(&service, &who, why).await,
            Command::Unpause { service, who } => self.unpause_release(&service, &who).await,
            Command::Forecast { service, version } => self.forecast(&service, &version),
            Command::Abort { service, force, who, reason } => {
                let reason = reason.unwrap_or_else(|| format!("aborted by {who}"));
                self.abort(&service, force, reason).await
            }
            Command::Rollback { service, to, force, who } => {
                return self.rollback(&service, to, force, who, reply).await;
            }
            Command::SetMode { service, mode, who } => self.set_mode(&service, mode, &who).await,
            Command::Stop { service, who } => self.set_stopped(&service, true, &who).await,
            Command::Start { service, who } => self.set_stopped(&service, false, &who).await,
            Command::Restart { service, who } => return self.restart(&service, &who, reply).await,
            Command::Remove { service, who } => self.remove(&service, &who).await,
            Command::UpgradeBegins { .. } if !self.processes.is_kept() => {
                let rejected = Rejected::new("conflict", "the keeper is gone, so nothing can be started; nothing was changed");
                Err(rejected.hint("start it with `changeover up`"))
            }
            Command::UpgradeBegins { text, who } => {
                let since = self.last_seq();
                self.tell_of("", None, "upgrade_began", format!("{text} ({who})")).await;
                Ok(json!({ "since": since }))
            }
            Command::Resume { who } => self.resume(&who).await,
            Command::Apply { desired, .. } => return self.apply_desired(*desired, reply).await,
            Command::Plan { desired } => Ok(json!({ "changes": crate::desired::plan(&self.desired, &desired) })),
            Command::Status => Ok(self.status()),
            Command::Cost { service } => match &service {
                Some(name) => self.service(name).map(|_| self.cost(Some(name))),
                None => Ok(self.cost(None)),
            },
            Command::LogFile { service, version } => self.log_of(&service, version),
            Command::Down { .. } if !self.processes.is_kept() => {
                Err(Rejected::new("conflict", "the keeper is gone, so no process can be stopped")
                    .hint("start it with `changeover up`, then say `changeover down`"))
            }
            Command::Down { keep_versions } => return self.begin_ending(keep_versions, Some(reply)).await,
        };
        let _ = reply.send(answer);
    }

    pub(crate) fn service(&self, name: &ServiceName) -> Result<&Service, Rejected> {
        self.services.get(name).ok_or_else(|| {
            let known: Vec<&str> = self.services.keys().map(ServiceName::as_str).collect();
            let hint = if known.is_empty() {
                "no service is defined in changeover.yaml".to_owned()
            } else {
                format!("there is: {}", known.join(", "))
            };
            Rejected::new("not_found", format!("there is no service `{name}`")).hint(hint)
        })
    }

    async fn deploy(&mut self, wanted: WantedDeploy) -> Result<Value, Rejected> {
        let WantedDeploy { service: name, version, mut addresses, message, who, when_running } = wanted;
        addresses.sort();
        addresses.dedup();
        let name = &name;
        if version.as_str().ends_with(release::BASELINE) {
            let why = format!("`{version}` cannot be the name of a version: `{}` is for fresh targets of stable", release::BASELINE);
            return Err(Rejected::new("invalid", why));
        }
        let desired = self.deployable(name)?;
        let is_static = matches!(desired.run.runtime, Runtime::Static);
        if is_static && addresses.is_empty() && self.first_address(name, &version).is_none() {
            return Err(Rejected::new(
                "invalid",
                format!("`{name}` runs elsewhere (`runtime: static`): the addresses of {version} are missing"),
            )
            .hint(format!("changeover deploy {name} --version {version} --address 10.0.0.7:8080")));
        }
        if !is_static && !addresses.is_empty() {
            return Err(Rejected::new("invalid", format!("`{name}` is started by changeover: it takes no `--address`")));
        }
        // Deploying the stable version again in mid-release is a rollback.
        let is_stable = self.running_release(name).is_some_and(|release| release.stable.as_ref() == Some(&version));
        if is_stable && when_running != WhenRunning::Queue {
            return self.abort(name, false, format!("{version} deployed again by {who}")).await;
        }
        let settings = Settings::deploy(&desired.strategy, desired.health.start_timeout_ms);
        let deploy = self.new_release(version, addresses, settings, who, message);
        let (service, now) = (self.service(name)?, self.now());
        let runs = service.running_release().is_some();
        match when_running {
            WhenRunning::Queue if runs => {
                let next = service.queue(deploy).map_err(|refusal| refused(name, &refusal))?;
                self.wait_in_line(name, next, "queue", "waits      for the running release to end").await
            }
            WhenRunning::Supersede if runs => {
                let displaced = service.queued.as_ref().map(|queued| queued.number);
                let superseded_by = format!("superseded by {}", deploy.version);
                let next = service.supersede(deploy, now).map_err(|refusal| refused(name, &refusal))?;
                let text = "waits      for the superseded release to give its traffic back and drain";
                let answer = self.wait_in_line(name, next, "supersede", text).await?;
                if let Some(displaced) = displaced {
                    self.tell_of(name.as_str(), Some(displaced), "superseded", superseded_by).await;
                }
                Ok(answer)
            }
            _ => {
                let next = service.deploy(deploy, now).map_err(|refusal| refused(name, &refusal))?;
                self.begin(name, next).await
            }
        }
    }

    pub(crate) fn deployable(&self, name: &ServiceName) -> Result<model::Service, Rejected> {
        self.service(name)?;
        self.desired
            .services
            .get(name)
            .cloned()
            .ok_or_else(|| Rejected::new("not_found", format!("service `{name}` is not in changeover.yaml any more")))
    }

    /// Keeps and performs the begin of a release.
    async fn begin(&mut self, name: &ServiceName, next: Service) -> Result<Value, Rejected> {
        let release = next.release.clone().expect("just begun");
        let since = self.last_seq();
        self.advance(next, "deploy", vec![("began", began(name, &release))]).await?;
        self.unpause(name).await;
        self.begin_release(name).await;
        Ok(
            json!({ "service": name, "release": release.number, "id": release.id, "from": release.stable, "candidate": release.candidate, "since": since }),
        )
    }

    async fn wait_in_line(&mut self, name: &ServiceName, next: Service, cause: &str, text: &str) -> Result<Value, Rejected> {
        let queued = next.queued.clone().expect("just queued");
        let since = self.last_seq();
        self.advance(next, cause, vec![]).await?;
        self.tell_of(name.as_str(), Some(queued.number), "waits", text.to_owned()).await;
        self.perform(name).await;
        Ok(json!({ "service": name, "release": queued.number, "id": queued.deploy.id, "candidate": queued.deploy.version, "since": since }))
    }

    async fn retry(&mut self, name: &ServiceName, who: String) -> Result<Value, Rejected> {
        let desired = self.deployable(name)?;
        let last = self.service(name)?.to_retry().map_err(|refusal| refused(name, &refusal))?.clone();
        let passed = self.migrations_since(&last).map_err(|unfinished| unfinished_migration(name, &last, unfinished))?;
        let settings = Settings::deploy(&desired.strategy, desired.health.start_timeout_ms);
        let deploy = self.new_release(last.candidate, Vec::new(), settings, who, last.message);
        let mut next = self.service(name)?.retry(deploy, self.now()).map_err(|refusal| refused(name, &refusal))?;
        if let Some(release) = next.release.as_mut() {
            release.migrated.extend(passed);
        }
        self.begin(name, next).await
    }

    pub(crate) fn new_release(
        &self,
        version: VersionName,
        addresses: Vec<SocketAddr>,
        settings: Settings,
        who: String,
        message: Option<String>,
    ) -> Deploy {
        let id = ReleaseId::new(&uuid::Uuid::now_v7().to_string()).expect("a uuid is a valid id");
        Deploy { id, version, addresses, settings, who, message, began_at_ms: wall_ms() }
    }

    /// Answered when every data thread routes to the candidate.
    async fn promote(&mut self, name: &ServiceName, who: &str, how: (bool, Option<usize>, Option<String>), reply: Reply) {
        let canary = self.running_release(name).filter(|release| !release.settings.steps().is_empty()).cloned();
        if let Some(release) = canary.filter(|_| !self.paused.contains_key(name)) {
            return drop(reply.send(self.promote_step(name, &release, who, how).await));
        }
        if how.0 || how.1.is_some() {
            let rejected =
                Rejected::new("conflict", format!("{name} is not at a step of a canary")).hint("leave `--full` and `--step` out");
            return drop(reply.send(Err(rejected)));
        }
        let (began, since) = (std::time::Instant::now(), self.last_seq());
        if self.paused.contains_key(name) {
            let rejected = Rejected::new("conflict", format!("{name} is paused, because the worker crashed several times"));
            return drop(reply.send(Err(rejected.hint("changeover resume"))));
        }
        let planned = self.service(name).and_then(|service| {
            let release = service.running_release().ok_or_else(|| no_release(name))?;
            let next = service.apply(&Event::Promoted, self.now()).map_err(|illegal| {
                Rejected::new(
                    "conflict",
                    format!("release {} of {name} does not wait for a promotion: it is {}", release.number, illegal.state),
                )
            })?;
            Ok((next, release.clone()))
        });
        let (next, before) = match planned {
            Ok(planned) => planned,
            Err(rejected) => return drop(reply.send(Err(rejected))),
        };
        if let Err(rejected) = self.advance(next, Event::Promoted.name(), vec![("promotion", format!("promoted   by {who}"))]).await {
            return drop(reply.send(Err(rejected)));
        }
        let (from, to, release) = (before.stable, Some(before.candidate), before.number);
        self.switching.push(Waiting { service: name.clone(), reply, release, from, to, hot: true, began, since });
        self.perform(name).await;
        fault_points::crash(release, (before.state.name(), Event::Promoted.name()), "performed");
    }

    /// Takes traffic back in mid-release.
    async fn abort(&mut self, name: &ServiceName, force: bool, reason: String) -> Result<Value, Rejected> {
        let service = self.service(name)?;
        let Some(release) = service.running_release().cloned() else {
            return Err(no_release(name));
        };
        service.check_reversible(force).map_err(|refusal| refused(name, &refusal))?;
        let event = Event::TakenBack { outcome: Outcome::Aborted, reason: reason.clone() };
        let queued = service.queued.clone();
        let Ok(next) = service.apply(&event, self.now()) else {
            // On its way back already; what waits behind it does not begin either.
            if queued.is_some() {
                let next = Service { queued: None, ..service.clone() };
                self.advance(next, "unqueued", vec![]).await?;
            }
            if let Some(queued) = queued {
                self.tell_of(name.as_str(), Some(queued.number), "aborted", reason).await;
            }
            return Ok(json!({ "service": name, "release": release.number, "to": release.stable, "candidate": release.candidate }));
        };
        let record =
            TakenBack::Release { service: name.clone(), release: release.id.clone(), outcome: Outcome::Aborted, reason: reason.clone() };
        self.take_back(next, event.name(), ("taken_back", reason.clone()), record).await;
        self.perform(name).await;
        fault_points::crash(release.number, (release.state.name(), event.name()), "performed");
        if let Some(queued) = queued {
            self.tell_of(name.as_str(), Some(queued.number), "aborted", reason).await;
        }
        Ok(json!({ "service": name, "release": release.number, "to": release.stable, "candidate": release.candidate }))
    }

    async fn rollback(&mut self, name: &ServiceName, to: Option<VersionName>, force: bool, who: String, reply: Reply) {
        let (began, since) = (std::time::Instant::now(), self.last_seq());
        let planned =
            self.service(name).and_then(|service| service.plan_rollback(to.as_ref(), force).map_err(|refusal| refused(name, &refusal)));
        match planned {
            Err(rejected) => drop(reply.send(Err(rejected))),
            Ok(Rollback::TakeBack { to }) => {
                let from = self.running_release(name).map(|release| release.candidate.clone());
                let release = self.running_release(name).map_or(0, |release| release.number);
                let served = self.running_release(name).is_some_and(|release| release.state.serves_candidate());
                let answer = self.abort(name, force, format!("rolled back by {who}")).await;
                match answer {
                    // At a first deployment there is nobody to return to, and no switch to wait for.
                    Ok(_) if served && to.is_some() && !self.all_acknowledged() => {
                        self.switching.push(Waiting { service: name.clone(), reply, release, from, to, hot: true, began, since });
                    }
                    Ok(_) => {
                        let took_us = began.elapsed().as_micros() as u64;
                        let _ = reply.send(Ok(json!({ "service": name, "from": from, "to": to, "hot": true, "took_us": took_us })));
                    }
                    Err(rejected) => drop(reply.send(Err(rejected))),
                }
            }
            Ok(Rollback::Begin { to, hot }) => {
                let hot =
                    (hot || self.runs_elsewhere(name, &to)) && self.targets.values().any(|entry| entry.serves(name, &to) && entry.healthy);
                let Some(desired) = self.desired.services.get(name) else {
                    let _ = reply.send(Err(Rejected::new("not_found", format!("service `{name}` is gone"))));
                    return;
                };
                let settings = Settings::rollback(&desired.strategy, desired.health.start_timeout_ms);
                let deploy = self.new_release(to.clone(), Vec::new(), settings, who.clone(), Some("rollback".to_owned()));
                let service = self.services.get(name).expect("looked up above");
                let (from, standing) = (service.active.clone(), service.standing(&to).name());
                let next = service.roll_back(deploy, hot, self.now());
                let number = next.release.as_ref().map(|release| release.number);
                self.restarts.remove(&(name.clone(), to.clone()));
                let number_kept = number.unwrap_or_default();
                let record = TakenBack::Version { service: name.clone(), from: from.clone(), to: to.clone(), number: number_kept, hot };
                let told = format!("rollback   {} → {to} by {who}", from.as_ref().map(ToString::to_string).unwrap_or_default());
                self.take_back(next, "rollback", ("taken_back", told), record).await;
                if hot {
                    let release = number.unwrap_or_default();
                    self.switching.push(Waiting { service: name.clone(), reply, release, from, to: Some(to), hot, began, since });
                } else {
                    let _ =
                        reply.send(Ok(json!({ "service": name, "release": number, "from": from, "to": to, "hot": false, "standby": standing, "since": since })));
                }
                self.perform(name).await;
                fault_points::crash(number.unwrap_or_default(), ("none", "rollback"), "performed");
            }
        }
    }

    /// Its previous versions are not ours to stop: those that answer are always hot.
    pub(crate) fn runs_elsewhere(&self, name: &ServiceName, version: &VersionName) -> bool {
        self.targets.values().any(|entry| !entry.kept.ours && entry.serves(name, version))
    }

    async fn set_mode(&mut self, name: &ServiceName, mode: Mode, who: &str) -> Result<Value, Rejected> {
        let next = Service { mode: mode.clone(), ..self.service(name)?.clone() };
        let text = match mode {
            Mode::Serve => format!("serves again ({who})"),
            Mode::Hold { .. } => format!("{} wait ({who})", self.units_of(name)),
            Mode::Maintenance { .. } => format!("maintenance ({who})"),
        };
        self.advance(next, "mode", vec![("mode", text)]).await?;
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
        self.advance(next, what, vec![(what, format!("{what} by {who}"))]).await?;
        self.restarts.retain(|(service, _), _| service != name);
        self.reconcile(name).await;
        self.publish();
        Ok(json!({ "service": name }))
    }

    async fn restart(&mut self, name: &ServiceName, who: &str, reply: Reply) {
        let serving = self.service(name).and_then(|service| match service.serving() {
            Some(_) if service.stopped => Err(refused(name, &Refusal::Stopped)),
            Some(version) if self.runs_elsewhere(name, version) => {
                let why = format!("{version} of {name} runs elsewhere (`runtime: static`): restart it there");
                Err(Rejected::new("conflict", why))
            }
            Some(version) => Ok(version.clone()),
            None => Err(Rejected::new("conflict", format!("nothing was deployed to {name} yet"))),
        });
        let version = match serving {
            Ok(version) => version,
            Err(rejected) => return drop(reply.send(Err(rejected))),
        };
        self.restarts.remove(&(name.clone(), version.clone()));
        self.tell(name, "restarted", format!("{version} restarted by {who}")).await;
        let olds: Vec<TargetId> = self
            .targets
            .values()
            .filter(|entry| entry.serves(name, &version) && entry.kept.ours && entry.replaced_by.is_none())
            .map(|entry| entry.kept.id.clone())
            .collect();
        let mut failed = None;
        for old in olds {
            match self.start_target(name, &version).await {
                Ok(new) => drop(self.targets.get_mut(&old).map(|entry| entry.replaced_by = Some(new))),
                Err(error) => failed = Some(format!("cannot start {version}: {error}")),
            }
        }
        self.restarting.push(Restarting { service: name.clone(), reply, failed });
        self.reconcile(name).await;
    }

    async fn remove(&mut self, name: &ServiceName, who: &str) -> Result<Value, Rejected> {
        let service = self.service(name)?;
        if let Some(release) = service.running_release() {
            return Err(refused(name, &Refusal::Running { release: Box::new(release.clone()) }));
        }
        let removed = service.serving().cloned();
        let next = Service { next_number: service.next_number, ..Service::new(name.clone()) };
        self.advance(next, "removed", vec![("removed", format!("removed by {who}; it can be deployed anew"))]).await?;
        self.unpause(name).await;
        self.restarts.retain(|(service, _), _| service != name);
        let elsewhere: Vec<TargetId> = self
            .targets
            .values()
            .filter(|entry| entry.kept.service == *name && !entry.kept.ours)
            .map(|entry| entry.kept.id.clone())
            .collect();
        for id in elsewhere {
            self.forget_target(&id).await;
        }
        self.reconcile(name).await;
        self.publish();
        Ok(json!({ "service": name, "removed": removed }))
    }

    async fn resume(&mut self, who: &str) -> Result<Value, Rejected> {
        if self.paused.is_empty() {
            return Err(Rejected::new("conflict", "nothing is paused"));
        }
        let names = self.unpause_all().await?;
        self.tell_of("", None, "resumed", format!("releases go on ({who})")).await;
        for name in &names {
            self.perform(name).await;
        }
        Ok(json!({ "services": names }))
    }

    fn log_of(&self, name: &ServiceName, version: Option<VersionName>) -> Result<Value, Rejected> {
        let service = self.service(name)?;
        let version = version
            .or_else(|| service.serving().cloned())
            .ok_or_else(|| Rejected::new("not_found", format!("nothing was deployed to {name} yet")))?;
        let file = self.log_file(name, &version);
        if !file.exists() {
            let logs = file.parent().and_then(|folder| std::fs::read_dir(folder).ok()).into_iter().flatten().flatten();
            let mut known: Vec<String> = logs.filter_map(|log| Some(log.file_name().to_str()?.strip_suffix(".log")?.to_owned())).collect();
            known.sort();
            let rejected = Rejected::new("not_found", format!("{name} {version} has no log"));
            return Err(if known.is_empty() { rejected } else { rejected.hint(format!("there is one of: {}", known.join(", "))) });
        }
        Ok(json!({ "file": file }))
    }
}

fn unfinished_migration(name: &ServiceName, last: &release::Release, unfinished: Unfinished) -> Rejected {
    match unfinished {
        Unfinished::Runs { gate } => Rejected::new("conflict", format!("the migration `{gate}` of release {} still runs", last.number))
            .hint("try again when it has ended"),
        Unfinished::Interrupted { gate } => Rejected::new(
            "conflict",
            format!(
                "the migration `{gate}` of release {} was interrupted: whether it finished is unknown, and it is not run twice",
                last.number
            ),
        )
        .hint(format!("look at the data; then `changeover deploy {name} --version {}` runs it anew", last.candidate)),
    }
}

pub(crate) fn no_release(name: &ServiceName) -> Rejected {
    Rejected::new("conflict", format!("no release of {name} is running"))
        .hint(format!("begin one with `changeover deploy {name} --version VERSION`; to go back, say `changeover rollback {name}`"))
}

/// A refusal in words: what, and how to go on.
pub(crate) fn refused(name: &ServiceName, refusal: &Refusal) -> Rejected {
    match refusal {
        Refusal::Running { release } => {
            let message = release.message.as_ref().map(|message| format!(": \"{message}\"")).unwrap_or_default();
            let ago = ago(wall_ms().saturating_sub(release.began_at_ms));
            Rejected::new(
                "conflict",
                format!("a release of {name} is already running (release {}, {}, {ago}{message})", release.number, release.who),
            )
            .hint(format!("wait for it with `--queue`, replace it with `--supersede`, or stop it with `changeover abort {name}`"))
        }
        Refusal::Queued { number, who } => {
            Rejected::new("conflict", format!("release {number} of {name} waits already for the running one to end ({who})"))
                .hint("take its place with `--supersede`")
        }
        Refusal::FirstBack { to } => Rejected::new("conflict", format!("a release of {name} runs, and a rollback goes back to {to}"))
            .hint(format!("first `changeover rollback {name}`, then with `--to`")),
        Refusal::OnItsWay { to } => Rejected::new("conflict", format!("{name} is going back to {to} already"))
            .hint(format!("see `changeover status`; `changeover abort {name}` ends the rollback")),
        Refusal::NothingToRetry => Rejected::new("conflict", format!("the last release of {name} did not fail"))
            .hint(format!("changeover deploy {name} --version VERSION")),
        Refusal::Serving { version } => Rejected::new("conflict", format!("{version} of {name} serves already")),
        Refusal::NothingToReturnTo => Rejected::new("conflict", format!("{name} has no other confirmed version to go back to"))
            .hint(format!("see `changeover history {name}`; `--to VERSION` goes to an older one")),
        Refusal::NeverConfirmed { version } => Rejected::new("not_found", format!("{version} of {name} was never confirmed"))
            .hint(format!("deploy it: changeover deploy {name} --version {version}")),
        Refusal::Irreversible { gate } => Rejected::new("conflict", format!("the migration `{gate}` of this release cannot be undone"))
            .hint("when the old version can work with the new data: `--force`"),
        Refusal::Stopped => Rejected::new("conflict", format!("{name} is stopped")).hint(format!("changeover start {name}")),
        Refusal::NothingRuns => no_release(name),
        Refusal::NoSteps => Rejected::new("conflict", format!("the release of {name} has no steps to be held at"))
            .hint("a blue/green release waits for a person with `promotion: manual`"),
        Refusal::PastTheSteps { state } => {
            Rejected::new("conflict", format!("the release of {name} is past its steps: it is {}", state.replace('_', " ")))
                .hint(format!("changeover rollback {name} takes it back"))
        }
        Refusal::NotPaused => Rejected::new("conflict", format!("the release of {name} is not paused")),
        Refusal::Illegal(illegal) => Rejected::new("conflict", format!("{} means nothing in {}", illegal.event, illegal.state)),
    }
}

fn ago(ms: u64) -> String {
    match ms / 1_000 {
        seconds @ 0..120 => format!("{seconds} s ago"),
        seconds @ 120..7_200 => format!("{} min ago", seconds / 60),
        seconds => format!("{} h ago", seconds / 3_600),
    }
}
