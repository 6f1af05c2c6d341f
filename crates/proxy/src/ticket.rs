//! What is remembered of a request until its answer has ended: the claim, the counts, the line for the log.
//!
//! **Invariant**: a request that reached a version is counted exactly once, when its ticket is dropped.

use std::rc::Rc;
use std::time::{Duration, Instant};

use http1::{Fields, Known, RequestHead};
use telemetry::LogRecord;

use crate::chosen::{Chosen, Claim};
use crate::client::{Busy, Client};
use crate::grpc;
use crate::lane::Lane;
use crate::reason::Reason;
use crate::unit::Unit;
use crate::watched::Names;

pub(crate) struct Ticket {
    pub(crate) lane: Rc<Lane>,
    pub(crate) client: Rc<Client>,
    pub(crate) chosen: Chosen,
    pub(crate) claim: Option<Claim>,
    pub(crate) started: Instant,
    /// When the answer's head came.
    pub(crate) to_head: Option<Duration>,
    /// And with it the whole answer.
    pub(crate) is_whole: bool,
    pub(crate) unit: Option<Box<Unit>>,
    pub(crate) status: u16,
    pub(crate) bytes: u64,
    pub(crate) bad: bool,
    pub(crate) call: Call,
    /// Of a call, when its client has said one.
    pub(crate) deadline: Option<Instant>,
    pub(crate) reason: Option<Reason>,
    /// The request's own words, kept only when a log wants them.
    pub(crate) words: Option<Rc<RequestHead>>,
    pub(crate) busy: Option<Busy>,
    /// False when the request goes on elsewhere.
    pub(crate) counts_once: bool,
    pub(crate) names: Names,
}

/// The two clocks of a client and of this machine may differ by so much in what they make of a deadline.
const EARLY: Duration = Duration::from_millis(10);

/// What is known of the status of a call of gRPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    /// It is none.
    No,
    /// It comes with the trailers.
    Awaited,
    Status(u8),
}

impl Ticket {
    /// The answer is one to a call of gRPC; its status is here if nothing else follows.
    pub(crate) fn is_call(&mut self, status: Option<u8>) {
        self.call = status.map_or(Call::Awaited, Call::Status);
        self.bad |= status.is_some_and(grpc::is_bad);
    }

    pub(crate) fn trailers(&mut self, trailers: &Fields) {
        if self.call == Call::Awaited
            && let Some(status) = grpc::status(trailers)
        {
            self.is_call(Some(status));
        }
    }

    /// The answer has ended in order. A call without a status has not.
    pub(crate) fn ended(mut self) {
        self.bad |= self.call == Call::Awaited;
    }

    /// The request goes on elsewhere: it is counted there.
    pub(crate) fn goes_on(mut self) -> (Option<Busy>, Option<Box<Unit>>) {
        self.counts_once = false;
        (self.busy.take(), self.unit.take())
    }

    /// The answer's head has come; `is_whole`: nothing follows it.
    pub(crate) fn answered(&mut self, is_whole: bool) {
        self.to_head = Some(self.started.elapsed());
        self.is_whole = is_whole;
        if let Some(unit) = &mut self.unit {
            unit.answered(self.bad, is_whole);
        }
    }

    /// The answer began but did not end.
    pub(crate) fn broke(&mut self, reason: Reason) {
        self.bad = true;
        self.reason = Some(reason);
    }

    /// The client left, or stopped taking its answer: no fault of the version's.
    pub(crate) fn abandoned(&mut self) {
        self.reason = Some(Reason::ClientLeft);
    }
}

/// Of a connection. Behind another proxy many clients share an address, so the address alone says little.
pub(crate) fn hash(peer: std::net::SocketAddr) -> u64 {
    let bits = match peer.ip() {
        std::net::IpAddr::V4(address) => u64::from(u32::from(address)),
        std::net::IpAddr::V6(address) => u128::from(address) as u64 ^ (u128::from(address) >> 64) as u64,
    };
    let mixed = (bits << 16 ^ u64::from(peer.port())).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed ^ mixed >> 29).wrapping_mul(0xBF58_476D_1CE4_E5B9)
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.counts_once {
            return;
        }
        let waits = match self.to_head {
            None => self.reason == Some(Reason::ClientLeft),
            // For the rest, and for its status.
            Some(_) => self.call == Call::Awaited && self.reason.is_none() && !self.bad,
        };
        if waits && self.deadline.is_some_and(|at| at <= Instant::now() + EARLY) {
            // Its client left because its time was over.
            self.broke(Reason::ResponseTimeout);
        }
        let duration = if self.is_whole { self.to_head } else { None }.unwrap_or_else(|| self.started.elapsed());
        self.chosen.counts().record(self.lane.index, self.status, self.bad, self.to_head, duration);
        if self.bad || self.reason != Some(Reason::ClientLeft) {
            self.lane.watched().ended(self.names, self.bad);
        }
        if self.bad {
            self.chosen.counts().record_cluster(self.lane.index, hash(self.client.peer));
            if let Some(unit) = &mut self.unit {
                unit.failed();
            }
        }
        if let Some(words) = self.words.as_ref().filter(|_| self.lane.wants(self.status, self.reason)) {
            let live = self.chosen.live();
            self.lane.log(&LogRecord {
                status: self.status,
                bytes: self.bytes,
                grpc_status: if let Call::Status(status) = self.call { Some(status) } else { None },
                duration,
                service: live.service.as_str(),
                version: live.version.as_str(),
                target: live.id.as_str(),
                reason: self.reason.map_or("", Reason::name),
                ..record(&self.client, Some(words))
            });
        }
    }
}

/// A line for the log with what is known of the request itself; without its head when that was refused.
pub(crate) fn record<'a>(client: &Client, words: Option<&'a RequestHead>) -> LogRecord<'a> {
    let host = words.and_then(|words| words.fields.get(Known::Host)).and_then(|host| std::str::from_utf8(host).ok());
    LogRecord {
        method: words.map_or("", |words| words.method.as_str()),
        host: host.unwrap_or_default(),
        path: words.and_then(|words| std::str::from_utf8(words.target()).ok()).unwrap_or_default(),
        protocol: if client.is_http2() { "HTTP/2" } else { "HTTP/1.1" },
        ..LogRecord::of_connection(words.map_or(client.peer.ip(), |words| client.address(&words.fields)))
    }
}
