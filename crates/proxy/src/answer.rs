//! Answers that the proxy makes itself: always with a reason, always short.

use bytes::Bytes;
use http::StatusCode;
use http1::{AnswerHead, Framing};

use crate::body::AnswerBody;
use crate::message::Answer;
use crate::reason::Reason;

pub(crate) fn made(reason: Reason) -> Answer {
    page(reason, Bytes::from_static(reason.text().as_bytes()), "text/plain; charset=utf-8")
}

pub(crate) fn maintenance(page_text: Bytes) -> Answer {
    if page_text.is_empty() {
        return made(Reason::Maintenance);
    }
    let html = page_text.trim_ascii_start().starts_with(b"<");
    let kind = if html { "text/html; charset=utf-8" } else { "text/plain; charset=utf-8" };
    page(Reason::Maintenance, page_text, kind)
}

/// That a name is ours, for an authority that asks over HTTP (RFC 8555 §8.3).
pub(crate) fn proof(text: Bytes) -> Answer {
    let mut head = AnswerHead::new(StatusCode::OK, Framing::Length(text.len() as u64));
    head.fields.push_named("content-type", b"application/octet-stream");
    head.fields.push_named("cache-control", b"no-store");
    Answer { head, body: AnswerBody::Text(text), made: None }
}

fn page(reason: Reason, text: Bytes, kind: &'static str) -> Answer {
    let mut head = AnswerHead::new(reason.status(), Framing::Length(text.len() as u64));
    let mut push = |name: &str, value: &str| head.fields.push_named(name, value.as_bytes());
    push(model::REASON_FIELD, reason.name());
    push("content-type", kind);
    push("cache-control", "no-store");
    if reason.status() == StatusCode::METHOD_NOT_ALLOWED {
        push("allow", "GET, HEAD, POST, PUT, DELETE, PATCH, OPTIONS");
    }
    if reason.status() == StatusCode::SERVICE_UNAVAILABLE {
        push("retry-after", "1");
    }
    Answer { head, body: AnswerBody::Text(text), made: Some(reason) }
}
