//! The typical mistakes of a new user: each gets an error that says what, where and how to mend it, and changes nothing.

mod house;

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output, Stdio};

use house::{DEADLINE, House, QUICK};
use testbed::wait;

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn check(house: &House, args: &[&str], code: i32, wanted: &[&str]) {
    let error = house.bad(args, code);
    for part in wanted {
        assert!(error.contains(part), "{args:?} did not say `{part}`: {error}");
    }
}

/// The file with `from` replaced, applied by the running changeover.
fn apply_with(house: &House, from: &str, to: &str) {
    let file = house.folder.path().join("changeover.yaml");
    let text = std::fs::read_to_string(&file).expect("the file");
    assert!(text.contains(from), "{text}");
    std::fs::write(&file, text.replace(from, to)).expect("written");
    house.good(&["apply"]);
}

#[test]
fn wrong_words_say_what_there_is() {
    let house = House::start("22400-22499", QUICK);
    house.good(&["deploy", "web", "--version", "v1"]);
    check(&house, &["deploy", "wbe", "--version", "v2"], 64, &["there is no service `wbe`", "there is: web"]);
    check(&house, &["deploy", "web", "--version", "v1"], 3, &["serves already"]);
    check(&house, &["deploy", "web", "--version", "../x"], 64, &["cannot be the name of a version"]);
    check(&house, &["depoy", "web"], 64, &["'deploy'"]);
    check(&house, &["rollback", "web"], 3, &["no other confirmed version"]);
    check(&house, &["rollback", "web", "--to", "v9"], 64, &["was never confirmed", "deploy it"]);
    check(&house, &["promote", "web"], 3, &["no release of web is running", "changeover deploy web"]);
    check(&house, &["logs", "web", "--version", "v9"], 64, &["has no log", "one of: v1"]);
    check(&house, &["hold", "web", "--wait", "soon"], 64, &["such as 30s"]);
    check(&house, &["up"], 3, &["runs already", "changeover apply"]);
    check(&house, &["--state-dir", "nowhere", "status"], 1, &["nothing answers", "changeover up"]);
    check(&house, &["--file", "nowhere.yaml", "check"], 64, &["cannot read", "changeover init"]);
}

#[test]
fn a_wrong_key_is_shown_in_its_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let said = |yaml: &str, command: &str| {
        std::fs::write(folder.path().join("changeover.yaml"), yaml).expect("written");
        let output = Command::new(env!("CARGO_BIN_EXE_changeover")).current_dir(folder.path()).arg(command).output().expect("it runs");
        assert_eq!(output.status.code(), Some(64), "{}", text(&output));
        text(&output)
    };
    let wrong = "listeners: { main: '127.0.0.1:8080' }\nservices:\n  web:\n    run: { command: 'x {port}' }\n    helth: { path: / }\n";
    for command in ["check", "up", "apply"] {
        let error = said(wrong, command);
        assert!(error.contains("changeover.yaml:5:5") && error.contains("did you mean `health`"), "{error}");
    }
    let error = said("listeners: { main: '127.0.0.1:8080' }\nservices:\n  web:\n    run: { command: x {port} }\n", "check");
    assert!(error.contains("changeover.yaml:4:") && error.contains("quotes"), "{error}");
}

#[test]
fn a_port_that_is_taken_is_named_and_an_apply_changes_nothing() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("bound");
    let folder = tempfile::tempdir().expect("a folder");
    let yaml =
        format!("listeners: {{ main: '{address}' }}\nservices:\n  web:\n    run: {{ command: 'x {{port}}' }}\n    health: {{ path: / }}\n");
    std::fs::write(folder.path().join("changeover.yaml"), yaml).expect("written");
    let output = Command::new(env!("CARGO_BIN_EXE_changeover")).current_dir(folder.path()).arg("up").output().expect("it ends");
    let error = text(&output);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains(&format!("cannot listen on {address}: another process listens there")), "{error}");
    assert!(error.contains(&format!("ss -ltnp sport = :{}", address.port())), "{error}");

    let house = House::start("26200-26299", QUICK);
    house.good(&["deploy", "web", "--version", "v1"]);
    let file = house.folder.path().join("changeover.yaml");
    let good = std::fs::read_to_string(&file).expect("the file");
    let more = good.replace("listeners: { main:", &format!("listeners: {{ side: '{address}', main:"));
    std::fs::write(&file, more.replace("  web:\n", "  web:\n    routes: [{ listener: main }, { listener: side }]\n")).expect("written");
    check(&house, &["apply"], 3, &["listener `side` cannot listen", "another process listens there", "nothing was changed"]);
    assert_eq!(house.answers(), "v1");
    let plan = house.good(&["plan"]);
    assert!(plan.contains("+ listener side"), "not applied: {plan}");
    drop(taken);
    house.good(&["apply"]);
    wait::until(DEADLINE, "it is open now", || std::net::TcpStream::connect(address).ok());
}

#[test]
fn a_version_that_does_not_start_says_why() {
    let house = House::start("26300-26399", QUICK);
    house.good(&["deploy", "web", "--version", "v1"]);
    apply_with(&house, "/healthz", "/wrong");
    apply_with(&house, "start_timeout: 5s", "start_timeout: 1s");
    let wanted = [
        "did not become healthy within 1 s",
        "/wrong → 404",
        "is `services.web.health.path` the right one?",
        "v1 serves on, nothing changed",
    ];
    check(&house, &["deploy", "web", "--version", "v2"], 1, &wanted);
    apply_with(&house, "/wrong", "/healthz");
    apply_with(&house, "demo-service", "no-such-verb");
    // The lines of this start only, not those of an earlier one.
    let error = house.bad(&["deploy", "web", "--version", "v2"], 1);
    assert!(error.contains("exit code 64, 3 times while it started") && error.contains("unrecognized subcommand"), "{error}");
    assert_eq!(error.matches("unrecognized subcommand").count(), 1, "{error}");
    apply_with(&house, env!("CARGO_BIN_EXE_changeover"), "./no-such-file");
    let wanted = ["exit code 127", "cannot run `./no-such-file`", "services.web.run.command", "v1 serves on, nothing changed"];
    check(&house, &["deploy", "web", "--version", "v3"], 1, &wanted);
    assert_eq!(house.answers(), "v1");
}

/// Nobody's user id, and a copy of the binary where nobody may run it.
#[test]
fn who_has_no_rights_is_told_so() {
    if !nix::unistd::getuid().is_root() {
        return eprintln!("left out, not root: becoming another user");
    }
    const NOBODY: u32 = 65_534;
    let house = House::start("26400-26499", QUICK);
    let folder = house.folder.path();
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).expect("permitted");
    let binary = folder.join("changeover-copy");
    std::fs::copy(env!("CARGO_BIN_EXE_changeover"), &binary).expect("copied");
    let said = |args: &[&str], code: i32| {
        let output =
            Command::new(&binary).current_dir(folder).args(args).uid(NOBODY).gid(NOBODY).stdin(Stdio::null()).output().expect("it runs");
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", text(&output));
        text(&output)
    };
    let error = said(&["status"], 1);
    assert!(error.contains("not allowed to use") && error.contains("only the user who runs"), "{error}");
    let error = said(&["up", "--state-dir", "state"], 1);
    assert!(error.contains("cannot use the state directory") && error.contains("--state-dir"), "{error}");
    let error = said(&["--file", "another.yaml", "init"], 1);
    assert!(error.contains("cannot write") && error.contains("another.yaml"), "{error}");
    let first = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").expect("a number");
    if first.trim().parse::<u16>().expect("a number") > 99 {
        std::fs::write(folder.join("low.yaml"), "listeners: { main: '127.0.0.1:99' }\n").expect("written");
        let state = tempfile::tempdir().expect("a folder");
        std::os::unix::fs::chown(state.path(), Some(NOBODY), Some(NOBODY)).expect("given");
        let error = said(&["--file", "low.yaml", "up", "--state-dir", state.path().to_str().expect("text")], 1);
        assert!(error.contains("a port below 1024 needs root or the capability"), "{error}");
    }
}
