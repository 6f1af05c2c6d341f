//! How HTTP/2 ends at a drain: what a client had begun when it heard of that is served.

#[allow(unused)]
mod common;

use std::time::Duration;

use common::frames::{ACK, Frames, GO_AWAY, PING, SETTINGS};
use common::{House, Target};

/// A client that answers the proxy's ping before it sends a request that it had ready, as the `h2` crate does, is no client that began something
/// afterwards: the ping's answer is no proof that nothing is on its way (RFC 9113 §6.8).
#[test]
fn a_request_behind_the_answer_to_the_ping_is_served() {
    let target = Target::saying("here");
    let house = House::serving(&target);
    let mut client = Frames::connect(house.address, &[]);
    client.until(|frame| frame.kind == SETTINGS && frame.flags & ACK == 0);
    assert_eq!(client.ask(1), 200);
    let proxy = house.proxy.clone();
    let drain = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        runtime.block_on(proxy.drain(Duration::from_secs(5), common::DEADLINE))
    });
    let notice = client.until(|frame| frame.kind == GO_AWAY);
    assert_eq!(notice.payload, [0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0], "nothing new, and no error");
    // hyper's ping, if it is here already.
    client.send(PING, ACK, 0, &[0x0b, 0x7b, 0xa2, 0xf0, 0x8b, 0x9b, 0xfe, 0x54]);
    assert_eq!(client.ask(3), 200);
    // And then it ends: a ping, and the stream that was the last.
    let ping = client.until(|frame| frame.kind == PING);
    client.send(PING, ACK, 0, &ping.payload);
    let last = client.until(|frame| frame.kind == GO_AWAY && frame.payload[..4] != notice.payload[..4]);
    assert_eq!(last.payload[..4], [0, 0, 0, 3]);
    assert!(client.next().is_none());
    assert_eq!(drain.join().expect("no panic"), 0);
}
