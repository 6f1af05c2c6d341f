//! The door for those who come over TCP: opened and closed as the file says, narrow for whoever has no token.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use model::Api;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::Room;
use crate::guard::{Gate, Peer};
use crate::observer::Observer;
use crate::sessions::Sessions;
use crate::tokens::TokenFile;

/// A few browsers keep six each; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 256;
/// A head arrives at once; also how long an idle connection is kept.
const HEAD_TIME_MAX: Duration = Duration::from_secs(30);
/// Browsers send some 20 fields.
const FIELDS_MAX: usize = 64;
/// The whole head; a token and a cookie take a few hundred.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// An address that is taken may become free.
const BIND_AGAIN: Duration = Duration::from_secs(1);
const BIND_SOON: Duration = Duration::from_millis(20);

/// Opens, and opens anew when the settings change, until `end`.
pub(crate) async fn keep(room: Arc<Room>, end: CancellationToken) {
    let mut settings = room.settings.subscribe();
    let sessions = Arc::new(Sessions::default());
    let observer = Arc::new(Observer::default());
    let mut observing = false;
    while !end.is_cancelled() {
        let api = settings.borrow_and_update().clone();
        let closed = end.child_token();
        if let Some(api) = api {
            if !observing {
                tokio::spawn(observer.clone().run(room.counter.engine.clone(), end.clone()));
                observing = true;
            }
            let router = crate::router_over_tcp(&room, &observer, gate(&room, &api, &sessions));
            tokio::spawn(open(api.listen, router, closed.clone()));
        }
        tokio::select! {
            changed = settings.changed() => if changed.is_err() { end.cancelled().await },
            () = end.cancelled() => {}
        }
        closed.cancel();
    }
}

fn gate(room: &Room, api: &Api, sessions: &Arc<Sessions>) -> Arc<Gate> {
    let path = crate::token_file(api, &room.counter.state_dir);
    let tokens = TokenFile::new(path);
    // Its mistakes are told now, not at the first request.
    let _ = tokens.now();
    Arc::new(Gate { listen: api.listen, hosts: api.hosts.clone(), tokens, sessions: sessions.clone() })
}

async fn open(address: SocketAddr, router: Router, closed: CancellationToken) {
    let work = async {
        let listener = bind(address).await;
        let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let place = room.clone().acquire_owned().await.expect("it is never closed");
            let Ok((stream, peer)) = listener.accept().await else {
                // Out of descriptors, most likely: others end meanwhile.
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let _ = stream.set_nodelay(true);
            let (router, closed) = (router.clone(), closed.clone());
            let service = hyper::service::service_fn(move |mut request: http::Request<hyper::body::Incoming>| {
                request.extensions_mut().insert(Peer(peer.ip().to_canonical()));
                router.clone().oneshot(request)
            });
            tokio::spawn(async move {
                let mut builder = http1::Builder::new();
                builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME_MAX).max_headers(FIELDS_MAX).max_buf_size(HEAD_BYTES_MAX);
                tokio::select! {
                    _ = builder.serve_connection(TokioIo::new(stream), service) => {}
                    () = closed.cancelled() => {}
                }
                drop(place);
            });
        }
    };
    tokio::select! {
        () = work => {}
        () = closed.cancelled() => {}
    }
}

async fn bind(address: SocketAddr) -> TcpListener {
    let began = tokio::time::Instant::now();
    let mut told = false;
    loop {
        let error = match TcpListener::bind(address).await {
            Ok(listener) => return listener,
            Err(error) => error,
        };
        // Within this the worker before us closes its own.
        let is_soon = began.elapsed() < BIND_AGAIN;
        if !is_soon && !std::mem::replace(&mut told, true) {
            eprintln!("error: the API cannot listen on {address}: {error}; trying again each second");
        }
        tokio::time::sleep(if is_soon { BIND_SOON } else { BIND_AGAIN }).await;
    }
}
