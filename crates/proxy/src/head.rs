//! Heads of requests and answers, checked and cleaned: what must not pass from one connection to the next.
//!
//! **Invariant**: framing is never copied; each message is framed anew (`http1`). A `Connection` field cannot name fields away
//! that routing, authentication or we rely on.

use http::Method;
use http1::{Fields, Known, RequestHead, has_token};

use crate::client::Client;
use crate::reason::Reason;

const VIA_LINE: &[u8] = b"via: 1.1 changeover\r\n";
const PSEUDONYM: &str = "changeover";
/// A request that passed here so often goes in circles.
const HOPS_MAX: usize = 10;

/// What routing and the answer must know of a request.
pub(crate) struct Head {
    /// The host for routing: lower case, without port; empty when an HTTP/1.0 client named none.
    pub(crate) host: Vec<u8>,
    /// The protocol that the client wants to switch to.
    pub(crate) upgrade: Option<Box<[u8]>>,
    /// `TE: trailers`.
    pub(crate) trailers: bool,
}

/// Checks a client's request and makes it fit to be sent to a target.
pub(crate) fn admit(request: &mut RequestHead, client: &Client) -> Result<Head, Reason> {
    if matches!(request.method, Method::CONNECT | Method::TRACE) {
        return Err(Reason::MethodNotAllowed);
    }
    let host = settle_host(request, client.is_http2())?;
    let has_body = !request.framing.is_empty();
    let fields = &mut request.fields;
    check_expectation(fields)?;
    if request.method == Method::OPTIONS {
        count_down_forwards(fields)?;
    }
    let upgrade = wanted_upgrade(fields);
    if upgrade.is_some() && has_body {
        return Err(Reason::BadRequest);
    }
    let upgrade = upgrade.filter(|_| !request.is_http10 && !client.is_http2());
    let trailers = fields.get(Known::Te).is_some_and(|te| has_token(te, "trailers"));
    remove_hop_by_hop(fields);
    settle_trailer_names(fields);
    if trailers {
        fields.push(Known::Te, b"trailers");
        fields.push(Known::Connection, b"te");
    }
    if client.is_http2() {
        join_cookies(fields);
    }
    name_forwarder(fields, client);
    count_hops(fields)?;
    Ok(Head { host, upgrade, trailers })
}

/// One authority, from the target if it has one, as the `Host` field; the target in origin form.
fn settle_host(request: &mut RequestHead, is_http2: bool) -> Result<Vec<u8>, Reason> {
    let field = request.fields.get(Known::Host);
    if request.fields.all(Known::Host).nth(1).is_some() {
        return Err(Reason::BadRequest);
    }
    let authority = request.authority();
    let host = match (authority, field) {
        // RFC 9112 §3.2: HTTP/1.1 names its host in any case, validly.
        (Some(_), None) if !is_http2 && !request.is_http10 => return Err(Reason::BadRequest),
        (Some(authority), Some(field)) if is_http2 && !field.eq_ignore_ascii_case(authority) => return Err(Reason::BadRequest),
        (Some(_), Some(field)) if host_name(field).is_none() => return Err(Reason::BadRequest),
        (Some(authority), _) => host_name(authority),
        (None, Some(field)) => host_name(field),
        (None, None) if request.is_http10 => Some(Vec::new()),
        (None, None) => None,
    };
    let host = host.ok_or(Reason::BadRequest)?;
    // The authority form is CONNECT's.
    let star = request.target() == b"*" && request.method == Method::OPTIONS;
    if !request.target().starts_with(b"/") && !star {
        return Err(Reason::BadRequest);
    }
    if let Some(authority) = request.authority().map(<[u8]>::to_vec) {
        request.fields.set(Known::Host, &authority);
    }
    Ok(host)
}

/// `uri-host [":" port]` to the host in lower case; `None` when malformed.
pub(crate) fn host_name(field: &[u8]) -> Option<Vec<u8>> {
    let length = match field.strip_prefix(b"[") {
        Some(rest) => {
            let inside = rest.iter().position(|byte| *byte == b']')?;
            std::str::from_utf8(&rest[..inside]).ok()?.parse::<std::net::Ipv6Addr>().ok()?;
            inside + 2
        }
        None => field.iter().position(|byte| *byte == b':').unwrap_or(field.len()),
    };
    let (host, port) = field.split_at(length);
    match port.split_first() {
        None => {}
        Some((b':', digits)) => {
            let number = digits.iter().try_fold(0u32, |number, digit| {
                let number = digit.is_ascii_digit().then(|| number * 10 + u32::from(digit - b'0'))?;
                (number <= u32::from(u16::MAX)).then_some(number)
            });
            number?;
        }
        Some(_) => return None,
    }
    (!host.is_empty() && host.iter().fold(true, |all, byte| all & IN_HOST[*byte as usize])).then(|| host.to_ascii_lowercase())
}

/// What stands in a host (RFC 3986 §3.2.2), with the brackets of an address.
const IN_HOST: [bool; 256] = {
    let (mut allowed, mut byte, marks) = ([false; 256], 0, b"-._~!$&'()*+,;=%[]:");
    while byte < 256 {
        allowed[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let mut mark = 0;
    while mark < marks.len() {
        allowed[marks[mark] as usize] = true;
        mark += 1;
    }
    allowed
};

fn check_expectation(fields: &mut Fields) -> Result<(), Reason> {
    let Some(expected) = fields.get(Known::Expect) else {
        return Ok(());
    };
    // The 100 goes out when the body is first read, and that is after a line to a target exists.
    let is_known = expected.eq_ignore_ascii_case(b"100-continue");
    fields.remove(Known::Expect);
    if is_known { Ok(()) } else { Err(Reason::ExpectationFailed) }
}

/// RFC 9110 §7.6.2.
fn count_down_forwards(fields: &mut Fields) -> Result<(), Reason> {
    let Some(left) = fields.get(Known::MaxForwards) else {
        return Ok(());
    };
    let left: u32 = std::str::from_utf8(left).ok().and_then(|left| left.parse().ok()).ok_or(Reason::BadRequest)?;
    let left = left.checked_sub(1).ok_or(Reason::LastHop)?;
    fields.set(Known::MaxForwards, left.to_string().as_bytes());
    Ok(())
}

/// h2c is not offered: HTTP/2 in clear needs no upgrade, and the target's side would be another protocol.
fn wanted_upgrade(fields: &Fields) -> Option<Box<[u8]>> {
    let upgrade = fields.get(Known::Upgrade)?;
    let asked = fields.all(Known::Connection).any(|value| has_token(value, "upgrade"));
    (asked && !has_token(upgrade, "h2c")).then(|| upgrade.into())
}

/// Fields that a `Connection` field may not name away; `name` in lower case.
fn is_protected(name: &[u8]) -> bool {
    let listed: [&[u8]; 6] = [b"host", b"content-length", b"authorization", b"cookie", b"set-cookie", b"via"];
    listed.contains(&name) || is_claim(name) || name.starts_with(b"x-changeover-")
}

/// Of one connection only (RFC 9110 §7.6.1); `Transfer-Encoding` is no field here.
const HOP_BY_HOP: [Known; 8] = [
    Known::Connection,
    Known::KeepAlive,
    Known::ProxyConnection,
    Known::Te,
    Known::Upgrade,
    Known::ProxyAuthenticate,
    Known::ProxyAuthorization,
    Known::Http2Settings,
];

pub(crate) fn remove_hop_by_hop(fields: &mut Fields) {
    if fields.has(Known::Connection) {
        let lists = fields.all(Known::Connection).flat_map(|value| value.split(|byte| *byte == b','));
        let named: Vec<Vec<u8>> = lists.map(|name| name.trim_ascii().to_ascii_lowercase()).filter(|name| !is_protected(name)).collect();
        fields.retain(|field| !named.iter().any(|name| name == field.name));
    }
    if fields.has_any(&HOP_BY_HOP) {
        fields.retain(|field| !HOP_BY_HOP.contains(&field.known));
    }
}

/// Nothing in a trailer may change how a message is framed, routed or authenticated (RFC 9110 §6.5.1).
fn is_forbidden_in_trailers(name: &[u8]) -> bool {
    let listed: [&[u8]; 3] = [b"transfer-encoding", b"trailer", b"cache-control"];
    listed.contains(&name) || HOP_BY_HOP.contains(&Known::of(name)) || name.starts_with(b"content-") || is_protected(name)
}

/// The trailers of a request that its client announced pass, the others do not.
fn settle_trailer_names(fields: &mut Fields) {
    if !fields.has(Known::Trailer) {
        return;
    }
    let lists = fields.all(Known::Trailer).flat_map(|value| value.split(|byte| *byte == b','));
    let names = lists.map(|name| name.trim_ascii().to_ascii_lowercase());
    let is_fit = |name: &Vec<u8>| http::HeaderName::from_bytes(name).is_ok() && !is_forbidden_in_trailers(name);
    let settled = names.filter(is_fit).collect::<Vec<_>>().join(&b", "[..]);
    fields.remove(Known::Trailer);
    if !settled.is_empty() {
        fields.push(Known::Trailer, &settled);
    }
}

/// Leaves what may pass. `announced`: the list that names those that do; without one, all do.
pub(crate) fn filter_trailers(trailers: &mut Fields, announced: Option<&[u8]>) {
    let is_announced = |name: &[u8]| announced.is_none_or(|list| list.split(|byte| *byte == b',').any(|one| one.trim_ascii() == name));
    trailers.retain(|field| !is_forbidden_in_trailers(field.name) && is_announced(field.name));
}

/// HTTP/2 may split the cookie field; HTTP/1.1 may not (RFC 9113 §8.2.3).
fn join_cookies(fields: &mut Fields) {
    if fields.all(Known::Cookie).nth(1).is_none() {
        return;
    }
    let joined = fields.all(Known::Cookie).collect::<Vec<_>>().join(&b"; "[..]);
    fields.set(Known::Cookie, &joined);
}

/// Replaced, not appended: whoever connects is not trusted to say who asked before.
fn name_forwarder(fields: &mut Fields, client: &Client) {
    if client.is_believed() {
        return pass_on_forwarder(fields, client);
    }
    if fields.iter().any(|field| is_claim(field.name)) {
        fields.retain(|field| !is_claim(field.name));
    }
    fields.push_line(Known::XForwardedFor, client.forwarded_for());
    let proto: &[u8] = if client.is_tls() { b"x-forwarded-proto: https\r\n" } else { b"x-forwarded-proto: http\r\n" };
    fields.push_line(Known::XForwardedProto, proto);
    if let Some(identity) = client.identity() {
        fields.push_line(Known::XForwardedClientCert, identity);
    }
    fields.push_again(Known::Host, Known::XForwardedHost);
}

/// Whoever connects says who asked before, and is believed: what it says is kept, and it is named behind.
fn pass_on_forwarder(fields: &mut Fields, client: &Client) {
    // Who the client is by its certificate is for us to say.
    fields.retain(|field| !is_claim_of_identity(field.name));
    let mut way: Vec<u8> = fields.all(Known::XForwardedFor).collect::<Vec<_>>().join(&b", "[..]);
    if !way.is_empty() {
        way.extend_from_slice(b", ");
    }
    way.extend_from_slice(client.peer.ip().to_canonical().to_string().as_bytes());
    fields.set(Known::XForwardedFor, &way);
    if !fields.has(Known::XForwardedProto) {
        fields.push(Known::XForwardedProto, if client.is_tls() { b"https" } else { b"http" });
    }
    if let Some(identity) = client.identity() {
        fields.push_line(Known::XForwardedClientCert, identity);
    }
    if !fields.has(Known::XForwardedHost) {
        fields.push_again(Known::Host, Known::XForwardedHost);
    }
}

fn is_claim_of_identity(name: &[u8]) -> bool {
    is_claim(name)
        && !matches!(
            name,
            b"forwarded" | b"x-real-ip" | b"x-forwarded-for" | b"x-forwarded-proto" | b"x-forwarded-host" | b"x-forwarded-port"
        )
}

/// Fields that only a proxy may set; also those of RFC 9440, and those that frame. CGI and its heirs cannot tell `_` from `-`, so
/// neither do we. `name` in lower case.
fn is_claim(name: &[u8]) -> bool {
    // Most names are told by their first letter.
    if !matches!(name.first(), Some(b'x' | b'f' | b'c' | b't')) {
        return false;
    }
    let starts = |prefix: &[u8]| {
        let same = |(given, wanted): (&u8, &u8)| given == wanted || *given == b'_' && *wanted == b'-';
        name.len() >= prefix.len() && name.iter().zip(prefix).all(same)
    };
    let is = |known: &[u8]| name.len() == known.len() && starts(known);
    let frames = is(b"content-length") || is(b"transfer-encoding");
    name == b"forwarded" || starts(b"x-forwarded-") || is(b"x-real-ip") || is(b"client-cert") || is(b"client-cert-chain") || frames
}

fn count_hops(fields: &mut Fields) -> Result<(), Reason> {
    if fields.has(Known::Via) {
        let ours = |hop: &&str| hop.split_whitespace().nth(1) == Some(PSEUDONYM);
        let lists = fields.all(Known::Via).filter_map(|value| std::str::from_utf8(value).ok());
        let hops: usize = lists.map(|list| list.split(',').filter(ours).count()).sum();
        if hops >= HOPS_MAX {
            return Err(Reason::Loop);
        }
    }
    fields.push_line(Known::Via, VIA_LINE);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_parsed() {
        let check =
            |given: &str, expect: Option<&str>| assert_eq!(host_name(given.as_bytes()).as_deref(), expect.map(str::as_bytes), "{given:?}");
        check("Example.COM", Some("example.com"));
        check("example.com:8080", Some("example.com"));
        check("example.com:", Some("example.com"));
        check("[::1]:80", Some("[::1]"));
        check("", None);
        check("a b", None);
        check("a:99999", None);
        check("a:+1", None);
        check("a:1:2", None);
        check("a:000000000000000080", Some("a"));
        check("a:65536", None);
        check("user@a", None);
        check("a/b", None);
        check("[::1]x", None);
    }

    #[test]
    fn nominated_fields_go_but_not_the_protected_ones() {
        let mut fields = Fields::default();
        for (name, value) in [("connection", "X-A, host, x-forwarded-for"), ("x-a", "1"), ("host", "h"), ("x-forwarded-for", "1.1.1.1")] {
            fields.push_named(name, value.as_bytes());
        }
        remove_hop_by_hop(&mut fields);
        assert_eq!(fields.iter().map(|field| field.name).collect::<Vec<_>>(), [&b"host"[..], b"x-forwarded-for"]);
    }
}
