//! Canaries of the built binary under real traffic: equal releases (A/A), and releases with a regression, of several services at
//! once. What counts: how many equal ones are rolled back, how many regressions get through, how long both take, and what is lost.
//!
//! `--defaults 1` leaves every setting as it is by default, and runs equal releases only, unless `--regressed` says how many others;
//! `--kind N` chooses one kind of them.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bench::numbers::{argument, quantile, table};
use bench::process::Process;
use nix::sys::signal::Signal;
use serde_json::Value;
use testbed::load::{Load, LoadOptions, Tally};
use testbed::wait;

const START_MAX: Duration = Duration::from_secs(20);
/// Such a release has hung.
const RELEASE_MAX: Duration = Duration::from_secs(1_500);
/// What a client waits between two requests, besides the answer.
const PACE: Duration = Duration::from_millis(45);
const EQUAL: &str = "errors 0.001\nlatency_ms 5\nsigma 0.6\n";
const SHORT: &str = "dwell: 5s, max_step: 10m, watch: 2s, drain: 5s, keep: 0s, \
    analysis: { warm_up: 5s, timeout_bad: 5s, budget: 1%, latency_budget: 2% }";

/// What a candidate does, and from which weight on (parts per 10,000).
struct Kind {
    name: &'static str,
    behaviour: &'static str,
    from_weight: u64,
}

const KINDS: [Kind; 5] = [
    Kind { name: "errors 0.1 → 1 %", behaviour: "errors 0.01\nlatency_ms 5\nsigma 0.6\n", from_weight: 0 },
    Kind { name: "errors 0.1 → 5 %", behaviour: "errors 0.05\nlatency_ms 5\nsigma 0.6\n", from_weight: 0 },
    Kind { name: "latency × 2", behaviour: "errors 0.001\nlatency_ms 10\nsigma 0.6\n", from_weight: 0 },
    Kind { name: "2 % never answer", behaviour: "errors 0.001\nlatency_ms 5\nsigma 0.6\nhang 0.02\n", from_weight: 0 },
    Kind { name: "errors 0.1 → 3 %, at 20 % weight only", behaviour: "errors 0.03\nlatency_ms 5\nsigma 0.6\n", from_weight: 2_000 },
];

/// One release, as it ended.
struct Ended {
    kind: &'static str,
    outcome: String,
    reason: String,
    seconds: f64,
    /// Requests of clients that failed on the candidate.
    failed: u64,
}

fn main() -> anyhow::Result<()> {
    let defaults = argument("--defaults", 0) == 1;
    let services = argument("--services", if defaults { 3 } else { 8 }) as usize;
    let equal = argument("--equal", if defaults { 3 } else { 50 }) as usize;
    let regressed = argument("--regressed", if defaults { 0 } else { 50 }) as usize;
    let rate = argument("--rate", if defaults { 1_000 } else { 300 });
    let settings = if defaults { "{}".to_owned() } else { format!("{{ {SHORT} }}") };
    let folder = tempfile::tempdir()?;
    let address = SocketAddr::from(([127, 0, 0, 1], testbed::ports::free()?));
    std::fs::write(folder.path().join("changeover.yaml"), configuration(folder.path(), address, services, &settings)?)?;
    let log = std::fs::File::create(folder.path().join("log"))?;
    let mut up = Command::new(binary()?);
    up.arg("up").current_dir(folder.path()).stdout(log.try_clone()?).stderr(log);
    let _up = Process::start(up, None, Signal::SIGINT)?;
    wait::until(START_MAX, "changeover is up", || run(folder.path(), &["status"]).is_ok());
    println!(
        "strategy: {{ canary: {settings} }}; {services} services at once, {rate} requests/s each; versions fail 0.1 %, 5 ms lognormal"
    );
    let mut jobs: Vec<Option<&'static Kind>> = vec![None; equal];
    let kind = std::env::args().skip_while(|argument| argument != "--kind").nth(1).and_then(|kind| kind.parse::<usize>().ok());
    jobs.extend((0..regressed).map(|number| Some(&KINDS[kind.unwrap_or(number) % KINDS.len()])));
    // Interleaved, so that both see the same machine.
    let jobs: Vec<_> = interleaved(jobs, equal);
    let (jobs, ended) = (Mutex::new(jobs.into_iter()), Mutex::new(Vec::new()));
    let tallies = std::thread::scope(|scope| {
        let drives: Vec<_> = (0..services)
            .map(|service| {
                let (jobs, ended, folder) = (&jobs, &ended, folder.path());
                scope.spawn(move || drive(folder, address, service, rate, jobs, ended))
            })
            .collect();
        drives.into_iter().map(|drive| drive.join().expect("no panic")).collect::<anyhow::Result<Vec<Tally>>>()
    })?;
    report(&ended.into_inner().unwrap_or_default(), &tallies);
    Ok(())
}

fn interleaved<T>(mut jobs: Vec<T>, first: usize) -> Vec<T> {
    let mut others = jobs.split_off(first).into_iter();
    let mut all = Vec::new();
    for job in jobs {
        all.push(job);
        all.extend(others.next());
    }
    all.extend(others);
    all
}

/// Built beside this benchmark.
fn binary() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let binary = own.with_file_name("changeover");
    ensure!(binary.exists(), "build it first: cargo build --profile dist -p changeover ({} is missing)", binary.display());
    Ok(binary)
}

fn configuration(folder: &Path, address: SocketAddr, services: usize, settings: &str) -> anyhow::Result<String> {
    let behaviour = folder.join("behaviour");
    let mut text = format!("listeners: {{ main: '{address}' }}\nports: 28200-28999\nservices:\n");
    for service in 0..services {
        let own = behaviour.join(format!("s{service}"));
        std::fs::create_dir_all(&own)?;
        let command = serde_json::to_string(&[
            binary()?.to_string_lossy().as_ref(),
            "demo-service",
            "{version}",
            "{port}",
            "--behaviour",
            own.to_string_lossy().as_ref(),
        ])?;
        write!(
            text,
            "  s{service}:\n    routes: [{{ host: s{service}.test }}]\n    run: {{ command: {command} }}\n    \
             health: {{ path: /healthz, interval: 200ms, rise: 2 }}\n    strategy: {{ canary: {settings} }}\n"
        )?;
    }
    Ok(text)
}

fn run(folder: &Path, arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(binary()?).args(arguments).current_dir(folder).output()?;
    ensure!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Releases of one service, one after the other, until none is left.
fn drive(
    folder: &Path,
    address: SocketAddr,
    service: usize,
    rate: u64,
    jobs: &Mutex<std::vec::IntoIter<Option<&'static Kind>>>,
    ended: &Mutex<Vec<Ended>>,
) -> anyhow::Result<Tally> {
    let name = format!("s{service}");
    let behaves = |version: &str, how: &str| std::fs::write(folder.join("behaviour").join(&name).join(version), how);
    behaves("v1", EQUAL)?;
    run(folder, &["deploy", &name, "--version", "v1"])?;
    // An answer takes about 6 ms.
    let clients = (rate as f64 * (PACE.as_secs_f64() + 0.006)).round() as usize;
    let load =
        Load::start(LoadOptions { keep_alive_clients: clients, pace: Some(PACE), ..LoadOptions::new(address, format!("{name}.test")) });
    // Enough for stable's p99 to be known.
    wait::until(Duration::from_secs(60), "stable has shown its latency", || load.snapshot().requests > 3_000);
    for number in 2.. {
        let Some(job) = jobs.lock().ok().and_then(|mut jobs| jobs.next()) else { break };
        let version = format!("v{number}");
        let worse_from = job.map_or(u64::MAX, |kind| kind.from_weight);
        behaves(&version, if worse_from == 0 { job.map_or(EQUAL, |kind| kind.behaviour) } else { EQUAL })?;
        let began = Instant::now();
        let mut deploying = Command::new(binary()?)
            .args(["deploy", &name, "--version", &version])
            .current_dir(folder)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let mut got_worse = worse_from == 0;
        loop {
            if deploying.try_wait()?.is_some() {
                break;
            }
            ensure!(began.elapsed() < RELEASE_MAX, "{name} {version} did not end");
            if let Some(kind) =
                job.filter(|kind| !got_worse && release(folder, &name).is_ok_and(|it| it["weight"].as_u64() >= Some(kind.from_weight)))
            {
                behaves(&version, kind.behaviour)?;
                got_worse = true;
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        let ending = release(folder, &name)?["ending"].clone();
        let failed = load.snapshot().failed_by_version.get(&version).copied().unwrap_or_default();
        let one = Ended {
            kind: job.map_or("equal (A/A)", |kind| kind.name),
            outcome: ending["outcome"].as_str().unwrap_or_default().to_owned(),
            reason: ending["reason"].as_str().unwrap_or_default().lines().next().unwrap_or_default().to_owned(),
            seconds: began.elapsed().as_secs_f64(),
            failed,
        };
        eprintln!("{name} {version} {}: {} after {:.0} s: {}", one.kind, one.outcome, one.seconds, one.reason);
        ended.lock().map_err(|_| anyhow::anyhow!("another thread panicked"))?.push(one);
    }
    Ok(load.stop())
}

fn release(folder: &Path, name: &str) -> anyhow::Result<Value> {
    let status: Value = serde_json::from_str(&run(folder, &["status", name, "--json"])?)?;
    status["services"].get(0).map(|service| service["release"].clone()).context("the service is there")
}

fn report(ended: &[Ended], tallies: &[Tally]) {
    let mut kinds: BTreeMap<&str, Vec<&Ended>> = BTreeMap::new();
    for one in ended {
        kinds.entry(one.kind).or_default().push(one);
    }
    let head = ["", "releases", "promoted", "rolled back", "other", "seconds p50", "p90", "failed requests p50"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    let mut json = serde_json::Map::new();
    for (kind, all) in &kinds {
        let count = |outcome: &str| all.iter().filter(|one| one.outcome == outcome).count();
        let (promoted, rolled_back) = (count("promoted"), count("rolled_back"));
        let seconds: Vec<f64> = all.iter().map(|one| one.seconds).collect();
        let failed: Vec<f64> = all.iter().map(|one| one.failed as f64).collect();
        let numbers = [all.len(), promoted, rolled_back, all.len() - promoted - rolled_back];
        let mut row = vec![(*kind).to_owned()];
        row.extend(numbers.map(|number| number.to_string()));
        row.extend([quantile(&seconds, 0.5), quantile(&seconds, 0.9), quantile(&failed, 0.5)].map(|value| format!("{value:.0}")));
        rows.push(row);
        json.insert((*kind).to_owned(), serde_json::json!({ "releases": numbers[0], "promoted": promoted, "rolled_back": rolled_back }));
    }
    table(&rows);
    let requests: u64 = tallies.iter().map(|tally| tally.requests).sum();
    let lost: u64 = tallies.iter().map(|tally| tally.lost).sum();
    let failed: u64 = tallies.iter().flat_map(|tally| tally.failed_by_version.values()).sum();
    // A hung request is answered by the proxy when its time is up.
    println!("requests: {requests}   failed on a version: {failed}   without an answer of a version (hung, cut): {lost}");
    for error in tallies.iter().flat_map(|tally| &tally.last_errors).take(5) {
        println!("  {error}");
    }
    println!("{}", serde_json::json!({ "benchmark": "canary", "kinds": json, "requests": requests, "lost": lost }));
}
