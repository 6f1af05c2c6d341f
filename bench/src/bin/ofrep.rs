//! OFREP single evaluations: per second and core, processor time each, latency; 1,000 flags, keep-alive connections.
//!
//! The server is alone on core 0, the load on core 1; beside it the least that a server in Rust does (hyper, a fixed answer).

use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use bench::numbers::{argument, median, quantile, table};
use bench::process::{Process, cpu_ns, pin};
use nix::sys::signal::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const FLAGS: usize = 1_000;
/// Enough to keep the server busy all the time / so few that most requests find it idle.
const CONNECTIONS: [usize; 2] = [64, 4];

fn main() -> anyhow::Result<()> {
    bench::play_role();
    let (rounds, millis) = (argument("--rounds", 5), argument("--millis", 3_000));
    pin(1)?;
    let flags = FLAGS.to_string();
    let roles: [(&str, Vec<&str>); 2] = [("role-flags", vec![&flags]), ("role-yardstick", vec![])];
    let mut peers = Vec::new();
    for (role, arguments) in roles {
        let address = SocketAddr::from(([127, 0, 0, 1], testbed::ports::free()?));
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(role).arg(address.to_string()).args(arguments);
        let process = Process::start(command, Some(0), Signal::SIGKILL)?;
        testbed::wait::until(Duration::from_secs(10), role, || std::net::TcpStream::connect(address).is_ok());
        peers.push((address, process));
    }
    let mut rows = vec![
        ["", "connections", "requests/s", "CPU µs/request", "requests/s of a whole core", "p50 ms", "p99 ms"].map(str::to_owned).to_vec(),
    ];
    let mut json = Vec::new();
    for connections in CONNECTIONS {
        let mut measured = vec![Vec::new(); peers.len()];
        for round in 0..=rounds {
            for (index, (address, process)) in peers.iter().enumerate() {
                let before = cpu_ns(&[process.pid()]);
                let (latencies, took) = load(*address, connections, Duration::from_millis(millis))?;
                let cpu_us = (cpu_ns(&[process.pid()]) - before) as f64 / 1_000.0 / latencies.len() as f64;
                // The first round warms up.
                if round > 0 {
                    let rate = latencies.len() as f64 / took.as_secs_f64();
                    measured[index].push([rate, cpu_us, 1_000_000.0 / cpu_us, quantile(&latencies, 0.5), quantile(&latencies, 0.99)]);
                }
            }
        }
        for (name, rounds) in ["changeover, OFREP", "hyper, a fixed answer"].iter().zip(&measured) {
            let of = |column: usize| median(&rounds.iter().map(|row| row[column]).collect::<Vec<_>>());
            let [rate, cpu_us, of_core, p50, p99] = [0, 1, 2, 3, 4].map(of);
            rows.push(vec![
                (*name).to_owned(),
                connections.to_string(),
                format!("{rate:.0}"),
                format!("{cpu_us:.1}"),
                format!("{of_core:.0}"),
                format!("{p50:.3}"),
                format!("{p99:.3}"),
            ]);
            json.push(serde_json::json!({ "name": name, "connections": connections, "per_s": rate, "cpu_us": cpu_us, "p50_ms": p50, "p99_ms": p99 }));
        }
    }
    println!(
        "{FLAGS} flags (static, rule of three clauses, shares), five values in the context, medians of {rounds} rounds of {millis} ms"
    );
    table(&rows);
    println!("{}", serde_json::json!({ "benchmark": "ofrep", "measured": json }));
    Ok(())
}

/// Milliseconds of each request, and how long it took altogether.
fn load(address: SocketAddr, connections: usize, duration: Duration) -> anyhow::Result<(Vec<f64>, Duration)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let started = Instant::now();
        let clients: Vec<_> =
            (0..connections).map(|index| tokio::task::spawn_local(ask_until(address, index, started + duration))).collect();
        let mut latencies = Vec::new();
        for client in clients {
            latencies.extend(client.await??);
        }
        Ok((latencies, started.elapsed()))
    })
}

async fn ask_until(address: SocketAddr, index: usize, until: Instant) -> anyhow::Result<Vec<f64>> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let requests: Vec<Vec<u8>> = (0..FLAGS).map(|number| request((number * 7 + index * 13) % FLAGS, number)).collect();
    let mut latencies = Vec::new();
    let mut buffer = vec![0; 4 * 1024];
    for request in requests.iter().cycle() {
        let asked = Instant::now();
        if asked >= until {
            break;
        }
        stream.write_all(request).await?;
        let mut filled = 0;
        loop {
            let size = stream.read(&mut buffer[filled..]).await?;
            anyhow::ensure!(size > 0, "the peer closed");
            filled += size;
            // The answer is one object, and the last byte of it is the last of all.
            if buffer[filled - 1] == b'}' {
                break;
            }
        }
        anyhow::ensure!(buffer.starts_with(b"HTTP/1.1 200"), "an answer that is not good: {}", String::from_utf8_lossy(&buffer[..filled]));
        latencies.push(bench::numbers::ms(asked.elapsed()));
    }
    Ok(latencies)
}

fn request(flag: usize, user: usize) -> Vec<u8> {
    let body = format!(
        r#"{{"context":{{"targetingKey":"user-{user}","email":"user-{user}@example.com","age":{},"country":"at","plan":"premium","requestId":"9f3c6f52-1d1b-4f0a-{user:04}"}}}}"#,
        user % 90
    );
    let length = body.len();
    format!("POST /ofrep/v1/evaluate/flags/flag-{flag} HTTP/1.1\r\nhost: flags.example.com\r\nuser-agent: python-requests/2.32.3\r\naccept-encoding: gzip, deflate\r\naccept: */*\r\nconnection: keep-alive\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}").into_bytes()
}
