//! Accepting, choosing the lane, and speaking HTTP/1.1 or HTTP/2 with a client.
//!
//! **Invariant**: a listening socket is shared with other threads and processes: it is only ever closed here, never shut
//! down. A connection is counted on its lane from accept to end.

use std::convert::Infallible;
use std::io;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use model::ListenerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::client::{Client, End};
use crate::forward;
use crate::io::{Io, sniff};
use crate::lane::{Command, Lane, Present};

/// Bounds a request's head (then 431) and what is buffered per connection.
const BUFFER_BYTES_MAX: usize = 64 * 1024;
const HEADERS_MAX: usize = 100;
const STREAMS_MAX: u32 = 200;
const HTTP2_HEADERS_BYTES_MAX: u32 = 16 * 1024;
/// After an accept error (out of descriptors, mostly) the next try waits, or the thread would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);
/// What a client still sends after its answer is read and thrown away, so long and so much.
const LINGER_MAX: Duration = Duration::from_secs(1);
const LINGER_BYTES_MAX: usize = 1024 * 1024;
/// A connection moves to another lane only for a difference worth the way.
const LOAD_DIFFERENCE: usize = 1;

pub(crate) fn listen(lane: &Rc<Lane>, name: ListenerName, socket: std::net::TcpListener) {
    let Ok(listener) = TcpListener::from_std(socket) else {
        return;
    };
    let (own, label) = (lane.clone(), name.clone());
    let accepting = tokio::task::spawn_local(async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => place(&own, &label, stream),
                Err(error) if is_of_one_connection(&error) => {}
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            }
        }
    });
    lane.enter_listener(name, accepting.abort_handle());
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// The least loaded lane gets it; this one when the difference is small or the hand-over fails.
fn place(lane: &Rc<Lane>, name: &ListenerName, stream: TcpStream) {
    let loads = &lane.shared.loads;
    let load = |index: usize| loads[index].load(Ordering::Relaxed);
    let least = (0..loads.len()).min_by_key(|index| load(*index)).unwrap_or(lane.index);
    let index = if load(least) + LOAD_DIFFERENCE < load(lane.index) { least } else { lane.index };
    loads[index].fetch_add(1, Ordering::AcqRel);
    if index == lane.index {
        return begin(lane, name.clone(), stream);
    }
    match stream.into_std() {
        Ok(stream) => {
            if let Err(unsent) = lane.shared.commands[index].send(Command::Serve(name.clone(), stream)) {
                loads[index].fetch_sub(1, Ordering::AcqRel);
                loads[lane.index].fetch_add(1, Ordering::AcqRel);
                if let Command::Serve(name, stream) = unsent.0 {
                    adopt(lane, name, stream);
                }
            }
        }
        Err(_) => drop(loads[index].fetch_sub(1, Ordering::AcqRel)),
    }
}

/// Already counted on this lane.
pub(crate) fn adopt(lane: &Rc<Lane>, name: ListenerName, stream: std::net::TcpStream) {
    match TcpStream::from_std(stream) {
        Ok(stream) => begin(lane, name, stream),
        Err(_) => drop(lane.shared.loads[lane.index].fetch_sub(1, Ordering::AcqRel)),
    }
}

fn begin(lane: &Rc<Lane>, name: ListenerName, stream: TcpStream) {
    let peer = stream.peer_addr();
    let client = peer.map(|peer| Client::new(name, peer, lane.clock.clone()));
    let Ok(client) = client else {
        // Gone before it was looked at.
        lane.shared.loads[lane.index].fetch_sub(1, Ordering::AcqRel);
        return;
    };
    let present = lane.enter_client(&client);
    lane.shared.accepted[lane.index].fetch_add(1, Ordering::Relaxed);
    tokio::task::spawn_local(converse(lane.clone(), client, stream, present));
}

async fn converse(lane: Rc<Lane>, client: Rc<Client>, mut stream: TcpStream, _present: Present) {
    let _ = stream.set_nodelay(true);
    // A peer that vanished without a word is found in the end, also behind a tunnel.
    let _ = socket2::SockRef::from(&stream).set_keepalive(true);
    let activity = client.activity.clone();
    let first = tokio::select! {
        first = sniff(&mut stream, &activity) => first,
        () = client.signalled() => return,
    };
    let Ok(Some((is_http2, early))) = first else {
        return;
    };
    client.speaks_over(stream.as_raw_fd());
    let service = {
        let (lane, client) = (lane.clone(), client.clone());
        service_fn(move |request| {
            let (lane, client) = (lane.clone(), client.clone());
            async move { Ok::<_, Infallible>(forward::handle(lane, client, request).await) }
        })
    };
    if is_http2 {
        client.speaks_http2();
        let mut builder = http2::Builder::new(LocalExecutor);
        builder.max_concurrent_streams(STREAMS_MAX).max_header_list_size(HTTP2_HEADERS_BYTES_MAX);
        if lane.is_draining() {
            client.signal(crate::client::Signal::Graceful);
        }
        let io = Io::from_client(stream, early, activity);
        // On the heap, as below: what waits in this function is then small.
        let mut connection = Box::pin(builder.serve_connection(io, service));
        client.drive(connection.as_mut()).await;
        return;
    }
    let mut builder = http1::Builder::new();
    // A client may say that it will send no more and still wait for its answer (RFC 9112 §9.6).
    builder.half_close(true);
    builder.max_buf_size(BUFFER_BYTES_MAX).max_headers(HEADERS_MAX);
    let mut early = early;
    loop {
        let io = Io::from_client(stream, early, activity.clone());
        let connection = builder.serve_connection(io, service.clone()).with_upgrades();
        let mut connection = Box::new(connection);
        if client.drive(Pin::new(&mut *connection)).await == End::Over {
            let is_busy = client.is_busy();
            let Some(parts) = connection.into_parts() else { return };
            let (stream, _) = parts.io.into_parts();
            if activity.is_broken_off() || client.is_killed() && is_busy {
                // A clean end would tell an HTTP/1.0 client that its answer is whole (RFC 9112 §8).
                let _ = stream.set_zero_linger();
            } else if !client.is_killed() {
                // On the heap: its buffer would be part of every connection, also of those that rest.
                Box::pin(linger(stream)).await;
            }
            return;
        }
        // Parked: only the socket is kept until the client speaks.
        let Some(parts) = connection.into_parts() else {
            return;
        };
        let unread;
        (stream, unread) = parts.io.into_parts();
        early = [parts.read_buf, unread].concat().into();
        if early.is_empty() {
            let parked = &lane.shared.parked[lane.index];
            parked.fetch_add(1, Ordering::Relaxed);
            let is_back = tokio::select! {
                // What has come is read, whatever we were told meanwhile.
                biased;
                _ = stream.readable() => true,
                () = client.signalled() => false,
            };
            parked.fetch_sub(1, Ordering::Relaxed);
            if !is_back {
                return;
            }
        }
    }
}

/// Closing with bytes unread would reset the connection, and the client might never see its answer (RFC 9112 §9.6).
async fn linger(mut stream: TcpStream) {
    let discard = async {
        // The client learns at once that nothing more comes.
        let _ = stream.shutdown().await;
        let (mut chunk, mut left) = ([0; 4096], LINGER_BYTES_MAX);
        while let Ok(read @ 1..) = stream.read(&mut chunk).await {
            left = left.saturating_sub(read);
            if left == 0 {
                return;
            }
        }
    };
    let _ = tokio::time::timeout(LINGER_MAX, discard).await;
}

/// Streams of HTTP/2 run on the lane of their connection.
#[derive(Clone)]
struct LocalExecutor;

impl<F: Future + 'static> hyper::rt::Executor<F> for LocalExecutor {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move {
            future.await;
        });
    }
}
