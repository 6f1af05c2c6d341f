//! Asking a set that is held.
//!
//! **Invariant**: no lock, no allocation and no system call unless something goes wrong, details are wanted, the server adds to contexts,
//! or the evaluation is to be reported. Not here: choosing a variant (crate `flags`).

use std::sync::Arc;

use flags::{Context, Evaluation};

use crate::clock;
use crate::context::IntoContext;
use crate::evaluate::{Details, EvaluationError, FlagValue, Reason};
use crate::shared::{Held, Shared};

/// All flags as they are at one moment: what is asked of it fits together, whatever changes meanwhile. Cheap to take.
#[derive(Clone)]
pub struct Snapshot {
    pub(crate) shared: Arc<Shared>,
    pub(crate) held: Option<Arc<Held>>,
}

impl Snapshot {
    /// As [`crate::Flags::is_enabled`].
    pub fn is_enabled(&self, key: &str, user: &(impl IntoContext + ?Sized)) -> bool {
        is_enabled(&self.shared, self.held.as_deref(), key, &user.context())
    }

    /// As [`crate::Flags::value`].
    pub fn value<T: FlagValue>(&self, key: &str, default: T, user: &(impl IntoContext + ?Sized)) -> T {
        value(&self.shared, self.held.as_deref(), key, default, &user.context())
    }

    /// As [`crate::Flags::details`].
    pub fn details<T: FlagValue>(&self, key: &str, default: T, user: &(impl IntoContext + ?Sized)) -> Details<T> {
        details(&self.shared, self.held.as_deref(), key, default, &user.context())
    }
}

pub(crate) fn is_enabled(shared: &Shared, held: Option<&Held>, key: &str, context: &Context) -> bool {
    value(shared, held, key, false, context)
}

pub(crate) fn value<T: FlagValue>(shared: &Shared, held: Option<&Held>, key: &str, default: T, context: &Context) -> T {
    match ask(shared, held, key, context) {
        Ok((value, _)) => value.unwrap_or(default),
        Err(_) => default,
    }
}

pub(crate) fn details<T: FlagValue>(shared: &Shared, held: Option<&Held>, key: &str, default: T, context: &Context) -> Details<T> {
    match ask(shared, held, key, context) {
        Ok((value, evaluation)) => Details {
            variant: evaluation.variant.filter(|_| value.is_some()).map(str::to_owned),
            value: value.unwrap_or(default),
            reason: Reason::from(evaluation.reason),
            error: None,
            metadata: evaluation.flag.metadata().clone(),
        },
        Err(error) => Details::error(default, error),
    }
}

/// No value: the code's default applies.
type Answer<'a, T> = (Option<T>, Evaluation<'a>);

fn ask<'a, T: FlagValue>(shared: &Shared, held: Option<&'a Held>, key: &str, context: &Context) -> Result<Answer<'a, T>, EvaluationError> {
    let answer = evaluated(shared, held, key, context);
    if answer.is_err() {
        shared.count_error();
    }
    answer
}

fn evaluated<'a, T: FlagValue>(
    shared: &Shared,
    held: Option<&'a Held>,
    key: &str,
    context: &Context,
) -> Result<Answer<'a, T>, EvaluationError> {
    let held = held.ok_or(EvaluationError::NotReady)?;
    let evaluation = held.set.evaluate(key, &held.enriched(context), clock::now_s())?;
    let mismatch = || EvaluationError::TypeMismatch { key: key.to_owned(), asked: T::NAME };
    let value = evaluation.value.map(|variant| T::of(variant).ok_or_else(mismatch)).transpose()?;
    if !held.exposed.is_empty()
        && held.exposed.contains(key)
        && let (Some(reports), Some(variant)) = (&shared.reports, evaluation.variant)
    {
        reports.exposed(key, variant, context);
    }
    Ok((value, evaluation))
}
