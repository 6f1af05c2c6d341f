//! Answers that the proxy makes itself: always with a reason, always short.

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{Response, StatusCode};

use crate::body::AnswerBody;
use crate::reason::Reason;

const REASON: HeaderName = HeaderName::from_static(model::REASON_FIELD);

pub(crate) fn made(reason: Reason) -> Response<AnswerBody> {
    page(reason, Bytes::from_static(reason.text().as_bytes()), "text/plain; charset=utf-8")
}

pub(crate) fn maintenance(page_text: Bytes) -> Response<AnswerBody> {
    if page_text.is_empty() {
        return made(Reason::Maintenance);
    }
    let html = page_text.trim_ascii_start().starts_with(b"<");
    let kind = if html { "text/html; charset=utf-8" } else { "text/plain; charset=utf-8" };
    page(Reason::Maintenance, page_text, kind)
}

fn page(reason: Reason, text: Bytes, kind: &'static str) -> Response<AnswerBody> {
    let mut response = Response::new(AnswerBody::Text(text));
    *response.status_mut() = reason.status();
    let headers = response.headers_mut();
    headers.insert(REASON, HeaderValue::from_static(reason.name()));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if reason.status() == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD, POST, PUT, DELETE, PATCH, OPTIONS"));
    }
    if reason.status() == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}
