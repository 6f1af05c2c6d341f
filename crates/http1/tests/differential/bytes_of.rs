//! Messages that are nearly right.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

/// Shown as text when a test fails.
pub(crate) struct Message(pub(crate) Vec<u8>);

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.0))
    }
}

/// So many bytes arrive at once.
pub(crate) fn piece() -> impl Strategy<Value = usize> {
    select(vec![1, 2, 3, 7, 20, 100, 100_000])
}

/// Mostly the first one.
fn mostly(usual: &'static str, odd: &'static [&'static str]) -> impl Strategy<Value = String> {
    prop_oneof![8 => Just(usual.to_owned()), 2 => select(odd).prop_map(str::to_owned)]
}

fn line_end() -> impl Strategy<Value = String> {
    prop_oneof![30 => Just("\r\n".to_owned()), 1 => select(vec!["\n", "\r", "", "\r\r\n", " \r\n", "\n\r", "\r\n "]).prop_map(str::to_owned)]
}

fn field() -> impl Strategy<Value = String> {
    let known = select(vec![
        "Host: a",
        "HOST:b:80",
        "host:",
        "Content-Length: 5",
        "Content-Length: 5",
        "content-length:0",
        "content-length: 05",
        "Content-Length: +5",
        "Content-Length: 5, 5",
        "Content-Length: 5,6",
        "Content-Length: 99999999999999999999",
        "Content-Length: 18446744073709551615",
        "Content-Length: -1",
        "Content-Length: 5 ",
        "Content-Length:",
        "Transfer-Encoding: chunked",
        "Transfer-Encoding: chunked",
        "Transfer-Encoding:\tCHUNKED ",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: identity",
        "Transfer-Encoding : chunked",
        "Transfer_Encoding: chunked",
        "Connection: close",
        "Connection: keep-alive, x",
        "Expect: 100-continue",
        "Upgrade: websocket",
        "Connection: upgrade",
        "TE: trailers",
        "Trailer: a",
        "X: \u{e4}",
        "X:",
        "X",
        ": x",
        "X: a\tb",
        " folded",
        "\tfolded",
        "Cookie: a=1; b=2",
        "Via: 1.1 x",
        "x-a!#$%&'*+-.^_`|~: 1",
        "x(y): 1",
        "x\u{b}: 1",
        "x: a\u{0}b",
        "x: a\u{7f}b",
        "x: a\rb",
    ]);
    prop_oneof![8 => known.prop_map(str::to_owned), 1 => "[a-zA-Z-]{1,12}: ?[ -~]{0,20}", 1 => "[ -~]{0,20}"]
}

fn chunk() -> impl Strategy<Value = String> {
    let size = |length: usize, style: usize| match style {
        0..6 => format!("{length:x}"),
        6 => format!("{length:X};ext=1"),
        7 => format!("00{length:x} "),
        8 => format!("{:x}", length + 1),
        _ => select_odd_size(length),
    };
    let parts = ("[a-z]{1,20}", 0usize..10, line_end(), line_end());
    parts.prop_map(move |(data, style, first, second)| format!("{}{first}{data}{second}", size(data.len(), style)))
}

fn select_odd_size(length: usize) -> String {
    let odd = ["0x5", "5;a\nb", "fffffffffffffffff", "", " 5", "g", "-5", "5;\r"];
    odd[length % odd.len()].to_owned()
}

fn body() -> impl Strategy<Value = String> {
    let last = mostly(
        "0\r\n\r\n",
        &["0\r\nA: 1\r\n\r\n", "0\r\nA: 1\r\nB: 2\r\n\r\n", "0\r\nA 1\r\n\r\n", "0\n\n", "0\r\n", "", "00\r\n\r\n", "0;x\r\n\r\n"],
    );
    let chunked = (vec(chunk(), 0..4), last, mostly("", &["GET / HTTP/1.1\r\n\r\n", "x"]));
    prop_oneof![
        2 => chunked.prop_map(|(chunks, last, more)| format!("{}{last}{more}", chunks.concat())),
        1 => "[a-z]{0,12}",
        1 => Just("hello".to_owned()),
        1 => Just("helloGET / HTTP/1.1\r\nhost: a\r\n\r\n".to_owned()),
    ]
}

/// Some bytes changed, left out or put in.
fn damaged(text: String) -> impl Strategy<Value = Message> {
    let damage = (any::<prop::sample::Index>(), 0..3u8, prop_oneof![select(b"\r\n :;,\0\t#0aZ".to_vec()), any::<u8>()]);
    prop_oneof![3 => Just(vec![]), 2 => vec(damage, 1..3)].prop_map(move |damages| {
        let mut bytes = text.clone().into_bytes();
        for (place, kind, byte) in damages {
            if bytes.is_empty() {
                break;
            }
            let at = place.index(bytes.len());
            match kind {
                0 => bytes[at] = byte,
                1 => drop(bytes.remove(at)),
                _ => bytes.insert(at, byte),
            }
        }
        Message(bytes)
    })
}

/// Any fields before any body.
fn wild(first: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    let parts = (first, line_end(), vec((field(), line_end()), 0..6), line_end(), body());
    parts.prop_map(|(first, end, fields, last, body)| {
        let fields: String = fields.into_iter().map(|(field, end)| field + &end).collect();
        format!("{first}{end}{fields}{last}{body}")
    })
}

/// A body framed as its head says, and maybe the next message behind it.
fn sound(first: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    let fields = vec(select(vec!["Host: a", "X-A:  1 ", "Cookie: b", "Connection: close", "TE: trailers", "X: \u{e4}", "Empty:"]), 0..5);
    let trailers = select(vec!["", "", "", "A: 1\r\n", "Content-Length: 5\r\n", "A: 1\r\nB:2\r\n"]);
    let chunks = (vec(("[a-z]{1,40}", select(vec!["", "", "", ";a=b", " ", "\t;x"])), 0..5), trailers);
    let chunked = chunks.prop_map(|(chunks, trailers)| {
        let chunks = chunks.iter().map(|(data, more)| format!("{:x}{more}\r\n{data}\r\n", data.len()));
        (Some("Transfer-Encoding: chunked".to_owned()), format!("{}0\r\n{trailers}\r\n", chunks.collect::<String>()))
    });
    let sized = "[ -~]{0,60}".prop_map(|body| (Some(format!("Content-Length: {}", body.len())), body));
    let framed = prop_oneof![3 => chunked, 3 => sized, 1 => Just((None, String::new()))];
    let next = select(vec!["", "", "GET / HTTP/1.1\r\nhost: a\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n"]);
    (first, fields, framed, next).prop_map(|(first, fields, (framing, body), next)| {
        let lines: String = fields.into_iter().map(str::to_owned).chain(framing).map(|line| line + "\r\n").collect();
        format!("{first}\r\n{lines}\r\n{body}{next}")
    })
}

pub(crate) fn request() -> impl Strategy<Value = Message> {
    let method =
        prop_oneof![5 => select(vec!["GET", "POST", "HEAD", "PUT", "OPTIONS", "CONNECT"]).prop_map(str::to_owned), 1 => "[ -~]{0,8}"];
    let target = prop_oneof![
        6 => select(vec![
            "/", "/a/b?c=d", "*", "/a%2fb//../c", "/?", "/a?b?c", "/a#b", "/a?b#c", "#", "?a", "http://a", "http://a/", "http://a:80/b?c",
            "http://a?b", "http://u@a/b", "https://[::1]:8/x", "HTTP://A/B", "http:///x", "http:/x", "a:80", "a", "//a/b", "/\u{e4}", "/<>",
            "/a\"b", "/a?\"b", "/^`{}|\\", "/?^`{}|\\", "http://a/b#c", "x://a/b", "ftp://", "/ b", "",
        ]).prop_map(str::to_owned),
        1 => "/[ -~]{0,20}",
        1 => "[ -~]{1,20}",
    ];
    let version = mostly("HTTP/1.1", &["HTTP/1.0", "HTTP/1.2", "HTTP/2.0", "http/1.1", "HTTP/1.1 ", "HTTP/1", "", "HTTP/0.9", "HTTP/1.10"]);
    let space = || mostly(" ", &["  ", "\t", "", "\u{b}"]);
    let line = (mostly("", &["\r\n", "\n", "\r\n\r\n", " "]), method, space(), target, space(), version);
    let line =
        line.prop_map(|(before, method, first, target, second, version)| format!("{before}{method}{first}{target}{second}{version}"));
    let usual = select(vec!["GET / HTTP/1.1", "POST /a?b HTTP/1.1", "PUT http://a/b HTTP/1.1", "HEAD /x HTTP/1.0"]).prop_map(str::to_owned);
    prop_oneof![sound(usual.clone()), wild(usual), wild(line)].prop_flat_map(damaged)
}

pub(crate) fn answer() -> impl Strategy<Value = Message> {
    let version = mostly("HTTP/1.1", &["HTTP/1.0", "HTTP/1.2", "HTTP/2", "http/1.1", "ICY", ""]);
    let status = mostly("200", &["204", "304", "404", "500", "100", "103", "101", "999", "099", "20", "2000", "0", "abc", "205"]);
    let phrase = mostly(" OK", &["", " ", " \u{e4}", "  x", "OK", " a\tb", " a\rb"]);
    let before = mostly("", &["HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n", "\r\n", "\n"]);
    let line = (before, version, mostly(" ", &["  ", "", "\t"]), status, phrase);
    let line = line.prop_map(|(before, version, space, status, phrase)| format!("{before}{version}{space}{status}{phrase}"));
    let usual =
        select(vec!["HTTP/1.1 200 OK", "HTTP/1.1 404 Not Found", "HTTP/1.1 204 No Content", "HTTP/1.0 200 OK"]).prop_map(str::to_owned);
    prop_oneof![sound(usual.clone()), wild(usual), wild(line)].prop_flat_map(damaged)
}
