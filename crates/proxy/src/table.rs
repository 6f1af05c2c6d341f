//! A snapshot compiled for look-ups: which service and version a request belongs to, and which target gets it.
//!
//! **Invariant**: immutable; a request reads one table. Between `pick` and the claim there is no await.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use model::{
    Arm, Draw, Forwarders, HostPattern, ListenerName, Mode, Protocol, ProxyProtocol, ReleaseId, ServiceName, ServiceRouting, TargetId,
    VersionName,
};
use telemetry::SETS;
use tls::{Door, Keyring, Trust};

use crate::admission::Addresses;
use crate::cohort::Cohorts;
use crate::counts::VersionCounts;
use crate::live::TargetLive;
use crate::mirror::Mirror;
use crate::number::Numbers;
use crate::reason::Reason;
use crate::unit::{Cells, Epoch};

#[derive(Default)]
pub(crate) struct Table {
    pub(crate) services: Vec<Service>,
    pub(crate) listeners: Vec<(ListenerName, Routes)>,
    /// Listeners of services that speak any protocol; such a listener has no routes.
    tcp: Vec<(ListenerName, usize)>,
    /// Of listeners that speak TLS.
    doors: BTreeMap<String, Arc<Door>>,
    /// Of listeners at which somebody is believed what it says of clients.
    forwarders: BTreeMap<ListenerName, Arc<Forwarders>>,
    /// Of listeners that count the connections of an address: how many it may have.
    addresses: HashMap<ListenerName, (Arc<Addresses>, u32)>,
    /// Numbers of targets whose version is in an arm or a preview: their connections may be kept.
    pub(crate) poolable: Numbers,
    /// Numbers of targets whose version is in an arm: what is idle on others is closed at a switch.
    pub(crate) serving: Numbers,
}

pub(crate) struct Service {
    pub(crate) mode: Mode,
    pub(crate) maintenance: bytes::Bytes,
    /// The candidate first, then the one that it is compared with.
    pub(crate) arms: Vec<(u16, usize)>,
    /// What is counted of the draw between the first two arms.
    pub(crate) epoch: Option<Arc<Epoch>>,
    /// Clients stay on the arm that they were drawn to.
    pub(crate) cohorts: Option<Cohorts>,
    pub(crate) mirror: Option<Mirror>,
    /// A cookie that clients need no more.
    pub(crate) stale_cookie: Option<String>,
    pub(crate) versions: Vec<Version>,
    pub(crate) previews: Vec<usize>,
    /// Requests on hold, over all threads.
    pub(crate) held: Arc<AtomicU32>,
    pub(crate) response_header_timeout_ms: u64,
    pub(crate) stream_idle_timeout_ms: u64,
    /// Its targets speak TLS.
    pub(crate) trust: Option<Arc<Trust>>,
    /// Spoken with its targets.
    pub(crate) protocol: Protocol,
    /// Its targets are told who the client is.
    pub(crate) announces: Option<proxy_protocol::Version>,
}

pub(crate) struct Version {
    pub(crate) name: VersionName,
    /// A target is as busy as it has connections, not only requests.
    counts_tunnels: bool,
    pub(crate) counts: Arc<VersionCounts>,
    pub(crate) targets: Vec<Target>,
}

pub(crate) struct Target {
    /// Among its version's.
    pub(crate) index: usize,
    pub(crate) address: std::net::SocketAddr,
    pub(crate) healthy: bool,
    pub(crate) live: Arc<TargetLive>,
}

#[derive(Default)]
pub(crate) struct Routes {
    previews: HashMap<Vec<u8>, (usize, usize)>,
    exact: HashMap<Vec<u8>, Vec<PathRoute>>,
    /// Longest first.
    suffixes: Vec<(Vec<u8>, Vec<PathRoute>)>,
    any: Vec<PathRoute>,
}

/// Longest first within a list.
struct PathRoute {
    prefix: Vec<u8>,
    service: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Routed {
    pub(crate) service: usize,
    /// A preview: this version and no other.
    pub(crate) only: Option<usize>,
}

/// Where live state and counts come from while a table is compiled.
pub(crate) trait Lives {
    fn target(&mut self, id: &TargetId, service: &ServiceName, version: &VersionName) -> Arc<TargetLive>;
    fn counts(&mut self, service: &ServiceName, version: &VersionName) -> Arc<VersionCounts>;
    /// Counts of copies.
    fn mirrored(&mut self, service: &ServiceName, version: &VersionName) -> Arc<VersionCounts>;
    fn held(&mut self, service: &ServiceName) -> Arc<AtomicU32>;
    fn cells(&mut self, release: &ReleaseId, closing_s: u64, sticky: bool) -> Arc<Cells>;
    fn addresses(&mut self, listener: &ListenerName) -> Arc<Addresses>;
}

impl Table {
    pub(crate) fn compile(snapshot: &model::Snapshot, lives: &mut impl Lives, keyring: &Keyring) -> Table {
        let tls = snapshot.tls.iter().map(|(name, settings)| (name.as_str().to_owned(), settings.clone())).collect();
        let limits = snapshot.connections_per_address.iter();
        let addresses = limits.map(|(name, max)| (name.clone(), (lives.addresses(name), *max))).collect();
        let forwarders = snapshot.forwarders.iter().map(|(name, it)| (name.clone(), Arc::new(it.clone()))).collect();
        let mut table = Table { doors: keyring.doors(&tls), addresses, forwarders, ..Table::default() };
        for routing in &snapshot.services {
            let service = compile_service(routing, lives, keyring);
            let number = table.services.len();
            for (index, version) in service.versions.iter().enumerate() {
                let serves = service.arms.iter().any(|(_, arm)| *arm == index);
                let numbers = version.targets.iter().map(|target| target.live.number);
                if serves {
                    table.serving.extend(numbers.clone());
                }
                if serves || service.previews.contains(&index) {
                    table.poolable.extend(numbers);
                }
            }
            if routing.protocol == Protocol::Tcp {
                table.tcp.extend(routing.routes.iter().map(|route| (route.listener.clone(), number)));
                table.services.push(service);
                continue;
            }
            for route in &routing.routes {
                let routes = table.routes_of(&route.listener);
                routes.add(&route.host, PathRoute { prefix: route.path.clone().into_bytes(), service: number });
                for preview in &routing.previews {
                    if let Some(version) = service.version(preview.version.as_str()) {
                        routes.previews.insert(preview.host.clone().into_bytes(), (number, version));
                    }
                }
            }
            table.services.push(service);
        }
        for (_, routes) in &mut table.listeners {
            routes.sort();
        }
        table
    }

    fn routes_of(&mut self, listener: &ListenerName) -> &mut Routes {
        if let Some(index) = self.listeners.iter().position(|(name, _)| name == listener) {
            return &mut self.listeners[index].1;
        }
        self.listeners.push((listener.clone(), Routes::default()));
        &mut self.listeners.last_mut().expect("just pushed").1
    }

    /// Whose connections those of this listener are, whatever they say. `None`: it speaks HTTP.
    pub(crate) fn tcp(&self, listener: &ListenerName) -> Option<usize> {
        self.tcp.iter().find(|(name, _)| name == listener).map(|(_, service)| *service)
    }

    /// `None`: nobody is believed there.
    pub(crate) fn forwarders(&self, listener: &ListenerName) -> Option<&Arc<Forwarders>> {
        self.forwarders.get(listener)
    }

    /// `None`: the listener speaks in clear.
    pub(crate) fn door(&self, listener: &ListenerName) -> Option<Arc<Door>> {
        self.doors.get(listener.as_str()).cloned()
    }

    /// `None`: the listener lets an address have as many connections as it likes.
    pub(crate) fn addresses(&self, listener: &ListenerName) -> Option<&(Arc<Addresses>, u32)> {
        self.addresses.get(listener)
    }

    /// `host` is in lower case and without port; `wanted` is the value of `x-changeover-version`.
    pub(crate) fn route(&self, listener: &ListenerName, host: &[u8], path: &[u8], wanted: Option<&[u8]>) -> Result<Routed, Reason> {
        let (_, routes) = self.listeners.iter().find(|(name, _)| name == listener).ok_or(Reason::NoRoute)?;
        if let Some(&(service, version)) = routes.previews.get(host) {
            return Ok(Routed { service, only: Some(version) });
        }
        let service = routes.find(host, path).ok_or(Reason::NoRoute)?;
        let Some(wanted) = wanted else {
            return Ok(Routed { service, only: None });
        };
        let version = self.services[service].reachable_by_name(wanted).ok_or(Reason::NoSuchVersion)?;
        Ok(Routed { service, only: Some(version) })
    }
}

impl Routes {
    fn add(&mut self, host: &HostPattern, route: PathRoute) {
        match host {
            HostPattern::Any => self.any.push(route),
            HostPattern::Exact(name) => self.exact.entry(name.clone().into_bytes()).or_default().push(route),
            HostPattern::Suffix(suffix) => match self.suffixes.iter_mut().find(|(known, _)| known == suffix.as_bytes()) {
                Some((_, routes)) => routes.push(route),
                None => self.suffixes.push((suffix.clone().into_bytes(), vec![route])),
            },
        }
    }

    fn sort(&mut self) {
        let lists = self.exact.values_mut().chain(self.suffixes.iter_mut().map(|(_, routes)| routes));
        for routes in lists.chain([&mut self.any]) {
            routes.sort_by_key(|route| std::cmp::Reverse(route.prefix.len()));
        }
        self.suffixes.sort_by_key(|(suffix, _)| std::cmp::Reverse(suffix.len()));
    }

    fn find(&self, host: &[u8], path: &[u8]) -> Option<usize> {
        let exact = self.exact.get(host).and_then(|routes| longest(routes, path));
        let suffix = || {
            let mut matching = self.suffixes.iter().filter(|(suffix, _)| host.len() > suffix.len() && host.ends_with(suffix));
            matching.find_map(|(_, routes)| longest(routes, path))
        };
        exact.or_else(suffix).or_else(|| longest(&self.any, path))
    }
}

fn longest(routes: &[PathRoute], path: &[u8]) -> Option<usize> {
    routes.iter().find(|route| prefix_matches(&route.prefix, path)).map(|route| route.service)
}

/// Whole segments: `/api` matches `/api` and `/api/x`, not `/apis`.
fn prefix_matches(prefix: &[u8], path: &[u8]) -> bool {
    match path.strip_prefix(prefix) {
        Some(rest) => rest.is_empty() || prefix.ends_with(b"/") || rest.starts_with(b"/"),
        // `*` of OPTIONS belongs to whoever owns the root.
        None => path == b"*" && prefix == b"/",
    }
}

fn compile_service(routing: &ServiceRouting, lives: &mut impl Lives, keyring: &Keyring) -> Service {
    let versions: Vec<Version> = routing
        .versions
        .iter()
        .map(|version| Version {
            name: version.version.clone(),
            counts_tunnels: routing.protocol == Protocol::Tcp,
            counts: lives.counts(&routing.name, &version.version),
            targets: version
                .targets
                .iter()
                .enumerate()
                .map(|(index, target)| {
                    let live = lives.target(&target.id, &routing.name, &version.version);
                    live.checked(target.healthy);
                    Target { index, address: target.address, healthy: target.healthy, live }
                })
                .collect(),
        })
        .collect();
    let index_of = |name: &VersionName| versions.iter().position(|version| version.name == *name);
    let arm = |arm: &Arm| Some((arm.weight, index_of(&arm.version)?));
    let arms: Vec<(u16, usize)> = routing.arms.iter().filter_map(arm).collect();
    Service {
        cohorts: routing.draw.as_ref().and_then(|draw| Some(Cohorts::new(draw.sticky.clone()?, draw.release.as_str()))),
        mirror: routing.mirror.as_ref().and_then(|mirror| {
            Some(Mirror {
                version: index_of(&mirror.version)?,
                methods: mirror.methods.iter().filter_map(|method| method.parse().ok()).collect(),
                body_max: mirror.body_bytes_max as usize,
                counts: lives.mirrored(&routing.name, &mirror.version),
            })
        }),
        stale_cookie: routing.stale_cookie.clone(),
        epoch: routing.draw.as_ref().filter(|_| arms.len() > 1).and_then(|draw| epoch(draw, lives)),
        mode: routing.mode.clone(),
        maintenance: match &routing.mode {
            Mode::Maintenance { page } => bytes::Bytes::from(page.clone()),
            _ => bytes::Bytes::new(),
        },
        arms,
        previews: routing.previews.iter().filter_map(|preview| index_of(&preview.version)).collect(),
        held: lives.held(&routing.name),
        response_header_timeout_ms: routing.response_header_timeout_ms,
        stream_idle_timeout_ms: routing.stream_idle_timeout_ms,
        protocol: routing.protocol,
        trust: routing.target_tls.as_ref().map(|settings| keyring.trust(settings)),
        announces: routing.target_proxy_protocol.map(|version| match version {
            ProxyProtocol::V1 => proxy_protocol::Version::V1,
            ProxyProtocol::V2 => proxy_protocol::Version::V2,
        }),
        versions,
    }
}

fn epoch(draw: &Draw, lives: &mut impl Lives) -> Option<Arc<Epoch>> {
    let judged = draw.judged.as_ref()?;
    let mut thresholds = [Vec::new(), Vec::new()];
    for threshold in judged.thresholds.iter().filter(|threshold| threshold.set < SETS) {
        thresholds[0].push((threshold.set, Duration::from_nanos(threshold.candidate_ns)));
        thresholds[1].push((threshold.set, Duration::from_nanos(threshold.stable_ns)));
    }
    let cells = lives.cells(&draw.release, judged.closing_s, draw.sticky.is_some());
    Some(Arc::new(Epoch { cells, number: judged.epoch, timeout_bad: Duration::from_millis(judged.timeout_bad_ms), thresholds }))
}

impl Service {
    fn version(&self, name: &str) -> Option<usize> {
        self.versions.iter().position(|version| version.name.as_str() == name)
    }

    fn reachable_by_name(&self, name: &[u8]) -> Option<usize> {
        let index = self.versions.iter().position(|version| version.name.as_str().as_bytes() == name)?;
        let serves = self.arms.iter().any(|(_, arm)| *arm == index);
        (serves || self.previews.contains(&index)).then_some(index)
    }

    /// May a request that was routed so run on this target of this version?
    pub(crate) fn permits(&self, only: Option<usize>, version: &VersionName, target: u64) -> bool {
        let Some(index) = self.version(version.as_str()) else {
            return false;
        };
        let chosen = match only {
            Some(only) => only == index,
            None => self.arms.iter().any(|(_, arm)| *arm == index),
        };
        chosen && self.versions[index].targets.iter().any(|known| known.live.number == target)
    }

    /// The target of a version: the less busy one of two. A version without a good target gives way to another permitted one;
    /// when no target is good, all permitted ones are tried. `arm` is the one that was drawn, or 0.
    pub(crate) fn pick(&self, only: Option<usize>, arm: usize, tried: &[u64], now_ms: u64) -> Option<(usize, &Target)> {
        if let Some(only) = only {
            let version = &self.versions[only];
            return version.pick_good(tried, now_ms).or_else(|| version.pick_any(tried)).map(|target| (only, target));
        }
        let (_, drawn) = *self.arms.get(arm).or(self.arms.first())?;
        // The candidate helps out last.
        let others = || self.arms.iter().rev().map(|(_, arm)| *arm).filter(|arm| *arm != drawn);
        let order = || std::iter::once(drawn).chain(others()).map(|index| (index, &self.versions[index]));
        let good = order().find_map(|(index, version)| Some((index, version.pick_good(tried, now_ms)?)));
        good.or_else(|| order().find_map(|(index, version)| Some((index, version.pick_any(tried)?))))
    }

    /// Which arm a new request goes to, exactly with the arms' weights; the candidate lies at the low end. `None`: there is one.
    pub(crate) fn draw(&self) -> Option<usize> {
        self.arm_at(|| model::below_parts(|| fastrand::u64(..)))
    }

    pub(crate) fn arm_at(&self, place: impl FnOnce() -> u16) -> Option<usize> {
        if self.arms.len() < 2 {
            return None;
        }
        let mut place = place();
        let arm = self.arms.iter().position(|(weight, _)| {
            let is_here = place < *weight;
            place = place.saturating_sub(*weight);
            is_here
        });
        arm.or(Some(self.arms.len() - 1))
    }
}

impl Version {
    fn pick_good(&self, tried: &[u64], now_ms: u64) -> Option<&Target> {
        self.pick_among(|target| target.healthy && !tried.contains(&target.live.number) && !target.live.is_ejected(now_ms))
    }

    fn pick_any(&self, tried: &[u64]) -> Option<&Target> {
        self.pick_among(|target| !tried.contains(&target.live.number))
    }

    fn load(&self, target: &Target) -> usize {
        let tunnels = if self.counts_tunnels { target.live.tunnels() } else { 0 };
        target.live.requests() + tunnels
    }

    fn pick_among(&self, fits: impl Fn(&Target) -> bool) -> Option<&Target> {
        if let [target] = &self.targets[..] {
            return fits(target).then_some(target);
        }
        let candidates = || self.targets.iter().filter(|target| fits(target));
        let count = candidates().count();
        if count < 2 {
            return candidates().next();
        }
        let first = fastrand::usize(0..count);
        let second = (first + fastrand::usize(1..count)) % count;
        // Another thread may eject a target between the two passes.
        match (candidates().nth(first), candidates().nth(second)) {
            (Some(a), Some(b)) if self.load(b) < self.load(a) => Some(b),
            (Some(a), _) => Some(a),
            (None, b) => b,
        }
    }
}
