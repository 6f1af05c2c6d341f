//! Exposures and outcomes: what the server cannot see when evaluations happen here.
//!
//! **Invariant**: an evaluation never waits for the network, and a report that may have arrived is not sent again, so that nothing is
//! counted twice. Not here: which evaluations are reported (`shared.rs`).

mod queue;
mod sender;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use flags::Context;
use tokio::sync::{Notify, mpsc, oneshot};

use crate::clock::now_ms;
use crate::context::request_id;
use queue::{Outcome, Queue};

pub(crate) use sender::send_for_ever;

/// Of a goal that was reached and has no quantity: counted.
const ONCE: f64 = 1.0;

/// How reporting goes. Numbers count exposures and outcomes from the start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reported {
    pub waiting: u64,
    pub sent: u64,
    /// Did not fit, were refused by the server, or got lost on the way.
    pub dropped: u64,
    /// What went wrong last; nothing once a report is taken again.
    pub error: Option<ReportError>,
}

/// Why not everything was reported.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReportError {
    #[error("nothing is reported: `Options::no_reports` was chosen, or the flags are no longer kept fresh")]
    Off,
    #[error("cannot report to {to}: {why}; it is tried again")]
    Unreachable { to: String, why: String },
    #[error("{to} did not take a report: {why}")]
    Refused { to: String, why: String },
}

type Flush = oneshot::Sender<Result<(), ReportError>>;

pub(crate) struct Reports {
    queue: Mutex<Queue>,
    wake: Notify,
    flush: mpsc::UnboundedSender<Flush>,
    sent: AtomicU64,
    dropped: AtomicU64,
    error: Mutex<Option<ReportError>>,
}

impl Reports {
    /// With what [`send_for_ever`] listens to.
    pub(crate) fn new() -> (Self, mpsc::UnboundedReceiver<Flush>) {
        let (flush, flushes) = mpsc::unbounded_channel();
        let reports = Self {
            queue: Mutex::default(),
            wake: Notify::new(),
            flush,
            sent: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            error: Mutex::default(),
        };
        (reports, flushes)
    }

    /// Nobody in particular cannot be counted.
    pub(crate) fn exposed(&self, flag: &str, variant: &str, context: &Context) {
        let Some(targeting_key) = context.targeting_key() else {
            return;
        };
        let urgent = self.queue().expose(&(flag, variant, targeting_key, request_id(context)), now_ms());
        self.wake_if(urgent);
    }

    pub(crate) fn track(&self, metric: &str, context: &Context, value: Option<f64>) {
        let value = value.unwrap_or(ONCE);
        // JSON has no other numbers.
        if value.is_finite() {
            self.outcome(metric, context, Some(value), None);
        } else {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn ended(&self, outcome: &str, context: &Context, failed: bool) {
        self.outcome(outcome, context, None, Some(failed));
    }

    fn outcome(&self, metric: &str, context: &Context, value: Option<f64>, failed: Option<bool>) {
        let targeting_key = context.targeting_key().map(str::to_owned);
        let request_id = request_id(context).map(str::to_owned);
        let urgent = self.queue().outcome(Outcome { targeting_key, request_id, metric: metric.to_owned(), value, failed });
        self.wake_if(urgent);
    }

    fn wake_if(&self, urgent: bool) {
        if urgent {
            self.wake.notify_one();
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn error(&self) -> MutexGuard<'_, Option<ReportError>> {
        self.error.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) async fn flush(&self) -> Result<(), ReportError> {
        let (done, answer) = oneshot::channel();
        self.flush.send(done).map_err(|_| ReportError::Off)?;
        answer.await.map_err(|_| ReportError::Off)?
    }

    pub(crate) fn reported(&self) -> Reported {
        let lost = self.dropped.load(Ordering::Relaxed);
        let (sent, error) = (self.sent.load(Ordering::Relaxed), self.error().clone());
        let queue = self.queue();
        Reported { waiting: queue.len() as u64, sent, dropped: queue.dropped + lost, error }
    }
}
