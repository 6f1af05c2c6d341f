//! The page of flags, on the real binary: what is shown, to whom, what its forms do, what an open page hears; and Chromium.

mod house;

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use house::DEADLINE;
use house::open::{Answer, Open};
use serde_json::json;
use testbed::wait;

const STRATEGY: &str = "    strategy: { blue_green: { watch: 0s, drain: 1s } }\n";
const HOSTILE: &str = "<script>alert('1')</script> & \"more\"";

/// A flag of a file, with a key that nobody should have.
fn of_file(variant: &str) -> String {
    json!({ "flags": {
        HOSTILE: { "state": "ENABLED", "variants": { "on": true, "off": false }, "defaultVariant": variant,
            "metadata": { "owner": "<b>eve</b>", "description": "<img src=x onerror=alert(1)>" } },
    } })
    .to_string()
}

/// `production` has a file and `staging` asks for a second person.
fn start(port: u16, ports: &str, flags: u16, file: &Path) -> Open {
    std::fs::write(file, of_file("on")).expect("written");
    let environments = format!("production: {{ files: ['{}'] }}, staging: {{ second_person: true }}", file.display());
    let all = format!("{STRATEGY}flags: {{ listen: '127.0.0.1:{flags}', environments: {{ {environments} }} }}\n");
    let open = Open::start(port, ports, &all, "");
    let create = ["flags", "create", "new-checkout", "--owner", "ana", "--description", "The new way to pay", "-m", "a beginning"];
    open.house.good(&create);
    open.house.good(&["flags", "on", "new-checkout", "--environment", "production", "-m", "go"]);
    open
}

fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut all, byte| {
        let _ = if byte.is_ascii_alphanumeric() { write!(all, "{}", char::from(byte)) } else { write!(all, "%{byte:02X}") };
        all
    })
}

fn address(key: &str) -> String {
    format!("/flags/flag?key={}", encoded(key))
}

/// What the form of a question would send.
#[track_caller]
fn filled(page: &Answer, id: &str, why: &str) -> String {
    let dialog = page.body.split(&format!("id=\"confirm-{id}\"")).nth(1).and_then(|it| it.split("</dialog>").next());
    let dialog = dialog.unwrap_or_else(|| panic!("no {id} in\n{}", page.body));
    let field = |text: &str| {
        let (name, rest) = text.split_once("\" value=\"")?;
        let value = rest.split('"').next()?;
        let plain = [("&#60;", "<"), ("&#62;", ">"), ("&#34;", "\""), ("&#39;", "'"), ("&#38;", "&")]
            .iter()
            .fold(value.to_owned(), |value, (from, to)| value.replace(from, to));
        Some(format!("{name}={}&", encoded(&plain)))
    };
    let fields: String = dialog.split("name=\"").skip(1).filter_map(field).collect();
    format!("{fields}why={}", encoded(why))
}

fn is_on(open: &Open, environment: &str) -> bool {
    let shown = open.house.good(&["flags", "show", "new-checkout", "--json"]);
    let shown: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
    shown["environments"][environment]["on"] == true
}

#[test]
fn a_browser_without_script_sees_and_switches_flags() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("flags.json");
    let open = start(27960, "27961-27964", 27965, &file);
    let cookie = open.sign_in(&open.act);
    let page = |path: &str| open.get(path, &[&cookie]);
    page("/").is(200, "<a href=\"/flags\">Flags</a>");
    let list = page("/flags");
    list.is(200, "The new way to pay");
    list.is(200, "asks a second person");
    list.is(200, &format!("/flags/flag?key={}", "%3Cscript%3E"));
    // What people wrote stays text.
    for path in ["/flags".to_owned(), "/flags/debt".to_owned(), address(HOSTILE)] {
        let shown = page(&path);
        shown.is(200, "&#60;script&#62;alert(");
        assert!(!shown.body.contains("<script>") && !shown.body.contains("<img") && !shown.body.contains("<b>eve"), "{}", shown.body);
    }
    page(&address(HOSTILE)).is(200, "&#60;img src=x");
    page(&address("nothing")).is(404, "There is no flag");
    page("/flags/flag").is(400, "");

    // Off by the form, with a reason; back from the history.
    let before = page(&address("new-checkout"));
    let off = filled(&before, "off-0", "too slow & odd");
    assert_eq!(open.form("/flags/act", &[&cookie], &off).status, 303);
    assert!(!is_on(&open, "production"));
    let after = page(&address("new-checkout"));
    after.is(200, "new-checkout is off in production");
    after.is(200, "too slow &#38; odd");
    assert!(!page(&address("new-checkout")).body.contains("id=\"said\" class=\"part\"><p"), "said once");
    // What its reader saw is no longer so; but switching off again is refused for nothing.
    let newest = after.body.split("confirm-revert-").nth(1).and_then(|it| it.split('"').next()).expect("a button").to_owned();
    let stale = filled(&before, &format!("revert-{}", newest.parse::<u64>().expect("a number") - 1), "");
    assert_eq!(open.form("/flags/act", &[&cookie], &stale).status, 303);
    page(&address("new-checkout")).is(200, "the flag was changed while you were deciding");
    assert_eq!(open.form("/flags/act", &[&cookie], &off).status, 303);
    let now = page(&address("new-checkout"));
    let newest = now.body.split("confirm-revert-").nth(1).and_then(|it| it.split('"').next()).expect("a button").to_owned();
    assert_eq!(open.form("/flags/act", &[&cookie], &filled(&now, &format!("revert-{newest}"), "as before")).status, 303);
    let twice = page(&address("new-checkout"));
    twice.is(200, "is again as it was before change");
    let on = filled(&twice, "on-0", "");
    assert_eq!(open.form("/flags/act", &[&cookie], &on).status, 303);
    assert!(is_on(&open, "production"));
    // The hostile one too.
    let hostile = filled(&page(&address(HOSTILE)), "off-0", "<i>why</i>");
    let done = open.form("/flags/act", &[&cookie], &hostile);
    assert_eq!(done.status, 303, "{}", done.body);
    page(&address(HOSTILE)).is(200, "&#60;i&#62;why");

    // Another site, another session, no session.
    let form = filled(&page(&address("new-checkout")), "off-0", "");
    let kind = "content-type: application/x-www-form-urlencoded";
    open.ask("POST", "/flags/act", &[kind, &cookie, "origin: http://evil.test"], &form).is(403, "sent by another site");
    let other = open.sign_in(&open.act);
    open.form("/flags/act", &[&other], &form).is(403, "not from your session");
    assert_eq!(open.form("/flags/act", &[], &form).status, 401);
    open.form("/flags/act", &[&cookie], "form_token=x&action=dance").is(404, "There is no action");
    // Who may only look has no form, and is refused with one.
    let reader = open.sign_in(&open.read);
    let shown = open.get(&address("new-checkout"), &[&reader]);
    shown.is(200, "You may look, not act: this token has the scope read.");
    assert!(!shown.body.contains("<dialog") && !shown.body.contains("action=\"/flags/act\""), "{}", shown.body);
    open.form("/flags/act", &[&reader], &form).is(403, "it may look, not act");
    assert!(is_on(&open, "production"));

    // A refused file is told first, with its place; what was good is served.
    std::fs::write(&file, of_file("maybe")).expect("written");
    wait::until(DEADLINE, "it is told", || page("/flags").body.contains("the newest file is refused; what was good before is served"));
    let told = page("/flags").body;
    assert!(told.contains(&format!("{}:1:", file.display())) && told.contains("hint: "), "{told}");
    std::fs::write(&file, of_file("off")).expect("written");
    wait::until(DEADLINE, "it is mended", || !page("/flags").body.contains("the newest file is refused"));
}

#[test]
fn a_second_person_agrees_on_the_page() {
    let folder = tempfile::tempdir().expect("a folder");
    let open = start(27966, "27967-27969", 27970, &folder.path().join("flags.json"));
    let bob = open.house.good(&["token", "--scope", "act", "--name", "bob"]).trim().to_owned();
    let ana = open.sign_in(&open.act);
    let bob = wait::until(DEADLINE, "the new token counts", || {
        (open.form("/login", &[], &format!("token={bob}")).status == 303).then(|| open.sign_in(&bob))
    });
    let page = |cookie: &str| open.get(&address("new-checkout"), &[cookie]);
    let on = filled(&page(&ana), "on-1", "for the demo");
    assert_eq!(open.form("/flags/act", &[&ana], &on).status, 303);
    let own = page(&ana);
    own.is(200, "proposed, nothing was changed yet");
    own.is(200, "You proposed it: somebody else must agree.");
    assert!(!own.body.contains("confirm-approve") && own.body.contains("confirm-reject") && !is_on(&open, "staging"), "{}", own.body);
    let proposal = own.body.split("confirm-reject-").nth(1).and_then(|it| it.split('"').next()).expect("a button").to_owned();
    // A made-up form is no way around it.
    let made_up = filled(&own, &format!("reject-{proposal}"), "").replace("action=reject", "action=approve");
    assert_eq!(open.form("/flags/act", &[&ana], &made_up).status, 303);
    page(&ana).is(200, "ana proposed it");
    open.get("/flags", &[&bob]).is(200, "for the demo");
    let agree = filled(&page(&bob), &format!("approve-{proposal}"), "");
    assert_eq!(open.form("/flags/act", &[&bob], &agree).status, 303);
    page(&bob).is(200, "ana, agreed by bob");
    assert!(is_on(&open, "staging"));
}

#[test]
fn an_open_page_of_flags_hears_what_changes() {
    let folder = tempfile::tempdir().expect("a folder");
    let open = start(27971, "27972-27974", 27975, &folder.path().join("flags.json"));
    let cookie = open.sign_in(&open.read);
    let mut stream = open.connect();
    write!(stream, "GET /flags/flag/live?key=new-checkout HTTP/1.1\r\nhost: 127.0.0.1:27971\r\nconnection: close\r\n{cookie}\r\n\r\n")
        .expect("sent");
    let mut lines = BufReader::new(stream).lines();
    let mut next = || -> serde_json::Value {
        let line = lines.find_map(|line| line.expect("it goes on").strip_prefix("data: ").map(str::to_owned)).expect("it goes on");
        serde_json::from_str(&line).expect("JSON")
    };
    let first = next();
    for id in ["head", "environments", "history"] {
        assert!(first["parts"][id].is_string(), "{id} is not in the first message");
    }
    open.house.good(&["flags", "off", "new-checkout", "--environment", "production", "-m", "enough"]);
    while !next()["parts"]["history"].as_str().is_some_and(|it| it.contains("enough")) {}
}

/// Users meet a variant and do something, or not, as a service reports it.
fn report(
    port: u16,
    flag: &str,
    variant: &str,
    users: std::ops::Range<u32>,
    metric: &str,
    key: &str,
    is: impl Fn(u32) -> serde_json::Value,
) {
    let user = |number: u32| format!("{variant}-{number}");
    let exposures: Vec<_> = users.clone().map(|it| json!({ "flag": flag, "variant": variant, "targetingKey": user(it) })).collect();
    let outcomes: Vec<_> = users.map(|it| json!({ "targetingKey": user(it), "metric": metric, key: is(it) })).collect();
    for body in [json!({ "exposures": exposures }), json!({ "outcomes": outcomes })].map(|it| it.to_string()) {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
        let length = body.len();
        write!(stream, "POST /changeover/v1/report HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}")
            .expect("sent");
        let answer = std::io::read_to_string(stream).expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

/// Made by `cargo xtask test`.
fn python() -> PathBuf {
    let target = PathBuf::from(env!("CARGO_BIN_EXE_changeover")).ancestors().nth(2).expect("the target folder").to_path_buf();
    let python = target.join("python").join("bin").join("python");
    assert!(python.exists(), "{} is missing: run `cargo xtask test` once", python.display());
    python
}

#[test]
fn the_page_of_flags_works_in_chromium() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("flags.json");
    let open = start(27980, "27981-27984", 27985, &file);
    let good = |args: &[&str]| open.house.good(&[&["flags"], args].concat());
    good(&["create", "kill-search", "--kill-switch", "--description", "Search is switched off when it drags everything down"]);
    good(&["create", "old-banner", "--owner", "bob", "--expires", "1s"]);
    good(&[
        "create",
        "button-colour",
        "--owner",
        "ana",
        "--variant",
        "blue=\"#00f\"",
        "--variant",
        "grey=\"#888\"",
        "--on",
        "blue",
        "--off",
        "grey",
    ]);
    good(&[
        "experiment",
        "button-colour",
        "--shares",
        "blue=50,grey=50",
        "--goal",
        "signup",
        "--window",
        "1s",
        "--environment",
        "production",
    ]);
    report(27985, "button-colour", "blue", 0..900, "signup", "value", |it| json!(u32::from(it % 5 == 0)));
    report(27985, "button-colour", "grey", 0..900, "signup", "value", |it| json!(u32::from(it % 8 == 0)));
    good(&["create", "new-search", "--owner", "ana"]);
    good(&["rollout", "new-search", "--steps", "10,50,100", "--every", "10m", "--outcome", "failed-search", "--environment", "production"]);
    report(27985, "new-search", "on", 0..900, "failed-search", "failed", |it| json!(it % 40 == 0));
    report(27985, "new-search", "off", 0..900, "failed-search", "failed", |it| json!(it % 50 == 0));
    let scanned = json!({ "repository": "shop", "commit": "0123456789abcdef", "at_ms": 1, "places": {
        "old-banner": [{ "file": "src/banner/with/a/long/path/to/the/template.rs", "line": 7, "kind": "call" }] } });
    assert!(open.house.post("/v1/flags/references", &scanned.to_string()).starts_with("HTTP/1.1 200"));
    good(&["on", "new-checkout", "--environment", "staging", "-m", "for the demo"]);
    std::fs::write(&file, of_file("maybe")).expect("written");
    let pictures = python().ancestors().nth(3).expect("the target folder").join("screenshots");
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/browser/flags.py");
    let mut command = Command::new(python());
    command.arg("-B").arg(script).arg("http://127.0.0.1:27980").args([&open.act, "27986", "27987"]).arg(pictures);
    let output = command.output().expect("it runs");
    assert!(output.status.success(), "{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(is_on(&open, "production"), "it was reverted");
}
