//! The proxy as the engine's data plane.

use std::net::TcpListener;
use std::sync::Arc;

use engine::{Counts, DataPlane};
use model::{ListenerName, ServiceName, Snapshot, VersionName};

pub(crate) struct Corridor(pub(crate) proxy::Proxy);

impl DataPlane for Corridor {
    fn install(&self, snapshot: Arc<Snapshot>) -> engine::Acknowledged {
        let proxy = self.0.clone();
        Box::pin(async move { proxy.install(snapshot).await.map_err(|error| error.to_string()) })
    }

    fn listen(&self, name: &ListenerName, socket: TcpListener) -> Result<(), String> {
        self.0.listen(name, socket).map_err(|error| error.to_string())
    }

    fn unlisten(&self, name: &ListenerName) {
        self.0.unlisten(name);
    }

    fn in_flight(&self, service: &ServiceName, version: &VersionName) -> usize {
        let now = self.0.in_flight(service, version);
        now.requests + now.tunnels
    }

    fn cut(&self, service: &ServiceName, version: &VersionName) -> usize {
        self.0.cut(service, version)
    }

    fn counts(&self, service: &ServiceName, version: &VersionName) -> Counts {
        let counts = self.0.counts(service, version);
        Counts { requests: counts.requests, bad: counts.bad, p99_ms: None }
    }
}
