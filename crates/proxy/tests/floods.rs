//! Clients of HTTP/2 that send frames which cost and ask for nothing, and honest ones that also send many.

mod common;
#[path = "common/secure.rs"]
mod secure;

use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use common::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, Frames, GET, HEADERS, PING, PRIORITY, RST_STREAM, SETTINGS,
    WINDOW_UPDATE, block, frame,
};
use common::{House, Target, eventually, status};

/// A frame of each kind that is counted, how many of it may come at once, and its name in the metrics.
fn floods() -> Vec<(&'static str, Vec<u8>, usize)> {
    vec![
        ("ping", frame(PING, 0, 0, &[0; 8]), 100),
        ("settings", frame(SETTINGS, 0, 0, &[]), 49),
        ("window_update", frame(WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes()), 500),
        ("priority", frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1]), 500),
        ("priority", frame(0x10, 0, 0, b"\0\0\0\x01u=1"), 500),
        ("other", frame(0xfa, 0, 0, b"grease"), 100),
    ]
}

fn ended(house: &House, kind: &str) -> u64 {
    let text = house.proxy.metrics();
    let line = format!("changeover_http2_floods_total{{kind=\"{kind}\"}} ");
    text.lines().find_map(|found| found.strip_prefix(&line)).and_then(|count| count.parse().ok()).expect("counted")
}

#[test]
fn a_burst_passes_and_a_flood_ends_its_connection_and_no_other() {
    let target = Target::saying("ok");
    let house = House::serving(&target);
    let mut honest = Frames::connect(house.address, &[]);
    let mut stream = 1;
    for (kind, frame, allowed) in floods() {
        let before = ended(&house, kind);
        let mut flooder = Frames::connect(house.address, &[]);
        assert!(flooder.write(&frame.repeat(allowed)));
        assert_eq!(flooder.ask(1), 200, "{kind}: as many as are allowed");
        // Those that a request, an answer and the time until now may have earned are less than as many again.
        flooder.write(&frame.repeat(allowed + 100));
        assert_eq!(flooder.ends_with(), Some(ENHANCE_YOUR_CALM), "{kind}");
        eventually("counted", || ended(&house, kind) == before + 1);
        assert_eq!(honest.ask(stream), 200, "beside {kind}");
        stream += 2;
    }
    assert!(house.proxy.metrics().contains("changeover_made_answers_total{reason=\"flood\"} 6\n"));
    eventually("only the honest one is left", || house.proxy.metrics().contains("changeover_connections 1\n"));
}

#[test]
fn a_flood_that_never_reads_is_ended_too() {
    let target = Target::saying("ok");
    let house = House::serving(&target);
    for (kind, frame, _) in floods() {
        let mut flooder = Frames::connect(house.address, &[]);
        let many = frame.repeat(1_000);
        // More than all sockets hold: the writer is told, or would block for ever.
        let failed = (0..10_000).any(|_| !flooder.write(&many));
        assert!(failed, "{kind}: 10,000,000 frames were taken");
    }
}

#[test]
fn a_flood_in_a_handful_of_bytes_at_a_time_is_ended() {
    let target = Target::saying("ok");
    let house = House::serving(&target);
    let mut flooder = Frames::connect(house.address, &[]);
    let many = frame(PING, 0, 0, &[0; 8]).repeat(2_000);
    let _ = many.chunks(5).all(|piece| flooder.write(piece));
    eventually("ended", || ended(&house, "ping") == 1);
}

#[test]
fn under_tls_a_flood_hears_why_it_is_ended() {
    let target = Target::saying("ok");
    let secure = secure::Secure::serving(&target, &["a.test"]);
    let mut config = secure.authority.anonymous();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let mut client = secure::connect(&secure.house, &secure::certificates::fresh(config), "a.test");
    let hello = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &frame(SETTINGS, 0, 0, &[])].concat();
    let _ = client.stream.write_all(&[hello, frame(PING, 0, 0, &[0; 8]).repeat(300)].concat());
    let _ = client.stream.flush();
    let mut read = Vec::new();
    client.stream.read_to_end(&mut read).expect("with a word for the end of the session");
    let farewell = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 11];
    assert!(read.ends_with(&farewell), "{read:?}");
    assert_eq!(ended(&secure.house, "ping"), 1);
}

#[test]
fn resets_of_requests_that_run_are_counted_and_those_of_answers_are_not() {
    // Answers with a head, and never ends.
    let target = Target::new(|head, stream| {
        let answered = head.starts_with("GET /answered ") && stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n").is_ok();
        answered || !head.starts_with("GET /answered ")
    });
    let house = House::serving(&target);
    let request = |path| block(&[(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", path)]);
    let (answered, silent) = (request("/answered"), request("/silent"));
    let cancel = 8_u32.to_be_bytes();
    let mut client = Frames::connect(house.address, &[]);
    let mut stream = 1;
    for _ in 0..700 {
        assert!(client.send(HEADERS, END_STREAM | END_HEADERS, stream, &answered));
        client.until(|frame| frame.stream == stream && frame.kind == HEADERS);
        assert!(client.send(RST_STREAM, 0, stream, &cancel));
        stream += 2;
    }
    assert_eq!(ended(&house, "reset"), 0);
    // Each of these was looked at, and runs: h2 alone would let this go on for ever.
    let before = target.requests();
    let mut sent = 0;
    while ended(&house, "reset") == 0 {
        assert!(sent < 3_000, "not ended");
        sent += 1;
        client.send(HEADERS, END_STREAM | END_HEADERS, stream, &silent);
        eventually("it runs, or all is over", || target.requests() == before + sent || ended(&house, "reset") == 1);
        client.send(RST_STREAM, 0, stream, &cancel);
        stream += 2;
    }
    assert!(sent > 500, "{sent}");
    assert_eq!(client.ends_with(), Some(ENHANCE_YOUR_CALM));
}

#[test]
fn rapid_resets_end_with_their_reason() {
    let target = Target::saying("ok");
    let house = House::serving(&target);
    let mut flooder = Frames::connect(house.address, &[]);
    let request = block(&GET);
    let pairs = (0..1_000_u32).flat_map(|number| {
        let stream = number * 2 + 1;
        [frame(HEADERS, END_STREAM | END_HEADERS, stream, &request), frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())].concat()
    });
    let all: Vec<u8> = pairs.collect();
    flooder.write(&all);
    assert_eq!(flooder.ends_with(), Some(ENHANCE_YOUR_CALM));
    assert!(target.requests() < 600, "{} requests reached the target", target.requests());
}

#[test]
fn floods_that_h2_counts_end_with_their_reason() {
    let target = Target::saying("ok");
    let house = House::serving(&target);
    let post = block(&[(":method", "POST"), (":scheme", "http"), (":authority", "a"), (":path", "/")]);
    let begin = [frame(HEADERS, END_HEADERS, 1, &post), frame(DATA, 0, 1, &[]).repeat(200)].concat();
    let continuations = [frame(HEADERS, END_STREAM, 1, &block(&GET)), frame(CONTINUATION, 0, 1, &[]).repeat(100)].concat();
    // One byte each points at a field of 4,000 bytes that the table holds.
    let large = "x".repeat(4_000);
    let mut bomb = block(&GET);
    bomb.extend([0x40, 1, b'x', 127]);
    bomb.extend([(4_000_u32 - 127) as u8 & 127 | 128, ((4_000 - 127) >> 7) as u8]);
    bomb.extend(large.as_bytes());
    bomb.extend([0xbe; 10_000]);
    let bomb = frame(HEADERS, END_STREAM | END_HEADERS, 1, &bomb);
    for (what, bytes) in [("empty DATA", begin), ("CONTINUATION", continuations), ("HPACK bomb", bomb)] {
        let mut flooder = Frames::connect(house.address, &[]);
        flooder.write(&bytes);
        assert_eq!(flooder.ends_with(), Some(ENHANCE_YOUR_CALM), "{what}");
    }
    let mut honest = Frames::connect(house.address, &[]);
    assert_eq!(honest.ask(1), 200);
}

#[test]
fn a_head_that_is_too_large_is_refused_and_its_connection_goes_on() {
    let target = Target::saying("ok");
    let house = House::serving(&target);
    let mut client = Frames::connect(house.address, &[]);
    let value = "x".repeat(1_000);
    let fields: Vec<(&str, &str)> = GET.into_iter().chain(std::iter::repeat_n(("x-large", value.as_str()), 20)).collect();
    let head = block(&fields);
    let (first, rest) = head.split_at(16_000);
    client.send(HEADERS, END_STREAM, 1, first);
    client.send(CONTINUATION, END_HEADERS, 1, rest);
    let refused = client.until(|frame| frame.stream == 1 && frame.kind == HEADERS);
    assert!(refused.payload.windows(3).any(|text| text == b"431") || refused.status() == 0, "{refused:?}");
    assert_eq!(client.ask(3), 200);
    assert_eq!(target.requests(), 1);
}

#[test]
fn an_honest_client_may_give_back_windows_and_measure_as_it_reads() {
    const STREAMS: u32 = 100;
    const BODY: usize = 100_000;
    let target = Target::new(|_, stream| {
        write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {BODY}\r\n\r\n").is_ok() && stream.write_all(&[b'x'; BODY]).is_ok()
    });
    let house = House::serving(&target);
    // Small windows: SETTINGS_INITIAL_WINDOW_SIZE.
    let mut client = Frames::connect(house.address, &[(4, 2_048)]);
    for round in 0..2 {
        let streams = (round * STREAMS..(round + 1) * STREAMS).map(|number| number * 2 + 1);
        for stream in streams {
            assert!(client.get(stream) && client.send(WINDOW_UPDATE, 0, stream, &1_u32.to_be_bytes()));
        }
        let (mut read, mut updates, mut pings, mut ended) = (0, 0, 0, 0);
        while ended < STREAMS {
            let frame = client.next().expect("it is not ended");
            if frame.flags & END_STREAM != 0 && matches!(frame.kind, DATA | HEADERS) {
                ended += 1;
            }
            if frame.kind == DATA && !frame.payload.is_empty() {
                read += frame.payload.len();
                let size = (frame.payload.len() as u32).to_be_bytes();
                let updated = client.send(WINDOW_UPDATE, 0, 0, &size)
                    && (frame.flags & END_STREAM != 0 || client.send(WINDOW_UPDATE, 0, frame.stream, &size))
                    && client.send(PING, 0, 0, &[1; 8]);
                assert!(updated, "ended after {updates}");
                (updates, pings) = (updates + 2, pings + 1);
            }
        }
        assert_eq!(read, STREAMS as usize * BODY);
        assert!(updates > 5_000 && pings > 2_500, "{updates} {pings}: not what this is to show");
    }
}

#[test]
fn whoever_comes_back_to_flood_does_not_hold_up_the_others() {
    let target = Target::saying("ok");
    let house = House::serving(&target);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for (_, frame, _) in floods() {
            let (over, address) = (&over, house.address);
            scope.spawn(move || {
                let many = frame.repeat(2_000);
                while !over.load(Ordering::Relaxed) {
                    Frames::connect(address, &[]).write(&many);
                }
            });
        }
        let mut old = house.client();
        let mut honest = Frames::connect(house.address, &[]);
        for number in 0..200 {
            old.send(common::GET);
            assert_eq!(status(&old.answer()), 200);
            assert_eq!(honest.ask(number * 2 + 1), 200);
        }
        over.store(true, Ordering::Relaxed);
    });
    let total: u64 = ["ping", "settings", "window_update", "priority", "other"].iter().map(|kind| ended(&house, kind)).sum();
    assert!(total > 5, "{total} floods");
}
