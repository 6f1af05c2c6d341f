//! Flags that the server evaluates, one call each: for programs that must not know the rules.
//!
//! Over flagd's evaluation v2, not OFREP: there an answer without a value is well-defined (the code's default), integers and floats
//! stay apart, and one connection carries all calls.
//!
//! **Invariant**: an answer comes within [`Options::evaluation_timeout`], at worst the default in the code, with the error.
//! Not here: in-process flags (`client.rs`), `Struct` (`structs.rs`).

use std::fmt;
use std::sync::{Arc, OnceLock};

use flags::Context;
use serde_json::{Map, Value};
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::background;
use crate::context::IntoContext;
use crate::evaluate::{Details, EvaluationError, FlagValue, Reason};
use crate::options::{Checked, Options, OptionsError};
use crate::proto::evaluation_v2 as wire_v2;
use crate::proto::evaluation_v2::service_client::ServiceClient;
use crate::report::{ReportError, Reported, Reports, send_for_ever};
use crate::structs;
use crate::wire;

/// Feature flags, evaluated by the server. All calls are `async` and need tokio. Clones share the connection, which is opened by the
/// first call, on that call's runtime, and opened again when it is lost.
#[derive(Clone)]
pub struct Remote {
    checked: Arc<Checked>,
    channel: Arc<OnceLock<Channel>>,
    reports: Option<Arc<Reports>>,
    _running: Arc<DropGuard>,
}

impl Remote {
    /// Does not connect yet.
    ///
    /// # Errors
    /// Only for options that cannot be used.
    pub fn new(options: impl Into<Options>) -> Result<Self, OptionsError> {
        let checked = Arc::new(options.into().checked()?);
        let stop = CancellationToken::new();
        let running = Arc::new(stop.clone().drop_guard());
        let mut remote = Self { checked: checked.clone(), channel: Arc::default(), reports: None, _running: running };
        if let Some(to) = checked.report.clone() {
            let (reports, flushes) = Reports::new();
            let reports = Arc::new(reports);
            remote.reports = Some(reports.clone());
            let runtime = checked.options.runtime.clone();
            background::run(runtime.as_ref(), async move { send_for_ever(&checked, &to, &reports, flushes, &stop).await })?;
        }
        Ok(remote)
    }

    /// Is the flag on for this user? `false` when anything is wrong.
    pub async fn is_enabled(&self, key: &str, user: &(impl IntoContext + Sync + ?Sized)) -> bool {
        self.value(key, false, user).await
    }

    /// The value for this user, or `default`: when the flag is disabled or has no default variant, or anything is wrong.
    pub async fn value<T: RemoteValue>(&self, key: &str, default: T, user: &(impl IntoContext + Sync + ?Sized)) -> T {
        self.details(key, default, user).await.value
    }

    /// The value, and how it came about.
    pub async fn details<T: RemoteValue>(&self, key: &str, default: T, user: &(impl IntoContext + Sync + ?Sized)) -> Details<T> {
        let question = self.question(key, &user.context());
        match timeout(self.checked.options.evaluation_timeout, T::resolve(self.client(), question)).await {
            Err(_) => Details::error(default, EvaluationError::TimedOut),
            Ok(Err(status)) => Details::error(default, told::<T>(key, &status)),
            Ok(Ok(resolved)) => Details {
                variant: resolved.variant.filter(|variant| resolved.value.is_some() && !variant.is_empty()),
                value: resolved.value.unwrap_or(default),
                reason: Reason::of(&resolved.reason),
                error: None,
                metadata: resolved.metadata,
            },
        }
    }

    pub async fn bool_value(&self, key: &str, default: bool, user: &(impl IntoContext + Sync + ?Sized)) -> bool {
        self.value(key, default, user).await
    }

    pub async fn string_value(&self, key: &str, default: impl Into<String>, user: &(impl IntoContext + Sync + ?Sized)) -> String {
        self.value(key, default.into(), user).await
    }

    pub async fn int_value(&self, key: &str, default: i64, user: &(impl IntoContext + Sync + ?Sized)) -> i64 {
        self.value(key, default, user).await
    }

    pub async fn float_value(&self, key: &str, default: f64, user: &(impl IntoContext + Sync + ?Sized)) -> f64 {
        self.value(key, default, user).await
    }

    pub async fn object_value(&self, key: &str, default: Value, user: &(impl IntoContext + Sync + ?Sized)) -> Value {
        self.value(key, default, user).await
    }

    /// As [`crate::Flags::track`].
    pub fn track(&self, metric: &str, user: &(impl IntoContext + ?Sized), value: Option<f64>) {
        if let Some(reports) = &self.reports {
            reports.track(metric, &user.context(), value);
        }
    }

    /// As [`crate::Flags::succeeded`].
    pub fn succeeded(&self, outcome: &str, user: &(impl IntoContext + ?Sized)) {
        if let Some(reports) = &self.reports {
            reports.ended(outcome, &user.context(), false);
        }
    }

    /// As [`crate::Flags::failed`].
    pub fn failed(&self, outcome: &str, user: &(impl IntoContext + ?Sized)) {
        if let Some(reports) = &self.reports {
            reports.ended(outcome, &user.context(), true);
        }
    }

    /// As [`crate::Flags::flush`].
    ///
    /// # Errors
    /// If not everything was taken.
    pub async fn flush(&self) -> Result<(), ReportError> {
        match &self.reports {
            Some(reports) => reports.flush().await,
            None => Err(ReportError::Off),
        }
    }

    pub fn reported(&self) -> Reported {
        self.reports.as_ref().map(|reports| reports.reported()).unwrap_or_default()
    }

    fn client(&self) -> ServiceClient<Channel> {
        ServiceClient::new(self.channel.get_or_init(|| wire::endpoint(&self.checked).connect_lazy()).clone())
    }

    fn question(&self, key: &str, context: &Context) -> Request<Question> {
        wire::request(&self.checked, Question { flag_key: key.to_owned(), context: Some(structs::from_context(context)) })
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").field("options", &self.checked.options).finish_non_exhaustive()
    }
}

fn told<T: FlagValue>(key: &str, status: &Status) -> EvaluationError {
    match status.code() {
        Code::NotFound => EvaluationError::FlagNotFound(key.to_owned()),
        Code::InvalidArgument => EvaluationError::TypeMismatch { key: key.to_owned(), asked: T::NAME },
        Code::DataLoss => EvaluationError::ParseError(status.message().to_owned()),
        Code::DeadlineExceeded => EvaluationError::TimedOut,
        Code::Unavailable => EvaluationError::Unreachable(status.message().to_owned()),
        _ => EvaluationError::General(status.message().to_owned()),
    }
}

/// What every request of evaluation v2 asks.
#[doc(hidden)]
pub struct Question {
    flag_key: String,
    context: Option<prost_types::Struct>,
}

/// What every response of evaluation v2 says.
#[doc(hidden)]
pub struct Resolved<T> {
    value: Option<T>,
    reason: String,
    variant: Option<String>,
    metadata: Map<String, Value>,
}

/// What can be asked remotely: every [`FlagValue`].
pub trait RemoteValue: FlagValue {
    #[doc(hidden)]
    fn resolve(client: ServiceClient<Channel>, question: Request<Question>) -> impl Future<Output = Result<Resolved<Self>, Status>> + Send;
}

/// Evaluation v2 has a method and two messages per type; they differ in the value alone.
macro_rules! remote {
    ($type:ty, $method:ident, $request:ident, $read:expr) => {
        impl RemoteValue for $type {
            async fn resolve(mut client: ServiceClient<Channel>, question: Request<Question>) -> Result<Resolved<Self>, Status> {
                let request = question.map(|it| wire_v2::$request { flag_key: it.flag_key, context: it.context });
                let answer = client.$method(request).await?.into_inner();
                Ok(Resolved {
                    value: answer.value.map($read),
                    reason: answer.reason,
                    variant: answer.variant,
                    metadata: answer.metadata.map(structs::to_object).unwrap_or_default(),
                })
            }
        }
    };
}

remote!(bool, resolve_boolean, ResolveBooleanRequest, |value| value);
remote!(String, resolve_string, ResolveStringRequest, |value| value);
remote!(i64, resolve_int, ResolveIntRequest, |value| value);
remote!(f64, resolve_float, ResolveFloatRequest, |value| value);
remote!(Value, resolve_object, ResolveObjectRequest, |value| Value::Object(structs::to_object(value)));
