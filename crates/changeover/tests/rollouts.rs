//! Rollouts and experiments for real: users, requests, outcomes.

mod house;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use changeover_flags::{Context, Flags, Options};
use house::{DEADLINE, House};
use serde_json::{Value, json};
use testbed::wait;

const KEY: &str = "new-scoring-algorithm";

fn report(house: &House) -> Value {
    serde_json::from_str(&house.good(&["flags", "report", KEY, "--json"])).expect("JSON")
}

/// A keep-alive connection; the status of each answer.
struct Client(BufReader<TcpStream>);

impl Client {
    fn new(address: std::net::SocketAddr) -> Self {
        Self(BufReader::new(TcpStream::connect(address).expect("it listens")))
    }

    fn send(&mut self, host: &str, head: &str, body: &str) -> u16 {
        let length = body.len();
        write!(self.0.get_mut(), "{head}host: {host}\r\ncontent-length: {length}\r\n\r\n{body}").expect("written");
        let (mut line, mut status, mut length) = (String::new(), 0, 0);
        loop {
            line.clear();
            assert!(self.0.read_line(&mut line).expect("a line") > 0, "the connection was closed");
            if status == 0 {
                status = line.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().expect("a length");
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).expect("the body");
        status
    }
}

/// A small web service with the flag in its code, behind the proxy: its bad branch is taken back by itself.
#[test]
fn the_bad_branch_of_a_real_service_is_taken_back_by_itself() {
    let port = 27_965;
    let python = testbed::tools::python();
    let service = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scoring_service.py");
    let extra = format!(
        "  scoring:\n    routes: [{{ host: scoring.test }}]\n    run: {{ command: ['{}', '{service}', '{{port}}', '{port}', '0.4'] }}\n    \
         health: {{ path: /healthz, interval: 100ms, start_timeout: 30s }}\n    strategy: {{ blue_green: {{ watch: 0s }} }}\nflags:\n  listen: 127.0.0.1:{port}\n",
        python.display()
    );
    let house = House::start("27966-27969", &extra);
    house.good(&["flags", "create", KEY, "--owner", "ana"]);
    house.good(&["deploy", "scoring", "--version", "v1"]);
    house.good(&["flags", "rollout", KEY, "--steps", "50,100", "--every", "5s", "--requests"]);
    let (stop, failed, asked) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let began = Instant::now();
    let ended = std::thread::scope(|scope| {
        for client in 0..4 {
            let (stop, failed, asked, house) = (&stop, &failed, &asked, &house);
            scope.spawn(move || {
                let mut connection = Client::new(house.address);
                while !stop.load(Ordering::Relaxed) {
                    let user = asked.fetch_add(1, Ordering::Relaxed);
                    let head = format!("GET /score HTTP/1.1\r\nx-user: {client}-{user}\r\n");
                    let status = connection.send("scoring.test", &head, "");
                    failed.fetch_add(u64::from(status == 500), Ordering::Relaxed);
                }
            });
        }
        let ended = wait::until(3 * DEADLINE, "it is taken back", || {
            let report = report(&house);
            report["state"].get("ended").map(|ended| (ended.clone(), report.clone()))
        });
        stop.store(true, Ordering::Relaxed);
        ended
    });
    let (ended, report) = ended;
    println!(
        "taken back after {:?}, {} requests, {} failed: {}",
        began.elapsed(),
        asked.into_inner(),
        failed.into_inner(),
        ended["reason"]
    );
    assert_eq!((&ended["outcome"], &report["weight"]), (&json!("rolled_back"), &json!(0)));
    assert!(ended["reason"].as_str().is_some_and(|reason| reason.contains("`requests` is worse")), "{ended}");
    assert!(house.good(&["flags", "history", KEY]).contains("rolled back"));
    assert!(house.good(&["events"]).contains("flag_rolled_back"));
    // Everybody has what there was before, without a deployment.
    assert!(house.good(&["flags", "eval", KEY, "-u", "0-1"]).starts_with(&format!("{KEY} = false")));
}

/// Programs that evaluate by themselves report exposures and outcomes.
fn drive(port: u16, house: &House, users_per_round: usize, bad: impl Fn(&str, usize) -> Vec<Value>, done: impl Fn() -> bool) -> usize {
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let flags = Flags::connect(Options::new(format!("http://127.0.0.1:{port}")).no_reports()).expect("good options");
    let mut connection = Client::new(address);
    let (mut user, began) = (0, Instant::now());
    while !done() {
        assert!(began.elapsed() < 4 * DEADLINE, "{}", report(house));
        let (mut exposures, mut outcomes) = (Vec::new(), Vec::new());
        for _ in 0..users_per_round {
            user += 1;
            let name = format!("user-{user}");
            let details = flags.details(KEY, false, &Context::of(name.as_str()));
            let variant = details.variant.map(|variant| variant.to_string()).unwrap_or_default();
            exposures.push(json!({ "flag": KEY, "variant": variant, "targetingKey": name }));
            outcomes.extend(bad(&variant, user).into_iter().map(|mut outcome| {
                outcome["targetingKey"] = json!(name);
                outcome
            }));
        }
        let body = json!({ "exposures": exposures, "outcomes": outcomes }).to_string();
        let status = connection.send("flags.test", "POST /changeover/v1/report HTTP/1.1\r\ncontent-type: application/json\r\n", &body);
        assert_eq!(status, 200);
    }
    user
}

#[test]
fn a_good_variant_climbs_to_everybody_and_nobody_loses_it_on_the_way() {
    let port = 27_971;
    let house = House::start("27970-27970", &format!("flags:\n  listen: 127.0.0.1:{port}\n"));
    house.good(&["flags", "create", KEY, "--owner", "ana"]);
    house.good(&["flags", "rollout", KEY, "--steps", "20,50,100", "--every", "1s", "--outcome", "scored"]);
    let flags = Flags::connect(Options::new(format!("http://127.0.0.1:{port}")).no_reports()).expect("good options");
    let users: Vec<String> = (0..2_000).map(|user| format!("fixed-{user}")).collect();
    let has = std::cell::RefCell::new(vec![false; users.len()]);
    let killed = AtomicBool::new(false);
    let looked = std::cell::Cell::new(Instant::now());
    let weights = std::cell::RefCell::new(std::collections::BTreeSet::new());
    let outcome = |_: &str, _: usize| vec![json!({ "metric": "scored", "failed": false })];
    let exposed = drive(port, &house, 400, outcome, || {
        for (user, has) in users.iter().zip(has.borrow_mut().iter_mut()) {
            let now = flags.is_enabled(KEY, user.as_str());
            assert!(now || !*has, "{user} lost the feature");
            *has = now;
        }
        if looked.get().elapsed() < Duration::from_millis(500) {
            return false;
        }
        looked.set(Instant::now());
        let report = report(&house);
        weights.borrow_mut().insert(report["weight"].as_u64().expect("a weight"));
        if report["weight"] == 5_000 && !killed.swap(true, Ordering::Relaxed) {
            // Nobody's variant changes, and it goes on from where it was.
            house.good(&["flags", "pause", KEY]);
            house.good(&["flags", "resume", KEY]);
        }
        report["state"]["ended"]["outcome"] == "promoted"
    });
    println!("promoted after {exposed} users; weights seen: {:?}", weights.borrow());
    assert!(killed.load(Ordering::Relaxed) && weights.borrow().contains(&2_000));
    wait::until(DEADLINE, "everybody has it", || users.iter().all(|user| flags.is_enabled(KEY, user.as_str())));
}

#[test]
fn an_experiment_finds_its_winner_and_says_how_sure_it_is() {
    let port = 27_973;
    let house = House::start("27972-27972", &format!("flags:\n  listen: 127.0.0.1:{port}\n"));
    house.good(&["flags", "create", KEY, "--owner", "ana"]);
    house.good(&["flags", "experiment", KEY, "--shares", "on=50,off=50", "--goal", "bought", "--goal", "spent:mean", "--window", "1s"]);
    let outcome = |variant: &str, user: usize| {
        let buys = if variant == "on" { 4 } else { 10 };
        let mut outcomes = vec![json!({ "metric": "spent", "value": (user % 7) as f64 })];
        if user.is_multiple_of(buys) {
            outcomes.push(json!({ "metric": "bought", "value": 1 }));
        }
        outcomes
    };
    let looked = std::cell::Cell::new(Instant::now());
    let exposed = drive(port, &house, 200, outcome, || {
        if looked.get().elapsed() < Duration::from_millis(500) {
            return false;
        }
        looked.set(Instant::now());
        report(&house)["report"]["goals"][0]["comparisons"][0]["verdict"] == "winner"
    });
    let lines = house.good(&["flags", "report", KEY]);
    println!("{exposed} users\n{lines}");
    assert!(lines.contains("bought") && lines.contains("`on`"), "{lines}");
    let before = report(&house);
    assert_eq!(before["report"]["ratio"]["is_mismatched"], false);
    assert_ne!(before["report"]["goals"][1]["comparisons"][0]["verdict"], "winner", "{before}");
    // Who was counted stays counted.
    house.kill_worker();
    house.until_up();
    let exposed = |report: &Value| report["report"]["ratio"]["exposed"].clone();
    wait::until(DEADLINE, "as before", || exposed(&report(&house)) == exposed(&before));
    let ended = house.good(&["flags", "end", KEY, "--keep", "on"]);
    assert!(ended.contains("everybody gets `on`"), "{ended}");
    assert!(house.good(&["flags", "eval", KEY, "-u", "x"]).starts_with(&format!("{KEY} = true (on, STATIC)")));
}
