//! What a client of HTTP/2 may try (RFC 9113 §8.2, §8.3, §10.3).

use super::Expect::{self, One, Refused};
use crate::common::frames::{CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, block, frame};

const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

/// The frames of a request for `/v` on stream 1, and what is to become of it.
pub(crate) fn vectors() -> Vec<(&'static str, Vec<u8>, Expect)> {
    let head = |fields: &[(&str, &str)]| frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(fields));
    let with = |more: &[(&str, &str)]| head(&[&get()[..], more].concat());
    let instead = |name: &str, value: &str| {
        let fields: Vec<_> = get().iter().map(|(known, usual)| (*known, if *known == name { value } else { *usual })).collect();
        head(&fields)
    };
    let without = |name: &str| head(&get().into_iter().filter(|(known, _)| *known != name).collect::<Vec<_>>());
    let post = |more: &[(&str, &str)], data: &str| {
        let fields = [&[(":method", "POST")], &get()[1..], more].concat();
        [frame(HEADERS, END_HEADERS, 1, &block(&fields)), frame(DATA, END_STREAM, 1, data.as_bytes())].concat()
    };
    let trailers = |trailers: &[(&str, &str)]| {
        let fields = [&[(":method", "POST")], &get()[1..], &[("trailer", "x, host, content-length")]].concat();
        let (head, end) = (block(&fields), block(trailers));
        [frame(HEADERS, END_HEADERS, 1, &head), frame(DATA, 0, 1, b"hi"), frame(HEADERS, END_HEADERS | END_STREAM, 1, &end)].concat()
    };
    let length = SMUGGLED.len().to_string();
    let split = |fields: &[(&str, &str)]| {
        let block = block(fields);
        let (first, rest) = block.split_at(7);
        [frame(HEADERS, END_STREAM, 1, first), frame(CONTINUATION, END_HEADERS, 1, rest)].concat()
    };
    vec![
        ("a plain one", with(&[("x", "1")]), One),
        ("one in two frames", split(&get()), One),
        ("a body that looks like a request", post(&[], SMUGGLED), One),
        ("the same with its length", post(&[("content-length", &length)], SMUGGLED), One),
        // Lengths that are none.
        ("H2.CL: too short", post(&[("content-length", "0")], SMUGGLED), Refused),
        ("H2.CL: shorter", post(&[("content-length", "5")], SMUGGLED), Refused),
        ("H2.CL: longer", post(&[("content-length", "100")], SMUGGLED), Refused),
        ("CL without a body", with(&[("content-length", "5")]), Refused),
        ("CL twice", post(&[("content-length", &length), ("content-length", "0")], SMUGGLED), Refused),
        ("CL as a list", post(&[("content-length", &format!("{length}, {length}"))], SMUGGLED), Refused),
        ("CL with a sign", post(&[("content-length", &format!("+{length}"))], SMUGGLED), Refused),
        ("CL with a space", post(&[("content-length", &format!(" {length}"))], SMUGGLED), Refused),
        ("CL by another name", post(&[("content_length", "0")], SMUGGLED), One),
        // Fields of HTTP/1.1's connections.
        ("H2.TE", post(&[("transfer-encoding", "chunked")], &format!("0\r\n\r\n{SMUGGLED}")), Refused),
        ("H2.TE of nothing", post(&[("transfer-encoding", "identity")], SMUGGLED), Refused),
        ("TE by another name", post(&[("transfer_encoding", "chunked")], &format!("0\r\n\r\n{SMUGGLED}")), One),
        ("connection", with(&[("connection", "transfer-encoding")]), Refused),
        ("keep-alive", with(&[("keep-alive", "1")]), Refused),
        ("proxy-connection", with(&[("proxy-connection", "close")]), Refused),
        ("upgrade", with(&[("upgrade", "websocket")]), Refused),
        ("te that is not trailers", with(&[("te", "gzip")]), Refused),
        ("te", with(&[("te", "trailers")]), One),
        ("http2-settings", with(&[("http2-settings", "AAAA")]), One),
        // Bytes that end a line.
        ("CRLF in a value", with(&[("x", "1\r\nTransfer-Encoding: chunked")]), Refused),
        ("CRLFs and a request in a value", with(&[("x", &format!("1\r\n\r\n{SMUGGLED}"))]), Refused),
        ("LF in a value", with(&[("x", "1\ny: 2")]), Refused),
        ("CR in a value", with(&[("x", "1\ry: 2")]), Refused),
        ("NUL in a value", with(&[("x", "1\0")]), Refused),
        ("CRLF in a name", with(&[("x: 1\r\ny", "2")]), Refused),
        ("a colon in a name", with(&[("x:y", "2")]), Refused),
        ("a space in a name", with(&[("x y", "2")]), Refused),
        ("a capital in a name", with(&[("X", "2")]), Refused),
        ("an empty name", with(&[("", "2")]), Refused),
        ("CRLF in a cookie", with(&[("cookie", "a=1"), ("cookie", "b=2\r\nX: 1")]), Refused),
        ("crumbs of a cookie", with(&[("cookie", "a=1"), ("cookie", "b=2")]), One),
        // Pseudo-fields.
        ("CRLF in the path", instead(":path", &format!("/v HTTP/1.1\r\nHost: a\r\n\r\n{SMUGGLED}")), Refused),
        ("a space in the path", instead(":path", "/v HTTP/1.1"), Refused),
        ("a tab in the path", instead(":path", "/v\tx"), Refused),
        ("a control character in the path", instead(":path", "/v\u{1}"), Refused),
        ("a path without its slash", instead(":path", "v"), Refused),
        ("an absolute path", instead(":path", "http://b/v"), Refused),
        ("a star", instead(":path", "*"), Refused),
        ("no path", without(":path"), Refused),
        ("an empty path", instead(":path", ""), Refused),
        ("a request in the method", instead(":method", &format!("{SMUGGLED}GET")), Refused),
        ("a space in the method", instead(":method", "GET /smuggled"), Refused),
        ("CONNECT", instead(":method", "CONNECT"), Refused),
        ("TRACE", instead(":method", "TRACE"), Refused),
        ("no method", without(":method"), Refused),
        ("CRLF in the authority", instead(":authority", "a\r\nx: 1"), Refused),
        ("a space in the authority", instead(":authority", "a b"), Refused),
        ("a path in the authority", instead(":authority", "a/b"), Refused),
        ("a user in the authority", instead(":authority", "u@a"), Refused),
        ("an empty authority", instead(":authority", ""), Refused),
        ("nobody is asked", without(":authority"), Refused),
        ("another host beside", with(&[("host", "b")]), Refused),
        ("the same host beside", with(&[("host", "a")]), One),
        ("two hosts beside", with(&[("host", "a"), ("host", "a")]), Refused),
        ("CRLF in the scheme", instead(":scheme", "http://b/\r\nx: 1"), Refused),
        ("a URL in the scheme", instead(":scheme", "http://b/smuggled?"), Refused),
        ("two paths", head(&[&get()[..], &[(":path", "/smuggled")]].concat()), Refused),
        ("a pseudo-field behind a field", head(&[&get()[..3], &[("x", "1"), (":path", "/v")]].concat()), Refused),
        ("an unknown pseudo-field", head(&[&get()[..], &[(":x", "1")]].concat()), Refused),
        ("a status in a request", head(&[&get()[..], &[(":status", "200")]].concat()), Refused),
        ("a protocol", head(&[&get()[..], &[(":protocol", "websocket")]].concat()), Refused),
        // Trailers.
        ("trailers that route and frame", trailers(&[("x", "1"), ("host", "b"), ("content-length", "7")]), One),
        // Malformed (RFC 9113 §8.1); h2 leaves it out instead.
        ("a pseudo-field in trailers", trailers(&[(":path", "/smuggled")]), One),
        ("TE in trailers", trailers(&[("transfer-encoding", "chunked")]), Refused),
        ("CRLF in trailers", trailers(&[("x", &format!("1\r\n\r\n{SMUGGLED}"))]), Refused),
    ]
}

fn get() -> [(&'static str, &'static str); 4] {
    [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/v")]
}
