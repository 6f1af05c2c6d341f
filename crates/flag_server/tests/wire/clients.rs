//! Unmodified clients, given host and port only: they read every type, and see a change.
//!
//! Each expectation is what the client's documentation says, or what it does where that differs; see the comments.

use std::io::{BufRead, BufReader, Lines};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};

use crate::house::{self, House};
use serde_json::{Value, json};

/// All numbers as doubles: JavaScript has no others, and a Struct neither.
fn doubles(value: Value) -> Value {
    match value {
        Value::Number(number) => number.as_f64().into(),
        Value::Array(values) => values.into_iter().map(doubles).collect(),
        Value::Object(fields) => fields.into_iter().map(|(name, value)| (name, doubles(value))).collect(),
        other => other,
    }
}

fn lines(of: &Value) -> String {
    of.as_object().expect("an object").iter().map(|(name, value)| format!("{name}: {value}\n")).collect()
}

fn script(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/wire/scripts").join(name)
}

struct Client {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Client {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the client starts");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        Self { child, lines }
    }

    fn line(&mut self) -> String {
        self.lines.next().expect("the client says something").expect("text")
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn python(kind: &str, house: &House) -> Command {
    let mut command = Command::new(testbed::tools::python());
    command.arg(script("client.py")).args([kind, "127.0.0.1", &house.address.port().to_string()]);
    command
}

fn node(kind: &str, house: &House) -> Command {
    let mut command = Command::new("node");
    command.arg(script("client.mjs")).arg(testbed::tools::node_modules());
    command.args([kind, "127.0.0.1", &house.address.port().to_string()]);
    command
}

/// What all clients agree on, and what is different with this one.
fn check(command: impl Fn(&House) -> Command, different: Value) {
    let house = House::open();
    let mut client = Client::start(command(&house));
    let seen: Value = serde_json::from_str(&client.line()).expect("one line of JSON");
    let mut expect = json!({
        "bool": [true, "on", "STATIC", null],
        "string": ["good day", "hello", "STATIC", null],
        "int": [10, "ten", "STATIC", null],
        "float": [10.0, "ten", "STATIC", null],
        "object": [{ "width": 3, "tags": ["a", "b"] }, "big", "STATIC", null],
        "targeted": ["inside", "staff", "TARGETING_MATCH", null],
        "slashes": [true, "on", "STATIC", null],
        "disabled": [true, null, "DISABLED", null],
        "no default": ["code", null, "DEFAULT", null],
        "unknown": [true, null, "ERROR", "FLAG_NOT_FOUND"],
        "mismatch": [true, null, "ERROR", "TYPE_MISMATCH"],
        "share": ["everybody", "all", "TARGETING_MATCH", null],
        "share of nobody": ["nobody", "none", "DEFAULT", null],
    });
    for (name, value) in different.as_object().expect("an object") {
        expect[name] = value.clone();
    }
    let (seen, expect) = (doubles(seen), doubles(expect));
    assert!(seen == expect, "seen:\n{}\nexpected:\n{}", lines(&seen), lines(&expect));
    house.publish_new();
    assert_eq!(client.line(), "changed");
    assert!(client.child.wait().expect("it ends").success());
}

#[test]
fn python_rpc() {
    check(|house| python("rpc", house), json!({}));
}

#[test]
fn python_in_process() {
    check(|house| python("in-process", house), json!({}));
}

#[test]
fn python_ofrep() {
    // Without a variant this client fails, so an empty one is sent.
    check(|house| python("ofrep", house), json!({ "disabled": [true, "", "DISABLED", null], "no default": ["code", "", "DEFAULT", null] }));
}

#[test]
fn javascript_rpc() {
    check(|house| node("rpc", house), json!({}));
}

#[test]
fn javascript_in_process() {
    check(|house| node("in-process", house), json!({}));
}

#[test]
fn javascript_ofrep() {
    // This client does not know answers without a value yet (OFREP 0.3); the default in the code applies all the same.
    let error = |value: Value| json!([value, null, "ERROR", "GENERAL"]);
    check(|house| node("ofrep", house), json!({ "disabled": error(true.into()), "no default": error("code".into()) }));
}

/// flagd's own Rust provider; it tells only the code with an error.
fn check_rust(kind: &str, house: &House, different: &[(&str, &str)]) {
    let mut command = Command::new(testbed::tools::rust_client());
    command.args([kind, "127.0.0.1", &house.address.port().to_string()]);
    let mut client = Client::start(command);
    let expect = [
        ("bool", "true on STATIC"),
        ("string", "\"good day\" hello STATIC"),
        ("int", "10 ten STATIC"),
        ("float", "10.0 ten STATIC"),
        ("targeted", "\"inside\" staff TARGETING_MATCH"),
        ("slashes", "true on STATIC"),
        ("disabled", "error: FLAG_NOT_FOUND"),
        ("no default", "error: FLAG_NOT_FOUND"),
        ("unknown", "error: FLAG_NOT_FOUND"),
        ("mismatch", "error: TYPE_MISMATCH"),
        ("share", "\"everybody\" all TARGETING_MATCH"),
        ("share of nobody", "\"nobody\" none DEFAULT"),
        ("object", "Ok(3)"),
    ];
    let seen: Vec<String> = expect.iter().map(|_| client.line()).collect();
    let expect = expect.map(|(name, answer)| {
        let own = different.iter().find(|(other, _)| *other == name).map(|(_, answer)| *answer);
        format!("{name}: {}", own.unwrap_or(answer))
    });
    assert_eq!(seen, expect);
    house.publish_new();
    assert_eq!(client.line(), "changed");
    assert!(client.child.wait().expect("it ends").success());
}

#[test]
fn rust_rpc() {
    // Its own table of codes takes flagd's one for a wrong type as one for a bad context.
    check_rust("rpc", &House::open(), &[("mismatch", "error: INVALID_CONTEXT")]);
}

#[test]
fn rust_in_process() {
    // It refuses a whole set in which one flag has no default variant.
    let text = house::SET.replace(
        "\"variants\": { \"x\": \"never\" }, \"defaultVariant\": null",
        "\"variants\": { \"x\": \"never\" }, \"defaultVariant\": \"x\"",
    );
    check_rust("in-process", &House::of(&text), &[("no default", "\"never\" x STATIC")]);
}

/// What a page does: all flags at once, and again when told by server-sent events.
#[test]
fn web_page_ofrep() {
    let house = House::open();
    let mut command = Command::new("node");
    command.args(["--no-warnings", "--experimental-eventsource"]).arg(script("page.mjs")).arg(testbed::tools::node_modules());
    command.args(["127.0.0.1", &house.address.port().to_string()]);
    let mut client = Client::start(command);
    let seen: Value = serde_json::from_str(&client.line()).expect("one line of JSON");
    let expect = json!({
        "bool": [true, "on", "STATIC", null],
        "object": [{ "width": 3, "tags": ["a", "b"] }, "big", "STATIC", null],
        "targeted": ["inside", "staff", "TARGETING_MATCH", null],
        "slashes": [true, "on", "STATIC", null],
        "disabled": [true, "", "DISABLED", null],
        "unknown": [true, null, "ERROR", "FLAG_NOT_FOUND"],
        "mismatch": [true, null, "ERROR", "TYPE_MISMATCH"],
    });
    assert!(seen == expect, "seen:\n{}\nexpected:\n{}", lines(&seen), lines(&expect));
    house.publish_new();
    assert_eq!(client.line(), "changed");
    assert!(client.child.wait().expect("it ends").success());
    assert!(house.told.evaluated.lock().expect("not poisoned").is_empty(), "reading ahead is no exposure");
}
