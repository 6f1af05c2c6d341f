//! An OpenFeature provider for the crate `open-feature`, over [`Flags`] or [`Remote`].
//!
//! ```no_run
//! use changeover_flags::{Flags, provider::Provider};
//! use open_feature::{EvaluationContext, OpenFeature};
//!
//! # async fn example() -> Result<(), changeover_flags::OptionsError> {
//! let flags = Flags::connect_async("http://127.0.0.1:8015").await?;
//! let mut api = OpenFeature::singleton_mut().await;
//! api.set_provider(Provider::new(flags)).await;
//! let user = EvaluationContext::default().with_targeting_key("user-1");
//! let on = api.create_client().get_bool_value("new-scoring-algorithm", Some(&user), None).await.unwrap_or(false);
//! # Ok(())
//! # }
//! ```
//!
//! **Invariant**: where the default in the code applies, the answer is an error, for this SDK passes no default to providers: the
//! program's `unwrap_or` is what supplies it. That includes disabled flags.
//! Not here: types (`convert.rs`).

mod convert;

use flags::Context;
use open_feature::provider::{FeatureProvider, ProviderMetadata, ProviderStatus, ResolutionDetails};
use open_feature::{EvaluationContext, EvaluationError, EvaluationErrorCode, EvaluationResult, StructValue, async_trait};
use serde_json::Value;

use crate::evaluate::{Details, Reason};
use crate::remote::RemoteValue;
use crate::status::State;
use crate::{Flags, Remote};

const NAME: &str = "changeover";

/// What a provider asks: in-process flags or remote ones.
pub trait Source: Send + Sync + 'static {
    #[doc(hidden)]
    fn ask<T: RemoteValue + Send>(&self, key: &str, unused: T, context: &Context) -> impl Future<Output = Details<T>> + Send;
    #[doc(hidden)]
    fn start(&self) -> impl Future<Output = ()> + Send;
    #[doc(hidden)]
    fn state(&self) -> State;
}

impl Source for Flags {
    async fn ask<T: RemoteValue + Send>(&self, key: &str, unused: T, context: &Context) -> Details<T> {
        self.details(key, unused, context)
    }

    async fn start(&self) {
        self.started().await;
    }

    fn state(&self) -> State {
        Flags::state(self)
    }
}

impl Source for Remote {
    async fn ask<T: RemoteValue + Send>(&self, key: &str, unused: T, context: &Context) -> Details<T> {
        self.details(key, unused, context).await
    }

    async fn start(&self) {}

    /// Each call says for itself whether the server answers.
    fn state(&self) -> State {
        State::Ready
    }
}

/// Given to OpenFeature once. Keep a clone of the source for what OpenFeature's Rust SDK has no words for, such as `track`.
#[derive(Debug)]
pub struct Provider<S> {
    source: S,
    metadata: ProviderMetadata,
}

impl<S: Source> Provider<S> {
    pub fn new(source: S) -> Self {
        Self { source, metadata: ProviderMetadata::new(NAME) }
    }

    async fn resolve<T: RemoteValue + Send>(
        &self,
        key: &str,
        unused: T,
        context: &EvaluationContext,
    ) -> EvaluationResult<ResolutionDetails<T>> {
        let details = self.source.ask(key, unused, &convert::context(context)).await;
        if let Some(error) = &details.error {
            return Err(convert::error(error));
        }
        let Some(variant) = details.variant else {
            let why = if details.reason == Reason::Disabled { "is disabled" } else { "has no default variant" };
            let message = format!("the flag `{key}` {why}: the default in the code applies");
            let code = EvaluationErrorCode::General(details.reason.as_str().to_owned());
            return Err(EvaluationError { code, message: Some(message) });
        };
        Ok(ResolutionDetails {
            value: details.value,
            variant: Some(variant),
            reason: Some(convert::reason(details.reason)),
            flag_metadata: Some(convert::metadata(&details.metadata)),
        })
    }
}

#[async_trait]
impl<S: Source> FeatureProvider for Provider<S> {
    async fn initialize(&mut self, _context: &EvaluationContext) {
        self.source.start().await;
    }

    fn status(&self) -> ProviderStatus {
        match self.source.state() {
            State::NotReady => ProviderStatus::NotReady,
            State::Ready => ProviderStatus::Ready,
            State::Stale => ProviderStatus::STALE,
            State::Error => ProviderStatus::Error,
        }
    }

    fn metadata(&self) -> &ProviderMetadata {
        &self.metadata
    }

    async fn resolve_bool_value(&self, key: &str, context: &EvaluationContext) -> EvaluationResult<ResolutionDetails<bool>> {
        self.resolve(key, false, context).await
    }

    async fn resolve_int_value(&self, key: &str, context: &EvaluationContext) -> EvaluationResult<ResolutionDetails<i64>> {
        self.resolve(key, 0, context).await
    }

    async fn resolve_float_value(&self, key: &str, context: &EvaluationContext) -> EvaluationResult<ResolutionDetails<f64>> {
        self.resolve(key, 0.0, context).await
    }

    async fn resolve_string_value(&self, key: &str, context: &EvaluationContext) -> EvaluationResult<ResolutionDetails<String>> {
        self.resolve(key, String::new(), context).await
    }

    async fn resolve_struct_value(&self, key: &str, context: &EvaluationContext) -> EvaluationResult<ResolutionDetails<StructValue>> {
        let found = self.resolve(key, Value::Null, context).await?;
        let Value::Object(fields) = found.value else {
            let message = format!("the flag `{key}` is a list, which this SDK has no type for");
            return Err(EvaluationError { code: EvaluationErrorCode::TypeMismatch, message: Some(message) });
        };
        let value = convert::structure(&fields);
        Ok(ResolutionDetails { value, variant: found.variant, reason: found.reason, flag_metadata: found.flag_metadata })
    }
}
