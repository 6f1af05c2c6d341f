//! A target that reads strictly, keeps what it read, and says so in its answers: what it takes for a request is one for everybody.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use super::http2_target::{self, Http2Target};

/// A target of the matrix, whichever protocol it speaks.
pub trait Audited {
    fn address(&self) -> SocketAddr;
    /// The paths of all requests that it got, in order.
    fn paths(&self) -> Vec<String>;
    /// What a strict reader would not have taken.
    fn faults(&self) -> Vec<String>;
}

#[derive(Clone)]
pub struct Http1 {
    address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    paths: Vec<String>,
    faults: Vec<String>,
}

impl Audited for Http1 {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn paths(&self) -> Vec<String> {
        self.seen.lock().expect("lock").paths.clone()
    }

    fn faults(&self) -> Vec<String> {
        self.seen.lock().expect("lock").faults.clone()
    }
}

/// Answers each request with its path.
pub fn http1() -> Http1 {
    let socket = TcpListener::bind("127.0.0.1:0").expect("bind");
    let target = Http1 { address: socket.local_addr().expect("bound"), seen: Arc::default() };
    let own = target.clone();
    std::thread::spawn(move || {
        for stream in socket.incoming().flatten() {
            let seen = own.seen.clone();
            std::thread::spawn(move || converse(stream, &seen));
        }
    });
    target
}

fn converse(mut stream: TcpStream, seen: &Mutex<Seen>) {
    let mut unread = Vec::new();
    loop {
        let message = loop {
            match read(&unread) {
                Ok(Some(message)) => break message,
                Ok(None) => {}
                Err(fault) => {
                    let text = String::from_utf8_lossy(&unread).into_owned();
                    return seen.lock().expect("lock").faults.push(format!("{fault} in {text:?}"));
                }
            }
            let mut chunk = [0; 4096];
            match stream.read(&mut chunk) {
                // One that breaks off is no request.
                Ok(0) | Err(_) => return,
                Ok(length) => unread.extend(&chunk[..length]),
            }
        };
        unread.drain(..message.length);
        let path = message.path;
        seen.lock().expect("lock").paths.push(path.clone());
        if write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{path}", path.len()).is_err() {
            return;
        }
    }
}

struct Message {
    path: String,
    length: usize,
}

/// The first message; `None` while it is not whole. As narrow as RFC 9112 lets a sender be, and narrower.
fn read(bytes: &[u8]) -> Result<Option<Message>, &'static str> {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = &bytes[..end + 2];
    for (at, byte) in head.iter().enumerate() {
        match byte {
            b'\r' if head.get(at + 1) != Some(&b'\n') => return Err("a bare CR"),
            b'\n' if at == 0 || head[at - 1] != b'\r' => return Err("a bare LF"),
            0..=8 | 11 | 12 | 14..=31 | 127 => return Err("a control character"),
            _ => {}
        }
    }
    let text = String::from_utf8_lossy(head);
    let mut lines = text.split_terminator("\r\n");
    let words: Vec<&str> = lines.next().unwrap_or_default().split(' ').collect();
    let &[_, path, "HTTP/1.1"] = words.as_slice() else { return Err("no request line") };
    let (mut hosts, mut length, mut chunked) = (0, None, 0);
    for line in lines {
        let (name, value) = line.split_once(": ").ok_or("no field")?;
        if name.is_empty()
            || !name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(&byte))
        {
            return Err("no name of a field");
        }
        match name.replace('_', "-").as_str() {
            "host" => hosts += 1,
            "content-length" if length.is_some() || name != "content-length" => return Err("two lengths"),
            "content-length" => length = Some(value.parse::<usize>().map_err(|_| "no length")?),
            "transfer-encoding" if value != "chunked" || name != "transfer-encoding" => return Err("another coding"),
            "transfer-encoding" => chunked += 1,
            _ => {}
        }
    }
    if hosts != 1 || chunked > 1 || chunked == 1 && length.is_some() {
        return Err("not one host, or framed in two ways");
    }
    let begin = end + 4;
    let body = if chunked == 1 { chunks(&bytes[begin..])? } else { Some(length.unwrap_or(0)) };
    let whole = body.map(|body| begin + body).filter(|whole| bytes.len() >= *whole);
    Ok(whole.map(|length| Message { path: path.to_owned(), length }))
}

/// The length of a body in chunks, with its trailers.
fn chunks(bytes: &[u8]) -> Result<Option<usize>, &'static str> {
    let mut at = 0;
    loop {
        let Some(line) = bytes[at..].windows(2).position(|window| window == b"\r\n") else { return Ok(None) };
        let size = std::str::from_utf8(&bytes[at..at + line]).ok().filter(|size| size.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let size = size.and_then(|size| usize::from_str_radix(size, 16).ok()).ok_or("no size of a chunk")?;
        at += line + 2;
        if size == 0 {
            break;
        }
        match bytes.get(at + size..at + size + 2) {
            None => return Ok(None),
            Some(b"\r\n") => at += size + 2,
            Some(_) => return Err("no end of a chunk"),
        }
    }
    loop {
        let Some(line) = bytes[at..].windows(2).position(|window| window == b"\r\n") else { return Ok(None) };
        let trailer = String::from_utf8_lossy(&bytes[at..at + line]).into_owned();
        at += line + 2;
        match trailer.split_once(": ").map(|(name, _)| name) {
            None if trailer.is_empty() => return Ok(Some(at)),
            None | Some("host" | "content-length" | "transfer-encoding") => return Err("no trailer"),
            Some(_) => {}
        }
    }
}

/// A target that speaks HTTP/2.
pub struct Http2 {
    target: Http2Target,
    seen: Arc<Mutex<Seen>>,
}

impl Audited for Http2 {
    fn address(&self) -> SocketAddr {
        self.target.address
    }

    fn paths(&self) -> Vec<String> {
        self.seen.lock().expect("lock").paths.clone()
    }

    fn faults(&self) -> Vec<String> {
        self.seen.lock().expect("lock").faults.clone()
    }
}

/// Answers each request with its path. What a sender of HTTP/2 must not say is a fault (RFC 9113 §8.2.2, §8.3.1).
pub fn http2() -> Http2 {
    let seen = Arc::<Mutex<Seen>>::default();
    let own = seen.clone();
    let target = Http2Target::new(move |_, request, mut respond| {
        let seen = own.clone();
        async move {
            let (head, body) = request.into_parts();
            let path = head.uri.path_and_query().map_or("", |path| path.as_str()).to_owned();
            if let Some(fault) = fault(&head) {
                seen.lock().expect("lock").faults.push(format!("{fault} in {head:?}"));
            }
            // One that breaks off is no request; a length that its data do not have breaks it off, too.
            let Ok(whole) = http2_target::read(body).await else { return };
            for name in whole.trailers.iter().flat_map(http::HeaderMap::keys) {
                if ["content-length", "transfer-encoding", "host"].contains(&name.as_str()) {
                    seen.lock().expect("lock").faults.push(format!("{name} in trailers"));
                }
            }
            seen.lock().expect("lock").paths.push(path.clone());
            http2_target::say(&mut respond, &[], &path);
        }
    });
    Http2 { target, seen }
}

fn fault(head: &http::request::Parts) -> Option<&'static str> {
    let fields = &head.headers;
    let hop_by_hop = ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "http2-settings"];
    if hop_by_hop.iter().any(|name| fields.contains_key(*name)) {
        return Some("a field of the connection");
    }
    if fields.get_all("te").iter().any(|te| te != "trailers") {
        return Some("TE of something else");
    }
    if fields.contains_key("host") || head.uri.authority().is_none_or(|authority| authority.as_str().contains('@')) {
        return Some("not one authority");
    }
    if fields.get_all("content-length").iter().count() > 1 || fields.contains_key("content_length") {
        return Some("two lengths");
    }
    if fields.get_all("cookie").iter().count() > 1 {
        return Some("a cookie in pieces");
    }
    let is_text = |value: &http::HeaderValue| value.as_bytes().iter().all(|byte| *byte >= 32 && *byte != 127 || *byte == 9);
    if !fields.values().all(is_text) {
        return Some("a control character");
    }
    let path = head.uri.path_and_query().map_or("", |path| path.as_str());
    (!path.starts_with('/') || path.bytes().any(|byte| byte <= 32 || byte == 127)).then_some("no path")
}
