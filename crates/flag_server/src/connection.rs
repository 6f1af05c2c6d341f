//! Accepting, and speaking HTTP/1.1 or h2c on a connection.
//!
//! **Invariant**: a listening socket is shared with other threads and processes: it is only ever closed here, never shut
//! down. Every wait for a client has an end.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tower::ServiceExt;

use crate::follow::left;
use crate::limits::{
    ACCEPT_PAUSE, BODY_WAIT_MAX, CONNECTIONS_MAX, FIELDS_BYTES_MAX, FIRST_REQUEST_WAIT_MAX, HEAD_BYTES_MAX, HEAD_WAIT_MAX,
    KEEP_ALIVE_EVERY, PING_WAIT_MAX, SEND_BUFFER_BYTES_MAX, STREAMS_PER_CONNECTION_MAX, UNREAD_WAIT_MAX,
};
use crate::shared::Shared;

pub(crate) async fn accept(listener: TcpListener, router: Router, shared: Arc<Shared>) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let connections = &shared.metrics.connections;
                if connections.load(Relaxed) >= CONNECTIONS_MAX {
                    shared.metrics.connections_refused.fetch_add(1, Relaxed);
                    continue;
                }
                connections.fetch_add(1, Relaxed);
                tokio::spawn(serve(stream, peer, router.clone(), shared.clone()));
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// Counted from accept to end, however it ends.
struct Counted(Arc<Shared>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.metrics.connections.fetch_sub(1, Relaxed);
    }
}

async fn serve(stream: TcpStream, _peer: SocketAddr, router: Router, shared: Arc<Shared>) {
    let counted = Counted(shared);
    // Both only make it better: without them a connection still works.
    let _ = stream.set_nodelay(true);
    let _ = SockRef::from(&stream).set_tcp_user_timeout(Some(UNREAD_WAIT_MAX));
    let has_spoken = AtomicBool::new(false);
    let service = service_fn(|request: http::Request<Incoming>| {
        has_spoken.store(true, Relaxed);
        router.clone().oneshot(request.map(Body::new))
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_WAIT_MAX).max_buf_size(HEAD_BYTES_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .max_header_list_size(FIELDS_BYTES_MAX)
        .max_send_buf_size(SEND_BUFFER_BYTES_MAX)
        .keep_alive_interval(KEEP_ALIVE_EVERY)
        .keep_alive_timeout(PING_WAIT_MAX);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let mut draining = counted.0.draining.subscribe();
    let first_wait = async {
        tokio::time::sleep(FIRST_REQUEST_WAIT_MAX).await;
        if has_spoken.load(Relaxed) {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        // How a connection ends is the client's business.
        _ = connection.as_mut() => {}
        () = first_wait => {}
        () = left(&mut draining) => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum NoBody {
    #[error("the body is larger than {limit} bytes")]
    TooLarge { limit: usize },
    #[error("the body took longer than {} s", BODY_WAIT_MAX.as_secs())]
    TooSlow,
    #[error("the body ended too early")]
    Broken,
}

/// All bytes of a request's body.
pub(crate) async fn whole(body: Body, limit: usize) -> Result<Bytes, NoBody> {
    match tokio::time::timeout(BODY_WAIT_MAX, Limited::new(body, limit).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(NoBody::TooLarge { limit }),
        Ok(Err(_)) => Err(NoBody::Broken),
        Err(_) => Err(NoBody::TooSlow),
    }
}
