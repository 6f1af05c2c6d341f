//! flagd's evaluation, version 2.
//!
//! **Invariant**: a value that is absent means the default in the client's code; it is never a zero.

use tonic::{Request, Response, Status};

use super::Service;
use super::events::Boxed;
use crate::metrics::Protocol;
use crate::proto::evaluation_v2::service_server::Service as Evaluation;
use crate::proto::evaluation_v2::{
    EventStreamRequest, EventStreamResponse, ResolveBooleanRequest, ResolveBooleanResponse, ResolveFloatRequest, ResolveFloatResponse,
    ResolveIntRequest, ResolveIntResponse, ResolveObjectRequest, ResolveObjectResponse, ResolveStringRequest, ResolveStringResponse,
};

/// The five methods differ only in their types.
macro_rules! resolve {
    ($service:expr, $request:expr, $response:ident) => {{
        let answer = $service.resolve($request, Protocol::EvaluationV2, false, |it| (it.flag_key, it.context))?;
        Ok(Response::new($response { value: answer.value, reason: answer.reason, variant: answer.variant, metadata: answer.metadata }))
    }};
}

#[tonic::async_trait]
impl Evaluation for Service {
    type EventStreamStream = Boxed<EventStreamResponse>;

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
        resolve!(self, request, ResolveObjectResponse)
    }

    async fn event_stream(&self, request: Request<EventStreamRequest>) -> Result<Response<Self::EventStreamStream>, Status> {
        self.events(&request, |event| EventStreamResponse { r#type: event.kind.to_owned(), data: event.data })
    }
}
