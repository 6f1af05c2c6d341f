//! A connection of any protocol that has found its target: from its opening to its end, counted and logged.
//!
//! **Invariants**: unless both sides have ended in order, both sockets are reset: what was cut never looks whole. The outcome of a
//! connection is counted twice at most: it was opened, and later it turned out bad.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use telemetry::LogRecord;

use crate::chosen::{Chosen, Claim};
use crate::client::Client;
use crate::exchange::Sender;
use crate::flow::{Failed, Flow};
use crate::lane::Lane;
use crate::line::{Broken, Phase};
use crate::live::TargetLive;
use crate::reason::Reason;
use crate::stream::Stream;
use crate::ticket;
use crate::unit::Unit;

/// A target that ends a connection this early, and has said nothing, has not served it: so ends a version that dies of what it is asked,
/// because the kernel closes in order for a process that was killed.
const EARLY: Duration = Duration::from_secs(30);

/// When it was accepted, and since when its target is looked for: after a hold.
#[derive(Clone, Copy)]
pub(crate) struct Times {
    pub(crate) accepted: Instant,
    pub(crate) searched: Instant,
}

pub(crate) struct Connection {
    target: Stream,
    sender: Box<Sender>,
    account: Account,
}

impl Connection {
    /// On a line that was opened just now. The claim becomes one of a tunnel.
    pub(crate) fn open(
        lane: Rc<Lane>,
        client: Rc<Client>,
        mut chosen: Chosen,
        claim: Claim,
        sender: Box<Sender>,
        unit: Option<Box<Unit>>,
        times: Times,
    ) -> Self {
        let wire = sender.line.wire.take().expect("nothing ran since the line was opened");
        sender.line.enter(Phase::Connection);
        sender.line.carries(&client);
        chosen.set_apart();
        let ending = Ending::new(times.accepted);
        let mut account = Account { lane, client, chosen, _claim: claim.into_tunnel(), unit, opened: Instant::now(), ending };
        account.opened(times.searched);
        Self { target: wire.stream, sender, account }
    }

    /// Until both sides have ended, or one failed, or it is broken off.
    pub(crate) async fn run(self, client: Stream) {
        let Self { target, sender, mut account } = self;
        let (mut pair, mut up, mut down) = (Pair { client, target, is_clean: false }, Flow::default(), Flow::default());
        account.ending.reason = Some(Reason::Cut);
        let ended = poll_fn(|cx| {
            sender.line.is_polled_by(cx);
            match sender.line.broken() {
                Some(Broken::Idle) => Poll::Ready(Err(Reason::Idle)),
                Some(Broken::ClientLeft) => Poll::Ready(Err(Reason::ClientLeft)),
                Some(_) => Poll::Ready(Err(Reason::Cut)),
                None => {
                    let polled = poll_both(cx, &mut pair, &mut up, &mut down, &sender, &mut account);
                    (account.ending.up, account.ending.down) = (up.bytes, down.bytes);
                    polled
                }
            }
        })
        .await;
        pair.is_clean = ended.is_ok();
        account.ending.reason = ended.err();
        // The sockets first: who reads the log or the counts finds them closed.
        drop((pair, sender));
    }
}

fn poll_both(
    cx: &mut Context<'_>,
    pair: &mut Pair,
    up: &mut Flow,
    down: &mut Flow,
    sender: &Sender,
    account: &mut Account,
) -> Poll<Result<(), Reason>> {
    let Account { lane, chosen, .. } = &*account;
    let (thread, counts) = (lane.index, chosen.counts());
    let up_polled = up.poll(cx, &mut pair.client, &mut pair.target, |bytes| {
        sender.line.moved();
        counts.record_bytes(thread, bytes, 0);
    });
    if matches!(up_polled, Poll::Ready(Err(Failed::Taker))) {
        down.breaks();
    }
    let had_said = down.bytes > 0;
    let down_polled = down.poll(cx, &mut pair.target, &mut pair.client, |bytes| {
        sender.line.moved();
        counts.record_bytes(thread, 0, bytes);
    });
    if !had_said && down.bytes > 0 {
        chosen.live().succeeded();
    }
    sender.line.target_is_behind(up.is_behind());
    if down.has_ended() && down.bytes == 0 && !up.has_ended() {
        account.ended_without_a_word();
    }
    match (&up_polled, &down_polled) {
        (Poll::Ready(Err(Failed::Taker)), _) | (_, Poll::Ready(Err(Failed::Sender))) => {
            // Whoever has said all, or has left, does not mind how the target closes.
            if !down.has_ended() && !up.has_ended() {
                account.is_bad();
            }
            return Poll::Ready(Err(Reason::TargetReset));
        }
        (Poll::Ready(Err(Failed::Sender)), _) | (_, Poll::Ready(Err(Failed::Taker))) => return Poll::Ready(Err(Reason::ClientLeft)),
        _ => {}
    }
    ready!(up_polled).and(ready!(down_polled)).map_err(|_| Reason::ClientLeft).into()
}

struct Pair {
    client: Stream,
    target: Stream,
    is_clean: bool,
}

impl Drop for Pair {
    fn drop(&mut self) {
        if !self.is_clean {
            let _ = self.client.socket().set_zero_linger();
            let _ = self.target.socket().set_zero_linger();
        }
    }
}

/// What is remembered of it until it has ended.
struct Account {
    lane: Rc<Lane>,
    client: Rc<Client>,
    chosen: Chosen,
    _claim: Claim,
    unit: Option<Box<Unit>>,
    opened: Instant,
    ending: Ending,
}

impl Account {
    fn opened(&mut self, searched: Instant) {
        self.chosen.live().connected();
        self.chosen.counts().record_connect(self.lane.index, true, searched.elapsed());
        if let Some(unit) = &mut self.unit {
            // How long that took; what becomes of it is still to be seen.
            unit.answered(false, false);
        }
    }

    fn is_bad(&mut self) {
        if std::mem::replace(&mut self.ending.is_bad, true) {
            return;
        }
        self.chosen.live().failed();
        self.chosen.counts().record_cluster(self.lane.index, ticket::hash(self.client.peer));
        if let Some(unit) = &mut self.unit {
            unit.failed();
        }
    }

    fn ended_without_a_word(&mut self) {
        if self.opened.elapsed() < EARLY {
            self.is_bad();
        }
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let Self { lane, client, chosen, ending, .. } = self;
        if ending.is_bad {
            ending.reason = Some(Reason::TargetReset);
        }
        chosen.counts().record_end(lane.index, ending.is_bad, ending.started.elapsed());
        ending.note(lane, client, chosen.live());
    }
}

/// How a connection ended, for counts of the whole proxy and for the log.
pub(crate) struct Ending {
    started: Instant,
    up: u64,
    down: u64,
    is_bad: bool,
    /// `None`: in order.
    pub(crate) reason: Option<Reason>,
}

impl Ending {
    pub(crate) fn new(started: Instant) -> Self {
        Self { started, up: 0, down: 0, is_bad: false, reason: None }
    }

    pub(crate) fn note(&self, lane: &Lane, client: &Client, target: &TargetLive) {
        if let Some(reason) = self.reason.filter(|reason| *reason != Reason::ClientLeft) {
            lane.count_made(reason);
        }
        let status = self.reason.map_or(0, |reason| reason.status().as_u16());
        if !lane.wants(status, self.reason) {
            return;
        }
        lane.log(&LogRecord {
            protocol: "TCP",
            status,
            bytes: self.down,
            received: Some(self.up),
            duration: self.started.elapsed(),
            service: target.service.as_str(),
            version: target.version.as_str(),
            target: target.id.as_str(),
            reason: self.reason.map_or("", Reason::name),
            ..LogRecord::of_connection(client.peer.ip())
        });
    }
}
