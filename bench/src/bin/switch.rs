//! Switching under load beside nginx reload, HAProxy's runtime API and Envoy's runtime: lost requests, the command's own time,
//! and propagation: from the command given to the last request *started* that the old version answers.

use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use bench::contender::{Contender, NAMES, Setting};
use bench::numbers::{argument, ms, quantile, table};
use bench::process::Process;
use nix::sys::signal::Signal;
use testbed::load::{Load, LoadOptions};
use testbed::wait;

const KEEP_ALIVE_CLIENTS: usize = 64;
const FRESH_CLIENTS: usize = 4;
const PACE: Duration = Duration::from_millis(5);
const DEADLINE: Duration = Duration::from_secs(10);
/// A switch that has not spread after this long is counted with what was seen until then.
const WATCHED: Duration = Duration::from_millis(150);

/// One way of driving one contender.
#[derive(Default)]
struct Seen {
    command_ms: Vec<f64>,
    propagation_ms: Vec<f64>,
    /// Of those that went back.
    rollback_ms: Vec<f64>,
    lost: u64,
    requests: u64,
    closed: u64,
}

fn main() -> anyhow::Result<()> {
    bench::play_role();
    let switches = argument("--switches", 100) as usize;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let (targets, _services) = services()?;
    let mut rows = vec![
        ["", "switches", "lost", "of requests", "closed", "command p50", "p99", "propagation p50", "p99", "back p99"]
            .map(str::to_owned)
            .to_vec(),
    ];
    let mut json = serde_json::Map::new();
    for (name, by_command) in NAMES.map(|name| (name, false)).into_iter().chain([("changeover", true)]) {
        let label = if by_command { "changeover, command line" } else { name };
        let seen =
            Contender::start(name, targets, Setting::plain(threads, None)).and_then(|contender| drive(contender, switches, by_command));
        match seen {
            Ok(seen) => report(label, &seen, &mut rows, &mut json),
            Err(error) => println!("{label}: not measured: {error:#}"),
        }
    }
    println!("{KEEP_ALIVE_CLIENTS} keep-alive and {FRESH_CLIENTS} other clients, a request each {PACE:?}; milliseconds");
    table(&rows);
    println!("{}", serde_json::json!({ "benchmark": "switch", "contenders": json }));
    Ok(())
}

fn services() -> anyhow::Result<([SocketAddr; 2], Vec<Process>)> {
    let mut processes = Vec::new();
    let mut addresses = Vec::new();
    for version in ["v1", "v2"] {
        let port = testbed::ports::free()?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["role-service", version, &port.to_string()]).stdout(std::process::Stdio::null());
        processes.push(Process::start(command, None, Signal::SIGKILL)?);
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        wait::until(DEADLINE, "the service listens", || std::net::TcpStream::connect(address).is_ok());
        addresses.push(address);
    }
    Ok(([addresses[0], addresses[1]], processes))
}

fn drive(mut contender: Contender, switches: usize, by_command: bool) -> anyhow::Result<Seen> {
    let load = Load::start(LoadOptions {
        keep_alive_clients: KEEP_ALIVE_CLIENTS,
        fresh_clients: FRESH_CLIENTS,
        pace: Some(PACE),
        ..LoadOptions::new(contender.address, "web.test")
    });
    wait::until(DEADLINE, "load runs", || load.last_started_on("v1"));
    let mut seen = Seen::default();
    for _ in 0..switches {
        contender.prepare()?;
        let (old, new) = if contender.serves_v2 { ("v2", "v1") } else { ("v1", "v2") };
        let given = Instant::now();
        if by_command {
            contender.switch_by_command()?
        } else {
            contender.switch()?
        }
        seen.command_ms.push(ms(given.elapsed()));
        wait::until(DEADLINE, "the new version answers", || load.last_started_on(new).is_some_and(|started| started >= given));
        // Long enough for every request that the old version got to come back.
        wait::until(DEADLINE, "it has spread", || given.elapsed() >= WATCHED);
        let last = load.last_started_on(old).unwrap_or(given);
        let propagation = ms(last.saturating_duration_since(given));
        seen.propagation_ms.push(propagation);
        if new == "v1" {
            seen.rollback_ms.push(propagation);
        }
        contender.settle()?;
    }
    let tally = load.stop();
    (seen.lost, seen.requests, seen.closed) = (tally.lost, tally.requests, tally.connections_closed_by_peer);
    if seen.lost > 0 {
        println!("{}: {:?}", contender.name, tally.last_errors.last());
    }
    Ok(seen)
}

fn report(label: &str, seen: &Seen, rows: &mut Vec<Vec<String>>, json: &mut serde_json::Map<String, serde_json::Value>) {
    let of = |values: &[f64], share: f64| quantile(values, share);
    let numbers = [
        of(&seen.command_ms, 0.5),
        of(&seen.command_ms, 0.99),
        of(&seen.propagation_ms, 0.5),
        of(&seen.propagation_ms, 0.99),
        of(&seen.rollback_ms, 0.99),
    ];
    let mut row = vec![
        label.to_owned(),
        seen.command_ms.len().to_string(),
        seen.lost.to_string(),
        seen.requests.to_string(),
        seen.closed.to_string(),
    ];
    row.extend(numbers.map(|number| format!("{number:.2}")));
    rows.push(row);
    json.insert(
        label.to_owned(),
        serde_json::json!({
            "switches": seen.command_ms.len(), "lost": seen.lost, "requests": seen.requests, "closed": seen.closed,
            "command_p50_ms": numbers[0], "command_p99_ms": numbers[1], "propagation_p50_ms": numbers[2],
            "propagation_p99_ms": numbers[3], "rollback_p99_ms": numbers[4],
        }),
    );
}
