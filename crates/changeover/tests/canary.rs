//! Canaries of the built binary: real processes, real load, the judge's own decisions. Nothing is lost by us.
//!
//! Steps, dwell, warm-up and `timeout_bad` are short here and the budgets large: a test cannot wait for the minutes that the
//! defaults take; a busy machine makes one process slower than its twin, so latency
//! hardly counts. `CHANGEOVER_LONG=1` runs a hundred releases.

mod house;

use std::time::{Duration, Instant};

use house::{DEADLINE, House, kill_9};
use serde_json::Value;
use testbed::load::Tally;
use testbed::wait;

const QUICK: &str = "    strategy: { canary: { steps: [10%, 50%], dwell: 2s, watch: 1s, drain: 5s, keep: 0s, \
    analysis: { tolerate: { slower: 900% }, warm_up: 1s, timeout_bad: 1s, budget: 5%, latency_budget: 20% } } }\n";
/// A step that a person ends.
const LONG: &str = "    strategy: { canary: { steps: [10%, 50%], dwell: 1h, watch: 0s, drain: 5s, keep: 1h, \
    analysis: { tolerate: { slower: 900% }, warm_up: 1s, timeout_bad: 1s } } }\n";

/// Its versions take 20 ms to answer: beside that, what a busy machine does to one of two twins is small.
fn start(ports: &str, strategy: &str) -> House {
    let house = House::start(ports, strategy);
    house.behaves("all", "latency_ms 20\nsigma 0.3\n");
    house
}

fn outcome(house: &House) -> String {
    house.release()["ending"]["outcome"].as_str().unwrap_or_default().to_owned()
}

fn weight(house: &House) -> u64 {
    house.release()["weight"].as_u64().unwrap_or_default()
}

fn is_judging(house: &House, step: u64) -> bool {
    let release = house.release();
    release["state"] == "judging" && release["step"] == step
}

/// Every request was answered, by a version.
fn assert_nothing_lost(tally: &Tally) {
    assert_eq!(tally.lost, 0, "{:?}", tally.last_errors);
    let failed: u64 = tally.failed_by_version.values().sum();
    assert_eq!(tally.by_version.values().sum::<u64>() + failed, tally.requests);
}

#[test]
fn a_good_version_climbs_by_itself_and_a_bad_one_is_taken_back_by_itself() {
    let house = start("27400-27429", QUICK);
    house.good(&["deploy", "web", "--version", "v1"]);
    let load = house.load();
    let told = house.good(&["deploy", "web", "--version", "v2"]);
    for part in ["canary: 10 % → 50 % → 100 %", "step 1/3   10 % of requests go to v2", "step 2/3   50 %", "advance", "watch      ok"] {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert_eq!((house.web()["serves"].as_str(), outcome(&house).as_str()), (Some("v2"), "promoted"));
    house.behaves("v3", "errors 0.2");
    let error = house.bad(&["deploy", "web", "--version", "v3"], 2);
    assert!(error.contains("rolled back: errors of v3 are at least"), "{error}");
    assert_eq!(house.web()["serves"], "v2");
    let tally = load.stop();
    assert_nothing_lost(&tally);
    assert!(tally.failed_by_version.keys().all(|version| version == "v3"), "{tally:?}");
    // Why, afterwards and after a restart.
    kill_9(house.worker_pid());
    house.until_up();
    let shown = house.good(&["analysis", "show", "3"]);
    for part in ["rolled back: errors of v3", "METRIC", "regressed", "rollback", "p99"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let shown: Value = serde_json::from_str(&house.good(&["analysis", "show", "web/3", "--json"])).expect("JSON");
    assert_eq!(shown["last"]["verdict"], "regressed");
    assert!(shown["looks"].as_array().is_some_and(|looks| !looks.is_empty()));
}

#[test]
fn hung_requests_are_seen_by_their_age() {
    let house = start("27430-27459", &QUICK.replace("10%, 50%", "20%"));
    house.good(&["deploy", "web", "--version", "v1"]);
    let _load = house.load();
    house.behaves("v2", "hang 0.3");
    let error = house.bad(&["deploy", "web", "--version", "v2"], 2);
    assert!(error.contains("rolled back: errors of v2"), "{error}");
}

#[test]
fn a_person_holds_lets_go_on_and_takes_back() {
    let house = start("27460-27489", LONG);
    house.good(&["deploy", "web", "--version", "v1"]);
    let load = house.load();
    let mut deploying = house.command(&["deploy", "web", "--version", "v2"]).spawn().expect("it starts");
    wait::until(DEADLINE, "the first step", || is_judging(&house, 0));
    assert!(house.good(&["pause", "web", "-m", "lunch"]).contains("stays at 10 %"));
    house.good(&["pause", "web"]);
    assert_eq!(house.release()["paused"]["why"], "lunch", "the first word stands");
    house.good(&["resume", "web"]);
    house.good(&["resume", "web"]);
    let error = house.bad(&["promote", "web", "--step", "2"], 3);
    assert!(error.contains("it is at step 1 (10 %), not 2; nothing was done"), "{error}");
    // Weights that follow each other within two seconds are refused.
    wait::until(DEADLINE, "the weight has stood for two seconds", || house.release()["step_age_ms"].as_u64() >= Some(2_000));
    let mut promoting = house.command(&["promote", "web", "--step", "1", "-m", "seen enough"]).spawn().expect("it starts");
    wait::until(DEADLINE, "the second step", || is_judging(&house, 1));
    assert_eq!(weight(&house), 5_000);
    let (began, on_candidate) = (Instant::now(), load.snapshot().by_version.get("v2").copied().unwrap_or_default());
    assert!(house.good(&["abort", "web", "-m", "no"]).contains("v1 serves"));
    wait::until(DEADLINE, "nothing starts on v2 any more", || {
        load.last_started_on("v2")
            .is_some_and(|last| last < Instant::now().checked_sub(Duration::from_millis(300)).expect("it runs longer"))
    });
    let last = load.last_started_on("v2").expect("it served");
    assert!(last.saturating_duration_since(began) < Duration::from_millis(500), "weight 0 came {:?} after the command", last - began);
    assert!(on_candidate > 0);
    assert_eq!(deploying.wait().expect("it ends").code(), Some(2));
    assert_eq!(promoting.wait().expect("it ends").code(), Some(2));
    assert_eq!(outcome(&house), "aborted");
    // Aborted, it is kept for a while, and may be tried again.
    let web = house.web();
    assert_eq!((web["kept"]["version"].as_str(), web["serves"].as_str()), (Some("v2"), Some("v1")));
    let mut again = house.command(&["retry", "web"]).spawn().expect("it starts");
    wait::until(DEADLINE, "the first step again", || is_judging(&house, 0));
    wait::until(DEADLINE, "the weight has stood for two seconds", || house.release()["step_age_ms"].as_u64() >= Some(2_000));
    house.good(&["promote", "web", "--full", "-m", "it is fine"]);
    assert_eq!(again.wait().expect("it ends").code(), Some(0));
    assert_eq!((house.web()["serves"].as_str(), outcome(&house).as_str()), (Some("v2"), "promoted"));
    assert_nothing_lost(&load.stop());
    let events = house.good(&["events", "web"]);
    for part in ["paused     at 10 % by", "lunch", "promoted   by", "seen enough"] {
        assert!(events.contains(part), "{part}: {events}");
    }
}

#[test]
fn a_step_waits_for_its_gates_with_the_weight_before() {
    let strategy = "    strategy: { canary: { steps: [10%, { weight: 50%, gates: [{ name: ok, approval: { otherwise: abort }, timeout: 1h }] }, \
        { weight: 100%, gates: [{ name: lunch, approval: { otherwise: proceed }, timeout: 100ms }] }], dwell: 100ms, watch: 0s, \
        analysis: { none: a test of gates } } }\n";
    let house = start("27490-27519", strategy);
    house.good(&["deploy", "web", "--version", "v1"]);
    let load = house.load();
    let deploying = house.command(&["deploy", "web", "--version", "v2"]).stdout(std::process::Stdio::piped()).spawn().expect("it starts");
    wait::until(DEADLINE, "the approval is waited for", || house.release()["waits"] == "approval: ok");
    assert_eq!(weight(&house), 1_000);
    // Also after a crash.
    kill_9(house.worker_pid());
    wait::until(DEADLINE, "it waits again", || house.release()["waits"] == "approval: ok");
    let told = house.good(&["promote", "web"]);
    assert!(told.contains("promoted   approved by"), "{told}");
    let output = deploying.wait_with_output().expect("it ends");
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && told.contains("not judged: a test of gates"), "{told}");
    assert_eq!(house.web()["serves"], "v2");
    assert_eq!(load.stop().failed_by_version.len(), 0);
}

#[test]
fn a_step_starts_the_targets_that_it_needs_first() {
    let strategy = "    strategy: { canary: { steps: [{ weight: 10%, targets: 1 }, { weight: 50%, targets: 2 }], dwell: 60s, watch: 0s, \
        analysis: { none: a test of capacity } } }\n";
    let house = start("27520-27549", strategy);
    let file = house.folder.path().join("changeover.yaml");
    let text = std::fs::read_to_string(&file).expect("the file");
    std::fs::write(&file, text.replace("    run: { command:", "    run: { targets: 3, command:")).expect("written");
    house.good(&["apply"]);
    house.good(&["deploy", "web", "--version", "v1"]);
    let targets = |version: &str| {
        let web = house.web();
        web["targets"].as_array().into_iter().flatten().filter(|it| it["version"] == version && it["healthy"] == true).count()
    };
    let mut deploying = house.command(&["deploy", "web", "--version", "v2"]).spawn().expect("it starts");
    for (step, wanted) in [(0, 1), (1, 2)] {
        wait::until(DEADLINE, "the step", || is_judging(&house, step));
        assert_eq!((targets("v1"), targets("v2")), (3, wanted));
        wait::until(DEADLINE, "the weight has stood", || house.release()["step_age_ms"].as_u64() >= Some(2_000));
        // It follows the release, as `deploy` does.
        let mut promoting = house.command(&["promote", "web"]).spawn().expect("it starts");
        std::thread::spawn(move || promoting.wait());
    }
    assert!(deploying.wait().expect("it ends").success());
    assert_eq!(targets("v2"), 3);
}

#[test]
fn a_killed_worker_goes_on_in_mid_step() {
    let house = start("27550-27579", &QUICK.replace("dwell: 2s", "dwell: 8s").replace("10%, 50%", "20%"));
    house.good(&["deploy", "web", "--version", "v1"]);
    let load = house.load();
    let mut deploying = house.command(&["deploy", "web", "--version", "v2"]).spawn().expect("it starts");
    let age = || house.release()["analysis"]["step_age_s"].as_u64().unwrap_or_default();
    wait::until(DEADLINE, "four seconds of the step", || age() >= 4);
    let before: Value = house.release()["analysis"].clone();
    kill_9(house.worker_pid());
    let killed = Instant::now();
    wait::until(DEADLINE, "looks again", || age() >= 5);
    let after: Value = house.release()["analysis"].clone();
    let requests = |said: &Value| said["metrics"][0]["stable"]["requests"].as_u64().unwrap_or_default();
    assert!(requests(&after) + 200 >= requests(&before), "what was counted is kept: {} then {}", requests(&before), requests(&after));
    assert!(deploying.wait().expect("it ends").success());
    assert!(killed.elapsed() < Duration::from_secs(12), "the step's clock went on");
    let events = house.good(&["events", "web", "--json"]);
    let steps = events.lines().filter(|line| line.contains("\"kind\":\"step\"")).count();
    assert_eq!(steps, 1, "no step twice");
    // Requests that were in flight at the kill are cut, and those that went out on its connections just then: one a client.
    let tally = load.stop();
    assert!(tally.lost <= CLIENTS, "{} lost: {:?}", tally.lost, tally.last_errors);
    let told = house.good(&["events"]);
    assert!(told.contains("requests and tunnels were running and are cut"), "{told}");
}

#[test]
fn a_third_version_waits_or_takes_the_place() {
    let house = start("27580-27609", LONG);
    house.good(&["deploy", "web", "--version", "v1"]);
    let load = house.load();
    let mut first = house.command(&["deploy", "web", "--version", "v2"]).spawn().expect("it starts");
    wait::until(DEADLINE, "the first step", || is_judging(&house, 0));
    let error = house.bad(&["deploy", "web", "--version", "v3"], 3);
    assert!(error.contains("already running"), "{error}");
    let mut third = house.command(&["deploy", "web", "--version", "v3", "--supersede"]).spawn().expect("it starts");
    assert_eq!(first.wait().expect("it ends").code(), Some(2));
    wait::until(DEADLINE, "v3 at its first step", || is_judging(&house, 0) && house.release()["candidate"] == "v3");
    house.good(&["abort", "web"]);
    assert_eq!(third.wait().expect("it ends").code(), Some(2));
    assert_eq!(house.web()["serves"], "v1");
    assert_nothing_lost(&load.stop());
}

#[test]
fn a_dry_run_forecasts_and_little_traffic_is_said_beforehand() {
    let house = start("27610-27639", "    strategy: canary\n");
    house.good(&["deploy", "web", "--version", "v1"]);
    let told = house.good(&["deploy", "web", "--version", "v2", "--dry-run"]);
    assert!(told.contains("nothing is done") && told.contains("there is no traffic now"), "{told}");
    let mut deploying =
        house.command(&["deploy", "web", "--version", "v2"]).stdout(std::process::Stdio::piped()).spawn().expect("it starts");
    wait::until(DEADLINE, "the first step", || is_judging(&house, 0));
    assert_eq!(weight(&house), 100);
    let events = house.good(&["events", "web"]);
    assert!(events.contains("traffic    there is no traffic now"), "{events}");
    house.good(&["abort", "web"]);
    assert_eq!(deploying.wait().expect("it ends").code(), Some(2));
    let load = house.load();
    wait::until(DEADLINE, "a rate is seen", || house.web()["rate"].as_f64() > Some(200.0));
    let told = house.good(&["deploy", "web", "--version", "v2", "--dry-run"]);
    assert!(told.contains("step 1/4   1 %: about") && told.contains("requests/s"), "{told}");
    drop(load);
}

#[test]
fn a_first_step_on_copies_shows_what_fails_to_nobody() {
    let strategy = QUICK.replace("steps: [10%, 50%]", "mirror: [GET], steps: [50%]");
    let house = start("27850-27879", &strategy);
    house.good(&["deploy", "web", "--version", "v1"]);
    let load = house.load();
    let told = house.good(&["deploy", "web", "--version", "v2"]);
    assert!(told.contains("canary: 0 % → 50 % → 100 %") && told.contains("advance    0.00 % of"), "{told}");
    house.behaves("v3", "errors 1");
    let error = house.bad(&["deploy", "web", "--version", "v3"], 1);
    assert!(error.contains("copies of requests failed on v3"), "{error}");
    let tally = load.stop();
    assert_nothing_lost(&tally);
    assert_eq!(tally.failed_by_version.len(), 0, "no client saw v3");
}

#[test]
fn a_fresh_baseline_is_what_the_candidate_is_compared_with() {
    let strategy = QUICK.replace("steps: [10%, 50%]", "steps: [20%], baseline: fresh");
    let house = start("27880-27909", &strategy);
    house.good(&["deploy", "web", "--version", "v1"]);
    let load = house.load();
    let mut deploying = house.command(&["deploy", "web", "--version", "v2"]).spawn().expect("it starts");
    wait::until(DEADLINE, "the step is counted", || {
        let split = house.release()["analysis"]["split"].clone();
        split["candidate"].as_u64() > Some(500) && split["stable"].as_u64() > Some(500)
    });
    let split = house.release()["analysis"]["split"].clone();
    let [candidate, baseline] = ["candidate", "stable"].map(|arm| split[arm].as_f64().expect("a count"));
    // As many as the candidate gets; stable serves the others.
    assert!((0.7..1.4).contains(&(candidate / baseline)), "{candidate} and {baseline}");
    let versions = || -> std::collections::BTreeSet<String> {
        let web = house.web();
        web["targets"].as_array().into_iter().flatten().filter_map(|it| it["version"].as_str().map(str::to_owned)).collect()
    };
    assert_eq!(versions().into_iter().collect::<Vec<_>>(), ["v1", "v1+baseline", "v2"]);
    assert!(deploying.wait().expect("it ends").success());
    wait::until(DEADLINE, "the baseline is stopped", || !versions().contains("v1+baseline"));
    let tally = load.stop();
    assert_nothing_lost(&tally);
    assert!(tally.by_version.keys().all(|version| ["v1", "v2"].contains(&version.as_str())), "{tally:?}");
}

/// One request with these fields: the version that answered, and the cookie that was set.
fn ask(house: &House, fields: &str) -> (String, Option<String>) {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(house.address).expect("it listens");
    write!(stream, "GET / HTTP/1.1\r\nhost: web.test\r\nconnection: close\r\n{fields}\r\n").expect("written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let field = |name: &str| answer.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned());
    (field("x-version:").expect("a version"), field("set-cookie:"))
}

#[test]
fn sticky_clients_stay_and_a_raise_only_adds() {
    let strategy = "    strategy: { canary: { steps: [20%, 60%], sticky: { header: x-user, window: 1s }, dwell: 1h, watch: 0s, keep: 0s, \
        analysis: { warm_up: 0s, timeout_bad: 1s } } }\n";
    let house = start("27730-27759", strategy);
    house.good(&["deploy", "web", "--version", "v1"]);
    let mut deploying = house.command(&["deploy", "web", "--version", "v2"]).spawn().expect("it starts");
    let moved = || -> Vec<bool> { (0..200).map(|user| ask(&house, &format!("x-user: u{user}\r\n")).0 == "v2").collect() };
    wait::until(DEADLINE, "the first step", || is_judging(&house, 0));
    let first = moved();
    assert_eq!(first, moved(), "nobody flips");
    kill_9(house.worker_pid());
    house.until_up();
    assert_eq!(first, moved(), "also not after a crash");
    wait::until(DEADLINE, "the weight has stood", || house.release()["step_age_ms"].as_u64() >= Some(2_000));
    let mut promoting = house.command(&["promote", "web"]).spawn().expect("it starts");
    wait::until(DEADLINE, "the second step", || is_judging(&house, 1));
    let second = moved();
    assert!(first.iter().zip(&second).all(|(was, is)| *is || !*was), "nobody goes back");
    let [few, many] = [&first, &second].map(|moved| moved.iter().filter(|moved| **moved).count());
    // Within six standard deviations of 40 and 120.
    assert!((6..=74).contains(&few) && (78..=162).contains(&many), "{few} and {many} of 200");
    // Clients are counted once a step, requests are not; those that moved at the first step are not counted at the second.
    wait::until(DEADLINE, "they are counted", || {
        let split = house.release()["analysis"]["split"].clone();
        split["candidate"].as_u64().zip(split["stable"].as_u64()).is_some_and(|(candidate, stable)| candidate + stable == 200 - few as u64)
    });
    house.good(&["abort", "web"]);
    assert_eq!(deploying.wait().expect("it ends").code(), Some(2));
    let _ = promoting.wait();
}

#[test]
fn a_cookie_keeps_a_client_and_goes_with_the_release() {
    let house = start("27760-27789", &LONG.replace("dwell: 1h", "sticky: cookie, dwell: 1h"));
    house.good(&["deploy", "web", "--version", "v1"]);
    assert_eq!(ask(&house, "").1, None);
    let mut deploying = house.command(&["deploy", "web", "--version", "v2"]).spawn().expect("it starts");
    wait::until(DEADLINE, "the first step", || is_judging(&house, 0));
    let mut cookies = Vec::new();
    wait::until(DEADLINE, "clients on both versions", || {
        let (version, cookie) = ask(&house, "");
        let cookie = cookie.expect("a new client gets one");
        assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Lax"), "{cookie}");
        cookies.push((version, cookie.split(';').next().expect("a pair").to_owned()));
        cookies.iter().any(|(version, _)| version == "v1") && cookies.iter().any(|(version, _)| version == "v2")
    });
    for (version, cookie) in &cookies {
        assert_eq!(ask(&house, &format!("cookie: a=b; {cookie}\r\n")), (version.clone(), None));
    }
    house.good(&["abort", "web"]);
    assert_eq!(deploying.wait().expect("it ends").code(), Some(2));
    let (version, taken) = ask(&house, &format!("cookie: {}\r\n", cookies[0].1));
    assert!(version == "v1" && taken.as_deref().is_some_and(|cookie| cookie.contains("Max-Age=0")), "{taken:?}");
}

/// A client has one request at a time: so many a kill of the worker can cut.
const CLIENTS: u64 = 16;

/// Release after release on a house, with what may come in between. Only a kill of the worker cuts requests: those in flight.
fn canaries(ports: &str, count: u64) {
    let house = start(ports, QUICK);
    house.good(&["deploy", "web", "--version", "v1"]);
    let load = house.load();
    let (mut stable, mut seed, mut kills) = ("v1".to_owned(), count, 0);
    for number in 2..2 + count {
        let version = format!("v{number}");
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let begin = || house.command(&["deploy", "web", "--version", &version]).spawn().expect("it starts");
        let step = (seed >> 40) % 2;
        match (seed >> 33) % 5 {
            0 => {
                house.behaves(&version, "errors 0.3");
                house.bad(&["deploy", "web", "--version", &version], 2);
            }
            1 => {
                let mut deploying = begin();
                wait::until(DEADLINE, "a step", || is_judging(&house, step));
                house.good(&["abort", "web"]);
                assert_eq!(deploying.wait().expect("it ends").code(), Some(2));
            }
            2 => {
                let mut deploying = begin();
                wait::until(DEADLINE, "a step", || is_judging(&house, step));
                stable = format!("{version}.instead");
                house.good(&["deploy", "web", "--version", &stable, "--supersede"]);
                assert_eq!(deploying.wait().expect("it ends").code(), Some(2));
            }
            3 => {
                let mut deploying = begin();
                wait::until(DEADLINE, "a step", || is_judging(&house, step));
                kill_9(house.worker_pid());
                kills += 1;
                assert_eq!(deploying.wait().expect("it ends").code(), Some(0));
                stable = version;
            }
            _ => {
                house.good(&["deploy", "web", "--version", &version]);
                stable = version;
            }
        }
        assert_eq!(house.web()["serves"], stable.as_str());
    }
    let tally = load.stop();
    eprintln!("{ports}: {} requests, {kills} kills, {} lost", tally.requests, tally.lost);
    assert!(tally.lost <= kills * CLIENTS, "{} lost, {kills} kills: {:?}", tally.lost, tally.last_errors);
}

#[test]
fn canaries_of_several_services_lose_nothing() {
    let is_long = std::env::var("CHANGEOVER_LONG").is_ok();
    let each = if is_long { 34 } else { 2 };
    let threads: Vec<_> =
        (0..3).map(|n| std::thread::spawn(move || canaries(&format!("{}-{}", 27_640 + n * 30, 27_669 + n * 30), each))).collect();
    for thread in threads {
        thread.join().expect("nothing is lost");
    }
}
