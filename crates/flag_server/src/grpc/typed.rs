//! Variants as the types of gRPC: asked for by method, so a wrong one is an error here.
//!
//! **Invariant**: a number becomes another type only without loss: 10.0 is the integer 10, 10.5 is none.

use flags::{Evaluation, Variant};
use prost_types::Struct;

use super::Service;
use crate::admission::Scope;
use crate::metrics::Protocol;
use crate::shared::{NoAnswer, WrongType};
use crate::values;
use tonic::{Request, Status};

/// Doubles hold every integer up to here, 2^53 - 1.
const EXACT_MAX: f64 = 9_007_199_254_740_991.0;

pub(super) trait Typed: Sized {
    const NAME: &'static str;
    fn of(variant: &Variant) -> Option<Self>;
    /// As protobuf's JSON mapping writes it.
    fn json(self) -> serde_json::Value;
}

impl Typed for bool {
    const NAME: &'static str = "boolean";
    fn of(variant: &Variant) -> Option<Self> {
        variant.as_bool()
    }
    fn json(self) -> serde_json::Value {
        self.into()
    }
}

impl Typed for String {
    const NAME: &'static str = "string";
    fn of(variant: &Variant) -> Option<Self> {
        variant.as_str().map(str::to_owned)
    }
    fn json(self) -> serde_json::Value {
        self.into()
    }
}

impl Typed for f64 {
    const NAME: &'static str = "number";
    fn of(variant: &Variant) -> Option<Self> {
        variant.as_f64()
    }
    fn json(self) -> serde_json::Value {
        self.into()
    }
}

impl Typed for i64 {
    const NAME: &'static str = "whole number";
    fn of(variant: &Variant) -> Option<Self> {
        let whole = || variant.as_f64().filter(|it| it.fract() == 0.0 && it.abs() <= EXACT_MAX);
        variant.as_i64().or_else(|| whole().map(|it| it as i64))
    }
    fn json(self) -> serde_json::Value {
        self.to_string().into()
    }
}

impl Typed for Struct {
    const NAME: &'static str = "object";
    fn of(variant: &Variant) -> Option<Self> {
        values::structure_of(&variant.value())
    }
    fn json(self) -> serde_json::Value {
        values::object(self).into()
    }
}

/// An answer of the type that was asked for. No value: the default in the client's code.
pub(super) struct Answer<T> {
    pub(super) value: Option<T>,
    pub(super) variant: Option<String>,
    pub(super) reason: String,
    pub(super) metadata: Option<Struct>,
}

fn typed<T: Typed>(evaluation: &Evaluation<'_>) -> Result<Answer<T>, WrongType> {
    let value = match evaluation.value {
        None => None,
        Some(variant) => Some(T::of(variant).ok_or_else(|| WrongType {
            key: evaluation.flag.key().to_owned(),
            has: evaluation.flag.kind().as_str(),
            asked: T::NAME,
        })?),
    };
    Ok(Answer {
        value,
        variant: evaluation.variant.map(str::to_owned),
        reason: evaluation.reason.as_str().to_owned(),
        metadata: Some(values::structure(evaluation.flag.metadata())),
    })
}

impl Service {
    /// `wants_value`: the protocol has no way to say "none" (v1), so it is an unknown flag there, as in flagd.
    pub(super) fn resolve<T: Typed, R>(
        &self,
        request: Request<R>,
        protocol: Protocol,
        wants_value: bool,
        parts: impl FnOnce(R) -> (String, Option<Struct>),
    ) -> Result<Answer<T>, Status> {
        let published = self.0.set_for(request.metadata().as_ref(), Scope::Evaluate, "")?;
        let (key, said) = parts(request.into_inner());
        let context = self.0.context(said.map(values::object).unwrap_or_default());
        let answer = self.0.answer(&published, &key, &context, protocol, |evaluation| typed(&evaluation)).map_err(NoAnswer::into_status)?;
        if wants_value && answer.value.is_none() {
            return Err(Status::not_found(format!(
                "the flag `{key}` has no value now ({}): the default in the code applies",
                answer.reason
            )));
        }
        Ok(answer)
    }
}

impl NoAnswer {
    fn into_status(self) -> Status {
        self.into()
    }
}
