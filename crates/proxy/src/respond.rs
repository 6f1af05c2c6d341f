//! A target's answer made fit for the client, and the tunnel after a 101.
//!
//! **Invariant**: a tunnel begins only after the target's 101 to a request that asked for it.

use http::{HeaderValue, Response, StatusCode, Version, header};
use http_body::Body;
use hyper::body::Incoming;

use crate::body::{AnswerBody, Flow};
use crate::forward::{Chosen, Passage};
use crate::line::{Phase, Sender};
use crate::reason::Reason;
use crate::{answer, head, tunnel};

pub(crate) fn respond(passage: &mut Passage, chosen: Chosen, sender: Sender, mut response: Response<Incoming>) -> Response<AnswerBody> {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return switch_protocols(passage, chosen, sender, response);
    }
    let headers = response.headers_mut();
    head::remove_hop_by_hop(headers);
    if !passage.head.trailers {
        headers.remove(header::TRAILER);
    }
    *response.version_mut() = Version::HTTP_11;
    let ticket = passage.ticket(chosen, response.status().as_u16());
    let (parts, incoming) = response.into_parts();
    let bodyless = incoming.is_end_stream();
    let flow = Flow::new(incoming, passage.lane.clone(), sender, ticket);
    if bodyless && parts.headers.contains_key(header::CONTENT_LENGTH) {
        // Ends here: the line goes back before the client has read the head.
        drop(flow);
        return Response::from_parts(parts, AnswerBody::Empty);
    }
    Response::from_parts(parts, AnswerBody::Target(flow))
}

fn switch_protocols(passage: &mut Passage, chosen: Chosen, sender: Sender, mut response: Response<Incoming>) -> Response<AnswerBody> {
    let Some(from_client) = passage.upgrade.take() else {
        // A 101 that nobody asked for: the target's stream cannot be understood any more.
        let mut ticket = passage.ticket(chosen, 502);
        ticket.broke();
        passage.lane.count_made(Reason::TargetReset);
        return answer::made(Reason::TargetReset);
    };
    let protocol = response.headers().get(header::UPGRADE).cloned();
    let from_target = hyper::upgrade::on(&mut response);
    let Chosen { claim, counts } = chosen;
    let claim = claim.into_tunnel();
    // The ticket records the request now; the claim stays with the tunnel.
    let mut ticket = passage.ticket(Chosen { claim, counts }, 101);
    let claim = ticket.claim.take();
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
