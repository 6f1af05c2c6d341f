//! Heads of requests and answers, checked and cleaned: what must not pass from one connection to the next.
//!
//! **Invariant**: framing is never copied; hyper frames each message anew. A `Connection` field cannot name fields away
//! that routing, authentication or we rely on.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Uri, Version};
use http_body::Body;
use hyper::body::Incoming;

use crate::client::Client;
use crate::reason::Reason;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

const VIA: HeaderValue = HeaderValue::from_static("1.1 changeover");
const PSEUDONYM: &str = "changeover";
/// A request that passed here so often goes in circles.
const HOPS_MAX: usize = 10;

pub(crate) struct Head {
    /// The host for routing: lower case, without port; empty when an HTTP/1.0 client named none.
    pub(crate) host: String,
    /// The protocol that the client wants to switch to.
    pub(crate) upgrade: Option<HeaderValue>,
    /// `TE: trailers`.
    pub(crate) trailers: bool,
    pub(crate) is_http10: bool,
}

/// Checks a client's request and makes it fit to be sent to a target.
pub(crate) fn admit(request: &mut Request<Incoming>, client: &Client) -> Result<Head, Reason> {
    if matches!(*request.method(), Method::CONNECT | Method::TRACE) {
        return Err(Reason::MethodNotAllowed);
    }
    let has_body = !request.body().is_end_stream();
    let old = request.version() < Version::HTTP_11;
    let (host, method) = (settle_host(request)?, request.method().clone());
    let headers = request.headers_mut();
    check_framing(headers, has_body)?;
    check_expectation(headers)?;
    if method == Method::OPTIONS {
        count_down_forwards(headers)?;
    }
    let upgrade = wanted_upgrade(headers);
    if upgrade.is_some() && has_body {
        return Err(Reason::BadRequest);
    }
    let upgrade = upgrade.filter(|_| !old && !client.is_http2());
    let trailers = headers.get(header::TE).is_some_and(|te| has_token(te, "trailers"));
    remove_hop_by_hop(headers);
    settle_trailer_names(headers);
    headers.remove(HTTP2_SETTINGS);
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        headers.insert(header::CONNECTION, HeaderValue::from_static("te"));
    }
    if has_body && !headers.contains_key(header::CONTENT_LENGTH) {
        // Said outright, because hyper drops a GET's body of unknown length otherwise.
        headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    if client.is_http2() {
        join_cookies(headers);
    }
    name_forwarder(headers, client);
    count_hops(headers)?;
    *request.version_mut() = Version::HTTP_11;
    Ok(Head { host, upgrade, trailers, is_http10: old })
}

/// One authority, from the URI if it has one, as the `Host` field; the URI in origin form.
fn settle_host(request: &mut Request<Incoming>) -> Result<String, Reason> {
    let mut fields = request.headers().get_all(header::HOST).iter();
    let field = fields.next().cloned();
    if fields.next().is_some() {
        return Err(Reason::BadRequest);
    }
    let http2 = request.version() == Version::HTTP_2;
    // RFC 9112 §3.2: HTTP/1.1 names its host in any case, validly; the authority form is CONNECT's.
    let is_http1 = !http2 && request.version() == Version::HTTP_11;
    let is_valid = field.as_ref().is_none_or(|field| host_name(field.as_bytes()).is_some());
    let has_authority_alone = request.uri().authority().is_some() && request.uri().scheme().is_none();
    if !is_valid || is_http1 && (field.is_none() || has_authority_alone) {
        return Err(Reason::BadRequest);
    }
    let authority = request.uri().authority().map(|authority| HeaderValue::from_str(authority.as_str()));
    let value = match (authority, field) {
        (Some(Err(_)), _) => return Err(Reason::BadRequest),
        (Some(Ok(authority)), Some(field)) if http2 && !field.as_bytes().eq_ignore_ascii_case(authority.as_bytes()) => {
            return Err(Reason::BadRequest);
        }
        (Some(Ok(authority)), _) => authority,
        (None, Some(field)) => field,
        (None, None) if request.version() < Version::HTTP_11 => return Ok(String::new()),
        (None, None) => return Err(Reason::BadRequest),
    };
    let host = host_name(value.as_bytes()).ok_or(Reason::BadRequest)?;
    if request.uri().authority().is_some() {
        let path = request.uri().path_and_query().cloned().unwrap_or_else(|| http::uri::PathAndQuery::from_static("/"));
        *request.uri_mut() = Uri::from(path);
        request.headers_mut().insert(header::HOST, value);
    }
    let path = request.uri().path();
    let star = path == "*" && *request.method() == Method::OPTIONS;
    if path.starts_with('/') || star { Ok(host) } else { Err(Reason::BadRequest) }
}

/// `uri-host [":" port]` to the host in lower case; `None` when malformed.
pub(crate) fn host_name(field: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(field).ok()?;
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (inside, after) = rest.split_once(']')?;
            inside.parse::<std::net::Ipv6Addr>().ok()?;
            (&text[..inside.len() + 2], after)
        }
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    if let Some(port) = port.strip_prefix(':') {
        let digits = port.bytes().all(|byte| byte.is_ascii_digit());
        if !digits || (!port.is_empty() && port.parse::<u16>().is_err()) {
            return None;
        }
    } else if !port.is_empty() {
        return None;
    }
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=%[]:".contains(&byte);
    (!host.is_empty() && host.bytes().all(valid)).then(|| host.to_ascii_lowercase())
}

fn check_framing(headers: &HeaderMap, has_body: bool) -> Result<(), Reason> {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else {
        return Ok(());
    };
    let chunked = |value: &HeaderValue| value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked");
    match codings.next() {
        None if chunked(coding) => {
            debug_assert!(has_body || !headers.contains_key(header::CONTENT_LENGTH), "hyper drops a length beside a coding");
            Ok(())
        }
        None => Err(Reason::UnsupportedCoding),
        Some(_) => Err(Reason::BadRequest),
    }
}

fn check_expectation(headers: &mut HeaderMap) -> Result<(), Reason> {
    let Some(expected) = headers.remove(header::EXPECT) else {
        return Ok(());
    };
    // hyper sends the 100 when the body is first read, and that is after a line to a target exists.
    let known = expected.as_bytes().eq_ignore_ascii_case(b"100-continue");
    if known { Ok(()) } else { Err(Reason::ExpectationFailed) }
}

/// RFC 9110 §7.6.2.
fn count_down_forwards(headers: &mut HeaderMap) -> Result<(), Reason> {
    let Some(left) = headers.get(header::MAX_FORWARDS) else {
        return Ok(());
    };
    let left: u32 = left.to_str().ok().and_then(|left| left.trim().parse().ok()).ok_or(Reason::BadRequest)?;
    let left = left.checked_sub(1).ok_or(Reason::LastHop)?;
    headers.insert(header::MAX_FORWARDS, HeaderValue::from(left));
    Ok(())
}

fn has_token(value: &HeaderValue, token: &str) -> bool {
    let mut tokens = value.to_str().unwrap_or_default().split(',');
    tokens.any(|part| part.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(token))
}

/// h2c is not offered: HTTP/2 in clear needs no upgrade, and the target's side would be another protocol.
fn wanted_upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let upgrade = headers.get(header::UPGRADE)?;
    let asked = headers.get_all(header::CONNECTION).iter().any(|value| has_token(value, "upgrade"));
    (asked && !has_token(upgrade, "h2c")).then(|| upgrade.clone())
}

/// Fields that a `Connection` field may not name away.
fn is_protected(name: &HeaderName) -> bool {
    let listed = [header::HOST, header::CONTENT_LENGTH, header::AUTHORIZATION, header::COOKIE, header::SET_COOKIE, header::VIA];
    listed.contains(name) || name.as_str().starts_with("x-forwarded-") || name.as_str().starts_with("x-changeover-")
}

pub(crate) fn remove_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(header::CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(header::CONNECTION)
            .iter()
            .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
            .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
            .filter(|name| !is_protected(name))
            .collect();
        headers.remove(header::CONNECTION);
        for name in named {
            headers.remove(name);
        }
    }
    for name in [
        KEEP_ALIVE,
        PROXY_CONNECTION,
        header::TE,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        header::PROXY_AUTHENTICATE,
        header::PROXY_AUTHORIZATION,
    ] {
        headers.remove(name);
    }
}

/// Nothing in a trailer may change how a message is framed, routed or authenticated (RFC 9110 §6.5.1).
fn is_forbidden_in_trailers(name: &HeaderName) -> bool {
    let listed = [header::HOST, header::TE, header::CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE];
    let more = [header::TRAILER, header::AUTHORIZATION, header::COOKIE, header::SET_COOKIE, header::CACHE_CONTROL];
    listed.contains(name) || more.contains(name) || name.as_str().starts_with("content-") || is_protected(name)
}

/// The trailers of a request that its client announced pass, the others do not: hyper sends on only what `Trailer` names.
fn settle_trailer_names(headers: &mut HeaderMap) {
    if !headers.contains_key(header::TRAILER) {
        return;
    }
    let fields = headers.get_all(header::TRAILER).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let names = fields.filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok()).filter(|name| !is_forbidden_in_trailers(name));
    let settled = names.map(|name| name.as_str().to_owned()).collect::<Vec<_>>().join(", ");
    headers.remove(header::TRAILER);
    if let Ok(settled) = HeaderValue::try_from(settled)
        && !settled.is_empty()
    {
        headers.insert(header::TRAILER, settled);
    }
}

pub(crate) fn filter_trailers(trailers: &mut HeaderMap) {
    let names: Vec<HeaderName> = trailers.keys().filter(|name| is_forbidden_in_trailers(name)).cloned().collect();
    names.into_iter().for_each(|name| drop(trailers.remove(name)));
}

/// HTTP/2 may split the cookie field; HTTP/1.1 may not (RFC 9113 §8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(header::COOKIE).iter().nth(1).is_none() {
        return;
    }
    let crumbs: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(joined) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        headers.insert(header::COOKIE, joined);
    }
}

/// Replaced, not appended: whoever connects is not trusted to say who asked before.
fn name_forwarder(headers: &mut HeaderMap, client: &Client) {
    let is_claimed = |name: &HeaderName| [header::FORWARDED, REAL_IP].contains(name) || name.as_str().starts_with("x-forwarded-");
    let claimed: Vec<HeaderName> = headers.keys().filter(|name| is_claimed(name)).cloned().collect();
    claimed.into_iter().for_each(|name| drop(headers.remove(name)));
    headers.insert(FORWARDED_FOR, client.forwarded_for());
    headers.insert(FORWARDED_PROTO, HeaderValue::from_static("http"));
    if let Some(host) = headers.get(header::HOST).cloned() {
        headers.insert(FORWARDED_HOST, host);
    }
}

fn count_hops(headers: &mut HeaderMap) -> Result<(), Reason> {
    if headers.contains_key(header::VIA) {
        let fields = headers.get_all(header::VIA).iter().filter_map(|value| value.to_str().ok());
        let ours = |hop: &&str| hop.split_whitespace().nth(1) == Some(PSEUDONYM);
        let hops: usize = fields.map(|field| field.split(',').filter(ours).count()).sum();
        if hops >= HOPS_MAX {
            return Err(Reason::Loop);
        }
    }
    headers.append(header::VIA, VIA);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_parsed() {
        let check = |given: &str, expect: Option<&str>| assert_eq!(host_name(given.as_bytes()).as_deref(), expect, "{given:?}");
        check("Example.COM", Some("example.com"));
        check("example.com:8080", Some("example.com"));
        check("example.com:", Some("example.com"));
        check("[::1]:80", Some("[::1]"));
        check("", None);
        check("a b", None);
        check("a:99999", None);
        check("a:+1", None);
        check("a:1:2", None);
        check("user@a", None);
        check("a/b", None);
        check("[::1]x", None);
    }

    #[test]
    fn nominated_fields_go_but_not_the_protected_ones() {
        let mut headers = HeaderMap::new();
        for (name, value) in [("connection", "x-a, host, x-forwarded-for"), ("x-a", "1"), ("host", "h"), ("x-forwarded-for", "1.1.1.1")] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        remove_hop_by_hop(&mut headers);
        let mut left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["host", "x-forwarded-for"]);
    }
}
