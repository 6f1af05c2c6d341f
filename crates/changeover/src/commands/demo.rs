//! `demo`: the product for real, on this machine: keeper, worker, store, a small service as processes, and load on it.

use std::io::IsTerminal;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::{Value, json};
use testbed::load::{Load, LoadOptions, Tally};

use crate::args::{Demo, DemoOf, DemoService, Place};
use crate::client::Client;
use crate::exit::{Exit, problem};

/// What each client waits between two requests: the demo shows a switch, not a benchmark.
const PACE: Duration = Duration::from_millis(5);
/// Nothing in the demo takes longer.
const STEP_MAX: Duration = Duration::from_secs(20);

pub(crate) fn run(demo: &Demo) -> anyhow::Result<Exit> {
    let folder = std::env::temp_dir().join(format!("changeover-demo-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let port = testbed::ports::free().context("no free port")?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let place = Place { file: folder.join("changeover.yaml"), state_dir: folder.join(".changeover") };
    let canary = demo.what == DemoOf::Canary;
    std::fs::create_dir(folder.join("behaviour"))?;
    let page = SocketAddr::from((Ipv4Addr::LOCALHOST, testbed::ports::free().context("no free port")?));
    std::fs::write(&place.file, configuration(&folder, [address, page], if canary { CANARY } else { BLUE_GREEN })?)?;
    std::fs::create_dir_all(&place.state_dir)?;
    let token = control::make_token(&place.state_dir.join("tokens"), control::Scope::Act, "demo")?;
    let log = std::fs::File::create(folder.join("up.log"))?;
    let mut up = Up(Command::new(std::env::current_exe()?)
        .arg("up")
        .arg("--file")
        .arg(&place.file)
        .arg("--state-dir")
        .arg(&place.state_dir)
        .env("DEMO_UNHEALTHY", if canary { "" } else { "v3" })
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("cannot start changeover")?);
    let title = if canary {
        "demo canary · a small web service, real load, a judge"
    } else {
        "demo · a small web service, real load, real switches"
    };
    anstream::println!("changeover {title}\n");
    anstream::println!("  look at it: http://{page}   token: {token}\n");
    let client = Client::new(&place)?;
    wait("changeover is up", || client.get("/v1/status").ok())?;
    let lost = if canary { canary::show(&client, address, &folder)? } else { show(&client, address)? };
    if demo.keep {
        anstream::println!("\n  it runs on: http://{address}   state: changeover --file {} status", place.file.display());
        anstream::println!("  end it with: changeover --file {} down", place.file.display());
        std::mem::forget(up);
    } else {
        client.post("/v1/down", &json!({}))?;
        let _ = up.0.wait();
        std::fs::remove_dir_all(&folder)?;
    }
    anstream::println!("\n  next: put it before your own service:  changeover init && changeover up");
    Ok(if lost == 0 { Exit::Done } else { Exit::Failed })
}

/// The running changeover; ended, with its versions, also when the demo fails.
struct Up(Child);

impl Drop for Up {
    fn drop(&mut self) {
        if let Ok(None) = self.0.try_wait() {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.0.id() as i32), nix::sys::signal::Signal::SIGINT);
            let _ = self.0.wait();
        }
    }
}

const BLUE_GREEN: &str = "blue_green: { watch: 3s, drain: 10s }";
/// Two minutes are too short for the defaults; what is different is printed.
const CANARY: &str =
    "canary: { dwell: 5s, watch: 5s, drain: 10s, analysis: { warm_up: 3s, timeout_bad: 3s, budget: 1%, latency_budget: 2% } }";

fn configuration(folder: &Path, [address, page]: [SocketAddr; 2], strategy: &str) -> anyhow::Result<String> {
    let own = std::env::current_exe()?;
    let (own, behaviour) = (own.to_string_lossy(), folder.join("behaviour"));
    let command = [&own, "demo-service", "{version}", "{port}", "--behaviour", &behaviour.to_string_lossy()];
    let command = serde_json::to_string(&command)?;
    Ok(format!(
        "listeners:\n  main: {address}\napi: {page}\nservices:\n  demo:\n    run: {{ command: {command} }}\n    \
         health: {{ path: /healthz, interval: 200ms, rise: 3, start_timeout: 3s }}\n    \
         strategy: {{ {strategy} }}\n"
    ))
}

fn show(client: &Client, address: SocketAddr) -> anyhow::Result<u64> {
    deploy(client, "v1")?;
    let load = Load::start(LoadOptions {
        keep_alive_clients: 12,
        fresh_clients: 2,
        h2_clients: 2,
        pace: Some(PACE),
        ..LoadOptions::new(address, "demo.localhost")
    });
    let mut meter = Meter { load: &load, last: load.snapshot(), at: Instant::now() };
    meter.serve("v1 serves", Duration::from_secs(3));
    anstream::println!("  deploy v2   start → healthy → preview http://v2.demo.localhost:{} → switch → drain → watch", address.port());
    let began = release(client)?;
    deploy(client, "v2")?;
    let switch_us = switched_us(client)?;
    meter.serve(&format!("v1 → v2  {}", ms(switch_us)), Duration::from_secs(2));
    let answer = client.post("/v1/services/demo/rollback", &json!({ "who": "demo" }))?;
    let rollback_us = answer["took_us"].as_u64().unwrap_or_default();
    meter.serve(&format!("v2 → v1  {}", ms(rollback_us)), Duration::from_secs(3));
    wait("the rollback is done", || ended(client).then_some(()))?;
    anstream::println!("  deploy v3   a version that never becomes healthy");
    let failed = deploy(client, "v3");
    let reason = last_release(client)?["ending"]["reason"].as_str().unwrap_or_default().to_owned();
    anyhow::ensure!(failed? == "failed", "v3 was expected to fail its health gate");
    for line in reason.lines().take(2) {
        anstream::println!("              {}", line.trim());
    }
    anstream::println!("              failed its gate; v1 serves on, nothing changed");
    meter.serve("v1 serves on", Duration::from_secs(2));
    let tally = load.stop();
    let failed: u64 = tally.failed_by_version.values().sum();
    let stray = tally.requests - tally.lost - failed - tally.by_version.values().sum::<u64>();
    let lost = tally.lost + stray;
    anstream::println!("\n  requests: {}   lost: {lost}   switch: {}   rollback: {}", tally.requests, ms(switch_us), ms(rollback_us));
    for error in &tally.last_errors {
        anstream::println!("  lost: {error}");
    }
    anyhow::ensure!(last_release(client)?["number"].as_u64() > began, "no release was recorded");
    Ok(lost)
}

fn ms(us: u64) -> String {
    format!("{:.1} ms", us as f64 / 1000.0)
}

/// Begins a release and waits for its end; returns its outcome.
fn deploy(client: &Client, version: &str) -> anyhow::Result<String> {
    client.post("/v1/services/demo/deploy", &json!({ "version": version, "who": "demo" }))?;
    wait("the release ends", || ended(client).then_some(()))?;
    Ok(last_release(client)?["ending"]["outcome"].as_str().unwrap_or_default().to_owned())
}

fn last_release(client: &Client) -> anyhow::Result<Value> {
    Ok(client.get("/v1/status")?["services"][0]["release"].clone())
}

fn release(client: &Client) -> anyhow::Result<Option<u64>> {
    Ok(last_release(client)?["number"].as_u64())
}

fn ended(client: &Client) -> bool {
    last_release(client).is_ok_and(|release| !release["ending"].is_null())
}

fn switched_us(client: &Client) -> anyhow::Result<u64> {
    Ok(client.get("/v1/status")?["services"][0]["last_switch_us"].as_u64().unwrap_or_default())
}

fn wait<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> anyhow::Result<T> {
    let deadline = Instant::now() + STEP_MAX;
    while Instant::now() < deadline {
        if let Some(found) = condition() {
            return Ok(found);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Err(problem(Exit::Failed, format!("not within {STEP_MAX:?}: {what}"), None))
}

/// Shows the load while a version serves.
struct Meter<'a> {
    load: &'a Load,
    last: Tally,
    at: Instant,
}

impl Meter<'_> {
    fn serve(&mut self, what: &str, time: Duration) {
        let until = Instant::now() + time;
        let live = std::io::stdout().is_terminal();
        while Instant::now() < until {
            std::thread::sleep(Duration::from_millis(200).min(until.saturating_duration_since(Instant::now())));
            if live {
                anstream::print!("\r{}", self.line(what));
                let _ = std::io::Write::flush(&mut std::io::stdout());
            }
        }
        let line = self.line(what);
        if live {
            anstream::println!("\r{line}")
        } else {
            anstream::println!("{line}")
        }
        (self.last, self.at) = (self.load.snapshot(), Instant::now());
    }

    fn line(&self, what: &str) -> String {
        let now = self.load.snapshot();
        let rate = (now.requests - self.last.requests) as f64 / self.at.elapsed().as_secs_f64();
        let bar = "█".repeat(((rate / 100.0) as usize).clamp(1, 27));
        format!("  {what:<20} {bar:<27} {rate:>6.0} req/s   lost {}", now.lost)
    }
}

/// A version that is as good as stable, and one that is not.
mod canary {
    use std::net::SocketAddr;
    use std::path::Path;
    use std::time::{Duration, Instant};

    use serde_json::{Value, json};
    use testbed::load::{Load, LoadOptions};

    use super::{Meter, PACE, deploy, last_release};
    use crate::client::Client;

    /// Nothing in the demo takes longer.
    const RELEASE_MAX: Duration = Duration::from_secs(120);

    pub(super) fn show(client: &Client, address: SocketAddr, folder: &Path) -> anyhow::Result<u64> {
        let behaves = |version: &str, errors: &str| {
            std::fs::write(folder.join("behaviour").join(version), format!("errors {errors}\nlatency_ms 2\nsigma 0.4\n"))
        };
        for (version, errors) in [("v1", "0.001"), ("v2", "0.001"), ("v3", "0.01")] {
            behaves(version, errors)?;
        }
        anstream::println!("  so that it fits into two minutes (in brackets what is usual):");
        anstream::println!("  a step lasts 5 s [60 s] at least, of which 3 s [30 s] warm up, a request fails at 3 s [30 s];");
        anstream::println!("  at the next step 1 % [0.1 %] of all traffic may fail more, 2 % [0.2 %] be slower\n");
        deploy(client, "v1")?;
        let load = Load::start(LoadOptions {
            keep_alive_clients: 20,
            fresh_clients: 2,
            h2_clients: 4,
            pace: Some(PACE),
            ..LoadOptions::new(address, "demo.localhost")
        });
        let mut meter = Meter { load: &load, last: load.snapshot(), at: Instant::now() };
        meter.serve("v1 serves", Duration::from_secs(4));
        anstream::println!("  deploy v2   as good as v1: 0.1 % of its requests fail, too");
        let outcome = follow(client, "v2")?;
        anyhow::ensure!(outcome == "promoted", "v2 was expected to be promoted, and was {outcome}");
        meter.serve("v2 serves", Duration::from_secs(2));
        anstream::println!("  deploy v3   worse: 1 % of its requests fail");
        let outcome = follow(client, "v3")?;
        anyhow::ensure!(outcome == "rolled_back", "v3 was expected to be rolled back, and was {outcome}");
        meter.serve("v2 serves on", Duration::from_secs(2));
        let tally = load.stop();
        let failed: u64 = tally.failed_by_version.values().sum();
        let lost = tally.lost + (tally.requests - tally.lost - failed - tally.by_version.values().sum::<u64>());
        anstream::println!("\n  requests: {}   lost: {lost} (by changeover)", tally.requests);
        let of = |version: &str| tally.failed_by_version.get(version).copied().unwrap_or_default();
        anstream::println!("  failed on the versions themselves: v1 {}, v2 {}, v3 {}", of("v1"), of("v2"), of("v3"));
        for error in &tally.last_errors {
            anstream::println!("  lost: {error}");
        }
        anstream::println!("  every look and number: changeover analysis show 3 (with --keep)");
        Ok(lost)
    }

    /// Begins a release and shows what is told of it; returns its outcome.
    fn follow(client: &Client, version: &str) -> anyhow::Result<String> {
        let answer = client.post("/v1/services/demo/deploy", &json!({ "version": version, "who": "demo" }))?;
        let mut since = answer["since"].as_u64().unwrap_or_default();
        let until = Instant::now() + RELEASE_MAX;
        loop {
            since = client.events("&service=demo", since, |event| {
                show_event(event);
                true
            })?;
            let release = last_release(client)?;
            if let Some(outcome) = release["ending"]["outcome"].as_str() {
                anstream::println!(
                    "              {}: {}",
                    outcome.replace('_', " "),
                    release["ending"]["reason"].as_str().unwrap_or_default()
                );
                return Ok(outcome.to_owned());
            }
            anyhow::ensure!(Instant::now() < until, "{version} did not end within {RELEASE_MAX:?}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn show_event(event: &Value) {
        let shown = ["step", "advanced", "switched", "regressed", "returned", "watch_passed", "holds"];
        if event["kind"].as_str().is_some_and(|kind| shown.contains(&kind)) {
            anstream::println!("    {}", event["text"].as_str().unwrap_or_default());
        }
    }
}

/// The demo's service; `DEMO_UNHEALTHY` names a version that never becomes healthy.
pub(crate) fn service(service: DemoService) -> anyhow::Result<Exit> {
    let broken = std::env::var("DEMO_UNHEALTHY").is_ok_and(|version| version == service.version);
    testbed::service::run(testbed::service::Options {
        port: service.port,
        version: service.version,
        healthy: !service.unhealthy && !broken,
        record: service.record,
        behaviour: service.behaviour,
        ..testbed::service::Options::default()
    })?;
    Ok(Exit::Done)
}
