//! Processor time per proxied request: 64 keep-alive connections, each proxy alone on core 0, target and load on core 1.

use std::io::Read;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use bench::contender::{Contender, NAMES, Size};
use bench::numbers::{argument, median, table};
use bench::process::{Process, cpu_ns};
use nix::sys::signal::Signal;

const CONNECTIONS: usize = 64;

fn main() -> anyhow::Result<()> {
    bench::play_role();
    let (rounds, millis) = (argument("--rounds", 7), argument("--millis", 3_000));
    let port = testbed::ports::free()?;
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let own = std::env::current_exe()?;
    let mut command = Command::new(&own);
    command.args(["role-target", &port.to_string()]);
    let _target = Process::start(command, Some(1), Signal::SIGKILL)?;
    testbed::wait::until(std::time::Duration::from_secs(5), "the target listens", || std::net::TcpStream::connect(address).is_ok());
    let mut contenders = Vec::new();
    for name in NAMES {
        match Contender::start(name, [address, address], Size { threads: 1, core: Some(0) }) {
            Ok(contender) => contenders.push(contender),
            Err(error) => println!("{name}: not measured: {error:#}"),
        }
    }
    let mut costs = vec![Vec::new(); contenders.len()];
    let mut rates = vec![Vec::new(); contenders.len()];
    for round in 0..=rounds {
        for (index, contender) in contenders.iter().enumerate() {
            let family = contender.family();
            let before = cpu_ns(&family);
            let answered = hammer(&own, contender.address, millis)?;
            let cost_us = (cpu_ns(&family) - before) as f64 / 1_000.0 / answered as f64;
            // The first round warms up.
            if round > 0 {
                costs[index].push(cost_us);
                rates[index].push(answered as f64 * 1_000.0 / millis as f64);
            }
        }
    }
    let position = |name: &str| contenders.iter().position(|contender| contender.name == name);
    let best_of_round = |round: usize| {
        let peers = ["nginx", "haproxy"].into_iter().filter_map(position).map(|index| costs[index][round]);
        peers.fold(f64::INFINITY, f64::min)
    };
    let mut rows = vec![["", "CPU µs/request", "ratio to the better of nginx and HAProxy", "requests/s"].map(str::to_owned).to_vec()];
    let mut json = serde_json::Map::new();
    for (index, contender) in contenders.iter().enumerate() {
        let ratios: Vec<f64> = costs[index].iter().enumerate().map(|(round, cost)| cost / best_of_round(round)).collect();
        let (cost, ratio, rate) = (median(&costs[index]), median(&ratios), median(&rates[index]));
        rows.push(vec![contender.name.to_owned(), format!("{cost:.1}"), format!("{ratio:.2}"), format!("{rate:.0}")]);
        json.insert(contender.name.to_owned(), serde_json::json!({ "cpu_us": cost, "ratio": ratio, "requests_per_s": rate }));
    }
    println!("{CONNECTIONS} keep-alive connections, 1 KiB answers, medians of {rounds} rounds of {millis} ms");
    table(&rows);
    println!("{}", serde_json::json!({ "benchmark": "proxy", "contenders": json }));
    Ok(())
}

/// Load from a process of its own on core 1; how many requests were answered.
fn hammer(own: &std::path::Path, address: SocketAddr, millis: u64) -> anyhow::Result<u64> {
    let mut command = Command::new(own);
    command.args(["role-hammer", &address.to_string(), &CONNECTIONS.to_string(), &millis.to_string()]).stdout(Stdio::piped());
    let mut process = Process::start(command, Some(1), Signal::SIGKILL)?;
    let mut text = String::new();
    process.child().stdout.take().expect("piped").read_to_string(&mut text)?;
    let status = process.child().wait()?;
    anyhow::ensure!(status.success(), "the load failed");
    Ok(text.trim().parse()?)
}
