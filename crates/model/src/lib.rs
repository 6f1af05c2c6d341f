//! The words of the house: names, weights, the desired state and the routing snapshot.
//!
//! Plain data, serialisable, no IO, no clock, no randomness. Everybody knows this room; it knows nobody.

mod api;
mod desired;
mod flags;
mod name;
mod rejected;
mod share;
mod snapshot;
mod tls;
mod words;

pub use api::Api;
pub use ipnet::IpNet;

pub use desired::{
    AccessLog, AccessLogFormat, AccessLogScope, Analysis, Canary, Check, Desired, Expired, Forwarders, Gate, GateKind, GuardMetric,
    GuardRail, Health, HostPattern, Independence, Judging, Listener, PortRange, Promotion, Protocol, ProxyProtocol, Run, Runtime, Service,
    Signal, Source, Step, Strategy, UserMetric,
};
pub use flags::{FlagEnvironment, FlagPort, Flags};
pub use name::{InvalidName, ListenerName, ReleaseId, ServiceName, TargetId, VersionName};
pub use rejected::Rejected;
pub use share::{LATENCY_BUCKETS, below_parts, latency_bucket, latency_edge_ns};
pub use snapshot::{
    Arm, Draw, Judged, Mirror, Mode, Preview, Route, ServiceRouting, Snapshot, Sticky, StickyBy, Target, Threshold, VersionTargets,
};
pub use tls::{Acme, Authorities, Certificate, Challenge, ClientAuth, DefaultCertificate, ListenerTls, TargetTls};
pub use words::thousands;

/// A share of traffic in parts per 10,000, so that it adds up exactly.
pub type Weight = u16;

/// The weights of a service sum to this.
pub const WEIGHT_SUM: Weight = 10_000;

/// Milliseconds since boot (`CLOCK_BOOTTIME`). Deadlines are moments; wall clock is for people only.
pub type Moment = u64;

/// A request with this field reaches the named version, when that version may be previewed.
pub const VERSION_FIELD: &str = "x-changeover-version";

/// Says why the proxy itself made an answer.
pub const REASON_FIELD: &str = "x-changeover-reason";
