//! A tunnel: bytes both ways after an upgrade, for as long as both sides like. A half-close is passed on.
//!
//! A WebSocket that is told to end gets a close frame between two frames, so that its client knows that it may come back; other
//! protocols know no such word. Not here: when a tunnel is told.
//!
//! **Invariant**: its line stays registered, so that it can be cut.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional_with_sizes, split};

use crate::chosen::Claim;
use crate::client::Client;
use crate::exchange::Sender;
use crate::line::Phase;
use crate::stream::Stream;
use crate::websocket::{CLOSE_FOR_CLIENT, CLOSE_FOR_TARGET, Frames};

/// Per direction; messages of tunnels are small, and many tunnels are idle.
const COPY_BYTES: usize = 16 * 1024;
/// A client that was told to close answers within this, or is left; also what a frame that is under way gets to end.
pub(crate) const FAREWELL_MAX: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    WebSocket,
    Unknown,
}

/// The target's side of one.
pub(crate) struct Tunnel {
    protocol: Protocol,
    target: Stream,
    /// What came behind the 101.
    early: Bytes,
    sender: Box<Sender>,
    _claim: Option<Claim>,
}

impl Tunnel {
    /// `None`: the line was broken off just now.
    pub(crate) fn new(protocol: Protocol, sender: Box<Sender>, claim: Option<Claim>) -> Option<Self> {
        let wire = sender.line.wire.take()?;
        sender.line.enter(Phase::Tunnel);
        Some(Self { protocol, target: wire.stream, early: wire.unread, sender, _claim: claim.map(Claim::into_tunnel) })
    }

    /// Until both sides have ended, or it is cut.
    pub(crate) async fn run(self, client: &Rc<Client>, stream: Stream, early: Bytes) {
        let Self { protocol, target, early: target_early, sender, _claim } = self;
        sender.line.carries(client);
        let mut both = pin!(async {
            match protocol {
                Protocol::WebSocket => websocket((stream, early), (target, target_early), client).await,
                Protocol::Unknown => copy((stream, early), (target, target_early)).await,
            }
        });
        poll_fn(|cx| {
            sender.line.is_polled_by(cx);
            // Whoever reads an error or an end here sees the same: the sockets close.
            if sender.line.broken().is_some() { Poll::Ready(()) } else { both.as_mut().poll(cx).map(drop) }
        })
        .await;
    }
}

type Side = (Stream, Bytes);

async fn copy((mut client, client_early): Side, (mut target, target_early): Side) -> io::Result<()> {
    target.write_all(&client_early).await?;
    client.write_all(&target_early).await?;
    // Under TLS, what was written may not be on its way yet.
    client.flush().await?;
    target.flush().await?;
    copy_bidirectional_with_sizes(&mut client, &mut target, COPY_BYTES, COPY_BYTES).await?;
    Ok(())
}

async fn websocket((client, client_early): Side, (target, target_early): Side, told: &Client) -> io::Result<()> {
    let up_frames = RefCell::new(Frames::default());
    let (from_client, mut to_client) = split(client);
    let (from_target, mut to_target) = split(target);
    {
        let up = up(from_client, &mut to_target, &client_early, &up_frames, told);
        let down = down(from_target, &mut to_client, &target_early, told);
        tokio::pin!(up, down);
        let mut up_has_ended = false;
        let passed = loop {
            tokio::select! {
                ended = &mut up, if !up_has_ended => {
                    ended?;
                    up_has_ended = true;
                }
                passed = &mut down => break passed?,
            }
        };
        match passed {
            // The target has ended its side; the client may still have something to say.
            Passed::End if !up_has_ended => return up.await,
            Passed::End => return Ok(()),
            Passed::Told if !up_has_ended => drop(tokio::time::timeout(FAREWELL_MAX, up).await),
            Passed::Told => {}
        }
    }
    let up_frames = up_frames.into_inner();
    if up_frames.is_between() && !up_frames.is_closed() {
        to_target.write_all(&CLOSE_FOR_TARGET).await?;
        to_target.flush().await?;
    }
    to_client.shutdown().await
}

enum Passed {
    /// The target's side has ended, and the client knows.
    End,
    /// We were told to end it.
    Told,
}

async fn down(mut from: impl AsyncRead + Unpin, to: &mut (impl AsyncWrite + Unpin), early: &[u8], told: &Client) -> io::Result<Passed> {
    let mut frames = Frames::default();
    frames.pass(early);
    pass(to, early).await?;
    let mut buffer = vec![0; COPY_BYTES];
    loop {
        let read = tokio::select! {
            read = from.read(&mut buffer) => read?,
            () = told.signalled() => break,
        };
        if read == 0 {
            to.shutdown().await?;
            return Ok(Passed::End);
        }
        frames.pass(&buffer[..read]);
        pass(to, &buffer[..read]).await?;
    }
    let farewell = async {
        while !frames.is_between() {
            let read = from.read(&mut buffer).await?;
            if read == 0 {
                return Ok(());
            }
            let length = frames.pass_one(&buffer[..read]);
            pass(to, &buffer[..length]).await?;
        }
        if frames.is_closed() { Ok(()) } else { pass(to, &CLOSE_FOR_CLIENT).await }
    };
    // A frame that does not end in time is cut: a close frame inside it would be read as its content.
    tokio::time::timeout(FAREWELL_MAX, farewell).await.unwrap_or(Ok(()))?;
    Ok(Passed::Told)
}

/// Until the client's side ends; once we were told, its close frame is the end, and ends the conversation with the target, too.
async fn up(
    mut from: impl AsyncRead + Unpin,
    to: &mut (impl AsyncWrite + Unpin),
    early: &[u8],
    frames: &RefCell<Frames>,
    told: &Client,
) -> io::Result<()> {
    frames.borrow_mut().pass(early);
    pass(to, early).await?;
    let mut buffer = vec![0; COPY_BYTES];
    while !(frames.borrow().is_closed() && told.is_told()) {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return to.shutdown().await;
        }
        pass(to, &buffer[..read]).await?;
        frames.borrow_mut().pass(&buffer[..read]);
    }
    Ok(())
}

async fn pass(to: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    to.write_all(bytes).await?;
    // Under TLS, what was written may not be on its way yet.
    to.flush().await
}
