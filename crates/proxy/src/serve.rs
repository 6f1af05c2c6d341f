//! Accepting, choosing the lane, and speaking HTTP/1.1 or HTTP/2 with a client.
//!
//! **Invariant**: a listening socket is shared with other threads and processes: it is only ever closed here, never shut
//! down. A connection is counted on its lane from accept to end.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use hyper::service::service_fn;
use model::ListenerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::admission::Admitted;
use crate::client::{Client, Ends, Signal};
use crate::conversation::Conversation;
use crate::forwarders;
use crate::io::{Io, Left, sniff};
use crate::lane::{Command, Lane, Present};
use crate::requests::Turn;
use crate::stream::Stream;
use crate::stream_body::Outflow;
use crate::{requests, secure, streams, tcp};

const STREAMS_MAX: u32 = 200;
const HTTP2_HEADERS_BYTES_MAX: u32 = 16 * 1024;
/// After an accept error (out of descriptors, mostly) the next try waits, or the thread would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);
/// What a client still sends after its answer is read and thrown away, so long and so much.
const LINGER_MAX: Duration = Duration::from_secs(1);
const LINGER_BYTES_MAX: usize = 1024 * 1024;
/// The same of frames of HTTP/2 behind its end: whoever floods sends more, and to throw it away is most of what it then costs.
const LINGER_FRAMES_BYTES_MAX: usize = 64 * 1024;
/// A connection moves to another lane only for a difference worth the way.
const LOAD_DIFFERENCE: usize = 1;

pub(crate) fn listen(lane: &Rc<Lane>, name: ListenerName, socket: std::net::TcpListener) {
    let Ok(listener) = TcpListener::from_std(socket) else {
        return;
    };
    let (own, label) = (lane.clone(), name.clone());
    let accepting = tokio::task::spawn_local(async move {
        loop {
            while own.shared.is_full() {
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
            match listener.accept().await {
                // Whom it is from is said first.
                Ok((stream, peer)) if forwarders::announces(&own, &label, peer.ip()) => place(&own, &label, stream, None),
                Ok((stream, peer)) => match admit(&own, &label, peer.ip()) {
                    Ok(admitted) => place(&own, &label, stream, admitted),
                    Err(Refused) => drop(stream),
                },
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

/// The address has as many connections as it may.
struct Refused;

fn admit(lane: &Lane, name: &ListenerName, address: IpAddr) -> Result<Option<Box<Admitted>>, Refused> {
    let table = lane.table();
    let Some((addresses, max)) = table.addresses(name) else { return Ok(None) };
    match addresses.admit(address, *max) {
        Some(admitted) => Ok(Some(Box::new(admitted))),
        None => {
            lane.note_refused(addresses, address);
            Err(Refused)
        }
    }
}

/// The least loaded lane gets it; this one when the difference is small or the hand-over fails.
fn place(lane: &Rc<Lane>, name: &ListenerName, stream: TcpStream, admitted: Option<Box<Admitted>>) {
    let loads = &lane.shared.loads;
    let load = |index: usize| loads[index].load(Ordering::Relaxed);
    let least = (0..loads.len()).min_by_key(|index| load(*index)).unwrap_or(lane.index);
    let index = if load(least) + LOAD_DIFFERENCE < load(lane.index) { least } else { lane.index };
    loads[index].fetch_add(1, Ordering::AcqRel);
    if index == lane.index {
        return begin(lane, name.clone(), stream, admitted);
    }
    match stream.into_std() {
        Ok(stream) => {
            if let Err(unsent) = lane.shared.commands[index].send(Command::Serve(name.clone(), stream, admitted)) {
                loads[index].fetch_sub(1, Ordering::AcqRel);
                loads[lane.index].fetch_add(1, Ordering::AcqRel);
                if let Command::Serve(name, stream, admitted) = unsent.0 {
                    adopt(lane, name, stream, admitted);
                }
            }
        }
        Err(_) => drop(loads[index].fetch_sub(1, Ordering::AcqRel)),
    }
}

/// Already counted on this lane.
pub(crate) fn adopt(lane: &Rc<Lane>, name: ListenerName, stream: std::net::TcpStream, admitted: Option<Box<Admitted>>) {
    match TcpStream::from_std(stream) {
        Ok(stream) => begin(lane, name, stream, admitted),
        Err(_) => not_begun(lane),
    }
}

fn begin(lane: &Rc<Lane>, name: ListenerName, stream: TcpStream, admitted: Option<Box<Admitted>>) {
    let (Ok(peer), Ok(destination)) = (stream.peer_addr(), stream.local_addr()) else {
        // Gone before it was looked at.
        return not_begun(lane);
    };
    let ends = Ends::new(peer, destination);
    if forwarders::announces(lane, &name, ends.ip()) {
        tokio::task::spawn_local(begin_announced(lane.clone(), name, stream, ends));
        return;
    }
    // The lane that accepted it may have had another table, in which it was to be announced.
    let admitted = if admitted.is_some() { Ok(admitted) } else { admit(lane, &name, ends.ip()) };
    match admitted {
        Ok(admitted) => begin_with(lane, name, stream, admitted, ends, false),
        Err(Refused) => not_begun(lane),
    }
}

/// It counts on this lane no more.
fn not_begun(lane: &Lane) {
    lane.shared.loads[lane.index].fetch_sub(1, Ordering::AcqRel);
}

/// Reads who the client is; counted on this lane already.
async fn begin_announced(lane: Rc<Lane>, name: ListenerName, mut stream: TcpStream, own: Ends) {
    let announced = forwarders::announced(&lane, &mut stream).await;
    let begun = announced.and_then(|announced| {
        let ends = announced.addresses.map_or(own, |it| Ends::new(it.source, it.destination));
        let admitted = admit(&lane, &name, ends.ip()).ok()?;
        Some((ends, admitted, announced.is_tls))
    });
    match begun {
        Some((ends, admitted, is_tls)) => begin_with(&lane, name, stream, admitted, ends, is_tls),
        None => not_begun(&lane),
    }
}

fn begin_with(lane: &Rc<Lane>, name: ListenerName, stream: TcpStream, admitted: Option<Box<Admitted>>, ends: Ends, spoke_tls: bool) {
    let believed = forwarders::believed(lane, &name, ends.ip());
    let client = Client::new(name, ends, believed, lane.next_client(), lane.clock.clone());
    if spoke_tls {
        client.spoke_tls();
    }
    let present = lane.enter_client(&client, admitted);
    lane.shared.accepted[lane.index].fetch_add(1, Ordering::Relaxed);
    tokio::task::spawn_local(converse(lane.clone(), client, stream, present));
}

async fn converse(lane: Rc<Lane>, client: Rc<Client>, socket: TcpStream, _present: Present) {
    let _ = socket.set_nodelay(true);
    // A peer that vanished without a word is found in the end, also behind a tunnel.
    let _ = socket2::SockRef::from(&socket).set_keepalive(true);
    let door = lane.table().door(&client.listener);
    let (mut stream, negotiated) = match door {
        None => (Stream::Plain(socket), None),
        // On the heap: it is large, and short.
        Some(door) => match Box::pin(secure(&lane, &client, &door, socket)).await {
            Some((stream, is_http2)) => (stream, Some(is_http2)),
            None => return,
        },
    };
    // Before anything is read: in some protocols the target speaks first.
    if lane.table().tcp(&client.listener).is_some() {
        return Box::pin(tcp::converse(lane, client, stream)).await;
    }
    let activity = client.activity.clone();
    let (is_http2, early) = if negotiated == Some(true) {
        (true, Bytes::new())
    } else {
        let first = tokio::select! {
            first = sniff(&mut stream, &activity) => first,
            () = client.signalled() => return leave(&client, stream).await,
        };
        let Ok(Some((has_preface, early))) = first else {
            return;
        };
        // Under TLS, HTTP/2 is negotiated (RFC 9113 §3.2): the preface alone is a malformed request.
        (has_preface && negotiated.is_none(), early)
    };
    client.speaks_over(stream.socket().as_raw_fd());
    if is_http2 {
        // On the heap, as below: what waits in this function is then small.
        return Box::pin(converse_http2(lane, client, stream, early)).await;
    }
    let conversation = Rc::new(Conversation::new(stream, early, activity));
    client.speaks_http1(&conversation);
    loop {
        let (turn, was_busy) = {
            let mut serving = Box::pin(requests::serve(&lane, &client, &conversation));
            let turn = client.unless_killed(serving.as_mut()).await;
            (turn, client.is_busy())
        };
        match turn {
            Some(Turn::Rests) => {
                client.parks(true);
                let told = tokio::select! {
                    // What has come is read, whatever we were told meanwhile.
                    biased;
                    () = poll_fn(|cx| conversation.poll_speaks(cx)) => false,
                    () = client.signalled() => !client.has_spoken(),
                };
                client.parks(false);
                if told || client.is_killed() {
                    if let Some((stream, _)) = conversation.end() {
                        leave(&client, stream).await;
                    }
                    return;
                }
                if client.is_told() {
                    // The reactor may not have heard yet that it speaks.
                    tokio::task::yield_now().await;
                }
            }
            ends => return end(&client, &conversation, ends, was_busy).await,
        }
    }
}

/// `None`: the connection is killed.
async fn end(client: &Rc<Client>, conversation: &Conversation, how: Option<Turn>, was_busy: bool) {
    let Some((stream, early)) = conversation.end() else { return };
    match how {
        Some(Turn::Tunnel(tunnel)) => {
            let _busy = client.begin();
            client.unless_killed(Box::pin(tunnel.run(client, stream, early)).as_mut()).await;
        }
        // On the heap: its buffer would be part of every connection, also of those that rest.
        Some(Turn::Closes) => Box::pin(linger(stream)).await,
        // It may only have said that it sends no more.
        Some(Turn::Over) => leave(client, stream).await,
        Some(Turn::Resets) => drop(stream.socket().set_zero_linger()),
        // An answer that is cut must not look whole to a client of HTTP/1.0.
        None if was_busy => drop(stream.socket().set_zero_linger()),
        _ => {}
    }
}

async fn converse_http2(lane: Rc<Lane>, client: Rc<Client>, stream: Stream, early: Bytes) {
    client.speaks_http2();
    let outflow = Rc::<Outflow>::default();
    let service = {
        let (lane, client, outflow) = (lane.clone(), client.clone(), outflow.clone());
        service_fn(move |request| {
            let (lane, client, outflow) = (lane.clone(), client.clone(), outflow.clone());
            async move { Ok::<_, Infallible>(streams::answer(&lane, &client, &outflow, request).await) }
        })
    };
    let mut builder = hyper::server::conn::http2::Builder::new(LocalExecutor);
    builder.max_concurrent_streams(STREAMS_MAX).max_header_list_size(HTTP2_HEADERS_BYTES_MAX);
    if lane.is_draining() {
        client.signal(Signal::Graceful);
    }
    let left = Left::default();
    let ended = {
        let notice = Rc::default();
        let io = Io::from_client(stream, early, client.activity.clone(), outflow, Rc::clone(&notice), &left);
        client.drive(pin!(builder.serve_connection(io, service)), &notice).await
    };
    let Some((stream, flood)) = left.take() else { return };
    if let Some(flood) = flood {
        lane.note_flood(flood, &client);
    }
    if let Some(Err(_)) = ended {
        // A GOAWAY says why; a reset would overtake it.
        linger_for(stream, LINGER_FRAMES_BYTES_MAX).await;
    }
}

/// `None`: the handshake came to nothing.
async fn secure(lane: &Lane, client: &Client, door: &tls::Door, socket: TcpStream) -> Option<(Stream, bool)> {
    let any_protocol = lane.table().tcp(&client.listener).is_some();
    let secured = tokio::select! {
        secured = secure::accept(door, socket, &lane.shared.handshakes[lane.index], any_protocol) => secured?,
        () = client.signalled() => return None,
    };
    client.speaks_tls(secured.identity);
    Some((secured.stream, secured.is_http2))
}

/// At rest. In clear, a close says all; under TLS, the word for it goes first.
async fn leave(client: &Client, stream: Stream) {
    if stream.is_tls() && !client.is_killed() {
        Box::pin(linger(stream)).await;
    }
}

/// Closing with bytes unread would reset the connection, and the client might never see its answer (RFC 9112 §9.6).
pub(crate) async fn linger(stream: Stream) {
    linger_for(stream, LINGER_BYTES_MAX).await;
}

async fn linger_for(mut stream: Stream, bytes_max: usize) {
    let discard = async {
        // The client learns at once that nothing more comes.
        let _ = stream.shutdown().await;
        let mut stream = stream.into_socket();
        let (mut chunk, mut left) = ([0; 4096], bytes_max);
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
