//! Tokens, environments, and servers that say nothing.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use changeover_flags::{Flags, Options, State};
use testbed::wait::until;

use crate::house::{House, PATIENCE, TOKEN, one_flag, wait_for};

const KEY: &str = "new-scoring-algorithm";
const SOON: Duration = Duration::from_millis(200);

#[test]
fn a_token_opens_and_a_wrong_one_is_told() {
    let house = House::locked(&one_flag(true));
    let flags = Flags::connect(house.options().token(TOKEN)).expect("good options");
    assert_eq!(flags.state(), State::Ready, "{:?}", flags.status());
    assert!(flags.is_enabled(KEY, "user-1"));

    let without = Flags::connect(house.options().init_deadline(SOON)).expect("good options");
    assert_eq!(without.state(), State::Error);
    let why = without.status().why.expect("told");
    assert!(why.contains("Options::token"), "{why}");
}

#[tokio::test]
async fn remote_calls_and_reports_carry_the_token() {
    let house = House::locked(&one_flag(true));
    let options = Options::new(house.url()).evaluation_timeout(PATIENCE);
    let flags = Flags::remote(options.clone().token(TOKEN)).expect("good options");
    assert!(flags.is_enabled(KEY, "user-1").await);
    flags.track("checkout", "user-1", None);
    flags.flush().await.expect("taken");

    let without = Flags::remote(options).expect("good options");
    let refused = without.details(KEY, false, "user-1").await;
    assert_eq!(refused.error.expect("refused").code(), "GENERAL");
    without.track("checkout", "user-1", None);
    // By this, or by itself a moment before.
    _ = without.flush().await;
    let reported = without.reported();
    assert_eq!((reported.dropped, reported.sent), (1, 0));
    let told = reported.error.expect("told").to_string();
    assert!(told.contains("401"), "{told}");
}

#[test]
fn environments_are_apart() {
    let house = House::with(&one_flag(false));
    house.board.publish("staging", flags::Set::from_json(&one_flag(true), flags::Bucketing::V2).expect("good"));
    let of = |name: &str| Flags::connect(house.options().environment(name).init_deadline(SOON)).expect("good options");
    let (production, staging, unknown) = (house.flags(), of("staging"), of("nowhere"));
    wait_for(&staging, State::Ready);
    assert!(staging.is_enabled(KEY, "u") && !production.is_enabled(KEY, "u"));
    assert_eq!(unknown.state(), State::Error);
    let why = unknown.status().why.expect("told");
    assert!(why.contains("environment"), "{why}");
}

#[test]
fn a_server_that_says_nothing_costs_the_deadline_and_the_file_holds() {
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("flags.yaml");
    fs::write(&path, "flags:\n  new-scoring-algorithm: {state: ENABLED, variants: {a: true}, defaultVariant: a}\n").expect("written");
    let url = format!("http://{}", silent.local_addr().expect("an address"));
    let flags = Flags::connect(Options::new(url).init_deadline(SOON).bootstrap(&path)).expect("good options");
    assert_eq!(flags.state(), State::Stale, "{:?}", flags.status());
    assert!(flags.is_enabled(KEY, "user-1"));
}

/// As when a machine loses its power: the connection stays, and nothing comes any more.
#[test]
fn a_server_that_falls_silent_is_noticed_and_left() {
    let house = House::with(&one_flag(false));
    let relay = Relay::to(house.address);
    let options = Options::new(relay.url()).init_deadline(PATIENCE).keep_alive(Duration::from_millis(100));
    let flags = Flags::connect(options).expect("good options");
    assert_eq!(flags.state(), State::Ready, "{:?}", flags.status());
    relay.silent.store(true, Ordering::SeqCst);
    house.publish(&one_flag(true));
    wait_for(&flags, State::Stale);
    relay.silent.store(false, Ordering::SeqCst);
    wait_for(&flags, State::Ready);
    until(PATIENCE, "the change that it missed", || flags.is_enabled(KEY, "user-1"));
}

/// Passes bytes on, or swallows them.
struct Relay {
    address: SocketAddr,
    silent: Arc<AtomicBool>,
}

impl Relay {
    fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = listener.local_addr().expect("an address");
        let silent = Arc::new(AtomicBool::new(false));
        let swallow = silent.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(server) else { continue };
                let pairs = [(client.try_clone(), server.try_clone()), (Ok(server), Ok(client))];
                for (from, to) in pairs {
                    let (from, to, swallow) = (from.expect("a copy"), to.expect("a copy"), swallow.clone());
                    thread::spawn(move || pass(from, to, &swallow));
                }
            }
        });
        Self { address, silent }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, swallow: &AtomicBool) {
    let mut bytes = [0; 4_096];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        if !swallow.load(Ordering::SeqCst) && to.write_all(&bytes[..count]).is_err() {
            return;
        }
    }
}
