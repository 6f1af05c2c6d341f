//! Nobody smuggles a request: for each pair of protocols and each way to try, a strict target gets one request or none, and
//! whoever comes next, on the client's connection or on the target's line, gets its own answer.

#[path = "../common/mod.rs"]
mod common;
mod http1;
mod http2;

use std::io::{Read, Write};
use std::net::Shutdown;

use common::auditor::{self, Audited};
use common::frames::{END_HEADERS, END_STREAM, Frames, GO_AWAY, HEADERS, block};
use common::{House, eventually, routing};
use model::{Protocol, ServiceRouting};

/// What becomes of the first request, and of `/next` right behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expect {
    /// Both arrive, each as itself.
    One,
    /// The first arrives; what is behind it is no request, or is one that the client meant so.
    First,
    /// The first does not arrive; the second may.
    Refused,
}

/// Targets that the matrix is run against. One that speaks another protocol is another entry.
fn targets() -> Vec<(&'static str, Protocol, Box<dyn Audited>)> {
    vec![("HTTP/1.1", Protocol::Http1, Box::new(auditor::http1())), ("HTTP/2", Protocol::Http2, Box::new(auditor::http2()))]
}

/// What the client made of it: the paths that its answers name.
type Try = fn(&House, &[u8]) -> Vec<String>;

fn run(vectors: &[(&str, Vec<u8>, Expect)], attempt: Try) {
    for (name, protocol, target) in targets() {
        // One thread: all lines are in one pool.
        let house = House::new(1);
        house.install(ServiceRouting { protocol, ..routing(&[("v1", 10_000)], &[("v1", &[target.address()])]) });
        for (what, bytes, expect) in vectors {
            let what = format!("{what}, to {name}");
            let before = target.paths().len();
            let answers = attempt(&house, bytes);
            // The line that the attempt has used, if it can still be used.
            let mut other = house.client();
            other.send("GET /other HTTP/1.1\r\nHost: a\r\n\r\n");
            assert_eq!(said(&other.answer()), "/other", "{what}: the next one on the line got another's answer");
            eventually("the target has told", || {
                target.paths().len() > before && target.paths().last().is_some_and(|last| last == "/other")
            });
            let mut paths = target.paths()[before..].to_vec();
            paths.pop();
            assert_eq!(target.faults(), Vec::<String>::new(), "{what}");
            assert_eq!(paths, answers, "{what}: each answer is that of its request");
            let expected: &[&[&str]] = match expect {
                Expect::One => &[&["/v", "/next"]],
                // Behind it stands `/smuggled`, which was no secret: it is outside of the first one for everybody.
                Expect::First => &[&["/v"], &["/v", "/smuggled", "/next"]],
                Expect::Refused => &[&[], &["/next"]],
            };
            assert!(expected.iter().any(|expected| paths == *expected), "{what}: {paths:?} arrived");
        }
    }
}

/// The path in an answer, framed by its length or in one chunk.
fn said(answer: &str) -> &str {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer, ""));
    if head.contains("transfer-encoding: chunked") { body.split("\r\n").nth(1).unwrap_or_default() } else { body }
}

fn try_http1(house: &House, bytes: &[u8]) -> Vec<String> {
    let mut client = house.client();
    let next = b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n";
    // In one piece: what is behind the first is in the same buffer.
    let _ = client.stream.write_all(&[bytes, next].concat());
    let _ = client.stream.shutdown(Shutdown::Write);
    let mut all = Vec::new();
    let _ = client.stream.read_to_end(&mut all);
    let text = String::from_utf8_lossy(&all);
    let mut answers = text.split("HTTP/1.1 ").skip(1).peekable();
    let mut paths = Vec::new();
    while let Some(answer) = answers.next() {
        if answer.starts_with("200 ") {
            paths.push(said(answer).to_owned());
        } else if !answer.starts_with("100 ") && answers.peek().is_some() {
            assert!(!answer.contains("connection: close"), "something follows the last answer: {text}");
        }
    }
    paths
}

fn try_http2(house: &House, bytes: &[u8]) -> Vec<String> {
    let mut client = Frames::connect(house.address, &[]);
    let next = block(&[(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/next")]);
    client.write(bytes);
    let mut paths = std::collections::BTreeMap::<u32, String>::new();
    let mut ended = 0;
    while ended < 2
        && let Some(frame) = client.next()
    {
        match frame.kind {
            GO_AWAY if frame.error() != 0 => break,
            common::frames::DATA => paths.entry(frame.stream).or_default().push_str(&String::from_utf8_lossy(&frame.payload)),
            HEADERS if frame.status() != 200 => {}
            HEADERS => drop(paths.entry(frame.stream).or_default()),
            common::frames::RST_STREAM => drop(paths.remove(&frame.stream)),
            _ => continue,
        }
        if frame.kind == common::frames::RST_STREAM || frame.flags & END_STREAM != 0 {
            ended += 1;
            if ended == 1 {
                client.send(HEADERS, END_HEADERS | END_STREAM, 3, &next);
            }
        }
    }
    paths.into_values().filter(|path| path.starts_with('/')).collect()
}

#[test]
fn from_http1() {
    run(&http1::vectors(), try_http1);
}

#[test]
fn from_http2() {
    run(&http2::vectors(), try_http2);
}
