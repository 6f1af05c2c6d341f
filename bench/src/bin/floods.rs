//! What clients that do harm cost the others: floods of HTTP/2 frames, and slowhttptest in each mode with 500 connections. The proxy is
//! alone on core 0; the harm, 16 other clients and the target share core 1. The same harm done to a sink on core 0 is the baseline.

use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use bench::contender::{Contender, Setting};
use bench::flooder::KINDS;
use bench::numbers::{argument, median, table};
use bench::process::{Process, cpu_ns, memory_bytes};
use nix::sys::signal::Signal;

const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Modes of slowhttptest: its arguments beside address and time.
const SLOW: [(&str, &str); 4] = [
    ("slow headers", "-H -c 500 -r 250 -i 1 -x 24 -t GET"),
    ("slow body", "-B -c 500 -r 250 -i 1 -s 8192 -x 10 -t POST"),
    ("slow read", "-X -c 500 -r 250 -w 10 -y 20 -n 1 -z 8 -k 3"),
    ("range", "-R -c 500 -r 250 -a 10 -b 3000 -t HEAD"),
];

/// What the others saw, and what the proxy used, while harm was done.
struct Seen {
    answered: f64,
    failed: f64,
    p50_ms: f64,
    p99_ms: f64,
    growth_bytes: f64,
    cpu_share: f64,
    /// What the one that did it says of it.
    harm: String,
}

struct Bench {
    own: std::path::PathBuf,
    proxy: Contender,
    sink: SocketAddr,
}

fn main() -> anyhow::Result<()> {
    bench::play_role();
    let (rounds, millis, slow_s) = (argument("--rounds", 5), argument("--millis", 3_000), argument("--slow-seconds", 8));
    let own = std::env::current_exe()?;
    let role = |name: &str, core: usize| -> anyhow::Result<(Process, SocketAddr)> {
        let address = SocketAddr::from(([127, 0, 0, 1], testbed::ports::free()?));
        let mut command = Command::new(&own);
        command.args([name, &address.port().to_string()]);
        let process = Process::start(command, Some(core), Signal::SIGKILL)?;
        testbed::wait::until(Duration::from_secs(5), name, || TcpStream::connect(address).is_ok());
        Ok((process, address))
    };
    let (_target, target) = role("role-target", 1)?;
    let (_sink, sink) = role("role-sink", 0)?;
    let proxy = Contender::start("changeover", [target, target], Setting::plain(1, Some(0)))?;
    let bench = Bench { own: own.clone(), proxy, sink };
    let quiet = bench.beside(None, millis)?;
    println!("{CLIENTS} other clients, 50 requests a second each; without harm: p50 {:.2} ms, p99 {:.2} ms", quiet.p50_ms, quiet.p99_ms);
    let mut rows =
        vec![["", "p99 ms", "baseline", "ratio", "p50 ms", "baseline", "failed", "memory MiB", "CPU"].map(str::to_owned).to_vec()];
    let mut json = serde_json::Map::new();
    for kind in KINDS {
        let harm = |address: SocketAddr| {
            let mut command = Command::new(&own);
            command.args(["role-flooder", kind, &address.to_string(), &millis.to_string()]);
            command
        };
        bench.measure(kind, rounds, millis, &harm, &mut rows, &mut json)?;
    }
    if Command::new("slowhttptest").arg("-h").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok() {
        for (mode, arguments) in SLOW {
            let harm = |address: SocketAddr| {
                let mut command = Command::new("slowhttptest");
                command.args(arguments.split(' ')).args([
                    "-l",
                    &slow_s.to_string(),
                    "-u",
                    &format!("http://{address}/"),
                    "-p",
                    "5",
                    "-v",
                    "0",
                ]);
                command
            };
            bench.measure(mode, rounds, slow_s * 1_000, &harm, &mut rows, &mut json)?;
        }
    } else {
        println!("slowhttptest: not measured: `apt-get install slowhttptest`");
    }
    table(&rows);
    println!("{}", serde_json::json!({ "benchmark": "floods", "quiet_p99_ms": quiet.p99_ms, "harms": json }));
    Ok(())
}

const CLIENTS: usize = 16;

impl Bench {
    /// Harm to the sink and to the proxy in turns; a row of the table.
    fn measure(
        &self,
        name: &str,
        rounds: u64,
        millis: u64,
        harm: &dyn Fn(SocketAddr) -> Command,
        rows: &mut Vec<Vec<String>>,
        json: &mut serde_json::Map<String, serde_json::Value>,
    ) -> anyhow::Result<()> {
        let (mut baseline, mut harmed) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            baseline.push(self.beside(Some(harm(self.sink)), millis)?);
            harmed.push(self.beside(Some(harm(self.proxy.address)), millis)?);
        }
        let of = |seen: &[Seen], value: fn(&Seen) -> f64| median(&seen.iter().map(value).collect::<Vec<_>>());
        let ratios: Vec<f64> = harmed.iter().zip(&baseline).map(|(harmed, baseline)| harmed.p99_ms / baseline.p99_ms).collect();
        let most = |seen: &[Seen], value: fn(&Seen) -> f64| seen.iter().map(value).fold(0.0, f64::max);
        let (growth, failed) = (most(&harmed, |seen| seen.growth_bytes) / 1_048_576.0, most(&harmed, |seen| seen.failed));
        let (p99, base) = (of(&harmed, |seen| seen.p99_ms), of(&baseline, |seen| seen.p99_ms));
        let (p50, base_p50, cpu) = (of(&harmed, |seen| seen.p50_ms), of(&baseline, |seen| seen.p50_ms), of(&harmed, |seen| seen.cpu_share));
        let cells = [p99, base, median(&ratios), p50, base_p50].map(|value| format!("{value:.2}"));
        let more = [format!("{failed:.0}"), format!("{growth:+.1}"), format!("{:.0} %", cpu * 100.0)];
        rows.push([vec![name.to_owned()], cells.to_vec(), more.to_vec()].concat());
        let said: Vec<_> = harmed.iter().map(|seen| seen.harm.clone()).collect();
        json.insert(
            name.to_owned(),
            serde_json::json!({
                "p99_ms": p99, "baseline_p99_ms": base, "p99_ratios": ratios, "p50_ms": p50, "baseline_p50_ms": base_p50, "failed": failed,
                "answered": of(&harmed, |seen| seen.answered), "growth_mib": growth, "cpu_share": cpu, "connections_and_frames": said,
            }),
        );
        Ok(())
    }

    /// The others ask the proxy meanwhile.
    fn beside(&self, harm: Option<Command>, millis: u64) -> anyhow::Result<Seen> {
        let family = self.proxy.family();
        let (before, spent) = (memory_bytes(&family), cpu_ns(&family));
        let harm = harm.map(|mut command| Process::start(piped(&mut command), Some(1), Signal::SIGKILL)).transpose()?;
        let mut command = Command::new(&self.own);
        command.args(["role-honest", &self.proxy.address.to_string(), &millis.to_string()]);
        let mut honest = Process::start(piped(&mut command), Some(1), Signal::SIGKILL)?;
        let mut most = before;
        while honest.child().try_wait()?.is_none() {
            most = most.max(memory_bytes(&family));
            std::thread::sleep(LOOK_EVERY);
        }
        let cpu_share = (cpu_ns(&family) - spent) as f64 / 1e6 / millis as f64;
        let text = said_by(&mut honest)?;
        let numbers: Vec<f64> = text.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
        let &[answered, failed, p50_ms, p99_ms] = numbers.as_slice() else { anyhow::bail!("the clients said {text}") };
        ensure!(answered > 0.0, "nobody was answered");
        let harm = harm.map(|mut harm| said_by(&mut harm)).transpose()?.unwrap_or_default();
        let harm = harm.lines().next_back().unwrap_or_default().trim().to_owned();
        Ok(Seen { answered, failed, p50_ms, p99_ms, growth_bytes: most.saturating_sub(before) as f64, cpu_share, harm })
    }
}

fn piped(command: &mut Command) -> Command {
    let mut own = Command::new(command.get_program());
    own.args(command.get_args()).stdout(Stdio::piped()).stderr(Stdio::null());
    own
}

fn said_by(process: &mut Process) -> anyhow::Result<String> {
    let mut text = String::new();
    process.child().stdout.take().context("piped")?.read_to_string(&mut text)?;
    process.child().wait()?;
    Ok(text)
}
