//! flagd's sync, version 1: whole sets for providers that evaluate in their own process.
//!
//! **Invariant**: a message is one whole set; a reader that is slow gets the newest next, not all between.

use futures_util::{StreamExt, future};
use tonic::{Request, Response, Status};

use super::Service;
use super::events::Boxed;
use crate::admission::{self, Scope};
use crate::follow::{Pass, Word, follow};
use crate::metrics;
use crate::proto::sync_v1::flag_sync_service_server::FlagSyncService;
use crate::proto::sync_v1::{
    FetchAllFlagsRequest, FetchAllFlagsResponse, GetMetadataRequest, GetMetadataResponse, SyncFlagsRequest, SyncFlagsResponse,
};
use crate::values;

#[tonic::async_trait]
impl FlagSyncService for Service {
    type SyncFlagsStream = Boxed<SyncFlagsResponse>;

    async fn sync_flags(&self, request: Request<SyncFlagsRequest>) -> Result<Response<Self::SyncFlagsStream>, Status> {
        let headers = request.metadata().as_ref();
        let environment = self.0.admit(headers, Scope::Sync, &request.get_ref().selector)?;
        let token = admission::token(headers).map(str::to_owned);
        let pass = Pass { environment, scope: Some((Scope::Sync, token)) };
        let context = values::structure(&self.0.context);
        let sets = follow(&self.0, pass, metrics::Stream::Sync)?.filter_map(move |word| {
            future::ready(match word {
                Word::Ready(set) | Word::Changed { to: set, .. } => {
                    Some(Ok(SyncFlagsResponse { flag_configuration: set.set.document().to_owned(), sync_context: Some(context.clone()) }))
                }
                // Between sets, HTTP/2's pings keep the stream.
                Word::KeepAlive => None,
                Word::Shutdown => Some(Err(Status::unavailable("the server takes its leave; connect again"))),
                Word::Refused(refused) => Some(Err(refused.into())),
            })
        });
        Ok(Response::new(Box::pin(sets)))
    }

    async fn fetch_all_flags(&self, request: Request<FetchAllFlagsRequest>) -> Result<Response<FetchAllFlagsResponse>, Status> {
        let published = self.0.set_for(request.metadata().as_ref(), Scope::Sync, &request.get_ref().selector)?;
        Ok(Response::new(FetchAllFlagsResponse { flag_configuration: published.set.document().to_owned() }))
    }

    async fn get_metadata(&self, request: Request<GetMetadataRequest>) -> Result<Response<GetMetadataResponse>, Status> {
        self.0.admit(request.metadata().as_ref(), Scope::Sync, "")?;
        Ok(Response::new(GetMetadataResponse { metadata: Some(values::structure(&self.0.context)) }))
    }
}
