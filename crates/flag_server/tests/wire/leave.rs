//! Taking leave: everybody gets a last word, and the ports are free.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use flag_server::proto::evaluation_v2 as v2;
use flag_server::proto::sync_v1 as sync;
use flag_server::{Admission, Admitted, Open, Readiness, Refused, Role, Scope};
use tonic::Code;

use crate::house::{House, WAIT};
use crate::raw::{Events, Grpc, ask, post, runtime};

#[test]
fn streams_get_their_last_word() {
    let house = House::open();
    let offer = post(house.address, "/ofrep/v1/evaluate/flags", "").json();
    let path = offer["eventStreams"][0]["endpoint"]["requestUri"].as_str().expect("an address").to_owned();
    let mut page = Events::open(house.address, &path, "");
    runtime().block_on(async {
        let client = Grpc::connect(house.address).await;
        let mut events = client
            .stream::<_, v2::EventStreamResponse>("/flagd.evaluation.v2.Service/EventStream", v2::EventStreamRequest {})
            .await
            .expect("a stream");
        let mut sets = client
            .stream::<_, sync::SyncFlagsResponse>("/flagd.sync.v1.FlagSyncService/SyncFlags", sync::SyncFlagsRequest::default())
            .await
            .expect("a stream");
        assert_eq!(events.message().await.expect("open").expect("a message").r#type, "provider_ready");
        assert!(sets.message().await.expect("open").is_some());
        let last_words = async {
            assert_eq!(events.message().await.expect("open").expect("a message").r#type, "provider_shutdown");
            assert!(events.message().await.expect("an end in order").is_none());
            assert_eq!(sets.message().await.expect_err("an end").code(), Code::Unavailable);
            drop(client);
        };
        let (left, ()) = tokio::join!(house.server.drain(WAIT), last_words);
        assert_eq!(left, 0, "connections are left");
    });
    assert_eq!(page.next("never"), None);
    testbed::wait::until(WAIT, "the port is free", || TcpListener::bind(house.address).is_ok());
}

#[test]
fn who_does_not_go_is_not_waited_for() {
    let house = House::open();
    let _silent = std::net::TcpStream::connect(house.address).expect("it accepts");
    testbed::wait::until(WAIT, "it is accepted", || house.server.metrics().contains("changeover_flags_connections 1\n"));
    let mut client = Events::open(house.address, &first_offer(&house), "");
    assert!(client.next("id: ").is_some());
    runtime().block_on(house.server.drain(Duration::from_millis(50)));
}

fn first_offer(house: &House) -> String {
    let offer = post(house.address, "/ofrep/v1/evaluate/flags", "").json();
    offer["eventStreams"][0]["endpoint"]["requestUri"].as_str().expect("an address").to_owned()
}

#[test]
fn a_port_serves_what_its_role_says() {
    let house = House::open();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("its address");
    house.server.listen(Role::Management, listener).expect("it listens");
    assert_eq!(ask(address, "GET", "/healthz", "", "").status, 200);
    let elsewhere = post(address, "/ofrep/v1/evaluate/flags", "");
    assert_eq!(elsewhere.status, 404);
    assert!(elsewhere.body.contains("this port serves /healthz"), "{}", elsewhere.body);
    house.server.unlisten(address);
    testbed::wait::until(WAIT, "the port is free", || TcpListener::bind(address).is_ok());
    assert_eq!(ask(house.address, "GET", "/healthz", "", "").status, 200);
}

/// Admits everybody, until nobody.
struct Revocable(Open, Arc<AtomicBool>);

impl Admission for Revocable {
    fn admit(&self, token: Option<&str>, scope: Scope, environment: Option<&str>) -> Result<Admitted, Refused> {
        if self.1.load(Relaxed) { Err(Refused::Unauthorized) } else { self.0.admit(token, scope, environment) }
    }
}

#[test]
fn a_stream_ends_with_the_right_to_it() {
    let is_revoked = Arc::new(AtomicBool::new(false));
    let revoked = is_revoked.clone();
    let house = House::with(|board| Arc::new(Revocable(Open(board), revoked)), Readiness { ready: true, refused: Vec::new() });
    runtime().block_on(async {
        let client = Grpc::connect(house.address).await;
        let open = async || {
            let request = sync::SyncFlagsRequest::default();
            let mut sets =
                client.stream::<_, sync::SyncFlagsResponse>("/flagd.sync.v1.FlagSyncService/SyncFlags", request).await.expect("a stream");
            assert!(sets.message().await.expect("open").is_some());
            sets
        };
        let mut sets = open().await;
        is_revoked.store(true, Relaxed);
        house.publish_new();
        assert_eq!(sets.message().await.expect_err("an end").code(), Code::Unauthenticated, "the new set is not shown");
        is_revoked.store(false, Relaxed);
        let mut sets = open().await;
        house.board.withdraw("live");
        assert_eq!(sets.message().await.expect_err("an end").code(), Code::NotFound);
    });
}
