//! The handle that a program keeps: flags evaluated in-process.
//!
//! **Invariant**: no call waits for the network, except those that connect, and they at most as long as they were told to.
//! Not here: the stream (`stream.rs`), what a call does (`ask.rs`).

use std::fmt;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use serde_json::Value;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::ask::{self, Snapshot};
use crate::background;
use crate::context::IntoContext;
use crate::evaluate::{Details, FlagValue};
use crate::options::{Options, OptionsError};
use crate::remote::Remote;
use crate::report::{ReportError, Reported, Reports, send_for_ever};
use crate::shared::Shared;
use crate::status::{State, Status};
use crate::stream::keep_fresh;

/// The task ends its own waiting at the deadline; this is for a machine that is too busy to run it.
const GRACE: Duration = Duration::from_millis(250);

/// Feature flags, evaluated here and kept fresh in the background. Clones share everything; with the last one the stream ends.
#[derive(Clone)]
pub struct Flags {
    shared: Arc<Shared>,
    _running: Arc<DropGuard>,
}

impl Flags {
    /// Connects, waits until there are values, at most [`Options::init_deadline`], and returns in any case: [`Flags::state`] says
    /// what came of it. It blocks; async code takes [`Flags::connect_async`].
    ///
    /// # Errors
    /// Only for options that cannot be used. A server that is down is no error.
    pub fn connect(options: impl Into<Options>) -> Result<Self, OptionsError> {
        let options = options.into();
        let deadline = options.init_deadline;
        let (started, start) = mpsc::sync_channel(1);
        let flags = Self::launch(options, Some(started))?;
        // Without an answer in time the state says so.
        _ = start.recv_timeout(deadline + GRACE);
        Ok(flags)
    }

    /// As [`Flags::connect`], for async code.
    ///
    /// # Errors
    /// Only for options that cannot be used.
    pub async fn connect_async(options: impl Into<Options>) -> Result<Self, OptionsError> {
        let flags = Self::start(options)?;
        flags.started().await;
        Ok(flags)
    }

    /// Connects in the background and returns at once.
    ///
    /// # Errors
    /// Only for options that cannot be used.
    pub fn start(options: impl Into<Options>) -> Result<Self, OptionsError> {
        Self::launch(options.into(), None)
    }

    /// Flags that the server evaluates, one call each.
    ///
    /// # Errors
    /// Only for options that cannot be used.
    pub fn remote(options: impl Into<Options>) -> Result<Remote, OptionsError> {
        Remote::new(options)
    }

    fn launch(options: Options, started: Option<mpsc::SyncSender<()>>) -> Result<Self, OptionsError> {
        let checked = Arc::new(options.checked()?);
        let (reports, flushes) = Reports::new();
        let reports = Arc::new(reports);
        let shared = Arc::new(Shared::new(checked.report.is_some().then(|| reports.clone())));
        let stop = CancellationToken::new();
        let running = Arc::new(stop.clone().drop_guard());
        let end = Ended(shared.clone());
        let runtime = checked.options.runtime.clone();
        let work = {
            let shared = shared.clone();
            async move {
                let _end = end;
                let reporting = async {
                    match &checked.report {
                        Some(to) => send_for_ever(&checked, to, &reports, flushes, &stop).await,
                        None => stop.cancelled().await,
                    }
                };
                let telling = async {
                    _ = shared.watch().wait_for(|status| status.state != State::NotReady).await;
                    // Nobody may be waiting.
                    _ = started.map(|started| started.send(()));
                    std::future::pending::<()>().await
                };
                // Reporting ends when the program lets go of its flags.
                tokio::select! {
                    () = reporting => {}
                    () = keep_fresh(checked.clone(), shared.clone()) => {}
                    () = telling => {}
                }
            }
        };
        background::run(runtime.as_ref(), work)?;
        Ok(Self { shared, _running: running })
    }

    /// Waits until starting is over: there are values, or the deadline has passed.
    pub async fn started(&self) {
        _ = self.shared.watch().wait_for(|status| status.state != State::NotReady).await;
    }

    /// Waits until the values are the server's; as long as that takes.
    pub async fn ready(&self) {
        _ = self.shared.watch().wait_for(|status| status.state == State::Ready).await;
    }

    /// Is the flag on for this user? `false` when anything is wrong, which [`Flags::errors`] counts.
    pub fn is_enabled(&self, key: &str, user: &(impl IntoContext + ?Sized)) -> bool {
        ask::is_enabled(&self.shared, self.shared.held().as_deref(), key, &user.context())
    }

    /// The value for this user, or `default`: when the flag is disabled or has no default variant, or anything is wrong.
    pub fn value<T: FlagValue>(&self, key: &str, default: T, user: &(impl IntoContext + ?Sized)) -> T {
        ask::value(&self.shared, self.shared.held().as_deref(), key, default, &user.context())
    }

    /// The value, and how it came about.
    pub fn details<T: FlagValue>(&self, key: &str, default: T, user: &(impl IntoContext + ?Sized)) -> Details<T> {
        ask::details(&self.shared, self.shared.held().as_deref(), key, default, &user.context())
    }

    pub fn bool_value(&self, key: &str, default: bool, user: &(impl IntoContext + ?Sized)) -> bool {
        self.value(key, default, user)
    }

    pub fn string_value(&self, key: &str, default: impl Into<String>, user: &(impl IntoContext + ?Sized)) -> String {
        self.value(key, default.into(), user)
    }

    pub fn int_value(&self, key: &str, default: i64, user: &(impl IntoContext + ?Sized)) -> i64 {
        self.value(key, default, user)
    }

    pub fn float_value(&self, key: &str, default: f64, user: &(impl IntoContext + ?Sized)) -> f64 {
        self.value(key, default, user)
    }

    pub fn object_value(&self, key: &str, default: Value, user: &(impl IntoContext + ?Sized)) -> Value {
        self.value(key, default, user)
    }

    /// All flags at this moment, for several questions that must fit together, such as those of one request.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot { shared: self.shared.clone(), held: self.shared.held().clone() }
    }

    /// The user reached a goal of an experiment: `metric`, with how much of it, such as a price; without, it counts as 1. Reported in the background,
    /// for the context's targeting key, and its `requestId` or `traceparent`.
    pub fn track(&self, metric: &str, user: &(impl IntoContext + ?Sized), value: Option<f64>) {
        if let Some(reports) = &self.shared.reports {
            reports.track(metric, &user.context(), value);
        }
    }

    /// `outcome` went well for the user, such as a payment: what `changeover flags rollout --outcome` judges by. Say both, what went
    /// well and what [failed](Self::failed): the share of failures is compared. Reported in the background.
    pub fn succeeded(&self, outcome: &str, user: &(impl IntoContext + ?Sized)) {
        if let Some(reports) = &self.shared.reports {
            reports.ended(outcome, &user.context(), false);
        }
    }

    /// `outcome` failed for the user. A rollout that makes this happen more often is taken back.
    pub fn failed(&self, outcome: &str, user: &(impl IntoContext + ?Sized)) {
        if let Some(reports) = &self.shared.reports {
            reports.ended(outcome, &user.context(), true);
        }
    }

    /// Sends what waits to be reported, for instance before the program ends.
    ///
    /// # Errors
    /// If not all of it was taken; [`ReportError`] says whether it is tried again.
    pub async fn flush(&self) -> Result<(), ReportError> {
        match &self.shared.reports {
            Some(reports) => reports.flush().await,
            None => Err(ReportError::Off),
        }
    }

    pub fn reported(&self) -> Reported {
        self.shared.reports.as_ref().map(|reports| reports.reported()).unwrap_or_default()
    }

    pub fn state(&self) -> State {
        self.shared.state()
    }

    pub fn status(&self) -> Status {
        self.shared.status()
    }

    /// Calls that answered the default because something was wrong, from the start.
    pub fn errors(&self) -> u64 {
        self.shared.errors()
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flags").field("status", &self.status()).finish_non_exhaustive()
    }
}

/// Whatever ends the work, the state says that the flags are no longer kept fresh.
struct Ended(Arc<Shared>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.update(|status| {
            status.lost("the runtime that kept the flags fresh has ended".to_owned());
            status.started();
        });
    }
}
