//! A target's answer made fit for the client, and the tunnel after a 101.
//!
//! **Invariant**: a tunnel begins only after the target's 101 to a request that asked for it.

use http::StatusCode;
use http1::{AnswerHead, Known};

use crate::body::AnswerBody;
use crate::carrier::Carrier;
use crate::forward::Passage;
use crate::message::Answer;
use crate::reason::Reason;
use crate::ticket::{Call, Ticket};
use crate::tunnel::{Protocol, Tunnel};
use crate::{answer, grpc, head};

pub(crate) fn respond(passage: &Passage, mut ticket: Ticket, sender: Carrier, mut head: AnswerHead) -> Answer {
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        return switch_protocols(passage, ticket, sender, head);
    }
    ticket.status = head.status.as_u16();
    ticket.bad = ticket.status >= 500;
    ticket.reason = None;
    // The request says whether it is a call, not the answer: a version that answers calls with pages serves nobody.
    if ticket.call == Call::Awaited {
        ticket.is_call(grpc::status_of_head(&head));
    }
    head::remove_hop_by_hop(&mut head.fields);
    if !passage.head.trailers {
        head.fields.remove(Known::Trailer);
    }
    let body = AnswerBody::of(&head, &passage.lane, sender, ticket);
    Answer { head, body, made: None }
}

fn switch_protocols(passage: &Passage, mut ticket: Ticket, sender: Carrier, mut head: AnswerHead) -> Answer {
    let claim = ticket.claim.take();
    let protocol = head.fields.get(Known::Upgrade).map(<[u8]>::to_vec);
    let is_websocket = protocol.as_ref().is_some_and(|protocol| protocol.eq_ignore_ascii_case(b"websocket"));
    let kind = if is_websocket { Protocol::WebSocket } else { Protocol::Unknown };
    // A 101 that nobody asked for: the target's stream cannot be understood any more.
    let asked = passage.head.upgrade.is_some();
    let sender = if let Carrier::Http1(sender) = sender { Some(sender) } else { None };
    let Some(tunnel) = sender.filter(|_| asked).and_then(|sender| Tunnel::new(kind, sender, claim)) else {
        ticket.status = 502;
        ticket.broke(Reason::TargetReset);
        passage.lane.count_made(Reason::TargetReset);
        return answer::made(Reason::TargetReset);
    };
    // The ticket records the request now; the claim stays with the tunnel.
    (ticket.status, ticket.reason) = (101, None);
    drop(ticket);
    head::remove_hop_by_hop(&mut head.fields);
    head.fields.push(Known::Connection, b"upgrade");
    if let Some(protocol) = protocol {
        head.fields.push(Known::Upgrade, &protocol);
    }
    Answer { head, body: AnswerBody::Tunnel(Box::new(tunnel)), made: None }
}
