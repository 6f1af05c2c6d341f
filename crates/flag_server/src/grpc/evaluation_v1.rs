//! flagd's evaluation, version 1.
//!
//! **Invariant**: it cannot say "no value", so a flag without one is not found, and the client's default applies.

use prost_types::Struct;
use tonic::{Request, Response, Status};

use super::Service;
use super::events::Boxed;
use super::typed::Typed;
use crate::admission::Scope;
use crate::metrics::Protocol;
use crate::proto::evaluation_v1::any_flag::Value;
use crate::proto::evaluation_v1::service_server::Service as Evaluation;
use crate::proto::evaluation_v1::{
    AnyFlag, EventStreamRequest, EventStreamResponse, ResolveAllRequest, ResolveAllResponse, ResolveBooleanRequest, ResolveBooleanResponse,
    ResolveFloatRequest, ResolveFloatResponse, ResolveIntRequest, ResolveIntResponse, ResolveObjectRequest, ResolveObjectResponse,
    ResolveStringRequest, ResolveStringResponse,
};
use crate::values;

/// The methods for plain values differ only in their types.
macro_rules! resolve {
    ($service:expr, $request:expr, $response:ident) => {{
        let answer = $service.resolve($request, Protocol::EvaluationV1, true, |it| (it.flag_key, it.context))?;
        Ok(Response::new($response {
            value: answer.value.unwrap_or_default(),
            reason: answer.reason,
            variant: answer.variant.unwrap_or_default(),
            metadata: answer.metadata,
        }))
    }};
}

#[tonic::async_trait]
impl Evaluation for Service {
    type EventStreamStream = Boxed<EventStreamResponse>;

    async fn resolve_all(&self, request: Request<ResolveAllRequest>) -> Result<Response<ResolveAllResponse>, Status> {
        let published = self.0.set_for(request.metadata().as_ref(), Scope::Evaluate, "")?;
        let context = self.0.context(request.into_inner().context.map(values::object).unwrap_or_default());
        // As in flagd: what has no value, or cannot be evaluated, is left out.
        let flags = self.0.answers(&published, &context).filter_map(|(key, answer)| Some((key.to_owned(), any(&answer.ok()?)?)));
        let flags = flags.collect();
        Ok(Response::new(ResolveAllResponse { flags, metadata: Some(values::structure(published.set.metadata())) }))
    }

    async fn resolve_boolean(&self, request: Request<ResolveBooleanRequest>) -> Result<Response<ResolveBooleanResponse>, Status> {
        resolve!(self, request, ResolveBooleanResponse)
    }

    async fn resolve_string(&self, request: Request<ResolveStringRequest>) -> Result<Response<ResolveStringResponse>, Status> {
        resolve!(self, request, ResolveStringResponse)
    }

    async fn resolve_float(&self, request: Request<ResolveFloatRequest>) -> Result<Response<ResolveFloatResponse>, Status> {
        resolve!(self, request, ResolveFloatResponse)
    }

    async fn resolve_int(&self, request: Request<ResolveIntRequest>) -> Result<Response<ResolveIntResponse>, Status> {
        resolve!(self, request, ResolveIntResponse)
    }

    async fn resolve_object(&self, request: Request<ResolveObjectRequest>) -> Result<Response<ResolveObjectResponse>, Status> {
        let answer = self.resolve(request, Protocol::EvaluationV1, true, |it: ResolveObjectRequest| (it.flag_key, it.context))?;
        Ok(Response::new(ResolveObjectResponse {
            value: answer.value,
            reason: answer.reason,
            variant: answer.variant.unwrap_or_default(),
            metadata: answer.metadata,
        }))
    }

    async fn event_stream(&self, request: Request<EventStreamRequest>) -> Result<Response<Self::EventStreamStream>, Status> {
        self.events(&request, |event| EventStreamResponse { r#type: event.kind.to_owned(), data: event.data })
    }
}

fn any(evaluation: &flags::Evaluation<'_>) -> Option<AnyFlag> {
    let variant = evaluation.value?;
    let value = match evaluation.flag.kind() {
        flags::Kind::Boolean => Value::BoolValue(bool::of(variant)?),
        flags::Kind::String => Value::StringValue(String::of(variant)?),
        flags::Kind::Number => Value::DoubleValue(f64::of(variant)?),
        flags::Kind::Object => Value::ObjectValue(Struct::of(variant)?),
    };
    Some(AnyFlag {
        reason: evaluation.reason.as_str().to_owned(),
        variant: evaluation.variant.unwrap_or_default().to_owned(),
        metadata: Some(values::structure(evaluation.flag.metadata())),
        value: Some(value),
    })
}
