//! In-process flags beside a real server that comes, changes its mind, dies and comes back.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::house::{House, PATIENCE, one_flag, wait_for};
use changeover_flags::{Context, Flags, State};
use serde_json::json;
use testbed::wait::until;

const KEY: &str = "new-scoring-algorithm";

#[test]
fn the_line_of_the_readme() {
    let house = House::with(&one_flag(true));
    let flags = house.flags();
    let user = Context::of("user-1");
    assert!(flags.is_enabled("new-scoring-algorithm", &user));
    assert!(flags.is_enabled("new-scoring-algorithm", "user-1"));
    assert!(!flags.is_enabled("unknown", &user));
    assert_eq!(flags.errors(), 1);
}

#[test]
fn a_server_that_is_down_comes_changes_dies_and_comes_back() {
    let mut house = House::empty();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("flags.json");
    fs::write(&path, one_flag(true)).expect("written");
    let options = house.options().bootstrap(&path).keep_bootstrap(true);
    let flags = Flags::connect(options).expect("good options");
    assert_eq!(flags.state(), State::Stale, "the bootstrap file holds: {:?}", flags.status());
    assert!(flags.is_enabled(KEY, "user-1"));

    house.publish(&one_flag(false));
    house.open();
    wait_for(&flags, State::Ready);
    assert!(!flags.is_enabled(KEY, "user-1"), "the server's word, not the file's");
    until(PATIENCE, "the file is kept", || fs::read_to_string(&path).expect("readable").contains(r#""defaultVariant": "off""#));
    assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);

    house.publish(&one_flag(true));
    until(PATIENCE, "the change arrives", || flags.is_enabled(KEY, "user-1"));

    house.kill();
    wait_for(&flags, State::Stale);
    assert!(flags.is_enabled(KEY, "user-1"), "values stay");
    assert!(flags.status().why.is_some());

    house.publish(&one_flag(false));
    house.open();
    wait_for(&flags, State::Ready);
    assert!(!flags.is_enabled(KEY, "user-1"), "and is fresh");
    assert_eq!(flags.status().bootstrap, None);
    assert_eq!(flags.errors(), 0);
}

#[test]
fn without_server_and_file_every_flag_has_the_codes_default() {
    let house = House::empty();
    let flags = Flags::connect(house.options().init_deadline(Duration::from_millis(100))).expect("good options");
    assert_eq!(flags.state(), State::Error);
    assert!(!flags.is_enabled(KEY, "user-1"));
    assert_eq!(flags.int_value("limit", 7, "user-1"), 7);
    let details = flags.details(KEY, true, "user-1");
    assert!(details.value && details.error.expect("not ready").code() == "PROVIDER_NOT_READY");
    assert_eq!(flags.errors(), 3);
}

#[test]
fn a_bad_bootstrap_file_is_told_and_does_not_matter_later() {
    let mut house = House::empty();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("flags.json");
    fs::write(&path, r#"{"flags": {"#).expect("written");
    let options = house.options().bootstrap(&path).init_deadline(Duration::from_millis(100));
    let flags = Flags::connect(options).expect("good options");
    assert_eq!(flags.state(), State::Error);
    let told = flags.status().bootstrap.expect("told");
    assert!(told.contains("flags.json") && told.contains("1:12"), "{told}");
    house.publish(&one_flag(true));
    house.open();
    wait_for(&flags, State::Ready);
    assert!(flags.is_enabled(KEY, "user-1"));
}

#[test]
fn a_set_that_is_not_good_is_refused_and_the_last_good_one_stays() {
    let house = House::with(&one_flag(true));
    let flags = house.flags();
    let of_the_future = one_flag(false).replacen('{', r#"{"metadata": {"bucketing": "v9"}, "#, 1);
    house.publish(&of_the_future);
    until(PATIENCE, "it is refused", || flags.status().refused == 1);
    assert_eq!(flags.state(), State::Stale);
    assert!(flags.is_enabled(KEY, "user-1"));
    let why = flags.status().why.expect("told");
    assert!(why.contains("v9") && why.contains("update"), "{why}");
    house.publish(&one_flag(false));
    wait_for(&flags, State::Ready);
    assert!(!flags.is_enabled(KEY, "user-1"));
}

/// Murmur hashes of "new-scoring-algorithm" and "user-1" differ between the generations: 102794031 and 188747026.
#[test]
fn the_set_says_which_generation_buckets() {
    let fractional = |bucketing: &str| {
        json!({
            "metadata": {"bucketing": bucketing},
            "flags": {KEY: {
                "state": "ENABLED", "variants": {"on": true, "off": false}, "defaultVariant": "off",
                "targeting": {"fractional": [["on", 3], ["off", 97]]},
            }},
        })
        .to_string()
    };
    let house = House::with(&fractional("v2"));
    let flags = house.flags();
    assert!(flags.is_enabled(KEY, "user-1"), "102794031 · 100 >> 32 is 2");
    house.publish(&fractional("v3"));
    until(PATIENCE, "v3", || !flags.is_enabled(KEY, "user-1"));
}

#[test]
fn nobody_sees_half_a_set() {
    const CHANGES: usize = 1_000;
    let two = |on: bool| {
        let one = json!({"state": "ENABLED", "variants": {"on": true, "off": false}, "defaultVariant": if on { "on" } else { "off" }});
        json!({"flags": {"left": one, "right": one}}).to_string()
    };
    let house = House::with(&two(false));
    let flags = house.flags();
    let done = AtomicBool::new(false);
    let (looks, changes_seen) = thread::scope(|scope| {
        let look = || {
            let (mut looks, mut changes, mut last) = (0_u64, 0_u64, false);
            while !done.load(Ordering::Relaxed) {
                let now = flags.snapshot();
                let (left, right) = (now.is_enabled("left", "u"), now.is_enabled("right", "u"));
                assert_eq!(left, right, "after {looks} looks");
                looks += 1;
                changes += u64::from(left != last);
                last = left;
            }
            (looks, changes)
        };
        let lookers = [scope.spawn(look), scope.spawn(look)];
        for change in 1..=CHANGES {
            let accepted = flags.status().accepted;
            house.publish(&two(change % 2 == 1));
            // Sets that nobody has taken yet are skipped; here each one shall be seen.
            until(PATIENCE, "the set", || flags.status().accepted > accepted);
        }
        done.store(true, Ordering::Relaxed);
        let seen: Vec<(u64, u64)> = lookers.into_iter().map(|looker| looker.join().expect("no panic")).collect();
        (seen[0].0 + seen[1].0, seen[0].1 + seen[1].1)
    });
    assert!(looks > CHANGES as u64 && changes_seen > CHANGES as u64 / 4, "{looks} looks saw {changes_seen} changes");
}

#[test]
fn many_clients_come_back_by_themselves() {
    let mut house = House::with(&one_flag(false));
    let clients: Vec<Flags> = (0..20).map(|_| house.flags()).collect();
    house.kill();
    clients.iter().for_each(|flags| wait_for(flags, State::Stale));
    house.publish(&one_flag(true));
    house.open();
    clients.iter().for_each(|flags| wait_for(flags, State::Ready));
    assert!(clients.iter().all(|flags| flags.is_enabled(KEY, "user-1")));
}

#[test]
fn async_code_waits_without_blocking_and_may_lend_its_runtime() {
    let house = House::with(&one_flag(true));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let flags = runtime.block_on(async {
        let lent = Flags::connect_async(house.options().runtime(tokio::runtime::Handle::current())).await.expect("good options");
        assert_eq!(lent.state(), State::Ready);
        let own = Flags::connect_async(house.options()).await.expect("good options");
        assert!(lent.is_enabled(KEY, "user-1") && own.is_enabled(KEY, "user-1"));
        lent
    });
    drop(runtime);
    assert_eq!(flags.state(), State::Stale, "the runtime has gone: {:?}", flags.status());
    assert!(flags.is_enabled(KEY, "user-1"), "values stay");
}
