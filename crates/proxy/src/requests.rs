//! Requests of one client over HTTP/1.1, one after the other.
//!
//! **Invariant**: a connection goes on only when the last request was read to its end and its answer was written whole. What cannot be
//! understood ends it, and so does what follows.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use http::Method;
use http1::{Framing, Known, Refusal};

use crate::body::{AnswerBody, RequestBody};
use crate::client::Client;
use crate::conversation::{Conversation, Delivered, Heard};
use crate::lane::Lane;
use crate::message::{Answer, Request};
use crate::reason::Reason;
use crate::tunnel::Tunnel;
use crate::{answer, forward};

/// What is left of a body whose request was answered without it is read and thrown away, so much and so long: cheaper than a new
/// connection.
const DRAIN_BYTES_MAX: u64 = 64 * 1024;
const DRAIN_MAX: Duration = Duration::from_secs(1);

/// Why nothing is served for now.
pub(crate) enum Turn {
    /// The client rests, and has done so for a while, or is told to end.
    Rests,
    /// Its end has come already.
    Over,
    /// To be closed; what still comes is not read as a request.
    Closes,
    /// To be reset: a clean end would tell the client that its answer is whole (RFC 9112 §8).
    Resets,
    Tunnel(Box<Tunnel>),
}

/// What an answer must know of its request.
struct Asked {
    is_http10: bool,
    is_head: bool,
    lasts: bool,
}

/// Serves what comes until the client rests, or the connection has to end.
pub(crate) async fn serve(lane: &Rc<Lane>, client: &Rc<Client>, conversation: &Rc<Conversation>) -> Turn {
    loop {
        let heard = poll_fn(|cx| match conversation.poll_request(cx) {
            // Who is told to rest wakes this, too.
            Poll::Pending if client.is_to_rest() && conversation.is_quiet() => Poll::Ready(Heard::Nothing),
            heard => heard,
        });
        let head = match heard.await {
            Heard::Request(head) => head,
            Heard::Nothing => return Turn::Rests,
            Heard::Over => return Turn::Over,
            Heard::Refused(refusal) => {
                let asked = Asked { is_http10: false, is_head: false, lasts: false };
                let made = refuse(lane, client, refusal);
                deliver(lane, client, conversation, &asked, made).await;
                return Turn::Closes;
            }
        };
        let _busy = client.begin();
        let asked = Asked { is_http10: head.is_http10, is_head: head.method == Method::HEAD, lasts: head.lasts };
        let body = if head.framing.is_empty() { RequestBody::none() } else { RequestBody::http1(conversation.clone()) };
        let answer = forward::handle(lane, client, Request { head: Rc::new(head), body }, None).await;
        if let Some(turn) = deliver(lane, client, conversation, &asked, answer).await {
            return turn;
        }
    }
}

fn refuse(lane: &Lane, client: &Client, refusal: Refusal) -> Answer {
    let reason = match refusal {
        Refusal::Malformed => Reason::BadRequest,
        Refusal::UnknownCoding => Reason::UnsupportedCoding,
        Refusal::HeadTooLarge => Reason::HeadTooLarge,
        Refusal::TargetTooLong => Reason::TargetTooLong,
    };
    lane.note_made(reason, client, None, Instant::now());
    answer::made(reason)
}

/// Writes an answer. `None`: the next request may come.
async fn deliver(lane: &Lane, client: &Client, conversation: &Conversation, asked: &Asked, answer: Answer) -> Option<Turn> {
    let Answer { mut head, mut body, .. } = answer;
    let is_tunnel = matches!(body, AnswerBody::Tunnel(_));
    if asked.is_head && !matches!(head.framing, Framing::Bodiless(_)) {
        head.framing = Framing::Bodiless(if let Framing::Length(length) = head.framing { Some(length) } else { None });
        body = AnswerBody::Empty;
    }
    let is_body_left = !conversation.is_body_read() && !body.has_rest();
    let may_drain = !conversation.has_failed() && !conversation.awaits_continue() && conversation.expects() <= DRAIN_BYTES_MAX;
    let mut lasts = asked.lasts && !lane.is_draining() && !client.is_told() && (!is_body_left || may_drain);
    if matches!(head.framing, Framing::Chunked | Framing::UntilClose) {
        head.framing = if asked.is_http10 { Framing::UntilClose } else { Framing::Chunked };
        lasts &= !asked.is_http10;
    }
    let persistence: &[u8] = match (lasts, asked.is_http10) {
        _ if is_tunnel => b"",
        (false, _) => b"connection: close\r\n",
        (true, true) => b"connection: keep-alive\r\n",
        (true, false) => b"",
    };
    {
        let date = lane.date.borrow();
        conversation.begin_answer(&head, &[persistence, if head.fields.has(Known::Date) { b"" } else { date.as_bytes() }]);
    }
    let announced = head.fields.get(Known::Trailer).map(Box::<[u8]>::from);
    drop(head);
    match poll_fn(|cx| conversation.poll_answer(cx, &mut body, announced.as_deref())).await {
        Delivered::Whole => {}
        Delivered::Broken => return Some(Turn::Closes),
        Delivered::BrokenByReset => return Some(Turn::Resets),
    }
    if let AnswerBody::Tunnel(tunnel) = body {
        return Some(Turn::Tunnel(tunnel));
    }
    poll_fn(|cx| body.poll_rest(cx)).await;
    if !lasts || !conversation.is_body_read() && !drain(conversation).await {
        return Some(Turn::Closes);
    }
    None
}

/// Reads what is left of the request's body; false when that is too much, or takes too long.
async fn drain(conversation: &Conversation) -> bool {
    if conversation.awaits_continue() {
        return false;
    }
    let read = async {
        let mut left = DRAIN_BYTES_MAX;
        loop {
            match poll_fn(|cx| conversation.poll_part(cx)).await {
                None => return true,
                Some(Ok(http1::Part::Data(data))) => match left.checked_sub(data.len() as u64) {
                    Some(rest) => left = rest,
                    None => return false,
                },
                Some(Ok(http1::Part::Trailers(_))) => {}
                Some(Err(_)) => return false,
            }
        }
    };
    tokio::time::timeout(DRAIN_MAX, read).await.unwrap_or(false)
}
