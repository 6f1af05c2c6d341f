//! Keeps the flags fresh: whole sets from flagd's sync protocol, for ever.
//!
//! **Invariant**: nothing that the server or the network does ends this task or takes values away. It ends when it is dropped.
//! Not here: how long to wait (`backoff.rs`), whether a set is good (`shared.rs`).

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Map;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tonic::{Code, Status};

use crate::backoff::Backoff;
use crate::bootstrap::{self, BootstrapError};
use crate::options::Checked;
use crate::proto::sync_v1::flag_sync_service_client::FlagSyncServiceClient;
use crate::proto::sync_v1::{SyncFlagsRequest, SyncFlagsResponse};
use crate::shared::{Shared, compile};
use crate::structs;
use crate::wire::{self, PROVIDER_ID, SET_BYTES_MAX};

/// A server sends the first set at once; one that hangs is left, for another may take its place.
const FIRST_SET_TIMEOUT: Duration = Duration::from_secs(10);
/// A stream that lasted so long was a good one: the longest wait between two attempts.
const STEADY: Duration = crate::backoff::DELAY_MAX;

/// Starts with the server or, without it, with the bootstrap file; then follows the server.
pub(crate) async fn keep_fresh(checked: Arc<Checked>, shared: Arc<Shared>) {
    let deadline = Instant::now() + checked.options.init_deadline;
    let mut seen = shared.watch();
    let following = follow_for_ever(&checked, &shared);
    tokio::pin!(following);
    let server_failed = tokio::select! {
        () = &mut following => return,
        failed = seen.wait_for(|status| status.accepted + status.refused + status.lost > 0) => failed.is_ok_and(|status| status.accepted == 0),
        () = sleep_until(deadline) => true,
    };
    if server_failed && !bootstrapped(&checked, &shared).await {
        // The server may be about to come.
        tokio::select! {
            () = &mut following => return,
            _ = seen.wait_for(|status| status.accepted > 0) => {}
            () = sleep_until(deadline) => {}
        }
    }
    shared.update(|status| status.started());
    following.await;
}

async fn bootstrapped(checked: &Checked, shared: &Shared) -> bool {
    let Some(path) = checked.options.bootstrap.clone() else {
        return false;
    };
    let read = tokio::task::spawn_blocking(move || {
        let text = bootstrap::read(&path)?;
        compile(&text).map_err(|why| BootstrapError::Refused { path, why })
    });
    match read.await {
        Ok(Ok(set)) => shared.accept(set, Map::new(), false),
        Ok(Err(error)) => shared.update(|status| status.bootstrap = Some(error.to_string())),
        Err(error) => shared.update(|status| status.bootstrap = Some(error.to_string())),
    }
    shared.has_values()
}

async fn follow_for_ever(checked: &Checked, shared: &Shared) {
    let mut backoff = Backoff::default();
    loop {
        let opened = Instant::now();
        let why = follow(checked, shared).await;
        shared.update(|status| status.lost(why));
        if opened.elapsed() >= STEADY {
            backoff.reset();
        }
        sleep(backoff.next(fastrand::f64())).await;
    }
}

/// One stream, until it ends; says why it did.
async fn follow(checked: &Checked, shared: &Shared) -> String {
    let server = &checked.server;
    let channel = match wire::endpoint(checked).connect().await {
        Ok(channel) => channel,
        Err(error) => return format!("cannot connect to {server}: {}", root(&error)),
    };
    let mut client = FlagSyncServiceClient::new(channel).max_decoding_message_size(SET_BYTES_MAX);
    let selector = checked.selector.clone().unwrap_or_default();
    let wanted = wire::request(checked, SyncFlagsRequest { provider_id: PROVIDER_ID.to_owned(), selector });
    let first = async {
        let mut stream = client.sync_flags(wanted).await?.into_inner();
        let first = stream.message().await?;
        Ok((stream, first))
    };
    let (mut stream, mut message) = match timeout(FIRST_SET_TIMEOUT, first).await {
        Err(_) => return format!("{server} took the connection and sent no flags for {FIRST_SET_TIMEOUT:?}"),
        Ok(Err(status)) => return told(server, &status),
        Ok(Ok(opened)) => opened,
    };
    while let Some(whole) = message {
        accept(checked, shared, whole).await;
        message = match stream.message().await {
            Ok(next) => next,
            Err(status) => return told(server, &status),
        };
    }
    format!("{server} ended the stream")
}

async fn accept(checked: &Checked, shared: &Shared, whole: SyncFlagsResponse) {
    let text = &whole.flag_configuration;
    let set = match compile(text) {
        Ok(set) => set,
        Err(why) => return shared.update(|status| status.refused(format!("the server sent a set that is not good: {why}"))),
    };
    shared.accept(set, whole.sync_context.map(structs::to_object).unwrap_or_default(), true);
    let (true, Some(path)) = (checked.options.keep_bootstrap, &checked.options.bootstrap) else {
        return;
    };
    let problem = keep(path, text).await.err();
    shared.update(|status| status.bootstrap = problem);
}

/// A disk may be slow; the runtime may be the program's own.
async fn keep(path: &Path, text: &str) -> Result<(), String> {
    let (path, text) = (path.to_owned(), text.to_owned());
    let written = tokio::task::spawn_blocking(move || bootstrap::write(&path, &text)).await;
    written.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
}

fn told(server: &http::Uri, status: &Status) -> String {
    let hint = match status.code() {
        Code::Unauthenticated => ": it wants a token, `Options::token`",
        Code::PermissionDenied => ": the token's scope must include sync",
        Code::Unimplemented => ": is this the sync port? flagd's is 8015",
        Code::InvalidArgument | Code::NotFound => ": is the environment or selector right?",
        _ => "",
    };
    format!("{server} ended the stream: {} ({:?}){hint}", status.message(), status.code())
}

/// What a chain of errors began with: the rest only says that connecting failed.
fn root(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
