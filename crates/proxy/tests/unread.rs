//! Answers that nobody reads. One test: it looks at the memory of its process.

mod common;

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::frames::{DATA, END_STREAM, Frames, WINDOW_UPDATE};
use common::{House, Target, eventually};

const STREAMS: u32 = 200;
const BODY: usize = 2_000_000;
const WIDE: u32 = (1 << 31) - 1;

fn memory_bytes() -> usize {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup").expect("memory");
    let kib = text.lines().find_map(|line| line.strip_prefix("Pss:")).and_then(|line| line.split_whitespace().next());
    kib.and_then(|kib| kib.parse::<usize>().ok()).expect("a number") * 1024
}

#[test]
fn streams_that_nobody_reads_hold_little() {
    let written = Arc::new(AtomicUsize::new(0));
    let count = written.clone();
    let target = Target::new(move |_, stream| {
        static BLOCK: [u8; 10_000] = [b'x'; 10_000];
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {BODY}\r\n\r\n");
        stream.write_all(head.as_bytes()).is_ok()
            && (0..BODY / BLOCK.len()).all(|_| {
                count.fetch_add(1, Ordering::SeqCst);
                stream.write_all(&BLOCK).is_ok()
            })
    });
    let house = House::serving(&target);
    let mut client = Frames::connect(house.address, &[(4, WIDE)]);
    client.send(WINDOW_UPDATE, 0, 0, &(WIDE - 65_535).to_be_bytes());
    assert_eq!(client.ask(1), 200, "what any first request needs is there");
    let before = memory_bytes();
    for stream in 1..=STREAMS {
        assert!(client.get(stream * 2 + 1));
    }
    let (mut last, mut looks, mut most) = (0, 0, 0);
    eventually("nothing moves any more", || {
        let now = written.load(Ordering::SeqCst);
        looks = if now == last && target.requests() > STREAMS as usize { looks + 1 } else { 0 };
        (last, most) = (now, most.max(memory_bytes()));
        looks > 200
    });
    // Without a bound it is 400 KiB for each stream, 80 MB. The threads of the target are in this, too.
    let growth = most.saturating_sub(before);
    assert!(growth < 20 << 20, "{} MiB", growth >> 20);
    // And whoever reads in the end gets all of it.
    let (mut read, mut ended) = (0, 0);
    while ended < STREAMS {
        let frame = client.next().expect("open");
        if frame.kind == DATA {
            read += frame.payload.len();
            ended += u32::from(frame.flags & END_STREAM != 0);
        }
    }
    assert_eq!(read, STREAMS as usize * BODY);
}
