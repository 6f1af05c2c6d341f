//! From a service's state to its routing: who may serve, and who serves in need.
//!
//! **Invariant**: never an unpermitted version (an unpromoted preview); among the permitted ones, one with a healthy target
//! before one without.

use model::{Arm, Preview, ServiceName, ServiceRouting, Target, VersionName, VersionTargets, WEIGHT_SUM};

use crate::clockwork::{Release, State};
use crate::service::Service;

/// A target as it is observed.
#[derive(Debug, Clone)]
pub struct TargetView {
    pub version: VersionName,
    pub target: Target,
}

/// The routing of one service.
pub fn route(desired: &model::Service, service: &Service, targets: &[TargetView]) -> ServiceRouting {
    let serving = serving_in_need(service, targets);
    let release = service.running_release();
    let previewed: Vec<&VersionName> =
        release.filter(|release| release.state.previews_candidate()).map(|release| &release.candidate).into_iter().collect();
    let versions = serving
        .iter()
        .copied()
        .chain(previewed.iter().copied())
        .map(|version| VersionTargets {
            version: version.clone(),
            targets: targets.iter().filter(|view| !service.stopped && view.version == *version).map(|view| view.target.clone()).collect(),
        })
        .collect();
    ServiceRouting {
        name: service.name.clone(),
        routes: desired.routes.clone(),
        mode: service.mode.clone(),
        arms: serving.map(|version| Arm { version: version.clone(), weight: WEIGHT_SUM }).into_iter().collect(),
        versions,
        previews: previewed
            .into_iter()
            .map(|version| Preview { version: version.clone(), host: preview_host(desired, &service.name, version) })
            .collect(),
        response_header_timeout_ms: desired.response_header_timeout_ms,
        stream_idle_timeout_ms: desired.stream_idle_timeout_ms,
    }
}

/// The host name that a version is previewed by; lower case.
pub fn preview_host(desired: &model::Service, service: &ServiceName, version: &VersionName) -> String {
    desired.preview_host.replace("{version}", version.as_str()).replace("{service}", service.as_str()).to_ascii_lowercase()
}

fn serving_in_need<'a>(service: &'a Service, targets: &[TargetView]) -> Option<&'a VersionName> {
    let healthy = |version: &VersionName| targets.iter().any(|view| view.version == *version && view.target.healthy);
    let first = service.serving()?;
    if healthy(first) {
        return Some(first);
    }
    let release = service.running_release();
    let other = release.filter(|release| may_fall_back(release)).and_then(|release| release.stable.as_ref());
    Some(other.filter(|version| healthy(version)).unwrap_or(first))
}

/// Until the release is confirmed, stable is permitted to take over; never one that a migration has ruled out.
fn may_fall_back(release: &Release) -> bool {
    release.irreversible.is_none() && matches!(release.state, State::Switching | State::Draining | State::Watching)
}
