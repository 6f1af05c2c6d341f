//! TLS as a person sets it up: certificates made with `openssl`, asked for with `curl` and `openssl s_client`, renewed under way.

mod house;

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use house::{DEADLINE, House, QUICK};
use testbed::{ports, wait};

/// A certificate for these names, signed by itself, and its key. Without the constraint it would be one of an authority.
fn make(house: &House, file: &str, names: &str) {
    let (certificate, key) = (path(house, &format!("{file}.pem")), path(house, &format!("{file}.key")));
    let output = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30"])
        .args([
            "-addext",
            "basicConstraints=critical,CA:FALSE",
            "-subj",
            &format!("/CN={file}"),
            "-addext",
            &format!("subjectAltName={names}"),
            "-keyout",
        ])
        .arg(key)
        .arg("-out")
        .arg(certificate)
        .output()
        .expect("openssl runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn path(house: &House, file: &str) -> PathBuf {
    house.folder.path().join(file)
}

/// Puts `tls` of the listener, and more of the service, into the file, and applies it.
fn apply(house: &House, tls: &str, from: &str, to: &str) -> String {
    let file = path(house, "changeover.yaml");
    let text = std::fs::read_to_string(&file).expect("the file");
    let (_, services) = text.split_once("ports:").expect("as it was made");
    let services = services.replacen(from, to, 1);
    let text = format!("listeners: {{ main: {{ address: '{}'{tls} }} }}\nports:{services}", house.address);
    std::fs::write(&file, text).expect("written");
    house.good(&["apply"])
}

const TLS: &str = ", tls: { certificate: site.pem, key: site.key }";

/// `GET /` with curl: version of HTTP, status and version of the service; or what curl says.
fn curl(house: &House, arguments: &[&str]) -> Result<String, String> {
    let address = house.address;
    let to = format!("site.test:{}:{}", address.port(), address.ip());
    let format = "%{http_version} %{http_code} %header{x-version}";
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--max-time", "20", "--cacert", "site.pem", "--resolve", &to, "--output", "/dev/null"])
        .args(["--write-out", format])
        .args(arguments)
        .arg(format!("https://site.test:{}/", address.port()))
        .current_dir(house.folder.path())
        .output()
        .expect("curl runs");
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(String::from_utf8_lossy(&output.stderr).into_owned())
}

/// What `openssl s_client` says of a handshake.
fn s_client(house: &House, arguments: &[&str]) -> String {
    let output = Command::new("openssl")
        .args(["s_client", "-connect", &house.address.to_string(), "-servername", "site.test", "-CAfile", "site.pem"])
        .args(arguments)
        .current_dir(house.folder.path())
        .stdin(Stdio::null())
        .output()
        .expect("openssl runs");
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

/// Of TLS 1.2, whose ticket comes with the handshake: `s_client` waits for nothing more.
#[test]
fn sessions_are_resumed_after_an_upgrade() {
    let house = House::start("26660-26679", QUICK);
    house.good(&["deploy", "web", "--version", "v1"]);
    make(&house, "site", "DNS:site.test");
    apply(&house, TLS, "", "");
    wait::until(DEADLINE, "it speaks TLS", || curl(&house, &[]).is_ok());
    assert!(s_client(&house, &["-tls1_2", "-sess_out", "session"]).contains("New, TLSv1.2"));
    house.good(&["upgrade"]);
    wait::until(DEADLINE, "the worker before has ended", || house.workers().len() == 1);
    let said = s_client(&house, &["-tls1_2", "-sess_in", "session"]);
    assert!(said.contains("Reused, TLSv1.2"), "{said}");
    // A crash forgets the keys: then it is a full handshake, and no error.
    house.kill_worker();
    house.until_up();
    wait::until(DEADLINE, "it answers", || curl(&house, &[]).is_ok());
    let said = s_client(&house, &["-tls1_2", "-sess_in", "session"]);
    assert!(said.contains("New, TLSv1.2"), "{said}");
}

#[test]
fn a_listener_is_given_a_certificate_and_renewed() {
    let house = House::start("26600-26619", QUICK);
    house.good(&["deploy", "web", "--version", "v1"]);
    assert_eq!(house.answers(), "v1", "in clear at first");
    make(&house, "site", "DNS:site.test");
    let said = apply(&house, TLS, "", "");
    assert!(said.contains("~ listener main: tls"), "{said}");
    assert_eq!(curl(&house, &["--http2"]).as_deref(), Ok("2 200 v1"));
    assert_eq!(curl(&house, &["--http1.1"]).as_deref(), Ok("1.1 200 v1"));
    let clear = house.status_of("/");
    assert_eq!(clear, Some(400), "in clear it is told what to say");
    for (version, expected) in [("-tls1_3", "TLSv1.3"), ("-tls1_2", "TLSv1.2")] {
        let said = s_client(&house, &[version]);
        assert!(said.contains(expected) && said.contains("Verify return code: 0 (ok)"), "{said}");
    }
    // Old versions and weak suites, also where the client would take them.
    for refused in [["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"], ["-tls1_2", "-cipher", "AES128-SHA:@SECLEVEL=0"]] {
        let said = s_client(&house, &refused);
        assert!(said.contains("alert") && !said.contains("Verify return code: 0 (ok)\n---\nread R BLOCK"), "{refused:?}: {said}");
        assert!(said.contains("Cipher is (NONE)") || said.contains("Cipher    : 0000"), "{refused:?}: {said}");
    }
    let said = s_client(&house, &["-tls1_2", "-sess_out", "session"]);
    assert!(said.contains("New, "), "{said}");
    assert!(s_client(&house, &["-tls1_2", "-sess_in", "session"]).contains("Reused, "));
    // Renewed, as a cron job would: the new one is shown within seconds, and it is told.
    let before = std::fs::read(path(&house, "site.pem")).expect("made above");
    make(&house, "next", "DNS:site.test");
    std::fs::copy(path(&house, "next.pem"), path(&house, "site.pem")).expect("copied");
    // Half of it is not enough.
    wait::until(DEADLINE, "the mismatch is told", || house.good(&["events"]).contains("certificate_failed"));
    std::fs::write(path(&house, "old.pem"), &before).expect("written");
    assert!(s_client(&house, &["-CAfile", "old.pem"]).contains("Verify return code: 0 (ok)"));
    std::fs::copy(path(&house, "next.key"), path(&house, "site.key")).expect("copied");
    wait::until(DEADLINE, "the new one is shown", || curl(&house, &[]).is_ok());
    wait::until(DEADLINE, "it is told", || house.good(&["events"]).contains("certificate_loaded"));
    let metrics = house.good(&["metrics"]);
    assert!(metrics.contains("changeover_certificate_usable{listener=\"main\""), "{metrics}");
    assert!(metrics.contains("changeover_tls_handshakes_total{result=\"resumed\"} 1\n"), "{metrics}");
    // A worker that is killed comes back with it.
    house.kill_worker();
    wait::until(DEADLINE, "it is served again", || curl(&house, &[]).as_deref() == Ok("2 200 v1"));
    // What cannot be used is said where the file is checked, and takes nothing else away.
    let wrong =
        ", tls: { certificates: [{ names: [else.test], certificate: else.pem, key: else.key }, { certificate: site.pem, key: site.key }] }";
    apply(&house, wrong, "", "");
    let checked = house.run(&["check"]);
    let warned = String::from_utf8_lossy(&checked.stderr);
    assert!(
        checked.status.success() && warned.contains("warning: listener main: ") && warned.contains("else.pem is not there"),
        "{warned}"
    );
    assert_eq!(curl(&house, &[]).as_deref(), Ok("2 200 v1"));
}

#[test]
fn clients_need_a_certificate_where_it_is_asked_for() {
    let house = House::start("26620-26639", QUICK);
    house.good(&["deploy", "web", "--version", "v1"]);
    make(&house, "site", "DNS:site.test");
    make(&house, "ana", "DNS:ana.test");
    make(&house, "eve", "DNS:eve.test");
    apply(&house, &TLS.replace(" }", ", client_ca: ana.pem }"), "", "");
    assert_eq!(curl(&house, &["--cert", "ana.pem", "--key", "ana.key"]).as_deref(), Ok("2 200 v1"));
    assert!(curl(&house, &[]).is_err());
    assert!(curl(&house, &["--cert", "eve.pem", "--key", "eve.key"]).is_err());
    apply(&house, &TLS.replace(" }", ", client_ca: ana.pem, client_auth: optional }"), "", "");
    assert_eq!(curl(&house, &[]).as_deref(), Ok("2 200 v1"));
}

/// `openssl s_server`, as a target.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_target_that_speaks_tls_is_checked_and_served() {
    let house = House::start("26640-26659", QUICK);
    make(&house, "site", "DNS:site.test");
    make(&house, "app", "DNS:app.internal");
    let port = ports::free().expect("a free port");
    let server = Command::new("openssl")
        .args(["s_server", "-quiet", "-www", "-cert", "app.pem", "-key", "app.key", "-accept", &port.to_string()])
        .current_dir(house.folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("openssl runs");
    let _server = Server(server);
    let file = path(&house, "changeover.yaml");
    let text = std::fs::read_to_string(&file).expect("the file");
    let head = text.split("services:").next().expect("as it was made");
    let with = |tls: &str| {
        let service = format!(
            "services:\n  web:\n    run: {{ runtime: static }}\n    tls: {tls}\n    health: {{ interval: 100ms, rise: 2, start_timeout: 5s }}\n{QUICK}"
        );
        std::fs::write(&file, format!("{head}{service}")).expect("written");
        apply(&house, TLS, "", "");
    };
    with("{ ca: site.pem, name: app.internal }");
    let target = format!("127.0.0.1:{port}");
    let output = house.run(&["deploy", "web", "--version", "v1", "--address", &target]);
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(
        !output.status.success() && said.contains("GET https://") && said.contains("its certificate comes from no authority of `ca`"),
        "{said}"
    );
    with("{ ca: app.pem, name: app.internal }");
    house.good(&["deploy", "web", "--version", "v2", "--address", &target]);
    assert_eq!(curl(&house, &[]).as_deref(), Ok("2 200 "));
}

/// The shell's part of `docs/tls.md`, as it stands there; on a port that is free.
#[test]
fn the_way_in_the_document_works_as_it_stands() {
    let folder = tempfile::tempdir().expect("a folder");
    let document = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/tls.md")).expect("the document");
    let port = ports::free().expect("a free port").to_string();
    let blocks: Vec<String> =
        document.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap_or_default().replace("8443", &port)).collect();
    let [make, up, ask] = &blocks[..] else { panic!("three blocks") };
    let programs = std::path::Path::new(env!("CARGO_BIN_EXE_changeover")).parent().expect("a folder");
    let shell = |script: &str| {
        let mut command = Command::new("sh");
        let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap_or_default());
        command.args(["-e", "-c", script]).env("PATH", path).current_dir(folder.path()).stdin(Stdio::null());
        command
    };
    let run = |script: &str| {
        let output = shell(script).output().expect("sh runs");
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{script}\n{text}");
        text
    };
    let made = run(make);
    assert!(made.contains("is good: 1 service on 1 listener") && !made.contains("warning"), "{made}");
    let mut up = shell(&format!("exec {up}")).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("sh runs");
    wait::until(DEADLINE, "it is up", || shell("changeover status").output().is_ok_and(|output| output.status.success()));
    let asked = run(ask);
    assert!(asked.contains("localhost.pem") && asked.contains("Directory listing"), "{asked}");
    run("changeover down");
    up.wait().expect("it ends");
}
