//! The contenders: changeover, nginx, HAProxy and Envoy before the same two targets, each switched as its users would.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use testbed::wait;

use crate::configs::{self, Place};
use crate::hammer::Load;
use crate::process::Process;

const START_MAX: Duration = Duration::from_secs(20);
pub const NAMES: [&str; 4] = ["changeover", "nginx", "haproxy", "envoy"];

/// What clients speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Front {
    Http1,
    /// In clear, by prior knowledge.
    Http2,
    Tls,
    TlsHttp2,
}

impl Front {
    pub const ALL: [(&str, Front); 4] = [("http1", Front::Http1), ("h2", Front::Http2), ("tls", Front::Tls), ("tls-h2", Front::TlsHttp2)];

    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, front)| *front == self).map_or("", |(name, _)| name)
    }
}

#[derive(Debug, Clone, Copy)]
pub struct Setting {
    pub threads: usize,
    /// The only one that it may run on.
    pub core: Option<usize>,
    pub front: Front,
    /// As in the middle of a release: 80 : 20 to the two targets, and each request in the access log. Else all goes to one target, for
    /// switching, without a log.
    pub busy: bool,
}

impl Setting {
    pub fn plain(threads: usize, core: Option<usize>) -> Self {
        Self { threads, core, front: Front::Http1, busy: false }
    }
}

pub struct Contender {
    pub name: &'static str,
    pub address: SocketAddr,
    /// Begins with v1.
    pub serves_v2: bool,
    process: Process,
    folder: tempfile::TempDir,
    targets: [SocketAddr; 2],
    setting: Setting,
    control: Control,
}

enum Control {
    Api(UnixStream),
    Reload,
    Socket(UnixStream),
    Admin(TcpStream),
}

impl Contender {
    /// An error when it cannot be had on this machine.
    pub fn start(name: &'static str, targets: [SocketAddr; 2], setting: Setting) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let address = SocketAddr::from(([127, 0, 0, 1], testbed::ports::free()?));
        let log = fs::File::create(folder.path().join("log"))?;
        let place = Place { folder: folder.path(), address, targets, setting };
        place.certify()?;
        let mut command = match name {
            "changeover" => configs::changeover(&place)?,
            "nginx" => configs::nginx(&place)?,
            "haproxy" => configs::haproxy(&place)?,
            "envoy" => configs::envoy(&place)?,
            other => bail!("no contender is called {other}"),
        };
        command.current_dir(folder.path()).stdout(log.try_clone()?).stderr(log);
        let end = if name == "changeover" { Signal::SIGINT } else { Signal::SIGTERM };
        let process = Process::start(command, setting.core, end)?;
        let control = match name {
            "changeover" => Control::Api(wait::until(START_MAX, "changeover's API", || UnixStream::connect(api(folder.path())).ok())),
            "haproxy" => Control::Socket(wait::until(START_MAX, "HAProxy's socket", || interactive(folder.path()))),
            "envoy" => Control::Admin(wait::until(START_MAX, "Envoy's admin", || TcpStream::connect(admin(folder.path())?).ok())),
            _ => Control::Reload,
        };
        let mut contender = Self { name, address, serves_v2: false, process, folder, targets, setting, control };
        if name == "changeover" {
            contender.deploy("v1", targets[0], "\"outcome\":\"promoted\"")?;
            if setting.busy {
                contender.deploy("v2", targets[1], "\"weight\":2000")?;
            }
        }
        let load = Load { address, front: setting.front, path: "/healthz", connections: 1, millis: 1, rate: 0 };
        wait::until(START_MAX, &format!("{name} answers"), || load.runs_here());
        Ok(contender)
    }

    pub fn family(&self) -> Vec<i32> {
        self.process.family()
    }

    /// What must be ready before the switch itself; no traffic moves.
    pub fn prepare(&mut self) -> anyhow::Result<()> {
        match (self.name, self.serves_v2) {
            ("changeover", false) => self.deploy("v2", self.targets[1], "awaiting_promotion"),
            ("nginx", _) => {
                let now = if self.serves_v2 { 0 } else { 1 };
                let place = Place { folder: self.folder.path(), address: self.address, targets: self.targets, setting: self.setting };
                fs::write(self.folder.path().join("nginx.conf"), configs::nginx_conf(&place, now))?;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Gives the command to switch to the other version, without starting a process; returns when it is answered.
    pub fn switch(&mut self) -> anyhow::Result<()> {
        let to_v2 = !self.serves_v2;
        match &mut self.control {
            Control::Api(stream) => {
                let verb = if to_v2 { "promote" } else { "rollback" };
                let answer = post(stream, &format!("/v1/services/web/{verb}"), "{}")?;
                ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            }
            Control::Reload => kill(Pid::from_raw(self.process.pid()), Signal::SIGHUP)?,
            Control::Socket(stream) => {
                let (up, down) = if to_v2 { ("v2", "v1") } else { ("v1", "v2") };
                stream.write_all(format!("set server web/{up} state ready; set server web/{down} state maint\n").as_bytes())?;
                read_prompts(stream, 2)?;
            }
            Control::Admin(stream) => {
                let share = if to_v2 { 100 } else { 0 };
                let answer = post(stream, &format!("/runtime_modify?routing.v2={share}"), "")?;
                ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            }
        }
        self.serves_v2 = to_v2;
        Ok(())
    }

    /// As a person would: the command line, with its own process. Only of changeover.
    pub fn switch_by_command(&mut self) -> anyhow::Result<()> {
        let verb = if self.serves_v2 { "rollback" } else { "promote" };
        let status = Command::new(binary()?).args([verb, "web"]).current_dir(self.folder.path()).stdout(Stdio::null()).status()?;
        ensure!(status.success(), "{verb}: {status}");
        self.serves_v2 = !self.serves_v2;
        Ok(())
    }

    /// After a switch: until the next one can be prepared.
    pub fn settle(&mut self) -> anyhow::Result<()> {
        let Control::Api(stream) = &mut self.control else { return Ok(()) };
        wait::until(START_MAX, "the release ends", || ask(stream, "/v1/status").is_ok_and(|answer| answer.contains("\"outcome\"")));
        Ok(())
    }

    fn deploy(&mut self, version: &str, address: SocketAddr, ready: &str) -> anyhow::Result<()> {
        let Control::Api(stream) = &mut self.control else { return Ok(()) };
        let body = format!("{{\"version\":\"{version}\",\"addresses\":[\"{address}\"]}}");
        let answer = post(stream, "/v1/services/web/deploy", &body)?;
        ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        wait::until(START_MAX, "the candidate is ready", || ask(stream, "/v1/status").is_ok_and(|answer| answer.contains(ready)));
        Ok(())
    }
}

/// The binary under test, built with the profile for shipping.
pub fn binary() -> anyhow::Result<PathBuf> {
    static BUILT: std::sync::OnceLock<Result<PathBuf, String>> = std::sync::OnceLock::new();
    let built = BUILT.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
        let status = Command::new("cargo").args(["build", "--quiet", "--profile", "dist", "-p", "changeover"]).current_dir(root).status();
        match status {
            Ok(status) if status.success() => Ok(root.join("target/dist/changeover")),
            other => Err(format!("cannot build changeover: {other:?}")),
        }
    });
    built.clone().map_err(anyhow::Error::msg)
}

fn api(folder: &Path) -> PathBuf {
    folder.join(".changeover/api.sock")
}

/// HAProxy's socket in interactive mode: it stays open.
fn interactive(folder: &Path) -> Option<UnixStream> {
    let mut stream = UnixStream::connect(folder.join("admin.sock")).ok()?;
    stream.write_all(b"prompt\n").ok()?;
    read_prompts(&mut stream, 1).ok()?;
    Some(stream)
}

/// One prompt for each command; anything else that it says is a complaint.
fn read_prompts(stream: &mut UnixStream, count: usize) -> anyhow::Result<()> {
    let mut said = String::new();
    let mut buffer = [0; 4096];
    while said.matches("> ").count() < count {
        let size = stream.read(&mut buffer)?;
        ensure!(size > 0, "HAProxy closed its socket");
        said.push_str(&String::from_utf8_lossy(&buffer[..size]));
    }
    ensure!(said.chars().all(|character| character.is_whitespace() || character == '>'), "HAProxy said: {said}");
    Ok(())
}

/// Envoy from PyPI, in an environment of its own beneath `target`.
fn admin(folder: &Path) -> Option<SocketAddr> {
    fs::read_to_string(folder.join("admin")).ok()?.trim().parse().ok()
}

fn post(stream: &mut (impl Read + Write), path: &str, body: &str) -> anyhow::Result<String> {
    let head = format!("POST {path} HTTP/1.1\r\nhost: local\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len());
    // In one write: a second small one would wait for the first one's acknowledgement.
    stream.write_all(format!("{head}{body}").as_bytes())?;
    read_answer(stream)
}

fn ask(stream: &mut (impl Read + Write), path: &str) -> anyhow::Result<String> {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: local\r\n\r\n").as_bytes())?;
    read_answer(stream)
}

/// One answer on a connection that stays open.
fn read_answer(stream: &mut impl Read) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 16 * 1024];
    loop {
        let size = stream.read(&mut buffer)?;
        ensure!(size > 0, "closed in the middle of an answer");
        bytes.extend_from_slice(&buffer[..size]);
        let text = String::from_utf8_lossy(&bytes);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let head = head.to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
        let is_whole = match length {
            Some(length) => body.len() >= length,
            None => body.ends_with("0\r\n\r\n"),
        };
        if is_whole {
            return Ok(text.into_owned());
        }
    }
}
