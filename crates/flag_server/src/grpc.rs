//! flagd's gRPC services and gRPC's health service.
//!
//! **Invariant**: an error has the status that flagd gives it: providers read the code, not the message.
//! Source: flagd 0.16, names and numbers as published.

mod connect;
mod evaluation_v1;
mod evaluation_v2;
mod events;
mod health;
mod sync;
mod typed;

use std::sync::Arc;

use flags::EvaluationError;
use tonic::Status;
use tonic::service::RoutesBuilder;

use crate::admission::Refused;
use crate::follow::NoStream;
use crate::limits::CONTEXT_BYTES_MAX;
use crate::proto::{evaluation_v1 as v1, evaluation_v2 as v2, health_v1, sync_v1};
use crate::shared::{Denied, NoAnswer, Shared};

pub(crate) use connect::or_grpc;

/// The same state behind each service.
#[derive(Clone)]
pub(crate) struct Service(Arc<Shared>);

pub(crate) fn evaluation(services: &mut RoutesBuilder, shared: &Arc<Shared>) {
    let service = || Service(shared.clone());
    services
        .add_service(v1::service_server::ServiceServer::new(service()).max_decoding_message_size(CONTEXT_BYTES_MAX))
        .add_service(v2::service_server::ServiceServer::new(service()).max_decoding_message_size(CONTEXT_BYTES_MAX));
}

pub(crate) fn sync(services: &mut RoutesBuilder, shared: &Arc<Shared>) {
    let server = sync_v1::flag_sync_service_server::FlagSyncServiceServer::new(Service(shared.clone()));
    services.add_service(server.max_decoding_message_size(CONTEXT_BYTES_MAX));
}

pub(crate) fn health(services: &mut RoutesBuilder, shared: &Arc<Shared>) {
    let server = health_v1::health_server::HealthServer::new(Service(shared.clone()));
    services.add_service(server.max_decoding_message_size(CONTEXT_BYTES_MAX));
}

impl From<Refused> for Status {
    fn from(refused: Refused) -> Self {
        let message = refused.to_string();
        match refused {
            Refused::Unauthorized => Self::unauthenticated(message),
            Refused::Forbidden => Self::permission_denied(message),
            Refused::UnknownEnvironment => Self::not_found(message),
        }
    }
}

impl From<Denied> for Status {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Refused(refused) => refused.into(),
            Denied::Selector(wrong) => Self::invalid_argument(wrong.to_string()),
        }
    }
}

impl From<NoStream> for Status {
    fn from(none: NoStream) -> Self {
        match none {
            NoStream::UnknownEnvironment => Self::not_found(none.to_string()),
            NoStream::TooMany => Self::resource_exhausted(none.to_string()),
        }
    }
}

impl From<NoAnswer> for Status {
    fn from(none: NoAnswer) -> Self {
        let message = none.to_string();
        match none {
            NoAnswer::WrongType(_) => Self::invalid_argument(message),
            NoAnswer::Evaluation(EvaluationError::FlagNotFound(_)) => Self::not_found(message),
            NoAnswer::Evaluation(EvaluationError::ParseError(_)) => Self::data_loss(message),
            NoAnswer::Evaluation(EvaluationError::General(_)) => Self::unknown(message),
        }
    }
}
