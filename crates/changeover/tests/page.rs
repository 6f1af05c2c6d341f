//! API and page over TCP, on the real binary: who is let in, what is shown, what a form does, live updates; a fuzzer that reads the
//! API's own document, and Chromium.

mod house;

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use house::open::Open;
use house::{DEADLINE, House};
use testbed::wait;

impl Open {
    /// What the first form of an action would send.
    fn filled(&self, cookie: &str, action: &str) -> String {
        let page = self.get("/services/web", &[cookie]).body;
        let dialog = page.split(&format!("id=\"confirm-{action}\"")).nth(1).unwrap_or_else(|| panic!("no {action} in\n{page}"));
        let value =
            |name: &str| dialog.split(&format!("name=\"{name}\" value=\"")).nth(1).and_then(|it| it.split('"').next()).expect("a field");
        format!("form_token={}&expect={}&why=because", value("form_token"), value("expect").replace('/', "%2F"))
    }

    /// A release to `version` that waits for a person.
    fn await_promotion(&self, version: &str) -> std::process::Child {
        let deploy =
            self.house.command(&["deploy", "web", "--version", version]).stdout(std::process::Stdio::null()).spawn().expect("it runs");
        wait::until(DEADLINE, "it waits for a person", || self.house.release()["state"] == "awaiting_promotion");
        deploy
    }
}

const MANUAL: &str = "    strategy: { blue_green: { promotion: manual, watch: 1s, drain: 1s } }\n";
const AT_ONCE: &str = "    strategy: { blue_green: { watch: 0s, drain: 1s } }\n";

#[test]
fn nobody_gets_in_without_a_token() {
    let open = Open::start(27300, "27310-27319", AT_ONCE, ", hosts: [page.test]");
    // The API and pages, on loopback too.
    let api = open.get("/v1/status", &[]);
    api.is(401, "a token is needed");
    assert_eq!(api.field("www-authenticate"), Some("Bearer"));
    open.get("/v1/status", &["authorization: Bearer 0123456789abcdef0123456789abcdef"]).is(401, "this token is not valid");
    open.get("/v1/status", &[&open.bearer()]).is(200, "\"services\"");
    open.get("/v1/openapi.json", &[]).is(401, "");
    let page = open.get("/services/web?x=1", &[]);
    assert_eq!((page.status, page.field("location")), (303, Some("/login?next=/services/web%3Fx%3D1")));
    open.get("/services/web/live", &[]).is(401, "");
    open.get("/login", &[]).is(200, "name=\"token\"");
    // From a link elsewhere no strict cookie comes along: the page asks itself again.
    open.get("/", &["sec-fetch-site: cross-site"]).is(200, "http-equiv=\"refresh\"");

    // Reading is not acting.
    let read = format!("authorization: Bearer {}", open.read);
    let json = "content-type: application/json";
    open.get("/v1/status", &[&read]).is(200, "");
    open.ask("POST", "/v1/services/web/stop", &[&read, json], "{}").is(403, "the token `board` has the scope `read`: it may look, not act");
    // A token is not a shell.
    let bearer = open.bearer();
    open.ask("POST", "/v1/down", &[&bearer, json], "{}").is(403, "over the Unix socket only");
    open.ask("POST", "/v1/apply", &[&bearer, json], "{}").is(403, "over the Unix socket only");

    // Names that are made to point here (DNS rebinding).
    for host in ["evil.test", "evil.test:27300", "127.0.0.1", "localhost:1", "127.0.0.2:27300", ""] {
        open.get("/v1/status", &[&format!("host: {host}"), &bearer]).is(421, "wrong_host");
    }
    for host in ["localhost:27300", "page.test", "PAGE.test:443"] {
        open.get("/v1/status", &[&format!("host: {host}"), &bearer]).is(200, "");
    }

    // What the answers allow a browser.
    let policy = page.field("content-security-policy").expect("a policy");
    assert!(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self';") && !policy.contains("unsafe"), "{policy}");
    assert_eq!((page.field("cache-control"), page.field("x-content-type-options")), (Some("no-store"), Some("nosniff")));

    // Too much: of a head, of a body.
    let long = format!("x-long: {}", "x".repeat(20_000));
    assert_eq!(open.get("/login", &[&long]).status, 431);
    let body = format!("{{\"who\": \"{}\"}}", "x".repeat(3_000_000));
    open.ask("POST", "/v1/services/web/start", &[&bearer, json], &body).is(413, "too_large");
    open.form("/login", &[], &format!("token={}", "x".repeat(10_000))).is(400, "");

    // A token that is taken out of the file no longer counts, and one that others may read admits nobody.
    let cookie = open.sign_in(&open.read);
    open.get("/", &[&cookie]).is(200, "");
    let file = open.house.state_dir().join("tokens");
    let text = std::fs::read_to_string(&file).expect("the tokens");
    std::fs::write(&file, text.lines().next().expect("the first")).expect("written");
    assert_eq!(open.get("/", &[&cookie]).status, 303);
    open.get("/v1/status", &[&bearer]).is(200, "");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).expect("its mode");
    open.get("/v1/status", &[&bearer]).is(503, "the token file cannot be used");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("its mode");
    open.get("/v1/status", &[&bearer]).is(200, "");

    // Guessing is slow, and tokens are nowhere to be read.
    let tries: Vec<u16> = (0..8).map(|_| open.form("/login", &[], "token=0123456789abcdef0123456789abcdef").status).collect();
    assert!(tries[0] == 401 && tries[7] == 429, "{tries:?}");
    let log = std::fs::read_to_string(open.house.folder.path().join("up.log")).expect("the log");
    let stored = std::fs::read(open.house.state_dir().join("state.db")).expect("the state");
    for token in [&open.act, &open.read] {
        assert!(!log.contains(token) && !stored.windows(token.len()).any(|it| it == token.as_bytes()));
    }
}

#[test]
fn every_mistake_is_answered_as_one() {
    let open = Open::start(27301, "27320-27329", AT_ONCE, "");
    let (bearer, json) = (open.bearer(), "content-type: application/json");
    let check = |method: &str, path: &str, fields: &[&str], body: &str, status: u16, code: &str| {
        let answer = open.ask(method, path, &[&[bearer.as_str()], fields].concat(), body);
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.body);
        let problem: serde_json::Value = serde_json::from_str(&answer.body).unwrap_or_else(|_| panic!("{method} {path}: {}", answer.body));
        assert_eq!(problem["code"], code, "{problem}");
        assert!(problem["message"].is_string() && problem.as_object().is_some_and(|it| it.contains_key("hint")), "{problem}");
    };
    check("POST", "/v1/services/web/stop", &[json], "{", 400, "malformed");
    check("POST", "/v1/services/web/stop", &[json], "[1]", 422, "invalid");
    check("POST", "/v1/services/web/stop", &[json], "{\"when\": 1}", 422, "invalid");
    check("POST", "/v1/services/web/stop", &[], "{}", 415, "not_json");
    check("POST", "/v1/services/web/deploy", &[json], "{}", 422, "invalid");
    check("POST", "/v1/services/web/deploy", &[json], "{\"version\": \"a b\"}", 422, "invalid");
    check("POST", "/v1/services/no/stop", &[json], "{}", 404, "not_found");
    check("POST", "/v1/services/NO/stop", &[json], "{}", 422, "invalid");
    check("POST", "/v1/services/%ff/stop", &[json], "{}", 400, "malformed");
    check("GET", "/v1/services/web/releases/x/analysis", &[], "", 400, "malformed");
    check("GET", "/v1/services/web/releases/7/analysis", &[], "", 404, "not_found");
    check("GET", "/v1/events?since=x", &[], "", 400, "malformed");
    check("GET", "/v1/nothing", &[], "", 404, "not_found");
    check("DELETE", "/v1/status", &[], "", 405, "wrong_method");
    // A session may look at the API, not act through it: a form elsewhere cannot send JSON, but who knows.
    let cookie = open.sign_in(&open.act);
    open.get("/v1/status", &[&cookie]).is(200, "");
    open.ask("POST", "/v1/services/web/stop", &[&cookie, json], "{}").is(403, "may look at the API, not act through it");
    // The Unix socket stays as it is.
    assert!(open.house.post("/v1/services/web/start", "{}").starts_with("HTTP/1.1 200"));
    assert!(open.house.post("/", "{}").starts_with("HTTP/1.1 404"));
}

#[test]
fn the_cookie_is_no_token_and_stays_here() {
    let open = Open::start(27302, "27330-27339", MANUAL, "");
    let signed_in = open.form("/login", &[], &format!("token={}&next=//evil.test", open.act));
    assert_eq!(signed_in.field("location"), Some("/"));
    let flags = signed_in.field("set-cookie").expect("a cookie");
    assert!(
        flags.contains("; HttpOnly") && flags.contains("; SameSite=Strict") && flags.contains("; Path=/") && !flags.contains(&open.act),
        "{flags}"
    );
}

#[test]
fn a_browser_without_script_sees_and_does_everything() {
    let open = Open::start(27303, "27340-27349", MANUAL, "");
    let cookie = open.sign_in(&open.act);
    let follows = |what: &str| wait::until(DEADLINE, what, || open.get("/services/web", &[&cookie]).body.contains(what));
    open.get("/services/web", &[&cookie]).is(200, "Nothing is deployed yet.");
    open.house.good(&["deploy", "web", "--version", "v1"]);
    follows("Promoted: v1 is the first version.");
    let mut deploy = open.await_promotion("v2");
    follows("v2 is ready. Nobody gets it until you promote it.");
    open.get("/services/web", &[&cookie]).is(200, "Preview of the candidate: host v2.web.localhost");

    // Another site, another session, no form: nothing happens.
    let form = open.filled(&cookie, "promote");
    let kind = "content-type: application/x-www-form-urlencoded";
    let path = "/services/web/promote";
    for origin in [&["origin: http://evil.test"][..], &["origin: null"], &["sec-fetch-site: cross-site"], &["sec-fetch-site: same-site"]] {
        open.ask("POST", path, &[&[kind, cookie.as_str()], origin].concat(), &form).is(403, "sent by another site");
    }
    open.form(path, &[&cookie], "form_token=x&expect=2").is(403, "not from your session");
    let other = open.sign_in(&open.act);
    open.form(path, &[&other], &form).is(403, "not from your session");
    open.form(path, &[&cookie], "").is(400, "");
    assert_eq!(open.form(path, &[], &form).status, 401);
    // Who may only look has no form, and is refused with one.
    let reader = open.sign_in(&open.read);
    let shown = open.get("/services/web", &[&reader]);
    shown.is(200, "You may look, not act: this token has the scope read.");
    assert!(!shown.body.contains("<dialog"));
    open.form(path, &[&reader], &form).is(403, "it may look, not act");
    // What its reader saw is no longer so.
    let stale = form.replace("awaiting_promotion", "gating");
    assert_eq!(open.form(path, &[&cookie], &stale).status, 303);
    open.get("/services/web", &[&cookie]).is(200, "the release moved on while you were deciding");
    assert_eq!(open.house.release()["state"], "awaiting_promotion");

    assert_eq!(open.form(path, &[&cookie], &form).status, 303);
    open.get("/services/web", &[&cookie]).is(200, "Promoted in ");
    let again = open.get("/services/web", &[&cookie]).body;
    assert!(!again.contains("Promoted in "), "said once");
    wait::until(DEADLINE, "the release ends", || open.house.release()["ending"]["outcome"] == "promoted");
    assert!(deploy.wait().expect("it ends").success());
    follows("Promoted: v2 took over from v1.");

    let form = open.filled(&cookie, "rollback");
    assert_eq!(open.form("/services/web/rollback", &[&cookie], &form).status, 303);
    open.get("/services/web", &[&cookie]).is(200, "v1 serves everyone.");
    wait::until(DEADLINE, "it is over", || open.house.release()["ending"]["outcome"] == "promoted");
    let mut deploy = open.await_promotion("v3");
    follows("v3 is ready.");
    let form = open.filled(&cookie, "abort");
    assert_eq!(open.form("/services/web/abort", &[&cookie], &form).status, 303);
    assert_eq!(deploy.wait().expect("it ends").code(), Some(2));
    follows("Aborted: aborted by ana: because.");
    let form = open.filled(&cookie, "retry");
    assert_eq!(open.form("/services/web/retry", &[&cookie], &form).status, 303);
    wait::until(DEADLINE, "the retry waits", || open.house.release()["state"] == "awaiting_promotion");
    assert_eq!(open.house.release()["who"], "ana", "the token's name, whatever a form says");

    let page = open.get("/services/web/releases/2", &[&cookie]);
    page.is(200, "Promoted: v2 took over from v1.");
    page.is(200, "id=\"timeline\"");
    open.get("/services/web/releases/77", &[&cookie]).is(404, "There is no release 77 of web.");
    open.get("/history?outcome=aborted", &[&cookie]).is(200, "because");
    open.get("/services/web/history", &[&cookie]).is(200, "History of releases of web");
    open.get("/services/no", &[&cookie]).is(404, "There is no service no.");
    open.get("/nothing", &[&cookie]).is(404, "There is no page at /nothing.");
    let style =
        page.body.split("href=\"").find_map(|it| it.split('"').next().filter(|it| it.ends_with("style.css"))).expect("a style sheet");
    let kept = open.get(style, &[]);
    kept.is(200, "--candidate");
    let tag = format!("if-none-match: {}", kept.field("etag").expect("a tag"));
    assert_eq!(open.get(style, &[&tag]).status, 304);
    // Signing out ends the session, not only the cookie.
    let token = form.split('&').next().expect("the form's token");
    assert_eq!(open.form("/logout", &[&cookie], token).status, 303);
    assert_eq!(open.get("/", &[&cookie]).status, 303);
}

/// A step that a person ends.
const CANARY: &str = "    strategy: { canary: { steps: [10%, 50%], dwell: 1h, watch: 0s, drain: 5s, keep: 1h, \
    analysis: { warm_up: 1s, timeout_bad: 1s } } }\n";

#[test]
fn a_canary_is_paused_promoted_and_aborted_on_the_page() {
    let open = Open::start(27396, "27397-27399", CANARY, "");
    open.house.good(&["deploy", "web", "--version", "v1"]);
    let load = open.house.load();
    let mut deploy =
        open.house.command(&["deploy", "web", "--version", "v2"]).stdout(std::process::Stdio::null()).spawn().expect("it runs");
    let cookie = open.sign_in(&open.act);
    let follows = |what: &str| {
        let what = what.replace(" %", "\u{a0}%");
        wait::until(DEADLINE, &what, || open.get("/services/web", &[&cookie]).body.contains(&what));
    };
    let act = |action: &str, filled: &str, says: &str| {
        assert_eq!(open.form(&format!("/services/web/{action}"), &[&cookie], filled).status, 303);
        open.get("/services/web", &[&cookie]).is(200, says);
    };
    follows("canary, 10 %");
    follows("Is it worse?");
    follows("class=\"adv\"");
    let early = open.filled(&cookie, "promote");
    act("pause", &open.filled(&cookie, "pause"), "Paused by ana: “because”. A regression is still rolled back.");
    assert_eq!(open.house.release()["paused"]["who"], "ana");
    act("unpause", &open.filled(&cookie, "unpause"), "It goes on.");
    act("promote", &early, "Promoted in ");
    follows("canary, 50 %");
    wait::until(DEADLINE, "half of the traffic", || open.house.release()["weight"] == 5_000);
    act("promote", &early, "the release moved on while you were deciding");
    act("abort", &open.filled(&cookie, "abort"), "v1 serves everyone.");
    assert_eq!(deploy.wait().expect("it ends").code(), Some(2));
    follows("The evidence when it ended");
    open.get("/services/web/releases/2", &[&cookie]).is(200, "The evidence when it ended");
    open.get("/v1/services/web/releases/2/analysis", &[&open.bearer()]).is(200, "\"last\":{");
    assert_eq!(load.stop().lost, 0);
}

#[test]
fn an_open_page_hears_what_changes() {
    let open = Open::start(27304, "27350-27359", AT_ONCE, "");
    open.house.good(&["deploy", "web", "--version", "v1"]);
    let cookie = open.sign_in(&open.act);
    let mut stream = open.connect();
    write!(stream, "GET /services/web/live HTTP/1.1\r\nhost: 127.0.0.1:27304\r\nconnection: close\r\n{cookie}\r\n\r\n").expect("sent");
    let mut lines = BufReader::new(stream).lines();
    let mut next = || -> serde_json::Value {
        let line = lines.find_map(|line| line.expect("it goes on").strip_prefix("data: ").map(str::to_owned)).expect("it goes on");
        serde_json::from_str(&line).expect("JSON")
    };
    let first = next();
    assert_eq!(first["seq"], 1);
    for id in ["verdict", "versions", "timeline", "confirms"] {
        assert!(first["parts"][id].is_string(), "{id} is not in the first message");
    }
    open.house.good(&["deploy", "web", "--version", "v2"]);
    let mut seq = 1;
    loop {
        let message = next();
        seq += 1;
        assert_eq!(message["seq"], seq);
        if message["parts"]["verdict"].as_str().is_some_and(|it| it.contains("Promoted: v2 took over from v1.")) {
            break;
        }
    }
    // Whose token is taken back hears no more.
    std::fs::write(open.house.state_dir().join("tokens"), "").expect("written");
    assert!(lines.map_while(Result::ok).filter(|line| line.starts_with("data: ")).count() < 5);
}

#[test]
fn an_apply_opens_and_closes_the_door() {
    let open = Open::start(27305, "27360-27369", AT_ONCE, "");
    let file = open.house.folder.path().join("changeover.yaml");
    let text = std::fs::read_to_string(&file).expect("the file");
    std::fs::write(&file, text.replace("27305", "27306")).expect("written");
    let said = open.house.good(&["apply"]);
    assert!(said.contains("~ api on 127.0.0.1:27306 (at once)"), "{said}");
    wait::until(DEADLINE, "it has moved", || {
        TcpStream::connect(("127.0.0.1", 27306)).is_ok() && TcpStream::connect(("127.0.0.1", 27305)).is_err()
    });
    let before = open.house.worker_pid();
    open.house.kill_worker();
    wait::until(DEADLINE, "there is another worker", || open.house.run(&["status"]).status.success() && open.house.worker_pid() != before);
    wait::until(DEADLINE, "the next worker opens what was applied", || TcpStream::connect(("127.0.0.1", 27306)).is_ok());
    std::fs::write(&file, text.lines().filter(|line| !line.starts_with("api:")).map(|line| format!("{line}\n")).collect::<String>())
        .expect("written");
    assert!(open.house.good(&["apply"]).contains("- api"));
    wait::until(DEADLINE, "it is closed", || TcpStream::connect(("127.0.0.1", 27306)).is_err());
}

#[test]
fn mistakes_with_tokens_are_told_before_anything_starts() {
    let house = House::start("27390-27394", AT_ONCE);
    let error = house.bad(&["token"], 64);
    assert!(error.contains("there is no `api` in the file") && error.contains("hint: add `api: 127.0.0.1:9180`"), "{error}");
    let file = house.folder.path().join("changeover.yaml");
    let text = std::fs::read_to_string(&file).expect("the file");
    std::fs::write(&file, format!("{text}api: {{ listen: 127.0.0.1:27395, tokens: secrets }}\n")).expect("written");
    let tokens = house.folder.path().join("secrets");
    let check = |text: &str, mode: u32, expect: &str| {
        std::fs::write(&tokens, text).expect("written");
        std::fs::set_permissions(&tokens, std::fs::Permissions::from_mode(mode)).expect("its mode");
        for command in ["check", "apply", "token"] {
            let error = house.bad(&[command], 64);
            assert!(error.contains(expect) && error.contains("hint: "), "{command}: {error}");
        }
    };
    check("act ana 0123\n", 0o600, "secrets:1: a token has 32 to 256 characters, this one has 4");
    check("act 0123456789abcdef0123456789abcdef\n", 0o600, "secrets:1: three words are needed, found 2");
    check("", 0o640, "secrets can be read by others (mode 640)");
    std::fs::remove_file(&tokens).expect("removed");
    let token = house.good(&["token", "--name", "ana"]);
    assert_eq!(std::fs::metadata(&tokens).expect("it is made").permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::read_to_string(&tokens).expect("its text"), format!("act ana {token}"));
    house.good(&["check"]);
}

/// Made by `cargo xtask test`.
fn tool(name: &str) -> PathBuf {
    let target = PathBuf::from(env!("CARGO_BIN_EXE_changeover")).ancestors().nth(2).expect("the target folder").to_path_buf();
    let tool = target.join("python").join("bin").join(name);
    assert!(tool.exists(), "{} is missing: run `cargo xtask test` once", tool.display());
    tool
}

/// Examples for each operation: enough to meet every kind of mistake, few enough for half a minute.
const EXAMPLES: &str = "12";

#[test]
fn the_document_tells_the_truth() {
    let elsewhere = "  other:\n    routes: [ { host: other.test } ]\n    run: { runtime: static }\n    health: { start_timeout: 1s }\n";
    let open = Open::start(27307, "27370-27374", &format!("{AT_ONCE}{elsewhere}"), "");
    let mut command = Command::new(tool("schemathesis"));
    command.args([
        "run",
        &format!("http://127.0.0.1:{}/v1/openapi.json", open.port),
        "--header",
        &format!("Authorization: Bearer {}", open.act),
    ]);
    // Events go on for ever, when followed.
    command.args(["--exclude-path", "/v1/events", "--phases", "examples,coverage,fuzzing", "--max-examples", EXAMPLES, "--seed", "7"]);
    command.args(["--request-timeout", "20", "--generation-database", "none", "--no-color"]);
    // What a schema cannot say is refused all the same: a file with mistakes, a version that does not exist.
    command.args(["--exclude-checks", "positive_data_acceptance"]);
    let output = command.current_dir(open.house.folder.path()).output().expect("it runs");
    assert!(output.status.success(), "{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_page_works_in_chromium() {
    let open = Open::start(27308, "27380-27389", MANUAL, "");
    open.house.good(&["deploy", "web", "--version", "v1"]);
    let load = open.house.load();
    let mut deploy = open.await_promotion("v2");
    let folder = tool("python").ancestors().nth(3).expect("the target folder").join("screenshots");
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/browser/page.py");
    let mut command = Command::new(tool("python"));
    command.arg("-B").arg(script).arg(format!("http://127.0.0.1:{}", open.port)).args([&open.act, "27309"]).arg(folder);
    let output = command.output().expect("it runs");
    assert!(output.status.success(), "{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(deploy.wait().expect("it ends").success());
    wait::until(Duration::from_secs(10), "the rollback is over", || open.house.release()["state"] == "ended");
    assert_eq!(load.stop().lost, 0);
}
