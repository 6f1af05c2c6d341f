//! Certificates by themselves, from Pebble, looked at with `curl` and `openssl`.

mod house;

use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use house::authority::{Authority, Settings};
use house::mounted::{self, Mounted};
use house::{DEADLINE, House, QUICK, clients};
use testbed::{ports, wait};

/// A house with a listener for TLS beside its own, and the authority that it asks.
struct Asking {
    // Before the house, in whose folder it is.
    authority: Authority,
    house: House,
    port: u16,
}

impl Asking {
    fn start(ports: &str, settings: impl FnOnce(&mut Settings)) -> Self {
        Self::begin(House::start(ports, QUICK), settings)
    }

    fn begin(house: House, settings: impl FnOnce(&mut Settings)) -> Self {
        house.good(&["deploy", "web", "--version", "v1"]);
        let port = ports::free().expect("a free port");
        let mut wanted = Settings::new(house.address.port(), port);
        settings(&mut wanted);
        let authority = Authority::start(house.folder.path(), wanted);
        Self { authority, house, port }
    }

    /// Wants certificates for these names.
    fn ask(&self, domains: &str, challenge: &str) {
        let directory = self.authority.directory();
        let acme = format!(
            "{{ domains: [{domains}], directory: '{directory}', ca: pebble.pem, challenge: {challenge}, terms_agreed: true, email: ops@shop.test }}"
        );
        self.listen(&format!("{{ acme: {acme} }}"));
    }

    fn listen(&self, tls: &str) {
        let file = self.path("changeover.yaml");
        let text = std::fs::read_to_string(&file).expect("the file");
        let (_, rest) = text.split_once("ports:").expect("as it was made");
        let rest = rest.replace("run:", "routes: [{ listener: main }, { listener: secure }]\n    run:");
        let rest = if text.contains("listener: secure") { text.split_once("ports:").expect("above").1 } else { &rest };
        let (main, port) = (self.house.address, self.port);
        let text =
            format!("listeners:\n  main: {{ address: '{main}' }}\n  secure: {{ address: '127.0.0.1:{port}', tls: {tls} }}\nports:{rest}");
        std::fs::write(&file, text).expect("written");
        self.house.good(&["apply"]);
    }

    fn path(&self, file: &str) -> PathBuf {
        self.house.folder.path().join(file)
    }

    /// `GET /` with curl, which verifies: the version that answers, or what curl says.
    fn curl(&self, name: &str) -> Result<String, String> {
        let to = format!("{name}:{}:127.0.0.1", self.port);
        let output = Command::new("curl")
            .args(["--silent", "--show-error", "--max-time", "20", "--cacert", "roots.pem", "--resolve", &to, "--output", "/dev/null"])
            .args(["--write-out", "%header{x-version}", &format!("https://{name}:{}/", self.port)])
            .current_dir(self.house.folder.path())
            .output()
            .expect("curl runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    /// Once it is issued, it is good for curl, and for openssl.
    fn is_served(&self, name: &str) {
        wait::until(DEADLINE, &format!("{name} is issued"), || {
            self.events("certificate_issued").contains(&format!("certificate of {name} issued"))
        });
        self.authority.roots();
        assert_eq!(self.curl(name).as_deref(), Ok("v1"));
        let said = self.s_client(name);
        assert!(said.contains("Verify return code: 0 (ok)"), "{said}");
    }

    /// In how many seconds the authority is asked for the name's next certificate.
    fn next_s(&self, name: &str) -> Option<i64> {
        let metrics = self.house.run(&["metrics"]).stdout;
        let wanted = format!("changeover_acme_next_timestamp_seconds{{name=\"{name}\"}} ");
        let text = String::from_utf8_lossy(&metrics);
        let at: i64 = text.lines().find_map(|line| line.strip_prefix(&wanted))?.parse().ok()?;
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
        Some(at - now.as_secs() as i64)
    }

    /// The fingerprint of what is shown for the name.
    fn shown(&self, name: &str) -> String {
        let said = self.s_client(name);
        let (_, rest) = said.split_once("-----BEGIN CERTIFICATE-----").unwrap_or_else(|| panic!("{said}"));
        rest.split("-----END").next().expect("an end").to_owned()
    }

    fn s_client(&self, name: &str) -> String {
        let output = Command::new("openssl")
            .args(["s_client", "-connect", &format!("127.0.0.1:{}", self.port), "-servername", name, "-verify_hostname", name])
            .args(["-CAfile", "roots.pem"])
            .current_dir(self.house.folder.path())
            .stdin(Stdio::null())
            .output()
            .expect("openssl runs");
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    }

    /// Of this kind.
    fn events(&self, kind: &str) -> String {
        let output = self.house.run(&["events"]).stdout;
        String::from_utf8_lossy(&output).lines().filter(|line| line.contains(kind)).map(|line| format!("{line}\n")).collect()
    }
}

#[test]
fn a_name_is_proven_by_a_request() {
    let asking = Asking::start("29500-29509", |_| {});
    // Whatever the service does.
    asking.house.good(&["maintenance", "web"]);
    asking.ask("shop.test, www.shop.test", "http-01");
    wait::until(DEADLINE, "both are issued", || asking.events("certificate_issued").lines().count() == 2);
    asking.house.good(&["maintenance", "web", "--off"]);
    asking.is_served("shop.test");
    asking.is_served("www.shop.test");
    // Files and names are looked at once a second.
    let metrics = wait::until(DEADLINE, "both are in the metrics", || {
        let metrics = asking.house.good(&["metrics"]);
        (metrics.matches("changeover_certificate_expires_timestamp_seconds{listener=\"secure\"").count() == 2).then_some(metrics)
    });
    for expected in [
        "changeover_certificate_expires_timestamp_seconds{listener=\"secure\",name=\"shop.test\"} ",
        "changeover_certificate_usable{listener=\"secure\",name=\"www.shop.test\"} 1\n",
        "changeover_acme_failures{name=\"shop.test\"} 0\n",
        "changeover_acme_issued_total 2\n",
    ] {
        assert!(metrics.contains(expected), "{expected}\n{metrics}");
    }
    // Tokens that are not pending are the service's business.
    let url = format!("http://{}/.well-known/acme-challenge/none", asking.house.address);
    let output = Command::new("curl").args(["--silent", "--include", &url]).output().expect("curl runs");
    assert!(String::from_utf8_lossy(&output.stdout).contains("x-version: v1"), "{output:?}");
}

#[test]
fn a_name_is_proven_by_a_handshake() {
    let asking = Asking::start("29510-29519", |_| {});
    asking.ask("shop.test", "tls-alpn-01");
    asking.is_served("shop.test");
}

#[test]
fn what_is_kept_is_served_at_once_and_nobody_else_reads_it() {
    use std::os::unix::fs::PermissionsExt;
    let mut asking = Asking::start("29520-29529", |_| {});
    asking.ask("shop.test", "tls-alpn-01");
    asking.is_served("shop.test");
    let shown = asking.shown("shop.test");
    asking.authority.stop();
    asking.house.kill_worker();
    wait::until(DEADLINE, "it is served again", || asking.curl("shop.test").as_deref() == Ok("v1"));
    asking.house.kill_all();
    asking.house.start_again();
    wait::until(DEADLINE, "and after a crash of everything", || asking.curl("shop.test").as_deref() == Ok("v1"));
    assert_eq!(asking.shown("shop.test"), shown, "it is the same");
    assert_eq!(asking.events("certificate_failed"), "", "nobody was asked");
    let (state, mut with_keys) = (asking.house.state_dir(), 0);
    let mode = |path: &std::path::Path| std::fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!(mode(&state), 0o700);
    for entry in std::fs::read_dir(&state).expect("files") {
        let path = entry.expect("an entry").path();
        let content = if path.is_file() { std::fs::read(&path).expect("a file") } else { Vec::new() };
        if content.windows(11).any(|window| window == b"PRIVATE KEY") {
            with_keys += 1;
            assert_eq!(mode(&path), 0o600, "{}", path.display());
        }
    }
    assert!(with_keys > 0, "keys are kept");
}

#[test]
fn it_is_renewed_in_time_and_nobody_notices() {
    // Renewed after about ten seconds each time.
    let asking = Asking::start("29530-29539", |settings| settings.life_s = 20);
    asking.ask("shop.test", "tls-alpn-01");
    asking.is_served("shop.test");
    let clients = clients::Clients::start(&asking.path("roots.pem"), asking.port, "shop.test");
    wait::until(2 * DEADLINE, "three certificates were shown", || clients.seen().certificates >= 3);
    let seen = clients.stop();
    eprintln!("{} requests, {} certificates, {} lost", seen.requests, seen.certificates, seen.lost.len());
    assert!(seen.requests > 500 && seen.lost.is_empty(), "{seen:?}");
    assert_eq!(asking.events("certificate_failed"), "");
}

#[test]
fn an_authority_that_forgets_us_meets_us_again() {
    let mut asking = Asking::start("29540-29549", |settings| settings.life_s = 12);
    asking.ask("shop.test", "http-01");
    asking.is_served("shop.test");
    let before = asking.shown("shop.test");
    asking.authority.stop();
    let is_told = || asking.events("certificate_failed").contains("the certificate of shop.test could not be renewed: ");
    wait::until(DEADLINE, "it is told", is_told);
    assert!(asking.events("certificate_failed").contains("; the present one is good until "));
    assert_eq!(asking.shown("shop.test"), before, "that takes nothing away");
    // Knows no account any more, and signs with other keys.
    asking.authority.start_again();
    asking.authority.roots();
    wait::until(2 * DEADLINE, "the next one is of its new keys", || asking.curl("shop.test").as_deref() == Ok("v1"));
    assert_ne!(asking.shown("shop.test"), before);
}

#[test]
fn numbers_that_are_not_taken_are_no_failure() {
    let asking = Asking::start("29550-29559", |settings| settings.environment.push(("PEBBLE_WFE_NONCEREJECT", "25")));
    let names: Vec<String> = (0..10).map(|number| format!("n{number}.shop.test")).collect();
    asking.ask(&names.join(", "), "http-01");
    names.iter().for_each(|name| asking.is_served(name));
    assert_eq!(asking.events("certificate_failed"), "");
    assert_eq!(asking.authority.accounts(), 1);
    assert!(asking.authority.refused() > 0, "it took every number");
}

#[test]
fn a_name_that_is_not_ours_harms_no_other_and_is_told_in_words() {
    let mut asking = Asking::start("29560-29569", |_| {});
    asking.authority.leads_nowhere("bad.test");
    asking.ask("bad.test, shop.test", "tls-alpn-01");
    asking.is_served("shop.test");
    let told = wait::until(DEADLINE, "it is told", || Some(asking.events("certificate_failed")).filter(|told| !told.is_empty()));
    assert!(told.contains("no certificate for bad.test, which is not served over TLS: the authority says: "), "{told}");
    assert!(told.contains("Failed to connect to 127.0.0.99:"), "the authority's own words: {told}");
    assert!(told.contains("; tried again in "), "{told}");
    // Nobody else answers for it, and a crash does not make anybody ask again at once.
    assert!(asking.curl("bad.test").is_err());
    let orders = asking.authority.orders();
    asking.house.kill_worker();
    wait::until(DEADLINE, "it is served again", || asking.curl("shop.test").as_deref() == Ok("v1"));
    wait::until(DEADLINE, "the failure is remembered", || {
        asking.house.run(&["metrics"]).stdout.windows(44).any(|it| it == b"changeover_acme_failures{name=\"bad.test\"} 1\n")
    });
    assert_eq!(asking.authority.orders(), orders);
    let listed = asking.house.good(&["certificates"]);
    assert!(listed.lines().any(|line| line.starts_with("bad.test") && line.ends_with(" 1")), "{listed}");
    assert!(listed.contains("bad.test: the authority says: Failed to connect"), "{listed}");
    // Whoever has repaired it need not wait for the next try.
    asking.authority.leads_to("bad.test", "127.0.0.1");
    asking.house.good(&["certificates", "--retry", "bad.test"]);
    asking.is_served("bad.test");
    let refused = asking.house.run(&["certificates", "--retry", "stranger.test"]);
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("no authority is asked for `stranger.test`"));
    // Asked in another way, it is another question.
    asking.authority.leads_nowhere("worse.test");
    asking.ask("bad.test, shop.test, worse.test", "tls-alpn-01");
    wait::until(DEADLINE, "it is told", || asking.events("certificate_failed").contains("no certificate for worse.test"));
    asking.authority.leads_to("worse.test", "127.0.0.1");
    asking.ask("bad.test, shop.test, worse.test", "http-01");
    asking.is_served("worse.test");
    // One that is not the one it should be is not spoken to.
    let file = std::fs::read_to_string(asking.path("changeover.yaml")).expect("the file");
    let other = file
        .replace("ca: pebble.pem", "ca: system")
        .replace("domains: [bad.test, shop.test, worse.test]", "domains: [wrong.test, shop.test]");
    std::fs::write(asking.path("changeover.yaml"), other).expect("written");
    asking.house.good(&["apply"]);
    wait::until(DEADLINE, "it is told", || asking.events("certificate_failed").contains("no certificate for wrong.test"));
    let told = asking.events("certificate_failed");
    assert!(told.contains("cannot be reached: TLS: its certificate comes from no authority of `ca`"), "{told}");
    // An authority that is not there takes nothing away, and is told.
    asking.authority.stop();
    asking.ask("late.test, shop.test", "http-01");
    wait::until(DEADLINE, "it is told", || asking.events("certificate_failed").contains("late.test, which is not served over TLS: "));
    let told = asking.events("certificate_failed");
    assert!(told.contains("cannot be reached: Connection refused"), "{told}");
    assert_eq!(asking.curl("shop.test").as_deref(), Ok("v1"));
}

#[test]
fn a_worker_that_is_killed_in_the_middle_begins_again() {
    let asking = Asking::start("29570-29579", |_| {});
    // Where the authority looks, somebody is silent.
    let silent = std::net::TcpListener::bind(("127.0.0.98", asking.house.address.port())).expect("this machine has many addresses");
    asking.authority.leads_to("shop.test", "127.0.0.98");
    asking.ask("shop.test", "http-01");
    let (looking, _) = silent.accept().expect("the authority looks");
    asking.house.kill_worker();
    asking.authority.leads_to("shop.test", "127.0.0.1");
    drop((looking, silent));
    asking.is_served("shop.test");
    assert_eq!(asking.authority.accounts(), 1);
    assert!(asking.authority.orders() >= 2, "another order");
}

#[test]
fn an_authority_that_says_when_is_followed_and_its_limits_are_kept() {
    // Orders are counted: none is said twice.
    let mut asking = Asking::start("29580-29589", |settings| settings.environment.push(("PEBBLE_WFE_NONCEREJECT", "0")));
    // Everything it signed shall be renewed at once.
    let hurry = serde_json::json!({ "window": [-7200, -3600], "replaces": true });
    asking.authority.stand_behind(&hurry);
    asking.ask("shop.test", "http-01");
    // One that hurries for ever does not keep us busy.
    let log = wait::until(DEADLINE, "it was asked about two certificates", || {
        let log = asking.authority.front_log();
        (log.iter().filter(|line| line.starts_with("window ")).count() == 2).then_some(log)
    });
    let first = log[1].strip_prefix("window ").expect("after the first order");
    assert_eq!(log[..3], ["order".to_owned(), format!("window {first}"), format!("order replaces {first}")], "{log:?}");
    wait::until(DEADLINE, "the next is due in hours", || {
        asking.next_s("shop.test").is_some_and(|next_s| (18_000..21_601).contains(&next_s))
    });
    asking.is_served("shop.test");
    assert_eq!(asking.events("certificate_failed"), "");
    // Where it takes no order that replaces something, it takes one that does not; its limits are ours.
    asking.authority.front_says(&serde_json::json!({ "window": [-7200, -3600], "refuse": 40_000 }));
    asking.ask("shop.test, other.test", "http-01");
    wait::until(DEADLINE, "it is told", || asking.events("certificate_failed").contains("too many orders (rateLimited); tried again in 1"));
    assert!(asking.next_s("other.test").is_some_and(|next_s| (39_000..50_000).contains(&next_s)));
    asking.authority.front_says(&serde_json::json!({ "window": [-7200, -3600] }));
    asking.ask("shop.test, third.test", "http-01");
    wait::until(DEADLINE, "it was asked about four certificates", || {
        asking.authority.front_log().iter().filter(|line| line.starts_with("window ")).count() == 4
    });
    assert_eq!(asking.events("certificate_issued").matches("third.test").count(), 2);
}

#[test]
fn what_cannot_be_kept_is_not_shown() {
    let disk = Mounted::new();
    if !mounted::run("mount", &["-t", "tmpfs", "-o", "size=4m", "none", disk.text()]) {
        return mounted::left_out("mount a tmpfs");
    }
    let house = House::start_in(disk.path(), "29595-29599", QUICK);
    let asking = Asking::begin(house, |settings| settings.environment.push(("PEBBLE_WFE_NONCEREJECT", "0")));
    // The authority comes this way: by then the disk is full.
    let way = std::net::TcpListener::bind(("127.0.0.97", asking.house.address.port())).expect("this machine has many addresses");
    asking.authority.leads_to("shop.test", "127.0.0.97");
    asking.ask("shop.test", "http-01");
    let (first, _) = way.accept().expect("the authority looks");
    let filler = disk.path().join("filler");
    mounted::fill(&filler);
    let (house, more) = (asking.house.address, way.try_clone().expect("a copy"));
    // It looks several times at once.
    std::thread::spawn(move || std::iter::once(first).chain(more.incoming().flatten()).for_each(|looking| pass_on(looking, house)));
    let log = asking.path("up.log");
    let said = || std::fs::read_to_string(&log).unwrap_or_default();
    wait::until(DEADLINE, "it is told", || said().contains("the certificate of shop.test was issued and cannot be kept: "));
    asking.authority.roots();
    assert!(asking.curl("shop.test").is_err(), "it is not shown");
    std::fs::remove_file(&filler).expect("removed");
    asking.is_served("shop.test");
    assert_eq!(asking.authority.orders(), 1, "it is not asked for again");
}

/// Both ways, until either end closes.
fn pass_on(mut from: TcpStream, to: SocketAddr) {
    let mut there = TcpStream::connect(to).expect("it listens");
    let (mut asked, mut asking) = (from.try_clone().expect("a copy"), there.try_clone().expect("a copy"));
    std::thread::spawn(move || std::io::copy(&mut asked, &mut asking));
    std::thread::spawn(move || std::io::copy(&mut there, &mut from));
}

/// The passage of `docs/tls.md`: read as it stands, and run with Pebble in the place of staging.
#[test]
fn the_passage_in_the_document_works() {
    let asking = Asking::start("29590-29594", |_| {});
    let document = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/tls.md")).expect("the document");
    let (_, rest) = document.split_once("## Certificates by themselves").expect("the section");
    let passage = rest.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("the passage");
    let check = |text: &str| {
        std::fs::write(asking.path("changeover.yaml"), text).expect("written");
        let output = asking.house.run(&["check"]);
        (String::from_utf8_lossy(&output.stdout).into_owned(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (said, warned) = check(passage);
    assert!(said.contains("is good: 1 service on 2 listeners") && warned.is_empty(), "{said}{warned}");
    let asked = "listener main: https://acme-staging-v02.api.letsencrypt.org/directory is asked for example.com, www.example.com; \
                 it connects to port 443 of each name to see that it is ours (tls-alpn-01)";
    assert!(said.contains(asked), "{said}");
    let (ports, directory) = ("ports: 29590-29594\nservices:", format!("directory: {}, ca: pebble.pem", asking.authority.directory()));
    let here = passage
        .replace("0.0.0.0:80", &asking.house.address.to_string())
        .replace("0.0.0.0:443", &format!("127.0.0.1:{}", asking.port))
        .replace("services:", ports)
        .replace("directory: staging", &directory.replace(", ", "\n        "));
    let (_, warned) = check(&here);
    let reach =
        format!("warning: listener main is on port {}: what comes to port 443 of example.com, www.example.com must reach it", asking.port);
    assert!(warned.contains(&reach), "{warned}");
    asking.house.good(&["apply"]);
    ["example.com", "www.example.com"].into_iter().for_each(|name| asking.is_served(name));
}
