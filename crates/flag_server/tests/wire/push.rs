//! Many streams: everybody gets the change, one who does not read delays nobody, and all see whole sets only.

use std::io::Write;
use std::net::TcpStream;

use flag_server::proto::evaluation_v2 as v2;
use flag_server::proto::sync_v1 as sync;

use crate::house::{House, WAIT, set};
use crate::raw::{Events, Grpc, PREFACE, post, runtime};

const CLIENTS: usize = 1_000;
const CHANGES: usize = 20;

#[test]
fn everybody_sees_the_change_while_some_do_not_read() {
    let house = House::open();
    let offer = post(house.address, "/ofrep/v1/evaluate/flags", "").json();
    let path = offer["eventStreams"][0]["endpoint"]["requestUri"].as_str().expect("an address").to_owned();
    // They listen, and never read.
    let mut deaf: Vec<TcpStream> = (0..3).map(|_| TcpStream::connect(house.address).expect("it accepts")).collect();
    deaf[0].write_all(format!("GET {path} HTTP/1.1\r\nhost: flags\r\n\r\n").as_bytes()).expect("written");
    deaf[1].write_all(&PREFACE).expect("written");
    let mut page = Events::open(house.address, &path, "");
    assert!(page.next("id: ").is_some());
    runtime().block_on(async {
        let deaf_reader = Grpc::connect(house.address).await;
        let _unread = deaf_reader
            .stream::<_, sync::SyncFlagsResponse>("/flagd.sync.v1.FlagSyncService/SyncFlags", sync::SyncFlagsRequest::default())
            .await;
        let mut streams = Vec::new();
        for _ in 0..CLIENTS {
            let client = Grpc::connect(house.address).await;
            let mut events = client
                .stream::<_, v2::EventStreamResponse>("/flagd.evaluation.v2.Service/EventStream", v2::EventStreamRequest {})
                .await
                .expect("a stream");
            assert_eq!(events.message().await.expect("open").expect("a message").r#type, "provider_ready");
            streams.push(events);
        }
        house.publish_new();
        let all = async {
            for events in &mut streams {
                assert_eq!(events.message().await.expect("open").expect("a message").r#type, "configuration_change");
            }
        };
        tokio::time::timeout(WAIT, all).await.expect("everybody sees it");
    });
    assert!(page.next("id: ").is_some());
    let metrics = house.server.metrics();
    assert!(metrics.contains(&format!("changeover_flags_pushed_total{{protocol=\"evaluation\"}} {CLIENTS}\n")), "{metrics}");
}

/// Both flags always have the same variant: a set in which they differ was half-written.
#[test]
fn sets_are_whole_and_a_slow_reader_gets_the_newest() {
    let house = House::open();
    let text = |number: usize| {
        let filler = "x".repeat(50_000);
        let flag = format!(r#"{{"state":"ENABLED","variants":{{"n":{number}}},"defaultVariant":"n","metadata":{{"filler":"{filler}"}}}}"#);
        format!(r#"{{"flags":{{"first":{flag},"last":{flag}}}}}"#)
    };
    runtime().block_on(async {
        let client = Grpc::connect(house.address).await;
        let request = sync::SyncFlagsRequest::default();
        let mut sets =
            client.stream::<_, sync::SyncFlagsResponse>("/flagd.sync.v1.FlagSyncService/SyncFlags", request).await.expect("a stream");
        assert!(sets.message().await.expect("open").is_some_and(|it| it.flag_configuration.contains("pushed")));
        for number in 1..=CHANGES {
            house.board.publish("live", set(&text(number)));
            tokio::task::yield_now().await;
        }
        let (mut seen, mut last) = (0, 0);
        while last < CHANGES as u64 {
            let message = tokio::time::timeout(WAIT, sets.message()).await.expect("in time").expect("open").expect("a set");
            let json: serde_json::Value = serde_json::from_str(&message.flag_configuration).expect("a whole set");
            let number = |key: &str| json["flags"][key]["variants"]["n"].as_u64();
            assert_eq!(number("first"), number("last"));
            assert!(number("first") > Some(last), "an older set after a newer one");
            (seen, last) = (seen + 1, number("first").unwrap_or(0));
        }
        assert!(seen <= CHANGES, "{seen}");
    });
}
