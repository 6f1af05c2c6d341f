//! Twenty minutes of a bad life: deploys, canaries good and bad, rollbacks, upgrades, killed workers and floods at random, under load of every
//! kind. What counts: nothing is lost but what ran on a worker when it was killed, and neither memory nor descriptors grow.
//!
//! `--minutes 20 --seed N`: the same seed does the same things in the same order. A failing run says its seed.

use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bench::contender::binary;
use bench::numbers::{argument, median, table};
use bench::process::{Process, memory_bytes};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use testbed::load::{Load, LoadOptions, Tally};
use testbed::wait;

const START_MAX: Duration = Duration::from_secs(20);
const RELEASE_MAX: Duration = Duration::from_secs(300);
const SAMPLE_EVERY: Duration = Duration::from_secs(5);
const FLOOD: Duration = Duration::from_secs(2);
/// So much more than in the first third of the run is growth.
const GROWTH_MAX: f64 = 1.15;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Deploy,
    DeployAndRollBack,
    GoodCanary,
    BadCanary,
    Upgrade,
    KillWorker,
    Flood(Flood),
    Rest,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flood {
    Pings,
    Resets,
    SlowHeads,
    Connections,
}

const ACTS: [Act; 11] = [
    Act::Deploy,
    Act::DeployAndRollBack,
    Act::GoodCanary,
    Act::BadCanary,
    Act::Upgrade,
    Act::Upgrade,
    Act::KillWorker,
    Act::Flood(Flood::Pings),
    Act::Flood(Flood::Resets),
    Act::Flood(Flood::SlowHeads),
    Act::Flood(Flood::Connections),
];

struct House {
    folder: tempfile::TempDir,
    address: SocketAddr,
    up: Process,
    version: u64,
}

/// What was seen between two acts.
#[derive(Clone, Copy)]
struct Sample {
    at: Duration,
    memory: u64,
    descriptors: usize,
    threads: usize,
}

fn main() -> anyhow::Result<()> {
    bench::play_role();
    let (minutes, seed) = (argument("--minutes", 20), argument("--seed", fastrand::u64(..1_000_000)));
    println!("seed {seed}");
    soak(Duration::from_secs(minutes * 60), seed).with_context(|| format!("again: --seed {seed}"))
}

fn soak(length: Duration, seed: u64) -> anyhow::Result<()> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut house = House::start()?;
    for service in ["web", "api"] {
        house.behaves(service, "v1", "latency_ms 3\nsigma 0.5\n")?;
        house.run(&["deploy", service, "--version", "v1"])?;
    }
    let load = |service: &str| {
        Load::start(LoadOptions {
            keep_alive_clients: 24,
            fresh_clients: 4,
            h2_clients: 4,
            post_clients: 4,
            pace: Some(Duration::from_millis(20)),
            ..LoadOptions::new(house.address, format!("{service}.test"))
        })
    };
    let loads = [load("web"), load("api")];
    let lost = |loads: &[Load]| loads.iter().map(|load| load.snapshot().lost).sum::<u64>();
    let began = Instant::now();
    let (mut samples, mut counts, mut at_kills, mut kills) = (Vec::new(), std::collections::BTreeMap::new(), 0, 0u64);
    while began.elapsed() < length {
        let act = ACTS.get(random.usize(..ACTS.len() + 2)).copied().unwrap_or(Act::Rest);
        let before = lost(&loads);
        let acted = house.act(act, &mut random).with_context(|| format!("{act:?} after {:?}", began.elapsed()));
        let after = lost(&loads);
        *counts.entry(format!("{act:?}")).or_insert(0u64) += 1;
        if act == Act::KillWorker {
            kills += 1;
            at_kills += after - before;
            // One request for each client.
            ensure!(after - before <= 72, "{} requests lost by one kill", after - before);
        } else {
            let errors: Vec<String> = loads.iter().flat_map(|load| load.snapshot().last_errors).collect();
            ensure!(after == before, "{act:?} lost {} requests after {:?}: {errors:?}", after - before, began.elapsed());
        }
        acted?;
        if samples.last().is_none_or(|last: &Sample| began.elapsed() - last.at >= SAMPLE_EVERY) {
            samples.push(house.sample(began)?);
        }
    }
    let tallies = loads.map(Load::stop);
    report(&samples, &counts, &tallies, at_kills, kills)?;
    house.posted_once(&tallies, at_kills)
}

impl House {
    fn start() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let address = SocketAddr::from(([127, 0, 0, 1], testbed::ports::free()?));
        let program = binary()?;
        let mut text = format!("listeners: {{ main: '{address}' }}\nports: 28000-28199\nservices:\n");
        for (service, strategy) in [
            ("web", "blue_green: { watch: 1s, drain: 5s, standby: 10s }"),
            (
                "api",
                "canary: { steps: [20%, 100%], dwell: 3s, watch: 1s, drain: 5s, keep: 0s, analysis: { warm_up: 2s, budget: 1%, latency_budget: 5% } }",
            ),
        ] {
            let behaviour = folder.path().join("behaviour").join(service);
            fs::create_dir_all(&behaviour)?;
            let (record, behaviour) = (folder.path().join(format!("{service}.orders")), behaviour.display().to_string());
            text += &format!(
                "  {service}:\n    routes: [{{ host: {service}.test }}]\n    run: {{ command: ['{}', demo-service, '{{version}}', '{{port}}', --record, '{}', \
                 --behaviour, '{behaviour}'] }}\n    health: {{ path: /healthz, interval: 200ms, rise: 2 }}\n    strategy: {{ {strategy} }}\n",
                program.display(),
                record.display()
            );
        }
        fs::write(folder.path().join("changeover.yaml"), text)?;
        let log = fs::File::create(folder.path().join("log"))?;
        let mut command = Command::new(&program);
        command.arg("up").current_dir(folder.path()).stdout(log.try_clone()?).stderr(log);
        let up = Process::start(command, None, Signal::SIGINT)?;
        let house = Self { folder, address, up, version: 1 };
        wait::until(START_MAX, "changeover is up", || house.run(&["status"]).is_ok());
        Ok(house)
    }

    fn run(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = Command::new(binary()?).args(arguments).current_dir(self.folder.path()).stdin(Stdio::null()).output()?;
        ensure!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn behaves(&self, service: &str, version: &str, how: &str) -> anyhow::Result<()> {
        Ok(fs::write(self.folder.path().join("behaviour").join(service).join(version), how)?)
    }

    fn act(&mut self, act: Act, random: &mut fastrand::Rng) -> anyhow::Result<()> {
        match act {
            Act::Deploy => self.deploy("web", "latency_ms 3\nsigma 0.5\n", "promoted"),
            Act::DeployAndRollBack => {
                self.deploy("web", "latency_ms 3\nsigma 0.5\n", "promoted")?;
                self.run(&["rollback", "web"]).map(drop)
            }
            Act::GoodCanary => self.deploy("api", "latency_ms 3\nsigma 0.5\n", ""),
            Act::BadCanary => self.deploy("api", "errors 0.3\nlatency_ms 3\nsigma 0.5\n", "rolled_back"),
            Act::Upgrade => self.run(&["upgrade"]).map(drop),
            Act::KillWorker => {
                let worker = self.worker()?;
                kill(Pid::from_raw(worker), Signal::SIGKILL)?;
                wait::until(START_MAX, "a new worker", || self.worker().is_ok_and(|now| now != worker) && self.run(&["status"]).is_ok());
                // What the kill has broken is seen by its clients soon.
                std::thread::sleep(Duration::from_millis(500));
                Ok(())
            }
            Act::Flood(flood) => self.flood(flood),
            Act::Rest => {
                std::thread::sleep(Duration::from_millis(random.u64(500..5_000)));
                Ok(())
            }
        }
    }

    /// `outcome`: what must become of it; empty: anything that the judge likes.
    fn deploy(&mut self, service: &str, how: &str, outcome: &str) -> anyhow::Result<()> {
        self.version += 1;
        let version = format!("v{}", self.version);
        self.behaves(service, &version, how)?;
        let deployed = Command::new(binary()?)
            .args(["deploy", service, "--version", &version])
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .output()?;
        wait::until(RELEASE_MAX, "the release ends", || self.ending(service).is_some());
        let ended = self.ending(service).unwrap_or_default();
        ensure!(outcome.is_empty() || ended == outcome, "{version} was {ended}: {}", String::from_utf8_lossy(&deployed.stderr));
        Ok(())
    }

    fn ending(&self, service: &str) -> Option<String> {
        let status: serde_json::Value = serde_json::from_str(&self.run(&["status", service, "--json"]).ok()?).ok()?;
        let release = &status["services"].get(0)?["release"];
        Some(release["ending"]["outcome"].as_str()?.to_owned())
    }

    fn flood(&self, flood: Flood) -> anyhow::Result<()> {
        let until = Instant::now() + FLOOD;
        match flood {
            Flood::Pings => self.frames(&ping(), until),
            Flood::Resets => self.resets(until),
            Flood::SlowHeads => {
                let mut slow = (0..200).map(|_| TcpStream::connect(self.address)).collect::<Result<Vec<_>, _>>()?;
                while Instant::now() < until {
                    for stream in &mut slow {
                        let _ = stream.write_all(b"x");
                    }
                    std::thread::sleep(Duration::from_millis(100));
                }
                Ok(())
            }
            Flood::Connections => {
                for _ in 0..2_000 {
                    let _ = TcpStream::connect(self.address);
                }
                Ok(())
            }
        }
    }

    fn http2(&self) -> anyhow::Result<TcpStream> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_write_timeout(Some(FLOOD))?;
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")?;
        Ok(stream)
    }

    /// The same frame again and again, over new connections when they are closed.
    fn frames(&self, frame: &[u8], until: Instant) -> anyhow::Result<()> {
        let many = frame.repeat(500);
        while Instant::now() < until {
            let mut stream = self.http2()?;
            while Instant::now() < until && stream.write_all(&many).is_ok() {}
        }
        Ok(())
    }

    /// Streams that are begun and given up at once (CVE-2023-44487).
    fn resets(&self, until: Instant) -> anyhow::Result<()> {
        while Instant::now() < until {
            let mut stream = self.http2()?;
            let mut id = 1u32;
            while Instant::now() < until {
                let mut frames = Vec::new();
                for _ in 0..100 {
                    // `:method: GET`, `:scheme: http`, `:path: /`, `:authority: web.test` as a literal.
                    let block = b"\x82\x86\x84\x01\x08web.test";
                    frames.extend_from_slice(&[0, 0, block.len() as u8, 1, 5]);
                    frames.extend_from_slice(&id.to_be_bytes());
                    frames.extend_from_slice(block);
                    frames.extend_from_slice(&[0, 0, 4, 3, 0]);
                    frames.extend_from_slice(&id.to_be_bytes());
                    frames.extend_from_slice(&8u32.to_be_bytes());
                    id += 2;
                }
                if stream.write_all(&frames).is_err() {
                    break;
                }
            }
        }
        Ok(())
    }

    /// The newest child of the keeper that is a worker.
    fn worker(&self) -> anyhow::Result<i32> {
        let family = self.up.family();
        let is_worker = |pid: &&i32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.split(|byte| *byte == 0).nth(1).is_some_and(|verb| verb.starts_with(b"worker"))
        };
        family[1..].iter().filter(is_worker).max().copied().context("no worker")
    }

    fn sample(&self, began: Instant) -> anyhow::Result<Sample> {
        let own = [self.up.pid(), self.worker()?];
        let count = |pid: &i32, what: &str| fs::read_dir(format!("/proc/{pid}/{what}")).map_or(0, Iterator::count);
        Ok(Sample {
            at: began.elapsed(),
            memory: memory_bytes(&own),
            descriptors: own.iter().map(|pid| count(pid, "fd")).sum(),
            threads: own.iter().map(|pid| count(pid, "task")).sum(),
        })
    }

    /// Each order that a client saw accepted is there once; one that a kill took may be there or not.
    fn posted_once(&self, tallies: &[Tally], at_kills: u64) -> anyhow::Result<()> {
        for (service, tally) in ["web", "api"].iter().zip(tallies) {
            let path: PathBuf = self.folder.path().join(format!("{service}.orders"));
            let mut orders: Vec<String> =
                fs::read_to_string(&path)?.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect();
            let count = orders.len();
            orders.sort();
            orders.dedup();
            ensure!(orders.len() == count, "{service}: an order was taken twice");
            let missing = tally.posted.iter().filter(|order| orders.binary_search(order).is_err()).count();
            ensure!(missing == 0, "{service}: {missing} orders that were answered are not there");
            ensure!(count as u64 <= tally.posted.len() as u64 + at_kills, "{service}: orders that nobody gave");
        }
        Ok(())
    }
}

fn ping() -> Vec<u8> {
    [&[0, 0, 8, 6, 0, 0, 0, 0, 0][..], b"12345678"].concat()
}

fn report(
    samples: &[Sample],
    counts: &std::collections::BTreeMap<String, u64>,
    tallies: &[Tally; 2],
    at_kills: u64,
    kills: u64,
) -> anyhow::Result<()> {
    type Value = fn(&Sample) -> f64;
    let third = samples.len() / 3;
    ensure!(third >= 2, "too short to tell growth");
    let of = |part: &[Sample], value: Value| median(&part.iter().map(value).collect::<Vec<_>>());
    let mut rows = vec![["", "first third", "last third"].map(str::to_owned).to_vec()];
    let mut grown = Vec::new();
    let values: [(&str, Value); 3] = [
        ("MiB", |sample| sample.memory as f64 / 1024.0 / 1024.0),
        ("descriptors", |sample| sample.descriptors as f64),
        ("threads", |sample| sample.threads as f64),
    ];
    for (name, value) in values {
        let (first, last) = (of(&samples[..third], value), of(&samples[samples.len() - third..], value));
        rows.push(vec![name.to_owned(), format!("{first:.1}"), format!("{last:.1}")]);
        if last > first * GROWTH_MAX + 1.0 {
            grown.push(name);
        }
    }
    table(&rows);
    let requests: u64 = tallies.iter().map(|tally| tally.requests).sum();
    for (act, count) in counts {
        println!("{count:>5}  {act}");
    }
    println!("requests: {requests}   lost: 0   in flight on a worker when it was killed ({kills} kills): {at_kills}");
    println!("{}", json!({ "benchmark": "soak", "requests": requests, "kills": kills, "lost_at_kills": at_kills, "grown": grown }));
    ensure!(grown.is_empty(), "grew: {grown:?}");
    Ok(())
}
