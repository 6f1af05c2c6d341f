//! The proxy as the engine's data plane.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::TcpListener;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use engine::{Counts, DataPlane, Drained, Recent};
use model::{ListenerName, ServiceName, Snapshot, TargetId, VersionName};

/// A worker that leaves: idle connections may still send a request within this …
const IDLE_GRACE: Duration = Duration::from_secs(2);
/// … and everything has ended, or is cut, within this.
const DRAIN_MAX: Duration = Duration::from_secs(30);
/// Rates are of so many seconds, with one sample each.
const RECENT_SAMPLES: usize = 10;
const SAMPLE_EVERY: Duration = Duration::from_secs(1);

type Samples = VecDeque<(Instant, proxy::Counts)>;

#[derive(Clone)]
pub(crate) struct Corridor {
    proxy: proxy::Proxy,
    samples: Arc<Mutex<HashMap<(ServiceName, VersionName), Samples>>>,
    listening: Arc<Mutex<HashSet<ListenerName>>>,
}

impl Corridor {
    pub(crate) fn new(proxy: proxy::Proxy) -> Self {
        Self { proxy, samples: Arc::default(), listening: Arc::default() }
    }

    fn listening(&self) -> std::sync::MutexGuard<'_, HashSet<ListenerName>> {
        self.listening.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unlisten_all(&self) {
        for name in self.listening().drain() {
            self.proxy.unlisten(&name);
        }
    }

    /// Samples the counts for ever.
    pub(crate) async fn sample(self) {
        let mut ticks = tokio::time::interval(SAMPLE_EVERY);
        loop {
            ticks.tick().await;
            let mut all = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
            for ((service, version), samples) in all.iter_mut() {
                samples.push_back((Instant::now(), self.proxy.counts(service, version)));
                if samples.len() > RECENT_SAMPLES {
                    samples.pop_front();
                }
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
            let now = || VecDeque::from([(Instant::now(), self.proxy.counts(&key.0, &key.1))]);
            samples.entry(key.clone()).or_insert_with(now);
        }
        drop(samples);
        let proxy = self.proxy.clone();
        Box::pin(async move { proxy.install(snapshot).await.map_err(|error| error.to_string()) })
    }

    fn acknowledge(&self) -> engine::Acknowledged {
        let proxy = self.proxy.clone();
        Box::pin(async move { proxy.acknowledge().await.map_err(|error| error.to_string()) })
    }

    fn listen(&self, name: &ListenerName, socket: TcpListener) -> Result<(), String> {
        self.listening().insert(name.clone());
        self.proxy.listen(name, socket).map_err(|error| error.to_string())
    }

    fn unlisten(&self, name: &ListenerName) {
        self.listening().remove(name);
        self.proxy.unlisten(name);
    }

    fn in_flight(&self, service: &ServiceName, version: &VersionName) -> usize {
        let now = self.proxy.in_flight(service, version);
        now.requests + now.tunnels
    }

    fn cut(&self, service: &ServiceName, version: &VersionName) -> usize {
        self.proxy.cut(service, version)
    }

    fn counts(&self, service: &ServiceName, version: &VersionName) -> Counts {
        let counts = self.proxy.counts(service, version);
        Counts { requests: counts.requests, bad: counts.bad }
    }

    fn in_flight_of(&self, target: &TargetId) -> usize {
        let now = self.proxy.in_flight_of(target);
        now.requests + now.tunnels
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

    fn recent(&self, service: &ServiceName, version: &VersionName) -> Recent {
        let all = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((since, then)) = all.get(&(service.clone(), version.clone())).and_then(|samples| samples.front()) else {
            return Recent::default();
        };
        let now = self.proxy.counts(service, version);
        let requests = now.requests.saturating_sub(then.requests);
        let latency = now.latency.since(&then.latency);
        let some = |value: f64| (requests > 0).then_some(value);
        Recent {
            rate: requests as f64 / since.elapsed().as_secs_f64().max(0.001),
            errors: some(now.bad.saturating_sub(then.bad) as f64 / requests.max(1) as f64),
            p99_ms: latency.quantile_us(0.99).map(|us| us as f64 / 1_000.0),
        }
    }
}
