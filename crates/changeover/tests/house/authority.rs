//! Pebble, Let's Encrypt's authority for tests, with a DNS in which every name is this machine.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use testbed::{ports, wait};

use super::DEADLINE;

pub struct Authority {
    folder: PathBuf,
    settings: Settings,
    api: u16,
    management: u16,
    names: u16,
    names_management: u16,
    front: Option<u16>,
    running: Vec<Child>,
}

/// Where it looks, and how long what it issues is good.
#[derive(Clone)]
pub struct Settings {
    pub http: u16,
    pub tls: u16,
    pub life_s: u64,
    pub environment: Vec<(&'static str, &'static str)>,
}

impl Settings {
    pub fn new(http: u16, tls: u16) -> Self {
        Self { http, tls, life_s: 90 * 24 * 3600, environment: vec![("PEBBLE_VA_NOSLEEP", "1")] }
    }
}

impl Authority {
    /// In this folder; its own certificate is `pebble.pem` there.
    pub fn start(folder: &Path, settings: Settings) -> Self {
        let free = || ports::free().expect("a free port");
        let mut authority = Self {
            folder: folder.to_owned(),
            settings,
            api: free(),
            management: free(),
            names: free(),
            names_management: free(),
            front: None,
            running: Vec::new(),
        };
        let made = Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-days",
                "30",
                "-subj",
                "/CN=localhost",
            ])
            .args(["-addext", "basicConstraints=critical,CA:FALSE", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"])
            .args(["-keyout", "pebble.key", "-out", "pebble.pem"])
            .current_dir(folder)
            .output()
            .expect("openssl runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        authority.start_again();
        authority
    }

    /// A new one in its place: it knows nobody any more, and signs with other keys.
    pub fn start_again(&mut self) {
        self.stop();
        let (folder, settings) = (&self.folder, &self.settings);
        let text = serde_json::json!({ "pebble": {
            "listenAddress": format!("127.0.0.1:{}", self.api),
            "managementListenAddress": format!("127.0.0.1:{}", self.management),
            "certificate": folder.join("pebble.pem"),
            "privateKey": folder.join("pebble.key"),
            "httpPort": settings.http,
            "tlsPort": settings.tls,
            "certificateValidityPeriod": settings.life_s,
        } });
        std::fs::write(folder.join("pebble.json"), text.to_string()).expect("written");
        let log = |name: &str| {
            let log = std::fs::OpenOptions::new().create(true).append(true).open(folder.join(name)).expect("a log");
            (Stdio::from(log.try_clone().expect("a copy")), Stdio::from(log))
        };
        let start = |mut command: Command, (out, err): (Stdio, Stdio)| {
            let hint = "run `cargo xtask set-up` once, it installs `pebble`";
            command.current_dir(folder).stdin(Stdio::null()).stdout(out).stderr(err).spawn().expect(hint)
        };
        let mut names = Command::new("pebble-challtestsrv");
        names.args(["-dns01", &format!("127.0.0.1:{}", self.names), "-management", &format!("127.0.0.1:{}", self.names_management)]);
        names.args(["-http01", "", "-https01", "", "-tlsalpn01", "", "-defaultIPv4", "127.0.0.1", "-defaultIPv6", ""]);
        let mut pebble = Command::new("pebble");
        pebble.args(["-config", "pebble.json", "-strict", "-dnsserver", &format!("127.0.0.1:{}", self.names)]);
        pebble.envs(settings.environment.iter().copied());
        self.running = vec![start(names, log("names.log")), start(pebble, log("pebble.log"))];
        let is_open = |port: u16| TcpStream::connect(("127.0.0.1", port)).is_ok();
        wait::until(DEADLINE, "pebble listens", || [self.api, self.management, self.names_management].into_iter().all(is_open));
    }

    /// With something before it that says when to renew, and knows limits; see `front.py`.
    pub fn stand_behind(&mut self, says: &serde_json::Value) {
        self.front_says(says);
        let port = ports::free().expect("a free port");
        let log = std::fs::File::create(self.folder.join("front.err")).expect("a log");
        let mut front = Command::new("python3");
        front
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/house/front.py"))
            .args([port.to_string(), self.api.to_string()])
            .arg(&self.folder);
        self.running.push(front.stdin(Stdio::null()).stderr(log).spawn().expect("python3 runs"));
        wait::until(DEADLINE, "the front listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        self.front = Some(port);
    }

    pub fn front_says(&self, says: &serde_json::Value) {
        let (new, file) = (self.folder.join("front.new"), self.folder.join("front.json"));
        std::fs::write(&new, says.to_string()).and_then(|()| std::fs::rename(new, file)).expect("written");
    }

    /// What the front was asked for, a line each.
    pub fn front_log(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.folder.join("front.log")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    pub fn stop(&mut self) {
        for mut child in self.running.drain(..) {
            child.kill().expect("it lives");
            child.wait().expect("it ended");
        }
    }

    pub fn directory(&self) -> String {
        format!("https://127.0.0.1:{}/dir", self.front.unwrap_or(self.api))
    }

    /// What it signs with, now; written to `roots.pem`.
    pub fn roots(&self) {
        let url = format!("https://127.0.0.1:{}/roots/0", self.management);
        let roots = curl(&self.folder, &["--cacert", "pebble.pem", &url]);
        std::fs::write(self.folder.join("roots.pem"), roots).expect("written");
    }

    /// From now on the name leads nowhere.
    pub fn leads_nowhere(&self, name: &str) {
        self.leads_to(name, "127.0.0.99");
    }

    pub fn leads_to(&self, name: &str, address: &str) {
        let url = format!("http://127.0.0.1:{}", self.names_management);
        curl(&self.folder, &["--data", &serde_json::json!({ "host": name }).to_string(), &format!("{url}/clear-a")]);
        curl(&self.folder, &["--data", &serde_json::json!({ "host": name, "addresses": [address] }).to_string(), &format!("{url}/add-a")]);
    }

    /// How many were made since it started.
    pub fn orders(&self) -> usize {
        self.log().matches("Added order").count()
    }

    /// Requests that it refused for their number: what was asked for more often than it was done. The log says no more.
    pub fn refused(&self) -> usize {
        let log = self.log();
        let done =
            [("POST /order-plz", "Added order"), ("POST /chalZ/", "Pulled a task"), ("POST /finalize-order/", "Issued certificate serial")];
        done.into_iter().map(|(asked, done)| log.matches(asked).count().saturating_sub(log.matches(done).count())).sum()
    }

    pub fn accounts(&self) -> usize {
        self.log().matches("accounts in memory").count()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("pebble.log")).unwrap_or_default()
    }
}

fn curl(folder: &Path, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new("curl").args(["--silent", "--show-error", "--fail"]).args(arguments).current_dir(folder).output();
    let output = output.expect("curl runs");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

impl Drop for Authority {
    fn drop(&mut self) {
        self.stop();
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
    }
}
