//! Flags as a person meets them: made, switched, changed, agreed to, taken back, cleared away; files; mistakes; restarts.

mod house;

use std::time::Duration;

use house::{DEADLINE, House, kill_9};
use serde_json::{Value, json};
use testbed::wait;

/// What clients ask over OFREP.
fn ask(port: u16, key: &str, user: &str) -> Option<Value> {
    use std::io::{Read, Write};
    let body = json!({ "context": { "targetingKey": user } }).to_string();
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).inspect_err(|error| eprintln!("{key}: {error}")).ok()?;
    let head = format!("POST /ofrep/v1/evaluate/flags/{key} HTTP/1.1\r\nhost: local\r\ncontent-type: application/json\r\n");
    write!(stream, "{head}connection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len()).ok()?;
    let mut text = String::new();
    if let Err(error) = stream.read_to_string(&mut text) {
        eprintln!("{key}: {error}");
        return None;
    }
    let answer = text.split_once("\r\n\r\n").and_then(|(_, body)| serde_json::from_str(body).ok());
    if answer.is_none() {
        eprintln!("{key}: {text}");
    }
    answer
}

fn value(port: u16, key: &str) -> Value {
    ask(port, key, "ann").expect("an answer")["value"].clone()
}

fn flags(port: u16, more: &str) -> String {
    format!("flags:\n  listen: 127.0.0.1:{port}\n{more}")
}

fn number(said: &str) -> String {
    said.trim().rsplit(' ').next().expect("a number").to_owned()
}

#[test]
fn a_flag_is_made_switched_changed_and_taken_back() {
    let (port, house) = (27_951, House::start("27950-27950", &flags(27_951, "")));
    assert_eq!(house.good(&["flags", "create", "new-scoring", "--owner", "ana"]), "new-scoring is there, off everywhere\n");
    assert_eq!(value(port, "new-scoring"), false);
    let on = house.good(&["flags", "on", "new-scoring", "-m", "try it"]);
    assert!(on.starts_with("new-scoring is on in production: everybody gets `on`   undo: changeover flags revert "), "{on}");
    assert_eq!(value(port, "new-scoring"), true);
    let rule = r#"{"if": [{"ends_with": [{"var": "targetingKey"}, "@ours"]}, "on", null]}"#;
    house.good(&["flags", "target", "new-scoring", "--rule", rule, "--serve", "off"]);
    let answers = |user: &str| ask(port, "new-scoring", user).expect("an answer");
    assert_eq!((answers("ann@ours")["variant"].clone(), answers("bob")["variant"].clone()), (json!("on"), json!("off")));
    assert_eq!(answers("bob")["reason"], "DEFAULT");
    house.good(&["flags", "revert", &number(&on), "--force"]);
    assert_eq!(value(port, "new-scoring"), false);
    let history = house.good(&["flags", "history", "new-scoring"]);
    for what in ["create", "on", "target", "revert", "try it"] {
        assert!(history.contains(what), "{what}: {history}");
    }
    assert!(house.good(&["events"]).contains("flag_on"));
    // Another flag must be on, too.
    house.good(&["flags", "create", "base", "--kill-switch"]);
    house.good(&["flags", "on", "new-scoring"]);
    house.good(&["flags", "require", "new-scoring", "base", "--variant", "on"]);
    assert_eq!(value(port, "new-scoring"), false);
    house.good(&["flags", "on", "base"]);
    assert_eq!(answers("ann@ours")["value"], true);
    let circle = house.bad(&["flags", "require", "base", "new-scoring", "--variant", "on"], 64);
    assert!(circle.contains("a circle of prerequisites: "), "{circle}");
    let needed = house.bad(&["flags", "archive", "base", "--force"], 3);
    assert!(needed.contains("new-scoring needs `base`"), "{needed}");
    house.good(&["flags", "unrequire", "new-scoring", "base"]);
    // Somebody asked just now, and code names it.
    let asked = house.bad(&["flags", "archive", "new-scoring"], 3);
    assert!(asked.contains("was asked for 0 min ago in production"), "{asked}");
    house.good(&["flags", "archive", "new-scoring", "--force"]);
    assert_eq!(ask(port, "new-scoring", "ann").expect("an answer")["errorCode"], "FLAG_NOT_FOUND");
    let debt: Value = serde_json::from_str(&house.good(&["flags", "debt", "--json"])).expect("JSON");
    assert_eq!(debt["flags"][1]["stage"], "archived");
    house.good(&["flags", "restore", "new-scoring"]);
    assert_eq!(answers("ann@ours")["value"], true);
}

#[test]
fn mistakes_say_what_where_and_how_to_mend_it() {
    let (port, house) = (27_953, House::start("27952-27952", &flags(27_953, "  environments:\n    production: { files: [flags.json] }\n")));
    let path = house.folder.path().join("flags.json");
    let good = r#"{"flags": {"welcome": {"state": "ENABLED", "variants": {"a": 1, "b": 10.0}, "defaultVariant": "a"}}}"#;
    std::fs::write(&path, good).expect("written");
    wait::until(DEADLINE, "the file is in force", || ask(port, "welcome", "ann").is_some_and(|it| it["value"] == 1));
    house.good(&["flags", "create", "scoring", "--owner", "ana"]);
    let check = |args: &[&str], code: i32, said: &[&str]| {
        let told = house.bad(&[&["flags"], args].concat(), code);
        for part in said {
            assert!(told.contains(part), "{args:?}: {told}");
        }
    };
    check(&["create", "x"], 64, &["a temporary flag needs an owner", "--owner ana"]);
    check(&["create", "x", "--permanent", " "], 64, &["a permanent flag needs a reason"]);
    check(&["create", "scoring", "--owner", "ana"], 3, &["there is a flag `scoring` already"]);
    check(&["create", "a b", "--owner", "ana"], 64, &["`a b` cannot be the key of a flag"]);
    check(&["create", "y", "--owner", "a", "--variant", "a=1", "--variant", "b=x"], 64, &["all be booleans, strings, numbers or objects"]);
    check(&["create", "y", "--owner", "a", "--variant", "a=1", "--variant", "b=2"], 64, &["which variant", "--on VARIANT"]);
    check(&["on", "scorring"], 64, &["there is no flag `scorring`", "did you mean `scoring`?"]);
    check(&["target", "scoring", "--serve", "onn"], 64, &["`scoring` has no variant `onn`", "did you mean `on`?"]);
    check(&["target", "scoring", "--rule", r#"{"if": [1"#], 64, &["--rule:1:9: no JSON", "hint:"]);
    check(&["target", "scoring", "--rule", r#"{"iff": [1, "on"]}"#], 64, &["iff"]);
    check(&["rollout", "scoring", "--steps", "1,5"], 64, &["a rollout without criteria would only wait and raise", "--requests"]);
    check(&["rollout", "scoring", "--steps", "5,1,100", "--requests"], 64, &["1 % does not lie above 5 %"]);
    check(&["rollout", "scoring", "--steps", "1.234", "--requests"], 64, &["`1.234` of --steps is no share"]);
    check(&["experiment", "scoring", "--shares", "on=50,off=40", "--goal", "buy"], 64, &["the shares sum to 90 %, not to 100 %"]);
    check(&["schedule", "scoring", "on", "--at", "yesterday"], 64, &["`--at yesterday` is no time", "2026-"]);
    check(&["schedule", "scoring", "on", "--at", "2020-01-01T00:00Z"], 64, &["this time is in the past"]);
    check(&["off", "scoring", "-e", "prod"], 64, &["there is no environment `prod`", "there are: production"]);
    house.good(&["flags", "create", "other", "--owner", "ana"]);
    house.good(&["flags", "require", "other", "scoring", "--variant", "on"]);
    // Also while both are off.
    check(&["require", "scoring", "other", "--variant", "on"], 64, &["a circle of prerequisites: scoring → other → scoring", "hint:"]);
    check(&["target", "welcome", "--rule", "{}"], 3, &["`welcome` stands in a watched file"]);
    // A bad file never replaces the good one, and it is said where it is wrong.
    std::fs::write(&path, good.replace("\"defaultVariant\": \"a\"", "\"defaultVariant\": \"c\"")).expect("written");
    let told = wait::until(DEADLINE, "it is told", || {
        let told = String::from_utf8(house.run(&["flags", "list"]).stderr).expect("text");
        told.contains("flags.json:1:").then_some(told)
    });
    assert!(told.contains("what was good before is served"), "{told}");
    assert_eq!(value(port, "welcome"), 1);
    let ready = http_get(port, "/readyz");
    assert!(ready.starts_with("HTTP/1.1 200") && ready.contains("flags.json:1:"), "{ready}");
    std::fs::write(&path, "{").expect("written");
    wait::until(DEADLINE, "that, too", || String::from_utf8_lossy(&house.run(&["flags", "list"]).stderr).contains("flags.json:1:2"));
    house.kill_worker();
    house.until_up();
    wait::until(DEADLINE, "what was good before is served after a crash", || {
        ask(port, "welcome", "ann").is_some_and(|it| it["value"] == 1)
    });
    std::fs::write(&path, good.replace("\"defaultVariant\": \"a\"", "\"defaultVariant\": \"b\"")).expect("written");
    wait::until(DEADLINE, "it is mended", || ask(port, "welcome", "ann").is_some_and(|it| it["value"].as_f64() == Some(10.0)));
    // Switched off although a file says otherwise.
    let said = house.good(&["flags", "off", "welcome"]);
    assert_eq!(ask(port, "welcome", "ann").expect("an answer")["reason"], "DISABLED");
    house.good(&["flags", "revert", &number(&said)]);
    assert_eq!(value(port, "welcome").as_f64(), Some(10.0), "the file alone counts again");
}

fn http_get(port: u16, path: &str) -> String {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    write!(stream, "GET {path} HTTP/1.1\r\nhost: local\r\nconnection: close\r\n\r\n").expect("written");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer");
    text
}

#[test]
fn what_was_said_survives_kills_and_restarts_and_the_clock_catches_up_once() {
    let (port, mut house) = (27_955, House::start("27954-27954", &flags(27_955, "")));
    for key in ["a", "b"] {
        house.good(&["flags", "create", key, "--owner", "ana"]);
    }
    house.good(&["flags", "on", "a"]);
    house.good(&["flags", "schedule", "b", "on", "--in", "3s"]);
    house.good(&["flags", "schedule", "a", "off", "--in", "1h", "-m", "the night"]);
    for _ in 0..3 {
        house.good(&["flags", "off", "a"]);
        house.kill_worker();
        house.until_up();
        assert_eq!(value(port, "a"), false, "what was acknowledged is durable");
        house.good(&["flags", "on", "a"]);
    }
    house.kill_all();
    wait::until(DEADLINE, "the time of the schedule has passed", || jiff::Timestamp::now().as_millisecond() > scheduled_b(&house));
    house.start_again();
    wait::until(DEADLINE, "the missed step is caught up with", || ask(port, "b", "ann").is_some_and(|it| it["value"] == true));
    house.good(&["flags", "off", "b"]);
    house.kill_worker();
    house.until_up();
    let history: Value = serde_json::from_str(&house.good(&["flags", "history", "b", "--json"])).expect("JSON");
    let ons = history["changes"].as_array().into_iter().flatten().filter(|it| it["action"] == "on").count();
    assert_eq!((ons, value(port, "b")), (1, json!(false)), "once: {history}");
    let schedules = house.good(&["flags", "schedules"]);
    assert!(schedules.contains("the night"), "{schedules}");
    assert_eq!(house.good(&["flags", "unschedule", &schedules.lines().nth(1).expect("one")[..1]]).lines().count(), 1);
}

/// Three seconds after it was said; nobody is there to ask.
fn scheduled_b(house: &House) -> i64 {
    let log = std::fs::metadata(house.state_dir().join("state.db")).expect("the state");
    let made = log.created().or_else(|_| log.modified()).expect("a time");
    made.duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_millis() as i64 + 10_000
}

#[test]
fn a_second_person_agrees_and_tokens_permit_what_they_say() {
    let environments = "  environments:\n    production: { second_person: true }\n    staging: {}\n";
    let (port, house) = (27_957, House::start("27956-27956", &flags(27_957, environments)));
    let token = |scope: &str, name: &str| house.good(&["token", "--scope", scope, "--name", name]).trim().to_owned();
    let (ana, ben) = (token("write", "ana"), token("write", "ben"));
    let say = |who: &str, args: &[&str]| {
        let output = house.command(&[&["flags"], args].concat()).env("CHANGEOVER_TOKEN", who).output().expect("it runs");
        (output.status.success(), String::from_utf8(output.stdout).expect("text"), String::from_utf8(output.stderr).expect("text"))
    };
    house.good(&["flags", "create", "scoring", "--owner", "ana"]);
    let (good, said, _) = say(&ana, &["on", "scoring", "-e", "production", "-m", "new model"]);
    assert!(good && said.contains("proposed, nothing was changed yet"), "{said}");
    assert_eq!(value(port, "scoring"), false);
    let proposal = number(&said);
    let (good, _, told) = say(&ana, &["approve", &proposal]);
    assert!(!good && told.contains("ana proposed it"), "{told}");
    assert!(house.good(&["flags", "proposals"]).contains("new model"));
    let (good, said, told) = say(&ben, &["approve", &proposal]);
    assert!(good && said.contains("scoring is on in production"), "{said}{told}");
    assert_eq!(value(port, "scoring"), true);
    assert!(house.good(&["flags", "history", "scoring"]).contains("ana + ben"));
    // Off needs nobody else; another environment neither.
    let (good, ..) = say(&ana, &["off", "scoring", "-e", "production"]);
    assert!(good && value(port, "scoring") == false);
    assert!(say(&ben, &["on", "scoring", "-e", "staging"]).0);
    // A token of one environment changes nothing of others, nor what concerns them all.
    let cat = token("write:staging", "cat");
    assert!(say(&cat, &["off", "scoring", "-e", "staging"]).0 && say(&cat, &["on", "scoring", "-e", "staging"]).0);
    for args in [&["off", "scoring", "-e", "production"][..], &["archive", "scoring", "--force"], &["create", "x", "--owner", "cat"]] {
        let (good, _, told) = say(&cat, args);
        assert!(!good && told.contains("this token"), "{args:?}: {told}");
    }
    let history: Value = serde_json::from_str(&house.good(&["flags", "history", "scoring", "--json"])).expect("JSON");
    let of_production = history["changes"].as_array().into_iter().flatten().find(|it| it["environment"] == "production").expect("one");
    let (good, _, told) = say(&cat, &["revert", &of_production["number"].to_string(), "--force"]);
    assert!(!good && told.contains("this token"), "{told}");
    let (good, _, told) = say("nonsense", &["list"]);
    assert!(!good && told.contains("this token is not valid"), "{told}");
    // Which environment is meant: the token's, before the default.
    let staging = token("evaluate:staging", "app");
    assert_eq!(ask_with(port, "scoring", &staging)["value"], true);
    assert_eq!(http_status(port, "/ofrep/v1/evaluate/flags/scoring", "wrong"), 401);
}

fn ask_with(port: u16, key: &str, token: &str) -> Value {
    let answer = request(port, &format!("/ofrep/v1/evaluate/flags/{key}"), token);
    serde_json::from_str(answer.split_once("\r\n\r\n").expect("a body").1).expect("JSON")
}

fn http_status(port: u16, path: &str, token: &str) -> u16 {
    request(port, path, token).split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status")
}

fn request(port: u16, path: &str, token: &str) -> String {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    let head = format!("POST {path} HTTP/1.1\r\nhost: local\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\n");
    write!(stream, "{head}connection: close\r\ncontent-length: 2\r\n\r\n{{}}").expect("written");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer");
    text
}

#[test]
fn a_server_alone_needs_no_service_and_no_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let set = r#"{"flags": {"welcome": {"state": "ENABLED", "variants": {"a": "hello"}, "defaultVariant": "a"}}}"#;
    std::fs::write(folder.path().join("flags.json"), set).expect("written");
    let binary = env!("CARGO_BIN_EXE_changeover");
    let command = |args: &[&str]| {
        let mut command = std::process::Command::new(binary);
        command.current_dir(folder.path()).args(args).stdin(std::process::Stdio::null());
        command
    };
    let log = std::fs::File::create(folder.path().join("log")).expect("a log");
    let mut up = command(&["flags", "serve", "flags.json", "--listen", "127.0.0.1:27958"]).stderr(log).spawn().expect("it starts");
    wait::until(DEADLINE, "it answers", || ask(27_958, "welcome", "ann").is_some_and(|it| it["value"] == "hello"));
    let again = command(&["flags", "serve", "--listen", "127.0.0.1:27958"]).output().expect("it runs");
    assert_eq!(again.status.code(), Some(3), "{again:?}");
    assert!(command(&["flags", "create", "x", "--owner", "ana"]).status().expect("it runs").success());
    assert_eq!(ask(27_958, "x", "ann").expect("an answer")["value"], false);
    assert!(command(&["down"]).status().expect("it runs").success());
    let ended = wait::until(Duration::from_secs(10), "it ends", || up.try_wait().ok().flatten());
    assert!(ended.success());
    if up.try_wait().ok().flatten().is_none() {
        kill_9(up.id() as i32);
    }
}

#[test]
fn code_is_scanned_and_checked_and_what_it_names_is_not_archived() {
    let house = House::start("27974-27974", &flags(27_975, "  ready_after: 1ms\n"));
    let code = house.folder.path().join("code");
    std::fs::create_dir(&code).expect("a folder");
    std::fs::write(code.join("scoring.py"), "if flags.get_boolean_value(\"new-scoring\", False, user):\n    score()\n").expect("written");
    house.good(&["flags", "create", "new-scoring", "--owner", "ana"]);
    let told = house.good(&["flags", "scan", "code"]);
    assert!(told.contains("new-scoring\n  scoring.py:1  call  "), "{told}");
    assert!(house.good(&["flags", "check", "code"]).contains("1 files, 1 references to 1 flags: good"));
    std::fs::write(code.join("other.ts"), "if (client.getBooleanValue('new-scorign', false)) {}\n").expect("written");
    let told = house.bad(&["flags", "check", "code"], 1);
    assert!(told.contains("new-scorign") && told.contains("did you mean `new-scoring`?") && told.contains("--> other.ts:1:"), "{told}");
    let sarif = house.run(&["flags", "check", "code", "--format", "sarif"]);
    let sarif: Value = serde_json::from_slice(&sarif.stdout).expect("SARIF is JSON");
    assert_eq!((&sarif["version"], &sarif["runs"][0]["results"][0]["ruleId"]), (&json!("2.1.0"), &json!("flags/unknown-key")));
    std::fs::remove_file(code.join("other.ts")).expect("removed");
    house.good(&["flags", "scan", "code", "--record"]);
    let refused = house.bad(&["flags", "archive", "new-scoring"], 3);
    assert!(refused.contains("`new-scoring` stands at one place in the code of code"), "{refused}");
    house.good(&["flags", "on", "new-scoring"]);
    wait::until(DEADLINE, "it is ready to remove", || house.good(&["flags", "debt"]).contains("ready to remove"));
    let debt = house.good(&["flags", "debt"]);
    assert!(debt.contains("on everywhere") && debt.contains("0 expired, 1 ready to remove"), "{debt}");
    assert!(house.good(&["status"]).contains("flags: 1 ready to remove of 1   see: changeover flags debt"));
    let removal = house.good(&["flags", "scan", "code", "--key", "new-scoring"]);
    assert!(removal.contains("true") && removal.contains("scoring.py:1"), "{removal}");
    let over = house.bad(&["flags", "check", "code", "--max-ready", "0"], 1);
    assert!(over.contains("1 flags are ready to remove, 0 may be: new-scoring"), "{over}");
    // The code is gone: then so is the flag, and who still asks is counted.
    std::fs::remove_file(code.join("scoring.py")).expect("removed");
    house.good(&["flags", "scan", "code", "--record"]);
    house.good(&["flags", "archive", "new-scoring"]);
    assert!(ask(27_975, "new-scoring", "ann").expect("an answer")["errorCode"] == "FLAG_NOT_FOUND");
    let zombie: Value = serde_json::from_str(&house.good(&["flags", "show", "new-scoring", "--json"])).expect("JSON");
    assert_eq!(zombie["environments"]["production"]["evaluations"][""], 1, "{zombie}");
    std::fs::write(code.join("late.go"), "client.BooleanValue(ctx, \"new-scoring\", false, user)\n").expect("written");
    let late = house.bad(&["flags", "check", "code"], 1);
    assert!(late.contains("archived") && late.contains("late.go:1"), "{late}");
}
