//! gRPC in the whole house, with grpcio on both sides: every kind of call, and a service that is replaced while it is called.

mod house;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use house::{DEADLINE, House};
use serde_json::Value;
use testbed::wait;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/grpc");

fn python() -> String {
    let target = Path::new(env!("CARGO_BIN_EXE_changeover")).ancestors().nth(2).expect("the target folder");
    target.join("python/bin/python").to_string_lossy().into_owned()
}

fn house(ports: &str, strategy: &str) -> House {
    let notes = tempfile::tempdir().expect("a folder").keep();
    let file = format!(
        "listeners: {{ main: '{{address}}' }}\nports: {ports}\nservices:\n  web:\n    protocol: http2\n    \
         run: {{ command: ['{}', '{FOLDER}/service.py', '{{version}}', '{{port}}', '{}'] }}\n    \
         health: {{ check: grpc, service: test.Service, interval: 100ms, rise: 1, start_timeout: 20s }}\n    strategy: {strategy}\n",
        python(),
        notes.display(),
    );
    let house = House::of(&file);
    std::fs::write(house.folder.path().join("notes"), notes.to_string_lossy().as_bytes()).expect("written");
    house
}

fn notes(house: &House) -> String {
    std::fs::read_to_string(house.folder.path().join("notes")).expect("its folder")
}

fn client(house: &House, what: &str) -> Command {
    let mut command = Command::new(python());
    command.args([&format!("{FOLDER}/client.py"), what, &house.address.to_string(), &notes(house)]);
    command
}

/// Calls of all kinds, until it is told to stop.
struct Load(Child);

impl Load {
    fn start(house: &House) -> Self {
        let load = client(house, "load").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python");
        wait::until(DEADLINE, "calls come", || ids(house).len() > 20);
        Self(load)
    }

    fn ends(mut self) -> Value {
        drop(self.0.stdin.take());
        let mut text = String::new();
        self.0.stdout.take().expect("piped").read_to_string(&mut text).expect("text");
        assert!(self.0.wait().expect("it ends").success());
        serde_json::from_str(&text).expect("JSON")
    }

    /// Each call that was sent ran exactly once, and none was lost; how many there were.
    fn lost_nothing(self, house: &House) -> u64 {
        let told = self.ends();
        assert_eq!(told["lost"], serde_json::json!([]), "{}", told["lost"]);
        let (ran, sent) = (ids(house), told["sent"].as_array().expect("numbers"));
        for number in sent {
            let number = number.as_u64().expect("a number");
            assert_eq!(ran.get(&number), Some(&1), "call {number} ran so often");
        }
        let done: u64 = told["done"].as_object().expect("kinds").values().filter_map(Value::as_u64).sum();
        eprintln!("{} calls, none lost", told["done"]);
        done
    }
}

/// Of unary calls that ran: how often.
fn ids(house: &House) -> BTreeMap<u64, u32> {
    let text = std::fs::read_to_string(Path::new(&notes(house)).join("ids")).unwrap_or_default();
    let mut ids = BTreeMap::new();
    text.lines().filter_map(|line| line.parse().ok()).for_each(|id| *ids.entry(id).or_default() += 1);
    ids
}

#[test]
fn every_kind_of_call_passes_with_all_that_belongs_to_it() {
    let house = house("27500-27519", "{ blue_green: { watch: 0s } }");
    house.good(&["deploy", "web", "--version", "v1"]);
    let output = client(&house, "interop").output().expect("python");
    let (told, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{told}\n{err}");
    eprintln!("{told}");
}

#[test]
fn a_service_that_is_switched_under_load_loses_no_call() {
    let times = if std::env::var_os("CHANGEOVER_LONG").is_some() { 100 } else { 8 };
    let house = house("27520-27599", "{ blue_green: { watch: 0s, drain: 20s } }");
    house.good(&["deploy", "web", "--version", "v0"]);
    let load = Load::start(&house);
    for number in 1..=times {
        let told = house.good(&["deploy", "web", "--version", &format!("v{number}")]);
        assert!(!told.contains("cut"), "{told}");
    }
    assert!(load.lost_nothing(&house) > 100);
}

#[test]
fn an_upgrade_of_changeover_under_load_loses_no_call() {
    let house = house("27600-27619", "{ blue_green: { watch: 0s } }");
    house.good(&["deploy", "web", "--version", "v1"]);
    let load = Load::start(&house);
    for _ in 0..3 {
        house.good(&["upgrade"]);
        house.only_one_worker();
    }
    assert!(load.lost_nothing(&house) > 100);
}

#[test]
fn a_version_that_says_it_does_not_serve_gets_no_call() {
    let house = house("27620-27639", "{ blue_green: { watch: 0s } }");
    house.good(&["deploy", "web", "--version", "v1"]);
    std::fs::write(
        house.folder.path().join("changeover.yaml"),
        std::fs::read_to_string(house.folder.path().join("changeover.yaml"))
            .expect("the file")
            .replace("start_timeout: 20s", "start_timeout: 3s"),
    )
    .expect("written");
    house.good(&["apply"]);
    let told = house.bad(&["deploy", "web", "--version", "sick1"], 1);
    assert!(told.contains("grpc.health.v1.Health/Check") && told.contains("NOT_SERVING"), "{told}");
    assert_eq!(house.web()["serves"], "v1");
}

#[test]
fn a_canary_whose_calls_fail_is_rolled_back_by_itself() {
    let house = house("27640-27659", "{ canary: { steps: [20%], dwell: 2s, watch: 1s, drain: 5s, keep: 0s } }");
    house.good(&["deploy", "web", "--version", "v1"]);
    let load = Load::start(&house);
    let told = house.bad(&["deploy", "web", "--version", "wrong"], 2);
    let ending = house.release()["ending"].clone();
    assert_eq!(ending["outcome"], "rolled_back", "{told}{ending}");
    let told = load.ends();
    let lost = told["lost"].as_array().expect("calls");
    assert!(!lost.is_empty() && lost.iter().all(|call| call.as_str().is_some_and(|call| call.contains("it is wrong"))), "{told}");
}
