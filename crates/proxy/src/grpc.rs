//! What a proxy must know of gRPC: its content type, statuses and deadlines (gRPC over HTTP/2, `PROTOCOL-HTTP2.md`).
//!
//! **Invariant**: a client of gRPC is answered in gRPC, also by us: an answer of our own is a status without a message (Trailers-Only).

use std::time::Duration;

use http::StatusCode;
use http1::{AnswerHead, Fields, Framing};

use crate::body::AnswerBody;
use crate::message::Answer;
use crate::reason::Reason;

const STATUS: &str = "grpc-status";
const TIMEOUT: &str = "grpc-timeout";
/// Later than its client's deadline, so that a target that keeps it is heard.
const GRACE: Duration = Duration::from_millis(100);

const DEADLINE_EXCEEDED: u8 = 4;
const UNIMPLEMENTED: u8 = 12;
const UNAVAILABLE: u8 = 14;
const UNKNOWN: u8 = 2;
const PERMISSION_DENIED: u8 = 7;
const RESOURCE_EXHAUSTED: u8 = 8;
const INTERNAL: u8 = 13;
const DATA_LOSS: u8 = 15;
const UNAUTHENTICATED: u8 = 16;

/// A message of gRPC, in whatever form (`application/grpc`, `application/grpc+proto`), and none of gRPC-Web, which is plain HTTP.
pub(crate) fn is_grpc(fields: &Fields) -> bool {
    let kind = fields.get_named("content-type").and_then(|kind| kind.strip_prefix(b"application/grpc"));
    kind.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';' | b' ')))
}

/// `grpc-status`: `None` without one; one that is no number is UNKNOWN.
pub(crate) fn status(fields: &Fields) -> Option<u8> {
    let value = fields.get_named(STATUS)?;
    let number = std::str::from_utf8(value).ok().and_then(|value| value.parse().ok());
    Some(number.filter(|number| *number <= 16).unwrap_or(UNKNOWN))
}

/// What a status means for the version that gave it, by the mapping to HTTP in `google/rpc/code.proto`: where HTTP would say 5xx. A client
/// that asks for what is not there, may not, or asks too often, is no failure of the version's.
pub(crate) fn is_bad(status: u8) -> bool {
    matches!(status, UNKNOWN | DEADLINE_EXCEEDED | UNIMPLEMENTED | INTERNAL | UNAVAILABLE | DATA_LOSS)
}

/// How long the client waits: at most eight digits and a unit. `None`: for ever, or it is malformed, and the target will say so.
pub(crate) fn timeout(fields: &Fields) -> Option<Duration> {
    let (unit, digits) = fields.get_named(TIMEOUT)?.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(match unit {
        b'H' => Duration::from_secs(number * 3_600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

/// So long a target is given when its client waits so long.
pub(crate) fn given_ms(left: Duration) -> u64 {
    left.saturating_add(GRACE).as_millis() as u64
}

/// The deadline that the target is told when some of it is over already.
pub(crate) fn set_timeout(fields: &mut Fields, left: Duration) {
    let millis = left.as_millis();
    let value = if millis < 100_000_000 { format!("{millis}m") } else { format!("{}S", left.as_secs().min(99_999_999)) };
    fields.set_named(TIMEOUT, value.as_bytes());
}

/// By the mapping of HTTP's statuses (gRPC, `http-grpc-status-mapping.md`), and finer where the reason says more.
fn status_of(reason: Reason) -> u8 {
    match (reason, reason.status().as_u16()) {
        (Reason::ResponseTimeout, _) => DEADLINE_EXCEEDED,
        (Reason::TooManyConnections | Reason::Flood | Reason::HeadTooLarge, _) => RESOURCE_EXHAUSTED,
        (_, 405) => UNIMPLEMENTED,
        (_, status) => of_http(status),
    }
}

/// What a client of gRPC makes of an answer that is none of gRPC's (`http-grpc-status-mapping.md`).
pub(crate) fn of_http(status: u16) -> u8 {
    match status {
        400 => INTERNAL,
        401 => UNAUTHENTICATED,
        403 => PERMISSION_DENIED,
        404 => UNIMPLEMENTED,
        429 | 502 | 503 | 504 => UNAVAILABLE,
        _ => UNKNOWN,
    }
}

/// The status of a call by the head of its answer, if it is there already.
pub(crate) fn status_of_head(head: &AnswerHead) -> Option<u8> {
    if is_grpc(&head.fields) { status(&head.fields) } else { Some(of_http(head.status.as_u16())) }
}

/// An answer of our own to a call.
pub(crate) fn made(reason: Reason) -> Answer {
    let mut head = AnswerHead::new(StatusCode::OK, Framing::Length(0));
    head.fields.push_named("content-type", b"application/grpc");
    head.fields.push_named(STATUS, status_of(reason).to_string().as_bytes());
    head.fields.push_named("grpc-message", message(reason.text().trim_end()).as_bytes());
    head.fields.push_named(model::REASON_FIELD, reason.name().as_bytes());
    Answer { head, body: AnswerBody::Empty, made: None }
}

/// Percent-encoded, but for what ASCII can print.
fn message(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b' '..=b'~' if byte != b'%' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: &str, value: &str) -> Fields {
        let mut fields = Fields::default();
        fields.push_named(name, value.as_bytes());
        fields
    }

    #[test]
    fn deadlines_are_read() {
        let check = |value: &str, expected: Option<Duration>| assert_eq!(timeout(&with("grpc-timeout", value)), expected, "{value}");
        check("1H", Some(Duration::from_secs(3_600)));
        check("2M", Some(Duration::from_secs(120)));
        check("3S", Some(Duration::from_secs(3)));
        check("99999999m", Some(Duration::from_millis(99_999_999)));
        check("5u", Some(Duration::from_micros(5)));
        check("6n", Some(Duration::from_nanos(6)));
        for malformed in ["", "S", "123456789m", "1", "1s", "-1S", "+1S", "1.5S", " 1S"] {
            check(malformed, None);
        }
        let mut fields = with("grpc-timeout", "10S");
        set_timeout(&mut fields, Duration::from_millis(9_876));
        check("9876m", timeout(&fields));
        set_timeout(&mut fields, Duration::from_secs(99_999_999));
        assert_eq!(timeout(&fields), Some(Duration::from_secs(99_999_999)));
    }

    #[test]
    fn statuses_are_read_and_those_of_the_server_are_bad() {
        let of = |value: &str| status(&with("grpc-status", value));
        assert_eq!((of("0"), of("14"), of("x"), of("99"), status(&Fields::default())), (Some(0), Some(14), Some(2), Some(2), None));
        let bad: Vec<u8> = (0..=16).filter(|status| is_bad(*status)).collect();
        assert_eq!(bad, [2, 4, 12, 13, 14, 15]);
    }

    #[test]
    fn kinds_are_told_apart() {
        let check = |kind: &str| is_grpc(&with("content-type", kind));
        assert!(check("application/grpc") && check("application/grpc+proto") && check("application/grpc;charset=utf-8"));
        assert!(!check("application/grpc-web") && !check("application/grpc-web+proto") && !check("application/json"));
    }

    #[test]
    fn messages_are_encoded() {
        assert_eq!(message("100 % → b\n"), "100 %25 %E2%86%92 b%0A");
    }
}
