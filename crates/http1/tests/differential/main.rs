//! The same bytes to hyper and to this crate. **What hyper refuses is refused here; what both take, both take for the same.** Where this
//! crate is stricter it is for a reason in `Stricter`, and for no other.

mod bytes_of;
mod io;

use std::cell::RefCell;
use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;

use ::bytes::Bytes;
use bytes_of::{Message, answer, piece, request};
use http::{HeaderMap, Method, Uri};
use http_body_util::{BodyExt, Full};
use http1::{Decoder, Fields, Framing, Part, Refusal, parse_answer, parse_request};
use hyper::body::Incoming;
use hyper::server::conn::http1 as hyper_server;
use hyper::service::service_fn;
use io::Script;
use proptest::prelude::*;

/// A body to its end, and its trailers; `None`: it is malformed or not whole.
type Body = Option<(Vec<u8>, Vec<(String, Vec<u8>)>)>;

#[derive(Debug, PartialEq, Eq)]
struct Seen {
    /// Method and target, or status.
    line: Vec<String>,
    fields: Vec<(String, Vec<u8>)>,
    body: Body,
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(future)
}

/// Framing is compared by the bodies.
fn of_map(map: &HeaderMap) -> Vec<(String, Vec<u8>)> {
    let all = map.iter().filter(|(name, _)| !["content-length", "transfer-encoding"].contains(&name.as_str()));
    sorted(all.map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec())).collect())
}

fn of_fields(fields: &Fields) -> Vec<(String, Vec<u8>)> {
    let text = |name: &[u8]| String::from_utf8(name.to_vec()).expect("a token");
    sorted(fields.iter().map(|field| (text(field.name), field.value.to_vec())).collect())
}

/// By name; those of one name stay in their order.
fn sorted(mut fields: Vec<(String, Vec<u8>)>) -> Vec<(String, Vec<u8>)> {
    fields.sort_by(|a, b| a.0.cmp(&b.0));
    fields
}

async fn hyper_body(mut body: Incoming) -> Body {
    let (mut all, mut trailers) = (Vec::new(), Vec::new());
    while let Some(frame) = body.frame().await {
        match frame.ok()?.into_data() {
            Ok(data) => all.extend_from_slice(&data),
            Err(frame) => trailers = of_map(&frame.into_trailers().expect("a frame is one of both")),
        }
    }
    Some((all, trailers))
}

/// The first request that hyper makes of these bytes.
fn hyper_request(bytes: &[u8], piece: usize) -> Option<Seen> {
    let seen: Rc<RefCell<Option<Seen>>> = Rc::default();
    let service = service_fn(|request: http::Request<Incoming>| {
        let seen = seen.clone();
        async move {
            let (head, body) = request.into_parts();
            let line = vec![head.method.to_string(), target_of(&head.uri), format!("{:?}", head.version)];
            let (fields, body) = (of_map(&head.headers), hyper_body(body).await);
            seen.borrow_mut().get_or_insert(Seen { line, fields, body });
            Ok::<_, Infallible>(http::Response::new(Full::new(Bytes::new())))
        }
    });
    let mut builder = hyper_server::Builder::new();
    builder.half_close(true).max_buf_size(http1::limits::HEAD_BYTES_MAX).max_headers(http1::limits::FIELDS_MAX);
    let _ = block_on(builder.serve_connection(Script::of_client(bytes, piece), service));
    seen.take()
}

fn target_of(uri: &Uri) -> String {
    let authority = uri.scheme().and(uri.authority()).map_or("", |authority| authority.as_str());
    // An empty path is `/` (RFC 9110 §4.2.3); hyper leaves it out before a query.
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    let target = if uri.scheme().is_some() && target.starts_with('?') { format!("/{target}") } else { target.to_owned() };
    // The authority form has no path.
    if uri.scheme().is_none() && uri.authority().is_some() { uri.to_string() } else { format!("{authority}|{target}") }
}

fn own_body(framing: Framing, rest: &[u8], piece: usize) -> Body {
    let (mut decoder, mut all, mut trailers) = (Decoder::new(framing), Vec::new(), Vec::new());
    for part in rest.chunks(piece) {
        let mut input = Bytes::copy_from_slice(part);
        while let Some(part) = decoder.decode(&mut input).ok()? {
            match part {
                Part::Data(data) => all.extend_from_slice(&data),
                Part::Trailers(fields) => trailers = of_fields(&fields),
            }
        }
    }
    decoder.end().ok()?;
    Some((all, trailers))
}

/// What this crate makes of them, whatever pieces they come in.
fn own_request(bytes: &[u8], piece: usize) -> Result<Option<Seen>, Refusal> {
    let Some((head, length)) = parse_request(bytes)? else { return Ok(None) };
    let target = std::str::from_utf8(head.target()).expect("it was checked");
    let line = match head.authority() {
        Some(authority) => format!("{}|{target}", String::from_utf8_lossy(authority)),
        None if target.starts_with('/') || target == "*" || target.starts_with('?') => format!("|{target}"),
        None => target.to_owned(),
    };
    let version = if head.is_http10 { "HTTP/1.0" } else { "HTTP/1.1" };
    let line = vec![head.method.to_string(), line, version.to_owned()];
    Ok(Some(Seen { line, fields: of_fields(&head.fields), body: own_body(head.framing, &bytes[length..], piece) }))
}

/// Why this crate refuses what hyper takes.
#[derive(Debug)]
enum Stricter {
    /// hyper drops the length; two readers in a row may differ (RFC 9112 §6.1, §6.3 allow to refuse).
    TwoFramings,
    /// hyper takes lengths that are all the same for one.
    RepeatedLength,
    /// hyper takes what fits into 64 bits without a sign.
    LongLength,
    /// hyper takes any list that ends in `chunked`, and does not decode the rest.
    OtherCoding,
    /// hyper's `Uri` cuts it off in silence.
    Fragment,
}

fn stricter_request(bytes: &[u8]) -> Option<Stricter> {
    let text = String::from_utf8_lossy(bytes).to_ascii_lowercase();
    let (first, fields) = text.trim_start_matches(['\r', '\n']).split_once('\n')?;
    let count = |name: &str| fields.lines().filter(|line| line.starts_with(name)).count();
    let codings: Vec<&str> = fields.lines().filter_map(|line| line.strip_prefix("transfer-encoding:")).collect();
    if first.contains('#') {
        return Some(Stricter::Fragment);
    }
    if !codings.is_empty() && count("content-length:") > 0 {
        return Some(Stricter::TwoFramings);
    }
    if codings.len() > 1 || codings.iter().any(|coding| coding.trim_matches([' ', '\t', '\r']) != "chunked") {
        return Some(Stricter::OtherCoding);
    }
    let lengths = fields.lines().filter_map(|line| line.strip_prefix("content-length:"));
    if lengths.filter_map(|length| length.trim().parse::<u64>().ok()).any(|length| length > http1::limits::LENGTH_MAX) {
        return Some(Stricter::LongLength);
    }
    (count("content-length:") > 1).then_some(Stricter::RepeatedLength)
}

/// In trailers, hyper takes a bare line feed for a byte like others, and so what another reader takes for the next message for a trailer.
/// Here it is refused.
fn is_same(ours: &Seen, theirs: &Seen, bytes: &[u8]) -> bool {
    let is_stricter = || ours.body.is_none() && bytes.windows(2).any(|pair| pair[1] == b'\n' && pair[0] != b'\r');
    ours.line == theirs.line && ours.fields == theirs.fields && (ours.body == theirs.body || is_stricter())
}

fn check_request(bytes: &[u8], piece: usize) {
    let shown = || String::from_utf8_lossy(bytes).into_owned();
    let (theirs, ours) = (hyper_request(bytes, piece), own_request(bytes, piece));
    match (theirs, ours) {
        (None, Err(_) | Ok(None)) => {}
        (None, Ok(Some(ours))) => panic!("hyper refuses it: {:?}\n{ours:?}", shown()),
        (Some(theirs), Ok(Some(ours))) => assert!(is_same(&ours, &theirs, bytes), "{:?}\n{ours:?}\n{theirs:?}", shown()),
        (Some(theirs), refused) => {
            let reason = stricter_request(bytes);
            assert!(reason.is_some(), "refused without a reason: {refused:?} of {:?}\n{theirs:?}", shown());
        }
    }
}

/// The answer that hyper's client makes of these bytes.
fn hyper_answer(bytes: &[u8], piece: usize, method: &Method) -> Option<Seen> {
    block_on(async {
        let mut builder = hyper::client::conn::http1::Builder::new();
        builder.max_buf_size(http1::limits::HEAD_BYTES_MAX).max_headers(http1::limits::FIELDS_MAX);
        let (mut send, connection) = builder.handshake(Script::of_server(bytes, piece)).await.expect("no bytes yet");
        let request = http::Request::builder().method(method).uri("/").header("host", "a");
        let exchange = async {
            let (head, body) = send.send_request(request.body(Full::new(Bytes::new())).expect("sound")).await.ok()?.into_parts();
            let line = vec![head.status.as_u16().to_string()];
            Some(Seen { line, fields: of_map(&head.headers), body: hyper_body(body).await })
        };
        let (mut exchange, mut connection) = (std::pin::pin!(exchange), std::pin::pin!(connection));
        let mut is_over = false;
        std::future::poll_fn(|cx| {
            is_over = is_over || Pin::new(&mut connection).poll(cx).is_ready();
            exchange.as_mut().poll(cx)
        })
        .await
    })
}

fn own_answer(bytes: &[u8], piece: usize, method: &Method) -> Option<Seen> {
    let mut rest = bytes;
    loop {
        let (head, length) = parse_answer(rest, method).ok()??;
        rest = &rest[length..];
        if head.status.is_informational() && head.status != http::StatusCode::SWITCHING_PROTOCOLS {
            continue;
        }
        let line = vec![head.status.as_u16().to_string()];
        return Some(Seen { line, fields: of_fields(&head.fields), body: own_body(head.framing, rest, piece) });
    }
}

fn check_answer(bytes: &[u8], piece: usize, method: &Method) {
    let shown = || String::from_utf8_lossy(bytes).into_owned();
    match (hyper_answer(bytes, piece, method), own_answer(bytes, piece, method)) {
        (None, None) => {}
        (None, Some(ours)) => panic!("hyper refuses it: {:?}\n{ours:?}", shown()),
        (Some(theirs), Some(ours)) => assert!(is_same(&ours, &theirs, bytes), "{method} {:?}\n{ours:?}\n{theirs:?}", shown()),
        (Some(theirs), None) => {
            // Whichever head of those before the last one it is in.
            let reasons: Vec<_> = heads(bytes).iter().filter_map(|head| stricter_request(head)).collect();
            let is_faulty_length = heads(bytes).iter().any(|head| has_faulty_length(head));
            assert!(!reasons.is_empty() || is_faulty_length, "refused without a reason: {method} {:?}\n{theirs:?}", shown());
        }
    }
}

/// hyper does not look at the length of an answer that has no body; what cannot be understood is refused here in any case.
fn has_faulty_length(head: &[u8]) -> bool {
    let text = String::from_utf8_lossy(head).to_ascii_lowercase();
    let lengths: Vec<String> = text.lines().filter_map(|line| line.strip_prefix("content-length:")).map(str::to_owned).collect();
    // `parse` takes a sign.
    let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u64>()).and_then(Result::ok).ok_or(());
    let numbers = || lengths.iter().flat_map(|length| length.split(',')).map(|length| number(length.trim()));
    numbers().any(|number| number.is_err()) || numbers().flatten().collect::<std::collections::BTreeSet<_>>().len() > 1
}

fn heads(bytes: &[u8]) -> Vec<&[u8]> {
    let starts = (0..bytes.len()).filter(|at| bytes[*at..].starts_with(b"HTTP/1."));
    starts.map(|at| &bytes[at..]).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, ..ProptestConfig::default() })]

    #[test]
    fn requests_are_read_as_hyper_reads_them(Message(bytes) in request(), piece in piece()) {
        check_request(&bytes, piece);
    }

    #[test]
    fn answers_are_read_as_hyper_reads_them(
        Message(bytes) in answer(),
        piece in piece(),
        method in prop_oneof![Just(Method::GET), Just(Method::HEAD), Just(Method::POST)],
    ) {
        check_answer(&bytes, piece, &method);
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), piece in piece()) {
        check_request(&bytes, piece);
        check_answer(&bytes, piece, &Method::GET);
        for framing in [Framing::Chunked, Framing::Length(7), Framing::UntilClose] {
            own_body(framing, &bytes, piece);
        }
    }
}

#[test]
fn what_differs_differs_for_its_reason() {
    let head = |line: &str, fields: &str| format!("{line}\r\nhost: a\r\n{fields}\r\n0\r\n\r\n");
    for (bytes, is_expected) in [
        (head("GET /a#b HTTP/1.1", ""), (|reason| matches!(reason, Stricter::Fragment)) as fn(Stricter) -> bool),
        (head("POST / HTTP/1.1", "content-length: 5\r\ntransfer-encoding: chunked\r\n"), |reason| matches!(reason, Stricter::TwoFramings)),
        (head("POST / HTTP/1.1", "content-length: 5\r\ncontent-length: 5\r\n"), |reason| matches!(reason, Stricter::RepeatedLength)),
        (head("POST / HTTP/1.1", "content-length: 9999999999999999999\r\n"), |reason| matches!(reason, Stricter::LongLength)),
        (head("POST / HTTP/1.1", "transfer-encoding: gzip, chunked\r\n"), |reason| matches!(reason, Stricter::OtherCoding)),
    ] {
        assert!(hyper_request(bytes.as_bytes(), 1_000).is_some(), "hyper takes {bytes:?}");
        assert!(own_request(bytes.as_bytes(), 1_000).is_err(), "refused here: {bytes:?}");
        assert!(stricter_request(bytes.as_bytes()).is_some_and(is_expected), "{bytes:?}");
    }
}

/// Otherwise the comparison would say little.
#[test]
fn a_good_part_of_what_is_made_is_taken_and_a_good_part_refused() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let (strategy, all) = (request(), 2_000);
    let (mut taken, mut bodies) = (0, 0);
    for _ in 0..all {
        let Message(bytes) = strategy.new_tree(&mut runner).expect("a message").current();
        if let Ok(Some(seen)) = own_request(&bytes, 1_000) {
            taken += 1;
            bodies += usize::from(seen.body.is_some_and(|(body, _)| !body.is_empty()));
        }
    }
    assert!((all / 10..all / 2).contains(&taken) && bodies > all / 50, "{taken} taken, {bodies} with a body");
}
