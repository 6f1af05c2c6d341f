//! How many connections an address may have.

mod common;

use std::io::Read;
use std::net::SocketAddr;
use std::sync::Arc;

use common::{Client, GET, House, Target, eventually, listener, routing, status};
use model::Snapshot;

fn limited(house: &House, target: &Target, max: Option<u32>) {
    let versions: &[(&str, &[SocketAddr])] = &[("v1", &[target.address])];
    let services = vec![routing(&[("v1", 10_000)], versions)];
    let connections_per_address = max.map(|max| (listener(), max)).into_iter().collect();
    let snapshot = Snapshot { generation: 1, services, connections_per_address, ..Snapshot::default() };
    house.runtime.block_on(house.proxy.install(Arc::new(snapshot))).expect("acknowledged");
}

/// It is closed, and nothing was said.
fn is_closed(client: &mut Client) -> bool {
    matches!(client.stream.read(&mut [0; 1]), Ok(0) | Err(_))
}

fn refused(house: &House) -> bool {
    !house.proxy.metrics().contains("changeover_made_answers_total{reason=\"too_many_connections\"} 0\n")
}

#[test]
fn an_address_has_so_many_over_all_threads() {
    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join("access.log");
    let settings = model::AccessLog { scope: model::AccessLogScope::Failed, format: model::AccessLogFormat::Json };
    let house = House::with(proxy::Config { threads: 3, access_log: Some((settings, file.clone())), black_box: None });
    let target = Target::saying("ok");
    limited(&house, &target, Some(10));
    let answers = |client: &mut Client| {
        client.send(GET);
        status(&client.answer()) == 200
    };
    let mut clients: Vec<_> = (0..10).map(|_| house.client()).collect();
    assert!(clients.iter_mut().all(answers));
    for _ in 0..20 {
        assert!(is_closed(&mut house.client()));
    }
    assert!(clients.iter_mut().all(answers), "those that are there are left alone");
    assert!(house.proxy.metrics().contains("changeover_made_answers_total{reason=\"too_many_connections\"} 20\n"));
    // One that ends makes room for one.
    drop(clients.pop());
    eventually("there is room", || {
        let mut client = house.client();
        client.try_send(GET);
        matches!(client.stream.read(&mut [0; 1]), Ok(1))
    });
    // A burst is told once, and again a second later at most.
    eventually("logged", || std::fs::read_to_string(&file).is_ok_and(|text| text.contains(r#""reason":"too_many_connections""#)));
    let lines = std::fs::read_to_string(&file).expect("log").lines().count();
    assert!((1..10).contains(&lines), "{lines} lines");
    // Without a limit they may come.
    limited(&house, &target, None);
    let mut more: Vec<_> = (0..30).map(|_| house.client()).collect();
    assert!(more.iter_mut().all(answers));
}

#[test]
fn without_a_limit_nobody_is_refused() {
    let (house, target) = (House::new(2), Target::saying("ok"));
    limited(&house, &target, None);
    let mut clients: Vec<_> = (0..200).map(|_| house.client()).collect();
    for client in &mut clients {
        client.send(GET);
        assert_eq!(status(&client.answer()), 200);
    }
    assert!(!refused(&house));
}
