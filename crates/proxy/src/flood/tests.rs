//! Floods in numbers: what ends a connection, and what heavy honest clients may do.

use proptest::prelude::*;

use super::*;

fn frame(kind: u8, stream: u32, payload: usize) -> Vec<u8> {
    let mut frame = (payload as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, 0]);
    frame.extend(stream.to_be_bytes());
    frame.resize(frame.len() + payload, 0);
    frame
}

fn after_preface() -> Guard {
    let mut guard = Guard::new(1_000);
    assert_eq!(guard.received(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 1_000), Ok(0));
    guard
}

/// How many frames of this kind pass at once.
fn passing(guard: &mut Guard, kind: u8, now_ms: u64) -> u32 {
    (0..).find(|_| guard.received(&frame(kind, 1, 0), now_ms).is_err()).expect("it ends")
}

const COUNTED: [(u8, Flood); 8] = [
    (frames::RST_STREAM, Flood::Reset),
    (frames::PING, Flood::Ping),
    (frames::SETTINGS, Flood::Settings),
    (frames::WINDOW_UPDATE, Flood::WindowUpdate),
    (frames::PRIORITY, Flood::Priority),
    (frames::PRIORITY_UPDATE, Flood::Priority),
    (7, Flood::Other),
    (0xfa, Flood::Other),
];

#[test]
fn each_kind_has_its_burst_and_its_rate() {
    for (kind, flood) in COUNTED {
        let (mut guard, allowed) = (after_preface(), flood.allowance());
        assert_eq!(passing(&mut guard, kind, 1_000), allowed.burst, "{flood:?}");
        assert_eq!(guard.received(&frame(kind, 1, 0), 1_000), Err(flood));
        assert_eq!(passing(&mut guard, kind, 3_000), 2 * allowed.per_s, "{flood:?} after two seconds");
        assert_eq!(passing(&mut guard, kind, 900_000), allowed.burst, "{flood:?} after a long time");
    }
}

#[test]
fn requests_and_their_bodies_are_not_counted() {
    let mut guard = after_preface();
    for kind in [frames::DATA, frames::HEADERS, frames::CONTINUATION] {
        for _ in 0..100_000 {
            assert_eq!(guard.received(&frame(kind, 1, 0), 1_000), Ok(1));
        }
    }
}

#[test]
fn what_explains_frames_earns_them() {
    let earned = |explain: &dyn Fn(&mut Guard), kind: u8, flood: Flood| {
        let mut guard = after_preface();
        explain(&mut guard);
        passing(&mut guard, kind, 1_000) - flood.allowance().burst
    };
    let opens = |guard: &mut Guard| assert_eq!(guard.received(&frame(frames::HEADERS, 1, 30), 1_000), Ok(1));
    let answers = |guard: &mut Guard| guard.sent(&frame(frames::HEADERS, 1, 30));
    let sends = |guard: &mut Guard| guard.sent(&frame(frames::DATA, 1, 16_384));
    assert_eq!(earned(&opens, frames::WINDOW_UPDATE, Flood::WindowUpdate), 4);
    assert_eq!(earned(&opens, frames::PRIORITY, Flood::Priority), 10);
    assert_eq!(earned(&answers, frames::RST_STREAM, Flood::Reset), 1);
    assert_eq!(earned(&sends, frames::PING, Flood::Ping), 1);
    assert_eq!(earned(&sends, frames::WINDOW_UPDATE, Flood::WindowUpdate), 20);
    // A settings frame is explained by nothing.
    for explain in [&opens as &dyn Fn(&mut Guard), &answers, &sends] {
        assert_eq!(earned(explain, frames::SETTINGS, Flood::Settings), 0);
    }
}

#[test]
fn what_is_earned_has_an_end() {
    let mut guard = after_preface();
    for _ in 0..10_000 {
        guard.sent(&frame(frames::DATA, 1, 16_384));
    }
    assert_eq!(passing(&mut guard, frames::WINDOW_UPDATE, 1_000), EARNED_MAX + Flood::WindowUpdate.allowance().burst);
}

#[test]
fn a_farewell_names_the_newest_stream_and_comes_between_frames_only() {
    let mut guard = after_preface();
    for stream in [1, 5, 3] {
        guard.received(&frame(frames::HEADERS, stream, 0), 1_000).expect("allowed");
    }
    let sent = frame(frames::DATA, 1, 10);
    for end in 1..sent.len() {
        let mut guard = Guard::new(1_000);
        guard.sent(&sent[..end]);
        assert!(guard.farewell().is_none(), "{end}");
    }
    guard.sent(&sent);
    let expect = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 11];
    assert_eq!(guard.farewell(), Some(expect));
}

proptest! {
    /// How the bytes are cut into pieces makes no difference.
    #[test]
    fn pieces_are_put_together(
        kinds in prop::collection::vec((0_u8..12, 0_usize..40, 0_u32..9), 0..200),
        cuts in prop::collection::vec(1_usize..50, 1..20),
    ) {
        let all: Vec<u8> = kinds.iter().flat_map(|(kind, payload, stream)| frame(*kind, *stream, *payload)).collect();
        let mut whole = after_preface();
        let expect = whole.received(&all, 1_000);
        let (mut guard, mut rest, mut begun, mut cut) = (after_preface(), &all[..], 0, cuts.iter().cycle());
        let found = loop {
            if rest.is_empty() {
                break Ok(begun);
            }
            let (piece, more) = rest.split_at(rest.len().min(*cut.next().expect("endless")));
            rest = more;
            match guard.received(piece, 1_000) {
                Ok(count) => begun += count,
                Err(flood) => break Err(flood),
            }
        };
        prop_assert_eq!(found, expect);
        if let Ok(count) = expect {
            prop_assert_eq!(count as usize, kinds.len());
        }
    }

    /// Nothing that comes makes it panic, in either direction.
    #[test]
    fn any_bytes_will_do(pieces in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..300), 0_u64..5_000), 0..40)) {
        let mut guard = Guard::new(1_000);
        for (is_sent, bytes, now_ms) in pieces {
            match is_sent {
                true => guard.sent(&bytes),
                false => _ = guard.received(&bytes, now_ms),
            }
            guard.farewell();
        }
    }
}
