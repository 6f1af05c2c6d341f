//! The proxy as the engine's data plane.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::TcpListener;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use engine::{Counted, Counts, DataPlane, Drained, Recent};
use model::{ListenerName, ReleaseId, ServiceName, Snapshot, TargetId, VersionName};
use tokio::sync::{mpsc, watch};

use super::link::{Late, Link};

/// A worker that leaves: idle connections may still send a request within this …
const IDLE_GRACE: Duration = Duration::from_secs(2);
/// … and everything has ended, or is cut, within this.
const DRAIN_MAX: Duration = Duration::from_secs(30);
/// The same for a worker that was upgraded: it costs no client that asks every few seconds anything.
const RETIRED_IDLE_GRACE: Duration = Duration::from_secs(20);
/// Rates are of so many seconds, with one sample each.
const RECENT_SAMPLES: usize = 10;
const SAMPLE_EVERY: Duration = Duration::from_secs(1);

/// What was seen in the last hour, with one sample a minute for failures …
const MINUTES: usize = 60;
/// … and one in five for latencies, which are larger.
const HEADS_EVERY: usize = 5;
/// Fewer failures do not tell whether they come one by one.
const FAILURES_MIN: u64 = 50;
/// Of 64 groups of connections.
const GROUPS_MIN: u32 = 20;

/// Of one version that serves.
struct Samples {
    recent: VecDeque<(Instant, proxy::Counts)>,
    /// Failures so far, of a half of the clients and of all, at each minute.
    failures: VecDeque<(u64, u64)>,
    /// Times to the answer's head so far.
    heads: VecDeque<proxy::Histogram>,
    seconds: usize,
}

impl Samples {
    fn new(counts: proxy::Counts) -> Self {
        let failures = VecDeque::from([(counts.bad_of_half, counts.bad)]);
        let heads = VecDeque::from([counts.heads.clone()]);
        Self { recent: VecDeque::from([(Instant::now(), counts)]), failures, heads, seconds: 0 }
    }

    fn second(&mut self, counts: proxy::Counts) {
        self.seconds += 1;
        if self.seconds.is_multiple_of(60) {
            self.failures.push_back((counts.bad_of_half, counts.bad));
            self.failures.drain(..self.failures.len().saturating_sub(MINUTES + 1));
        }
        if self.seconds.is_multiple_of(60 * HEADS_EVERY) {
            self.heads.push_back(counts.heads.clone());
            self.heads.drain(..self.heads.len().saturating_sub(MINUTES / HEADS_EVERY + 1));
        }
        self.recent.push_back((Instant::now(), counts));
        self.recent.drain(..self.recent.len().saturating_sub(RECENT_SAMPLES));
    }
}

#[derive(Clone)]
pub(crate) struct Corridor {
    proxy: proxy::Proxy,
    samples: Arc<Mutex<HashMap<(ServiceName, VersionName), Samples>>>,
    listening: watch::Sender<BTreeSet<String>>,
    link: Link,
}

impl Corridor {
    pub(crate) fn new(proxy: proxy::Proxy, link: Link) -> Self {
        Self { proxy, samples: Arc::default(), listening: watch::Sender::default(), link }
    }

    /// Names of the listeners that are open.
    pub(crate) fn listening(&self) -> watch::Receiver<BTreeSet<String>> {
        self.listening.subscribe()
    }

    /// Another worker accepts on the same sockets: what is here finishes, within `limit`, or sooner when that is said later. Returns the number of
    /// connections that were cut.
    pub(crate) async fn retire(&self, limit: Duration, mut late: mpsc::UnboundedReceiver<Late>) -> usize {
        self.unlisten_all();
        let _ = self.proxy.acknowledge().await;
        let mut drain = Box::pin(self.proxy.drain(RETIRED_IDLE_GRACE, limit));
        loop {
            tokio::select! {
                cut = &mut drain => return cut,
                Some(late) = late.recv() => match late {
                    Late::Hurry(sooner) => drain = Box::pin(self.proxy.drain(IDLE_GRACE, sooner.min(limit))),
                    Late::Routes(snapshot) => drop(self.proxy.install(snapshot).await),
                },
            }
        }
    }

    fn unlisten_all(&self) {
        for name in self.listening.send_replace(BTreeSet::new()) {
            self.proxy.unlisten(&ListenerName::new(&name).expect("it was one"));
        }
    }

    /// Samples the counts for ever.
    pub(crate) async fn sample(self) {
        let mut ticks = tokio::time::interval(SAMPLE_EVERY);
        loop {
            ticks.tick().await;
            let mut all = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
            for ((service, version), samples) in all.iter_mut() {
                samples.second(self.proxy.counts(service, version));
            }
        }
    }
}

impl DataPlane for Corridor {
    fn install(&self, snapshot: Arc<Snapshot>) -> engine::Acknowledged {
        let mut samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        let routed: Vec<(ServiceName, VersionName)> = snapshot
            .services
            .iter()
            .flat_map(|service| service.arms.iter().map(|arm| (service.name.clone(), arm.version.clone())))
            .collect();
        samples.retain(|key, _| routed.contains(key));
        for key in routed {
            samples.entry(key.clone()).or_insert_with(|| Samples::new(self.proxy.counts(&key.0, &key.1)));
        }
        drop(samples);
        self.link.pass_routes(&snapshot);
        let proxy = self.proxy.clone();
        Box::pin(async move { proxy.install(snapshot).await.map_err(|error| error.to_string()) })
    }

    fn acknowledge(&self) -> engine::Acknowledged {
        let proxy = self.proxy.clone();
        Box::pin(async move { proxy.acknowledge().await.map_err(|error| error.to_string()) })
    }

    fn listen(&self, name: &ListenerName, socket: TcpListener) -> Result<(), String> {
        if self.listening.borrow().contains(name.as_str()) {
            // From the engine before this one, on the same socket.
            return Ok(());
        }
        self.proxy.listen(name, socket).map_err(|error| error.to_string())?;
        self.listening.send_if_modified(|open| open.insert(name.to_string()));
        Ok(())
    }

    fn unlisten(&self, name: &ListenerName) {
        self.listening.send_if_modified(|open| open.remove(name.as_str()));
        self.proxy.unlisten(name);
    }

    fn in_flight(&self, service: &ServiceName, version: &VersionName) -> usize {
        let now = self.proxy.in_flight(service, version);
        now.requests + now.tunnels
    }

    fn cut(&self, service: &ServiceName, version: &VersionName) -> usize {
        self.proxy.cut(service, version)
    }

    fn end_tunnels(&self, service: &ServiceName, version: &VersionName, drain: Duration, left: Duration) {
        if left <= proxy::tunnels_end_within(drain) && !left.is_zero() {
            self.proxy.end_tunnels(service, version, left);
        }
    }

    fn end_tunnels_of(&self, target: &TargetId, drain: Duration, left: Duration) {
        if left <= proxy::tunnels_end_within(drain) && !left.is_zero() {
            self.proxy.end_tunnels_of(target, left);
        }
    }

    fn counts(&self, service: &ServiceName, version: &VersionName) -> Counts {
        let counts = self.proxy.counts(service, version);
        Counts { requests: counts.requests, bad: counts.bad }
    }

    fn mirrored(&self, service: &ServiceName, version: &VersionName) -> Counts {
        let counts = self.proxy.mirrored(service, version);
        Counts { requests: counts.requests, bad: counts.bad }
    }

    fn in_flight_of(&self, target: &TargetId) -> usize {
        let now = self.proxy.in_flight_of(target);
        now.requests + now.tunnels
    }

    fn has_forerunners(&self) -> bool {
        self.link.forerunners() > 0
    }

    fn drain(&self) -> Drained {
        let corridor = self.clone();
        Box::pin(async move {
            // Whoever connects meanwhile is still answered.
            let refuse_later = async {
                tokio::time::sleep(IDLE_GRACE).await;
                corridor.unlisten_all();
            };
            tokio::select! {
                _ = corridor.proxy.drain(IDLE_GRACE, DRAIN_MAX) => {}
                () = async { refuse_later.await; std::future::pending().await } => {}
            }
            // Those that came in between: no lane accepts any more when it has answered.
            corridor.unlisten_all();
            let _ = corridor.proxy.acknowledge().await;
            corridor.proxy.drain(IDLE_GRACE, DRAIN_MAX).await;
        })
    }

    fn second(&self) -> u64 {
        self.proxy.second()
    }

    fn slower(&self, service: &ServiceName, version: &VersionName, than_ms: f64) -> (u64, u64) {
        let all = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((_, then)) = all.get(&(service.clone(), version.clone())).and_then(|samples| samples.recent.front()) else {
            return (0, 0);
        };
        let heads = self.proxy.counts(service, version).heads.since(&then.heads);
        (heads.count(), heads.count() - heads.count_up_to_ns((than_ms * 1e6) as u64))
    }

    fn counted(&self, release: &ReleaseId, after: u64) -> Option<Counted> {
        let (complete_s, cells) = self.proxy.cells(release, after)?;
        let tally = |arm: &proxy::ArmCounts| judge::Tally { drawn: arm.drawn, ended: arm.ended, answering: arm.answering, bad: arm.bad };
        let cells = cells.iter().map(|cell| {
            let tallies = judge::Tallies { candidate: tally(&cell.candidate), stable: tally(&cell.stable) };
            (cell.epoch, cell.second, tallies)
        });
        Some(Counted { complete_s, cells: cells.collect() })
    }

    fn heads(&self, service: &ServiceName, version: &VersionName) -> BTreeMap<usize, u64> {
        let now = self.proxy.counts(service, version).heads;
        let all = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        let then = all.get(&(service.clone(), version.clone())).and_then(|samples| samples.heads.front());
        then.map_or_else(|| now.clone(), |then| now.since(then)).on_grid().collect()
    }

    fn overdispersion(&self, service: &ServiceName, version: &VersionName) -> Option<f64> {
        let all = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        // Where failures came over few connections, two halves of these say nothing.
        if self.proxy.counts(service, version).bad_groups < GROUPS_MIN {
            return None;
        }
        let failures = &all.get(&(service.clone(), version.clone()))?.failures;
        let minutes: Vec<(u64, u64)> = failures
            .iter()
            .zip(failures.iter().skip(1))
            .map(|(then, now)| (now.0.saturating_sub(then.0), now.1.saturating_sub(then.1)))
            .collect();
        judge::overdispersion(&minutes, judge::Share { parts: 1, of: 2 }, FAILURES_MIN)
    }

    fn recent(&self, service: &ServiceName, version: &VersionName) -> Recent {
        let all = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((since, then)) = all.get(&(service.clone(), version.clone())).and_then(|samples| samples.recent.front()) else {
            return Recent::default();
        };
        let now = self.proxy.counts(service, version);
        let requests = now.requests.saturating_sub(then.requests);
        let latency = now.heads.since(&then.heads);
        let some = |value: f64| (requests > 0).then_some(value);
        let quantile_ms = |quantile: f64| latency.quantile_ns(quantile).map(|ns| ns as f64 / 1e6);
        Recent {
            requests,
            rate: requests as f64 / since.elapsed().as_secs_f64().max(0.001),
            // A connection that was opened before may turn out bad now.
            errors: some((now.bad.saturating_sub(then.bad) as f64 / requests.max(1) as f64).min(1.0)),
            p50_ms: quantile_ms(0.5),
            p95_ms: quantile_ms(0.95),
            p99_ms: quantile_ms(0.99),
        }
    }
}
