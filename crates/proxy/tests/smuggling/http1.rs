//! What a client of HTTP/1.1 may try.

use super::Expect::{self, One, Refused};

/// A request for `/v` without its end, and what is to become of it.
pub(crate) fn vectors() -> Vec<(&'static str, Vec<u8>, Expect)> {
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let length = smuggled.len();
    let post = |fields: &str, body: &str| format!("POST /v HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n{body}");
    let get = |fields: &str| format!("GET /v HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n");
    let chunked = |body: &str| post("Transfer-Encoding: chunked", body);
    let coded = |coding: &str| post(coding, &format!("0\r\n\r\n{smuggled}"));
    let text: Vec<(&'static str, String, Expect)> = vec![
        ("a plain one", get("X: 1"), One),
        ("a body that looks like a request", post(&format!("Content-Length: {length}"), smuggled), One),
        ("the same of a GET", format!("GET /v HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{smuggled}"), One),
        ("the same in a chunk", chunked(&format!("{length:x}\r\n{smuggled}\r\n0\r\n\r\n")), One),
        ("the same behind an expectation", post(&format!("Expect: 100-continue\r\nContent-Length: {length}"), smuggled), One),
        ("the same behind one that nobody meets", post(&format!("Expect: cake\r\nContent-Length: {length}"), smuggled), Refused),
        // Two lengths, or none that can be believed.
        ("CL.TE", post(&format!("Content-Length: {}\r\nTransfer-Encoding: chunked", length + 5), &format!("0\r\n\r\n{smuggled}")), Refused),
        ("TE.CL", post("Transfer-Encoding: chunked\r\nContent-Length: 4", &format!("{length:x}\r\n{smuggled}\r\n0\r\n\r\n")), Refused),
        ("CL.CL", post(&format!("Content-Length: 0\r\nContent-Length: {length}"), smuggled), Refused),
        ("CL.CL, equal", post(&format!("Content-Length: {length}\r\nContent-Length: {length}"), smuggled), Refused),
        ("CL as a list", post(&format!("Content-Length: {length}, 0"), smuggled), Refused),
        ("CL with a sign", post(&format!("Content-Length: +{length}"), smuggled), Refused),
        ("CL below zero", post("Content-Length: -1", smuggled), Refused),
        ("CL in hexadecimal", post(&format!("Content-Length: 0x{length:x}"), smuggled), Refused),
        ("CL with a space in it", post("Content-Length: 3 7", smuggled), Refused),
        ("CL with an underscore in it", post("Content-Length: 3_7", smuggled), Refused),
        ("CL beyond all numbers", post("Content-Length: 18446744073709551616", smuggled), Refused),
        ("CL that is empty", post("Content-Length:", smuggled), Refused),
        ("CL with zeros before", post(&format!("Content-Length: 000{length}"), smuggled), One),
        ("CL by another name", post(&format!("Content_Length: 0\r\nContent-Length: {length}"), smuggled), One),
        ("space before the colon of CL", post(&format!("Content-Length : {length}"), smuggled), Refused),
        // TE that some read and some do not.
        ("TE with a tab", coded("Transfer-Encoding:\tchunked"), Expect::First),
        ("TE in capitals", coded("TRANSFER-ENCODING: CHUNKED"), Expect::First),
        ("TE with a space behind", coded("Transfer-Encoding: chunked "), Expect::First),
        ("TE with a space before its colon", coded("Transfer-Encoding : chunked"), Refused),
        ("TE with a vertical tab", coded("Transfer-Encoding: \u{b}chunked"), Refused),
        ("TE with a space before its name", coded("X: 1\r\n Transfer-Encoding: chunked"), Refused),
        ("TE in quotes", coded("Transfer-Encoding: \"chunked\""), Refused),
        ("TE of an unknown coding", coded("Transfer-Encoding: xchunked"), Refused),
        ("TE with a parameter", coded("Transfer-Encoding: chunked;q=1"), Refused),
        ("TE twice", coded("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"), Refused),
        ("TE twice, one unknown", coded("Transfer-Encoding: chunked\r\nTransfer-Encoding: cow"), Refused),
        ("TE not chunked at last", coded("Transfer-Encoding: chunked, identity"), Refused),
        ("TE with an empty element", coded("Transfer-Encoding: , chunked"), Refused),
        ("TE folded", coded("Transfer-Encoding:\r\n chunked"), Refused),
        ("TE behind a bare CR", coded("X: 1\rTransfer-Encoding: chunked"), Refused),
        ("TE behind a NUL", coded("X: 1\0\r\nTransfer-Encoding: chunked"), Refused),
        ("TE by another name", coded("Transfer_Encoding: chunked\r\nContent-Length: 5"), Expect::First),
        ("TE of HTTP/1.0", coded("Transfer-Encoding: chunked").replace("/1.1\r\nHost", "/1.0\r\nHost"), Refused),
        // Chunks.
        ("a size with a sign", chunked("+2\r\nhi\r\n0\r\n\r\n"), Refused),
        ("a size below zero", chunked("-2\r\nhi\r\n0\r\n\r\n"), Refused),
        ("a size with 0x", chunked("0x2\r\nhi\r\n0\r\n\r\n"), Refused),
        ("a size that is empty", chunked("\r\nhi\r\n0\r\n\r\n"), Refused),
        ("a size beyond all numbers", chunked("10000000000000002\r\nhi\r\n0\r\n\r\n"), Refused),
        ("a size with zeros before", chunked("0002\r\nhi\r\n0\r\n\r\n"), One),
        ("an extension", chunked("2;a=\"b\"\r\nhi\r\n0;c\r\n\r\n"), One),
        ("an extension that holds a bare LF", chunked(&format!("2;\nxx\r\n{length:x}\r\n0\r\n\r\n{smuggled}")), Refused),
        ("an extension that holds a bare CR", chunked("2;a\rb\r\nhi\r\n0\r\n\r\n"), Refused),
        ("a size that ends in a bare LF", chunked("2\nhi\r\n0\r\n\r\n"), Refused),
        ("a chunk that ends in a bare LF", chunked("2\r\nhi\n0\r\n\r\n"), Refused),
        ("a chunk that does not end", chunked("2\r\nhiXX0\r\n\r\n"), Refused),
        ("a last chunk that does not end", chunked("2\r\nhi\r\n0\r\nX"), Refused),
        ("a request in a trailer", chunked("0\r\nX: GET /smuggled HTTP/1.1\r\nHost: b\r\nContent-Length: 7\r\n\r\n"), One),
        ("a trailer without a colon", chunked("0\r\nGET /smuggled HTTP/1.1\r\n\r\n"), Refused),
        // Line ends and fields.
        ("bare LFs", "GET /v HTTP/1.1\nHost: a\nX: 1\n\n".to_owned(), One),
        ("bare CRs", "GET /v HTTP/1.1\rHost: a\r\r".to_owned(), Refused),
        ("a bare CR in a value", get("X: a\rb"), Refused),
        ("a NUL in a value", get("X: a\0b"), Refused),
        ("a folded value", get("X: a\r\n b"), Refused),
        ("a name with a space", get("X Y: 1"), Refused),
        ("a name with a colon alone", get(": 1"), Refused),
        ("a line without a colon", get("GET /smuggled HTTP/1.1"), Refused),
        ("empty lines before", format!("\r\n\r\n{}", get("X: 1")), One),
        ("a space before the first line", format!(" {}", get("X: 1")), Refused),
        // The first line, and who is meant.
        ("a space in the path", "GET /v /smuggled HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), Refused),
        ("a tab in the path", "GET /v\t/x HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), Refused),
        ("a control character in the path", "GET /v\u{1} HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), Refused),
        ("a bare CR in the path", "GET /v\rX: 1 HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), Refused),
        ("a version that does not exist", "GET /v HTTP/1.9\r\nHost: a\r\n\r\n".to_owned(), Refused),
        ("HTTP/0.9", "GET /v\r\n\r\n".to_owned(), Refused),
        ("two versions", "GET /v HTTP/1.1 HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), Refused),
        ("a preface of HTTP/2 later", format!("{}PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", get("X: 1")), Expect::First),
        ("an upgrade to HTTP/2", get("Connection: upgrade, http2-settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__"), One),
        ("an upgrade that the target does not do", get("Connection: upgrade\r\nUpgrade: websocket"), One),
        ("two hosts", get("Host: b"), Refused),
        ("no host", "GET /v HTTP/1.1\r\n\r\n".to_owned(), Refused),
        ("a host with a path", "GET /v HTTP/1.1\r\nHost: a/b\r\n\r\n".to_owned(), Refused),
        ("a host with a space", "GET /v HTTP/1.1\r\nHost: a b\r\n\r\n".to_owned(), Refused),
        ("a host with a user", "GET /v HTTP/1.1\r\nHost: u@a\r\n\r\n".to_owned(), Refused),
        ("the absolute form of another", "GET http://b/v HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), One),
        ("the absolute form with a space", "GET http://b /v HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), Refused),
        ("the authority form", "GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), Refused),
        ("CONNECT", "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n".to_owned(), Refused),
        ("TRACE", "TRACE /v HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), Refused),
        // Names in `Connection` go: those that frame and route must not.
        ("CL named away", post(&format!("Connection: content-length\r\nContent-Length: {length}"), smuggled), One),
        ("TE named away", post("Connection: transfer-encoding\r\nTransfer-Encoding: chunked", "2\r\nhi\r\n0\r\n\r\n"), One),
        ("the host named away", get("Connection: host, x-forwarded-for, via"), One),
        ("keep-alive and close at once", get("Connection: keep-alive\r\nX: 1"), One),
    ];
    text.into_iter().map(|(what, text, expect)| (what, text.chars().map(|byte| byte as u8).collect(), expect)).collect()
}
