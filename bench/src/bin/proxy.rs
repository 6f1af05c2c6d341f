//! Processor time per proxied request, and what the proxy adds to the slowest hundredth at half load.
//!
//! All contenders do the same: 80 : 20 to two targets, each request in the access log, counters on. `--front NAME` (`http1`, `h2`, `tls`,
//! `tls-h2`), `--large 1` (100 KiB answers) and `--cores 2` choose one row; without any of them the whole table is measured. With one core the
//! proxy has it for itself, target and load have the other; with two all share both. `--latency 1` measures at half the load instead,
//! `--handshakes 1` full TLS handshakes.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use bench::contender::{Contender, Front, NAMES, Setting};
use bench::hammer::{Load, SMALL_PATH, shakes};
use bench::numbers::{argument, median, table};
use bench::process::{Process, cpu_ns};
use bench::target::LARGE_PATH;
use nix::sys::signal::Signal;
use serde_json::json;

const REQUESTS: usize = 64;

/// What is measured in one row.
#[derive(Clone, Copy)]
struct Case {
    front: Front,
    is_large: bool,
    cores: usize,
}

struct Bench {
    targets: [SocketAddr; 2],
    own: std::path::PathBuf,
    rounds: u64,
    millis: u64,
    _target: Vec<Process>,
}

fn main() -> anyhow::Result<()> {
    bench::play_role();
    let bench = Bench::start()?;
    let mut rows = vec![[vec!["".to_owned()], NAMES.map(str::to_owned).to_vec(), vec!["ratio".to_owned()]].concat()];
    let mut results = Vec::new();
    for case in cases() {
        let (row, result) = match () {
            () if argument("--handshakes", 0) == 1 => bench.handshakes()?,
            () if argument("--latency", 0) == 1 => bench.latency(case)?,
            () => bench.cost(case)?,
        };
        println!("{}", row.join("  "));
        rows.push(row);
        results.push(result);
    }
    println!(
        "\nmedians of {} rounds of {} ms; ratio: changeover to the better of nginx and HAProxy, median over the rounds",
        bench.rounds, bench.millis
    );
    table(&rows);
    println!("{}", json!({ "benchmark": "proxy", "results": results }));
    Ok(())
}

fn cases() -> Vec<Case> {
    let mut arguments = std::env::args().skip_while(|argument| argument != "--front");
    let front = arguments.nth(1).and_then(|name| Front::ALL.into_iter().find(|(known, _)| *known == name));
    let (large, cores) = (argument("--large", 0) == 1, argument("--cores", 0));
    if front.is_some() || large || cores > 0 || argument("--handshakes", 0) == 1 {
        return vec![Case { front: front.map_or(Front::Http1, |(_, front)| front), is_large: large, cores: cores.max(1) as usize }];
    }
    if argument("--latency", 0) == 1 {
        return vec![Case { front: Front::Http1, is_large: false, cores: 1 }];
    }
    let of = |cores: usize| {
        let fronts = Front::ALL.into_iter().map(|(_, front)| front);
        fronts.flat_map(move |front| [false, true].map(|is_large| Case { front, is_large, cores }))
    };
    of(1).chain(of(2)).collect()
}

impl Case {
    fn name(self) -> String {
        let (size, cores) = (if self.is_large { "100 KiB" } else { "1 KiB" }, if self.cores == 1 { "1 core" } else { "2 cores" });
        format!("{}, {size}, {cores}", self.front.name())
    }

    fn setting(self) -> Setting {
        Setting { threads: self.cores, core: (self.cores == 1).then_some(0), front: self.front, busy: true }
    }

    fn load_core(self) -> Option<usize> {
        (self.cores == 1).then_some(1)
    }

    fn load(self, address: SocketAddr, millis: u64, rate: u64) -> Load<'static> {
        let path = if self.is_large { LARGE_PATH } else { SMALL_PATH };
        Load { address, front: self.front, path, connections: REQUESTS, millis, rate }
    }
}

impl Bench {
    fn start() -> anyhow::Result<Self> {
        let own = std::env::current_exe()?;
        let mut ports = Vec::new();
        let mut processes = Vec::new();
        for _ in 0..2 {
            let port = testbed::ports::free()?;
            let mut command = Command::new(&own);
            command.args(["role-target", &port.to_string()]);
            processes.push(Process::start(command, Some(1), Signal::SIGKILL)?);
            let address = SocketAddr::from(([127, 0, 0, 1], port));
            testbed::wait::until(Duration::from_secs(5), "the target listens", || std::net::TcpStream::connect(address).is_ok());
            ports.push(address);
        }
        let (rounds, millis) = (argument("--rounds", 7), argument("--millis", 3_000));
        Ok(Self { targets: [ports[0], ports[1]], own, rounds, millis, _target: processes })
    }

    fn contenders(&self, setting: Setting) -> Vec<Option<Contender>> {
        let start = |name| match Contender::start(name, self.targets, setting) {
            Ok(contender) => Some(contender),
            Err(error) => {
                println!("{name}: not measured: {error:#}");
                None
            }
        };
        NAMES.map(start).into_iter().collect()
    }

    fn cost(&self, case: Case) -> anyhow::Result<(Vec<String>, serde_json::Value)> {
        let contenders = self.contenders(case.setting());
        let rounds = self.measure(&contenders, |contender| {
            let family = contender.family();
            let before = cpu_ns(&family);
            let answered = case.load(contender.address, self.millis, 0).run(&self.own, case.load_core())?;
            Ok((cpu_ns(&family) - before) as f64 / 1_000.0 / answered.count as f64)
        })?;
        Ok(row(&format!("CPU µs/request: {}", case.name()), &rounds, 2))
    }

    /// What each adds to the 99th percentile, at half of what the slowest of them can do at most.
    fn latency(&self, case: Case) -> anyhow::Result<(Vec<String>, serde_json::Value)> {
        let contenders = self.contenders(case.setting());
        let most = self.measure_once(&contenders, |contender| {
            Ok(case.load(contender.address, self.millis, 0).run(&self.own, case.load_core())?.count * 1_000 / self.millis)
        })?;
        let rate = NAMES.iter().zip(&most).filter(|(name, _)| **name != "envoy").filter_map(|(_, most)| *most).min().unwrap_or(0) / 2;
        let mut direct = Vec::new();
        for _ in 0..self.rounds {
            direct.push(case.load(self.targets[0], self.millis, rate).run(&self.own, case.load_core())?.p99_us);
        }
        let direct = median(&direct);
        let rounds = self.measure(&contenders, |contender| {
            let answered = case.load(contender.address, self.millis, rate).run(&self.own, case.load_core())?;
            Ok((answered.p99_us - direct).max(0.0))
        })?;
        let name = format!("p99 added, µs, at {rate} requests/s (direct: {direct:.0}): {}", case.name());
        Ok(row(&name, &rounds, 0))
    }

    fn handshakes(&self) -> anyhow::Result<(Vec<String>, serde_json::Value)> {
        let case = Case { front: Front::Tls, is_large: false, cores: 1 };
        let contenders = self.contenders(case.setting());
        let rounds = self.measure(&contenders, |contender| {
            let family = contender.family();
            let before = cpu_ns(&family);
            let count = shakes(&self.own, contender.address, 16, self.millis)?;
            Ok((cpu_ns(&family) - before) as f64 / 1_000.0 / count as f64)
        })?;
        Ok(row("CPU µs per full TLS 1.3 handshake (P-256) and request", &rounds, 0))
    }

    fn measure_once<T>(
        &self,
        contenders: &[Option<Contender>],
        one: impl Fn(&Contender) -> anyhow::Result<T>,
    ) -> anyhow::Result<Vec<Option<T>>> {
        contenders.iter().map(|contender| contender.as_ref().map(&one).transpose()).collect()
    }

    /// All of them in turn, round by round, after one that warms up.
    fn measure(
        &self,
        contenders: &[Option<Contender>],
        one: impl Fn(&Contender) -> anyhow::Result<f64>,
    ) -> anyhow::Result<Vec<Vec<Option<f64>>>> {
        self.measure_once(contenders, &one)?;
        (0..self.rounds).map(|_| self.measure_once(contenders, &one)).collect()
    }
}

fn row(name: &str, rounds: &[Vec<Option<f64>>], digits: usize) -> (Vec<String>, serde_json::Value) {
    let ratios = rounds.iter().filter_map(|round| {
        let best = [round[1], round[2]].into_iter().flatten().fold(f64::INFINITY, f64::min);
        Some(round[0]? / best).filter(|ratio| ratio.is_finite())
    });
    let ratio = median(&ratios.collect::<Vec<_>>());
    let of = |index: usize| median(&rounds.iter().filter_map(|round| round[index]).collect::<Vec<_>>());
    let values: Vec<f64> = (0..NAMES.len()).map(of).collect();
    let mut cells = vec![name.to_owned()];
    cells.extend(values.iter().map(|value| format!("{value:.digits$}")));
    cells.push(format!("{ratio:.2}"));
    let values: serde_json::Map<_, _> = NAMES.iter().zip(&values).map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
    (cells, json!({ "case": name, "values": values, "ratio": ratio }))
}
