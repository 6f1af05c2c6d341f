//! Sends reports: every second, or when a batch is full, over one HTTP connection.
//!
//! **Invariant**: what the server certainly has not taken waits for the next time; everything else is sent once.
//! Not here: the bounds of what waits (`queue.rs`).

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, Uri, header};
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::queue::Batch;
use super::{Flush, ReportError, Reports};
use crate::options::Checked;

const EVERY: Duration = Duration::from_secs(1);
/// Of one report, connecting included.
const TIMEOUT: Duration = Duration::from_secs(3);
/// For what is left when the program lets go of its flags.
const LAST_TIMEOUT: Duration = Duration::from_secs(1);

/// Returns after `stop`, with a last attempt.
pub(crate) async fn send_for_ever(
    checked: &Checked,
    to: &Uri,
    reports: &Reports,
    mut flushes: mpsc::UnboundedReceiver<Flush>,
    stop: &CancellationToken,
) {
    let line = Line { client: Client::builder(TokioExecutor::new()).build_http(), checked, to, reports };
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => drop(line.send_all().await),
            () = reports.wake.notified() => drop(line.send_all().await),
            // Who asked may be gone.
            Some(done) = flushes.recv() => drop(done.send(line.send_all().await)),
            () = stop.cancelled() => break,
        }
    }
    _ = timeout(LAST_TIMEOUT, line.send_all()).await;
}

struct Line<'a> {
    client: Client<HttpConnector, Full<Bytes>>,
    checked: &'a Checked,
    to: &'a Uri,
    reports: &'a Reports,
}

/// What became of a batch.
enum Sent {
    Taken,
    /// Later, maybe.
    Not(String),
    /// Never, or nobody knows.
    Lost(String),
}

impl Line<'_> {
    async fn send_all(&self) -> Result<(), ReportError> {
        let mut refused = Ok(());
        loop {
            // The guard must not live into the await.
            let taken = self.reports.queue().take();
            let Some(batch) = taken else {
                return refused;
            };
            let count = batch.len() as u64;
            match self.send(&batch).await {
                Sent::Taken => {
                    self.reports.sent.fetch_add(count, Ordering::Relaxed);
                    *self.reports.error() = None;
                }
                Sent::Not(why) => {
                    self.reports.queue().put_back(batch);
                    return Err(self.failed(ReportError::Unreachable { to: self.to.to_string(), why }));
                }
                Sent::Lost(why) => {
                    self.reports.dropped.fetch_add(count, Ordering::Relaxed);
                    refused = Err(self.failed(ReportError::Refused { to: self.to.to_string(), why }));
                }
            }
        }
    }

    fn failed(&self, error: ReportError) -> ReportError {
        *self.reports.error() = Some(error.clone());
        error
    }

    async fn send(&self, batch: &Batch) -> Sent {
        let request = match self.request(batch) {
            Ok(request) => request,
            Err(why) => return Sent::Lost(why),
        };
        match timeout(TIMEOUT, self.client.request(request)).await {
            Err(_) => Sent::Lost(format!("no answer within {TIMEOUT:?}")),
            Ok(Err(error)) if error.is_connect() => Sent::Not(error.to_string()),
            Ok(Err(error)) => Sent::Lost(error.to_string()),
            Ok(Ok(answer)) => match answer.status() {
                status if status.is_success() => Sent::Taken,
                status @ (StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) => Sent::Not(status.to_string()),
                status => Sent::Lost(status.to_string()),
            },
        }
    }

    fn request(&self, batch: &Batch) -> Result<Request<Full<Bytes>>, String> {
        let body = serde_json::to_vec(batch).map_err(|error| error.to_string())?;
        let mut request = Request::builder().method(Method::POST).uri(self.to).header(header::CONTENT_TYPE, "application/json");
        let headers = [(header::AUTHORIZATION.as_str(), &self.checked.authorization), ("flagd-selector", &self.checked.selector_header)];
        for (name, value) in headers {
            if let Some(value) = value {
                request = request.header(name, value.as_bytes());
            }
        }
        request.body(Full::from(body)).map_err(|error| error.to_string())
    }
}
