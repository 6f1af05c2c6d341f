//! A target's answer made fit for the client, and the tunnel after a 101.
//!
//! **Invariant**: a tunnel begins only after the target's 101 to a request that asked for it.

use http::{HeaderMap, HeaderValue, Response, StatusCode, Version, header};
use http_body::Body;
use hyper::body::Incoming;

use crate::body::{AnswerBody, Flow};
use crate::forward::Passage;
use crate::line::{Phase, Sender};
use crate::live::Claim;
use crate::reason::Reason;
use crate::ticket::Ticket;
use crate::{answer, head, tunnel};

pub(crate) fn respond(passage: &mut Passage, mut ticket: Ticket, sender: Sender, mut response: Response<Incoming>) -> Response<AnswerBody> {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return switch_protocols(passage, ticket, sender, response);
    }
    ticket.status = response.status().as_u16();
    ticket.bad = ticket.status >= 500;
    ticket.reason = None;
    let headers = response.headers_mut();
    if !settle_framing(headers) {
        // The line goes with it: what else comes on it is not understood either.
        (ticket.status, ticket.bad, ticket.reason) = (502, true, Some(Reason::BadAnswer));
        ticket.answered(true);
        passage.lane.count_made(Reason::BadAnswer);
        return answer::made(Reason::BadAnswer);
    }
    head::remove_hop_by_hop(headers);
    if !passage.head.trailers {
        headers.remove(header::TRAILER);
    }
    *response.version_mut() = Version::HTTP_11;
    let (parts, incoming) = response.into_parts();
    let bodyless = incoming.is_end_stream();
    ticket.answered(bodyless);
    let flow = Flow::new(incoming, passage.lane.clone(), sender, ticket, passage.head.is_http10);
    if bodyless && parts.headers.contains_key(header::CONTENT_LENGTH) {
        // Ends here: the line goes back before the client has read the head.
        drop(flow);
        return Response::from_parts(parts, AnswerBody::Empty);
    }
    Response::from_parts(parts, AnswerBody::Target(flow))
}

/// False when two readers could see two lengths: a length beside a coding, or a coding other than `chunked` (RFC 9112 §6.3).
fn settle_framing(headers: &mut HeaderMap) -> bool {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next() {
        let is_chunked = coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked");
        return is_chunked && codings.next().is_none() && !headers.contains_key(header::CONTENT_LENGTH);
    }
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let first = lengths.next().map(|length| length.as_bytes().to_vec());
    let is_list = lengths.next().is_some() || first.as_ref().is_some_and(|first| first.contains(&b','));
    if let Some(first) = first.filter(|_| is_list) {
        // hyper has seen that they are all the same.
        let one = first.split(|byte| *byte == b',').next().unwrap_or_default().trim_ascii();
        match HeaderValue::from_bytes(one) {
            Ok(one) => drop(headers.insert(header::CONTENT_LENGTH, one)),
            Err(_) => return false,
        }
    }
    true
}

fn switch_protocols(passage: &mut Passage, mut ticket: Ticket, sender: Sender, mut response: Response<Incoming>) -> Response<AnswerBody> {
    let Some(from_client) = passage.upgrade.take() else {
        // A 101 that nobody asked for: the target's stream cannot be understood any more.
        ticket.status = 502;
        ticket.broke(Reason::TargetReset);
        passage.lane.count_made(Reason::TargetReset);
        return answer::made(Reason::TargetReset);
    };
    let protocol = response.headers().get(header::UPGRADE).cloned();
    let from_target = hyper::upgrade::on(&mut response);
    // The ticket records the request now; the claim stays with the tunnel.
    (ticket.status, ticket.reason) = (101, None);
    let claim = ticket.claim.take().map(Claim::into_tunnel);
    drop(ticket);
    let line = sender.line.clone();
    line.enter(Phase::Tunnel);
    let (client, present) = passage.lane.enter_tunnel(&passage.client);
    passage.lane.lines.adopt(&line, async move {
        let _busy = client.begin(false);
        tokio::select! {
            () = tunnel::run(from_client, from_target) => {}
            () = client.signalled() => {}
        }
        drop((claim, present));
    });
    let (mut parts, _) = response.into_parts();
    head::remove_hop_by_hop(&mut parts.headers);
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.version = Version::HTTP_11;
    parts.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    if let Some(protocol) = protocol {
        parts.headers.insert(header::UPGRADE, protocol);
    }
    Response::from_parts(parts, AnswerBody::Empty)
}
