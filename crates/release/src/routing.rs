//! From a service's state to its routing: who may serve, and who serves in need.
//!
//! **Invariant**: never an unpermitted version (an unpromoted preview); among the permitted ones, one with a healthy target
//! before one without.

use model::{
    Arm, Draw, Judged, Mirror, Preview, Protocol, ServiceName, ServiceRouting, Sticky, StickyBy, Target, VersionName, VersionTargets,
    WEIGHT_SUM, Weight,
};

use crate::service::Service;
use crate::state::{Release, State};

/// A target as it is observed.
#[derive(Debug, Clone)]
pub struct TargetView {
    pub version: VersionName,
    pub target: Target,
}

/// The routing of one service. `judged`: what is counted while a canary is at a step.
pub fn route(desired: &model::Service, service: &Service, targets: &[TargetView], judged: Option<Judged>) -> ServiceRouting {
    let release = service.running_release();
    let arms = arms(service, targets);
    let serving = arms.iter().map(|(version, _)| version);
    // A connection says nothing that a preview could be asked for by.
    let previews = release.filter(|release| desired.protocol != Protocol::Tcp && release.state.previews_candidate());
    let previewed: Vec<&VersionName> = previews.map(|release| &release.candidate).into_iter().collect();
    let mut routed: Vec<&VersionName> = serving.collect();
    routed.extend(previewed.iter().copied().filter(|version| !arms.iter().any(|(arm, _)| arm == *version)));
    let versions: Vec<VersionTargets> = routed
        .into_iter()
        .map(|version| VersionTargets {
            version: version.clone(),
            targets: targets.iter().filter(|view| !service.stopped && view.version == *version).map(|view| view.target.clone()).collect(),
        })
        .collect();
    ServiceRouting {
        name: service.name.clone(),
        routes: desired.routes.clone(),
        mode: service.mode.clone(),
        mirror: release.and_then(mirror),
        stale_cookie: if arms.len() > 1 { None } else { cookie(desired) },
        draw: release.filter(|_| arms.len() > 1).map(|release| Draw { release: release.id.clone(), judged, sticky: sticky(release) }),
        arms: arms.into_iter().map(|(version, weight)| Arm { version, weight }).collect(),
        versions,
        previews: previewed
            .into_iter()
            .map(|version| Preview { version: version.clone(), host: preview_host(desired, &service.name, version) })
            .collect(),
        response_header_timeout_ms: desired.response_header_timeout_ms,
        stream_idle_timeout_ms: desired.stream_idle_timeout_ms,
        target_tls: desired.tls.clone(),
        target_proxy_protocol: desired.target_proxy_protocol,
        protocol: desired.protocol,
    }
}

/// The host name that a version is previewed by; lower case.
pub fn preview_host(desired: &model::Service, service: &ServiceName, version: &VersionName) -> String {
    desired.preview_host.replace("{version}", version.as_str()).replace("{service}", service.as_str()).to_ascii_lowercase()
}

fn sticky(release: &Release) -> Option<Sticky> {
    let canary = release.settings.canary.as_ref()?;
    let step = match release.state {
        // Until the next weight is set, the step before goes on.
        State::StepGating { step, .. } | State::Preparing { step, .. } => step.checked_sub(1)?,
        _ => release.state.step()?,
    };
    let before = step.checked_sub(1).map_or(0, |before| canary.steps[before].weight);
    Some(Sticky { by: canary.sticky.clone()?, before, window_ms: canary.sticky_window_ms })
}

/// A step of 0 % may be lived through on copies.
fn mirror(release: &Release) -> Option<Mirror> {
    let (methods, body_bytes_max) = release.settings.canary.as_ref()?.mirror.clone()?;
    let mirrors = matches!(release.state, State::Raising { .. } | State::Judging { .. }) && release.weight() == 0;
    mirrors.then(|| Mirror { version: release.candidate.clone(), methods, body_bytes_max })
}

/// That the service's clients are told apart by.
fn cookie(desired: &model::Service) -> Option<String> {
    match desired.strategy.canary.as_ref()?.sticky.as_ref()? {
        StickyBy::Cookie(name) => Some(name.clone()),
        StickyBy::Header(_) | StickyBy::Address => None,
    }
}

/// Who serves how much; the candidate first, then the one it is compared with. At a step the weights stay whatever the health:
/// the judge sees what fails, and a request whose version has no target is helped out with by another, stable first, also where
/// nothing is drawn to it.
fn arms(service: &Service, targets: &[TargetView]) -> Vec<(VersionName, Weight)> {
    let shared = service.running_release().filter(|release| (1..WEIGHT_SUM).contains(&release.weight()));
    let Some((release, stable)) = shared.and_then(|release| Some((release, release.stable.clone()?))) else {
        return serving_in_need(service, targets).map(|version| (version.clone(), WEIGHT_SUM)).into_iter().collect();
    };
    let (weight, rest) = (release.weight(), WEIGHT_SUM - release.weight());
    let mut arms = vec![(release.candidate.clone(), weight)];
    match release.baseline() {
        Some(baseline) => arms.extend([(baseline, weight.min(rest)), (stable, rest - weight.min(rest))]),
        None => arms.push((stable, rest)),
    }
    arms
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
