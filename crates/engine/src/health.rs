//! Active health checks: they go on for ever, also with a single target.

use std::time::Duration;

use model::{Check, Health, TargetId};
use tokio::sync::mpsc;

use crate::command::Input;
use crate::probe::{self, Speech};

/// Whether the target's own session listens on its port; absent when it cannot be told.
pub(crate) type Owned = Box<dyn Fn() -> Option<bool> + Send + Sync>;

/// Whom, how and how often.
pub(crate) struct Asked {
    pub(crate) address: std::net::SocketAddr,
    pub(crate) speech: Speech,
    pub(crate) health: Health,
}

/// Asks again and again; reports every change, and every bad answer while the target was never healthy.
pub(crate) async fn check(
    target: TargetId,
    Asked { address, speech, health }: Asked,
    owned: Option<Owned>,
    inputs: mpsc::UnboundedSender<Input>,
) {
    let (mut good, mut bad, mut tries) = (0u32, 0u32, 0u32);
    let mut healthy: Option<bool> = None;
    let scheme = probe::scheme(speech.trust.is_some());
    loop {
        let timeout = Duration::from_millis(health.timeout_ms);
        let (passed, what) = match health.check {
            Check::Connect => match probe::connect(address, &speech, timeout).await {
                Ok(()) => (true, "accepted".to_owned()),
                Err(error) => (false, error),
            },
            Check::Grpc => match probe::grpc(address, &speech, health.host.as_deref(), &health.grpc_service, timeout).await {
                Ok(()) => (true, "SERVING".to_owned()),
                Err(error) => (false, error),
            },
            Check::Http => match probe::get(address, &speech, health.host.as_deref(), &health.path, timeout).await {
                Ok(status) if (health.status.0..=health.status.1).contains(&status) => (true, status.to_string()),
                Ok(status) => (false, status.to_string()),
                Err(error) => (false, error),
            },
        };
        tries += 1;
        (good, bad) = if passed { (good + 1, 0) } else { (0, bad + 1) };
        let now = match healthy {
            Some(true) => bad < health.fall,
            _ => good >= health.rise,
        };
        // The port may have been taken between our choice and the version's bind: then a stranger answers.
        if now && healthy != Some(true) && owned.as_ref().is_some_and(|owned| owned() == Some(false)) {
            let _ = inputs.send(Input::PortTaken { target });
            return;
        }
        if healthy != Some(now) || !now {
            healthy = Some(now);
            let detail = match health.check {
                Check::Connect => format!("connect {address} → {what}"),
                Check::Grpc => format!("grpc.health.v1.Health/Check {address} → {what}"),
                Check::Http => format!("GET {scheme}://{address}{} → {what}", health.path),
            };
            if inputs.send(Input::Health { target: target.clone(), healthy: now, fallen: bad >= health.fall, detail, tries }).is_err() {
                return;
            }
        }
        // A target that starts is asked more often, so that a release does not wait for the clock.
        let pause_ms = if healthy == Some(true) { health.interval_ms } else { health.interval_ms.min(100) };
        let jitter_ms = u64::from(tries % 7) * pause_ms / 70;
        tokio::time::sleep(Duration::from_millis(pause_ms + jitter_ms)).await;
    }
}
