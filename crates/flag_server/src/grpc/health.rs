//! gRPC's health checking.
//!
//! **Invariant**: it says what `/readyz` says; no token is needed.
//! Source: gRPC Health Checking Protocol, grpc.health.v1.

use std::time::Duration;

use futures_util::stream;
use tokio::time::MissedTickBehavior;
use tonic::{Request, Response, Status};

use super::Service;
use super::events::Boxed;
use crate::proto::health_v1::health_check_response::ServingStatus;
use crate::proto::health_v1::health_server::Health;
use crate::proto::health_v1::{HealthCheckRequest, HealthCheckResponse};

/// Readiness is asked for, so it is looked at from time to time.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const SERVICES: [&str; 4] = ["", "flagd.evaluation.v1.Service", "flagd.evaluation.v2.Service", "flagd.sync.v1.FlagSyncService"];

impl Service {
    fn health(&self) -> ServingStatus {
        let is_leaving = *self.0.draining.borrow();
        if !is_leaving && (self.0.readiness)().ready { ServingStatus::Serving } else { ServingStatus::NotServing }
    }
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl Health for Service {
    type WatchStream = Boxed<HealthCheckResponse>;

    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        if !SERVICES.contains(&&*request.get_ref().service) {
            return Err(Status::not_found("there is no such service"));
        }
        Ok(Response::new(response(self.health())))
    }

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let is_known = SERVICES.contains(&&*request.get_ref().service);
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let start = (self.clone(), self.0.draining.subscribe(), ticks, None);
        let states = stream::unfold(start, move |(service, mut draining, mut ticks, last)| async move {
            if last.is_some() && *draining.borrow() {
                return None;
            }
            loop {
                tokio::select! {
                    _ = ticks.tick() => {}
                    _ = draining.changed() => {}
                }
                let now = if is_known { service.health() } else { ServingStatus::ServiceUnknown };
                if last != Some(now) {
                    return Some((Ok(response(now)), (service, draining, ticks, Some(now))));
                }
            }
        });
        Ok(Response::new(Box::pin(states)))
    }
}
