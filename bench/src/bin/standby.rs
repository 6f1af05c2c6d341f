//! What a rollback takes from each stage of the standby, by how much memory the version holds: from the command to the last request
//! *started* that the version it leaves answers. The commands of the built binary, under load.
//!
//! `--rounds 5`

use std::fs;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::ensure;
use bench::contender::binary;
use bench::numbers::{argument, median, ms, table};
use bench::process::Process;
use nix::sys::signal::Signal;
use testbed::load::{Load, LoadOptions};
use testbed::wait;

const DEADLINE: Duration = Duration::from_secs(30);
/// Every request that the version before got has come back after that.
const WATCHED: Duration = Duration::from_millis(150);
const HELD_MIB: [usize; 3] = [0, 100, 1_024];
const STAGES: [(&str, &str); 3] = [("hot", "1h"), ("frozen", "{ hot: 0s, frozen: 1h }"), ("stopped", "0s")];

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [role, version, port, mib] = arguments.as_slice()
        && role == "role-large"
    {
        return serve(version, port.parse()?, mib.parse()?);
    }
    let rounds = argument("--rounds", 5);
    let mut rows = vec![["standby", "holds MiB", "median ms", "most ms", "lost", "of requests"].map(str::to_owned).to_vec()];
    let mut json = Vec::new();
    for (stage, setting) in STAGES {
        for mib in HELD_MIB {
            let (took_ms, lost, requests) = measure(stage, setting, mib, rounds)?;
            let most = took_ms.iter().copied().fold(0.0, f64::max);
            rows.push(vec![
                stage.to_owned(),
                mib.to_string(),
                format!("{:.1}", median(&took_ms)),
                format!("{most:.1}"),
                lost.to_string(),
                requests.to_string(),
            ]);
            json.push(serde_json::json!({ "standby": stage, "mib": mib, "took_ms": took_ms, "lost": lost, "requests": requests }));
        }
    }
    table(&rows);
    println!("{}", serde_json::json!({ "benchmark": "standby", "results": json }));
    Ok(())
}

/// A version that holds so much, each page of it written to.
fn serve(version: &str, port: u16, mib: usize) -> anyhow::Result<()> {
    let mut held = vec![0_u8; mib << 20];
    held.iter_mut().step_by(4_096).for_each(|byte| *byte = 1);
    let options = testbed::service::Options { port, version: version.to_owned(), ..Default::default() };
    testbed::service::run(options)?;
    std::hint::black_box(held);
    Ok(())
}

struct House {
    folder: tempfile::TempDir,
    address: SocketAddr,
    _up: Process,
}

impl House {
    fn start(setting: &str, mib: usize) -> anyhow::Result<Self> {
        let (folder, own) = (tempfile::tempdir()?, std::env::current_exe()?);
        let address = SocketAddr::from(([127, 0, 0, 1], testbed::ports::free()?));
        let text = format!(
            "listeners: {{ main: '{address}' }}\nports: 28200-28299\nservices:\n  web:\n    run: {{ command: ['{}', role-large, '{{version}}', \
             '{{port}}', '{mib}'] }}\n    health: {{ path: /healthz }}\n    strategy: {{ blue_green: {{ watch: 0s, drain: 5s, standby: {setting} }} }}\n",
            own.display()
        );
        fs::write(folder.path().join("changeover.yaml"), text)?;
        let log = fs::File::create(folder.path().join("log"))?;
        let mut command = Command::new(binary()?);
        command.arg("up").current_dir(folder.path()).stdout(log.try_clone()?).stderr(log);
        let house = Self { address, _up: Process::start(command, None, Signal::SIGINT)?, folder };
        wait::until(DEADLINE, "changeover is up", || house.run(&["status"]).is_ok());
        Ok(house)
    }

    fn run(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = Command::new(binary()?).args(arguments).current_dir(self.folder.path()).stdin(Stdio::null()).output()?;
        ensure!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn is_at(&self, stage: &str, version: &str) -> bool {
        let status = self.run(&["status", "--json"]).unwrap_or_default();
        let status: serde_json::Value = serde_json::from_str(&status).unwrap_or_default();
        let web = &status["services"][0];
        let mut targets = web["targets"].as_array().into_iter().flatten().filter(|target| target["version"] == version);
        let is_as_it_is_to_be = match stage {
            "frozen" => targets.any(|target| target["frozen"] == true),
            "stopped" => targets.next().is_none(),
            _ => true,
        };
        is_as_it_is_to_be && web["rollback"]["standby"] == stage
    }
}

fn measure(stage: &str, setting: &str, mib: usize, rounds: u64) -> anyhow::Result<(Vec<f64>, u64, u64)> {
    let house = House::start(setting, mib)?;
    house.run(&["deploy", "web", "--version", "v1"])?;
    let load = Load::start(LoadOptions {
        keep_alive_clients: 16,
        fresh_clients: 4,
        pace: Some(Duration::from_millis(2)),
        ..LoadOptions::new(house.address, "web.test")
    });
    wait::until(DEADLINE, "load runs", || load.last_started_on("v1"));
    let mut took_ms = Vec::new();
    for round in 0..rounds {
        let bad = format!("v{}", round + 2);
        house.run(&["deploy", "web", "--version", &bad])?;
        wait::until(DEADLINE, "v1 stands by", || house.is_at(stage, "v1"));
        let given = Instant::now();
        house.run(&["rollback", "web"])?;
        wait::until(DEADLINE, "v1 answers", || load.last_started_on("v1").is_some_and(|started| started >= given));
        let back = Instant::now();
        wait::until(DEADLINE, "it has spread", || back.elapsed() >= WATCHED);
        let last = load.last_started_on(&bad).unwrap_or(given);
        took_ms.push(ms(last.saturating_duration_since(given)));
    }
    let tally = load.stop();
    Ok((took_ms, tally.lost, tally.requests))
}
