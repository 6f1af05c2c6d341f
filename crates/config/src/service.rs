//! One service: routes, how it runs, health, time limits.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use model::{Check, Health, HostPattern, Listener, ListenerName, Protocol, Route, Run, Runtime, Service, Signal};

use crate::command::command;
use crate::node::{At, Node};
use crate::problems::Problems;
use crate::strategy::strategy;
use crate::table::{Table, entries, suggest};
use crate::values::{choice, duration, host_pattern, is_host, list, number, path, statuses, text};
use crate::{forwarders, tcp, tls};

const PREVIEW_HOST: &str = "{version}.{service}.localhost";
pub(crate) const STATUS: (u16, u16) = (200, 299);
const STREAM_IDLE_MS: u64 = 300_000;
/// A check or a time limit shorter than this only burns the processor.
pub(crate) const TIMEOUT_MIN_MS: u64 = 10;

const SIGNALS: [(&str, Signal); 7] = [
    ("TERM", Signal::Term),
    ("INT", Signal::Int),
    ("QUIT", Signal::Quit),
    ("HUP", Signal::Hup),
    ("USR1", Signal::Usr1),
    ("USR2", Signal::Usr2),
    ("KILL", Signal::Kill),
];

/// What a service must know of the rest of the file. `listeners` is absent when they could not be read.
pub(crate) struct House<'a> {
    pub(crate) listeners: Option<&'a BTreeMap<ListenerName, Listener>>,
    pub(crate) folder: &'a Path,
}

/// The service, and for each of its routes the place in the file.
pub(crate) fn service(name: &str, key: &At, node: &Node, house: &House<'_>, problems: &mut Problems) -> Option<(Service, Vec<At>)> {
    let mut table = Table::open(node, format!("service `{name}`"), problems)?;
    table.at = key.clone();
    let protocol = table.take("protocol");
    let protocols = [("http1", Protocol::Http1), ("http2", Protocol::Http2), ("tcp", Protocol::Tcp)];
    let protocol = protocol.map_or(Some(Protocol::Http1), |node| choice(node, "`protocol`", &protocols, problems));
    // What has no meaning without HTTP is told, and read all the same: its own mistakes, too.
    let is_tcp = protocol == Some(Protocol::Tcp);
    if is_tcp {
        tcp::refuse(node, &table.place, problems);
    }
    let routes = routes(&mut table, house, problems);
    let run = run(&mut table, house.folder, problems);
    let health = health(&mut table, protocol, problems);
    let strategy = strategy(&mut table, problems);
    let preview = table.take("preview_host");
    let preview_host = preview.map_or(Some(PREVIEW_HOST.to_owned()), |node| preview_host(node, problems));
    let tls = tls::of_service(&mut table, house.folder, problems);
    let target_proxy_protocol = forwarders::of_service(&mut table, problems);
    let idle_ms = if is_tcp { tcp::IDLE_MS } else { STREAM_IDLE_MS };
    let mut limits = table.take_table("timeouts", problems);
    let response_header = limits.as_mut().and_then(|t| time(t, "response_header", 30_000, TIMEOUT_MIN_MS, problems));
    let stream_idle = limits.as_mut().and_then(|t| time(t, "stream_idle", idle_ms, TIMEOUT_MIN_MS, problems));
    limits?.finish(problems);
    table.finish(problems);
    let is_static = matches!(&run, Some(run) if matches!(run.runtime, Runtime::Static));
    if is_static && strategy.as_ref().and_then(|strategy| strategy.canary.as_ref()).is_some_and(|canary| canary.baseline) {
        problems.add(
            key,
            "`baseline: fresh` needs targets that are started from here",
            Some("leave it out with `runtime: static`".to_owned()),
        );
    }
    if is_static && strategy.as_ref().is_some_and(|strategy| strategy.frozen_ms > 0) {
        problems.add(key, "what runs elsewhere cannot be `frozen`", Some("say how long it stays hot: `standby: 10m`".to_owned()));
    }
    let (routes, places) = routes?.into_iter().unzip();
    let service = Service {
        routes,
        run: run?,
        health: health?,
        strategy: strategy?,
        preview_host: preview_host?,
        response_header_timeout_ms: response_header?,
        stream_idle_timeout_ms: stream_idle?,
        tls: tls?,
        target_proxy_protocol: target_proxy_protocol?,
        protocol: protocol?,
    };
    Some((service, places))
}

/// A duration field in milliseconds.
pub(crate) fn time(table: &mut Table<'_>, field: &'static str, default_ms: u64, min_ms: u64, problems: &mut Problems) -> Option<u64> {
    table.take(field).map_or(Some(default_ms), |node| duration(node, &format!("`{field}`"), min_ms, problems))
}

fn routes(table: &mut Table<'_>, house: &House<'_>, problems: &mut Problems) -> Option<Vec<(Route, At)>> {
    let Some(node) = table.take("routes") else {
        let listener = only_listener(house, &table.at, &table.place, problems)?;
        return Some(vec![(Route { listener, host: HostPattern::Any, path: "/".to_owned() }, table.at.clone())]);
    };
    let items = list(node, "`routes`", problems)?;
    if items.is_empty() {
        let hint = "leave `routes` out to take every request";
        problems.add(&node.at, format!("{} has no route", table.place), Some(hint.to_owned()));
    }
    let place = format!("a route of {}", table.place);
    let routes: Vec<_> = items.iter().map(|item| Some((route(item, &place, house, problems)?, item.at.clone()))).collect();
    routes.into_iter().collect()
}

fn route(node: &Node, place: &str, house: &House<'_>, problems: &mut Problems) -> Option<Route> {
    let mut table = Table::open(node, place, problems)?;
    let listener = match table.take("listener") {
        Some(node) => known_listener(node, house, problems),
        None => only_listener(house, &node.at, place, problems),
    };
    let host = table.take("host").map_or(Some(HostPattern::Any), |node| host_pattern(node, "`host`", problems));
    let path = table.take("path").map_or(Some("/".to_owned()), |node| path(node, "`path`", problems));
    table.finish(problems);
    Some(Route { listener: listener?, host: host?, path: prefix(path?) })
}

/// `/api/` means the same as `/api`.
fn prefix(path: String) -> String {
    match path.trim_end_matches('/') {
        "" => "/".to_owned(),
        trimmed => trimmed.to_owned(),
    }
}

fn known_listener(node: &Node, house: &House<'_>, problems: &mut Problems) -> Option<ListenerName> {
    let wanted = text(node, "`listener`", problems)?;
    let listeners = house.listeners?;
    let found = listeners.keys().find(|name| name.as_str() == wanted);
    if found.is_none() {
        let names: Vec<_> = listeners.keys().map(ListenerName::as_str).collect();
        problems.add(&node.at, format!("unknown listener `{wanted}`"), Some(suggest(&wanted, &names)));
    }
    found.cloned()
}

fn only_listener(house: &House<'_>, at: &At, place: &str, problems: &mut Problems) -> Option<ListenerName> {
    let listeners = house.listeners?;
    let mut names = listeners.keys();
    match (names.next(), names.next()) {
        (Some(name), None) => Some(name.clone()),
        (Some(name), Some(_)) => {
            let message = format!("{place} does not say its listener, and there are {}", listeners.len());
            problems.add(at, message, Some(format!("such as `routes: [{{ listener: {name} }}]`")));
            None
        }
        (None, _) => None, // `listeners` is empty, which was said there.
    }
}

fn run(service: &mut Table<'_>, folder: &Path, problems: &mut Problems) -> Option<Run> {
    let mut table = service.take_table("run", problems)?;
    let is_static =
        table.take("runtime").map_or(Some(false), |node| choice(node, "`runtime`", &[("process", false), ("static", true)], problems));
    let targets = table.take("targets").map_or(Some(1), |node| number(node, "`targets`", 1..=64, problems));
    let process = process(&mut table, is_static, folder, problems);
    table.finish(problems);
    let runtime = if is_static? { Runtime::Static } else { process? };
    Some(Run { runtime, targets: u16::try_from(targets?).ok()? })
}

fn process(table: &mut Table<'_>, is_static: Option<bool>, folder: &Path, problems: &mut Problems) -> Option<Runtime> {
    let fields = ["command", "env", "cwd", "user", "stop_signal", "stop_grace"];
    if is_static == Some(true) {
        for (key, _) in fields.into_iter().filter_map(|field| table.take_entry(field)) {
            let message = format!("`{}` has no meaning with `runtime: static`", key.text);
            problems.add(&key.at, message, Some("remove it, or use `runtime: process`".to_owned()));
        }
        return None;
    }
    let [command_node, env_node, cwd, user, signal, grace] = fields.map(|field| table.take(field));
    if command_node.is_none() && is_static == Some(false) {
        table.missing("command", "such as `command: ./server --port {port}`, or `runtime: static`", problems);
    }
    let command = command_node.and_then(|node| command(node, "`command`", problems));
    let env = env_node.map_or(Some(BTreeMap::new()), |node| env(node, problems));
    let cwd = cwd.map_or(Some(PathBuf::from(".")), |node| text(node, "`cwd`", problems).map(PathBuf::from));
    let user = user.map_or(Some(None), |node| user_name(node, problems).map(Some));
    let stop_signal = signal.map_or(Some(Signal::Term), |node| stop_signal(node, problems));
    let stop_grace_ms = grace.map_or(Some(10_000), |node| duration(node, "`stop_grace`", 0, problems));
    Some(Runtime::Process {
        command: command?,
        env: env?,
        cwd: folder.join(cwd?).components().collect(),
        user: user?,
        stop_signal: stop_signal?,
        stop_grace_ms: stop_grace_ms?,
    })
}

fn env(node: &Node, problems: &mut Problems) -> Option<BTreeMap<String, String>> {
    let mut variables = BTreeMap::new();
    for (key, value) in entries(node, "`env`", problems)? {
        if key.text.is_empty() || key.text.contains(['=', '\0']) {
            problems.add(&key.at, format!("`{}` cannot be the name of a variable", key.text), None);
        }
        let value = match value.kind {
            crate::node::Kind::Nothing => Some(String::new()),
            _ => text(value, &format!("`{}`", key.text), problems),
        };
        variables.insert(key.text.clone(), value.unwrap_or_default());
    }
    Some(variables)
}

fn user_name(node: &Node, problems: &mut Problems) -> Option<String> {
    let name = text(node, "`user`", problems)?;
    if name.is_empty() {
        problems.add(&node.at, "`user` is empty", Some("leave it out to keep the user of changeover".to_owned()));
    }
    Some(name)
}

/// Also `SIGTERM` and `term`.
fn stop_signal(node: &Node, problems: &mut Problems) -> Option<Signal> {
    let upper = text(node, "`stop_signal`", problems)?.to_ascii_uppercase();
    let wanted = upper.strip_prefix("SIG").unwrap_or(&upper);
    match SIGNALS.iter().find(|(name, _)| *name == wanted) {
        Some((_, signal)) => Some(*signal),
        None => choice(node, "`stop_signal`", &SIGNALS, problems),
    }
}

fn health(service: &mut Table<'_>, protocol: Option<Protocol>, problems: &mut Problems) -> Option<Health> {
    let mut table = service.take_table("health", problems)?;
    let check = check(&mut table, protocol, problems);
    let grpc_service = table.take("service").map_or(Some(String::new()), |node| {
        if check != Some(Check::Grpc) {
            let hint = "it is what gRPC's health protocol asks for: say `check: grpc`, or leave it out".to_owned();
            problems.add(&node.at, "`service` has no meaning without `check: grpc`", Some(hint));
        }
        text(node, "`service`", problems)
    });
    let [at_path, host, status] = ["path", "host", "status"].map(|field| table.take(field));
    let path = at_path.map_or(Some("/".to_owned()), |node| path(node, "`path`", problems));
    let host = host.map_or(Some(None), |node| check_host(node, problems).map(Some));
    let status = status.map_or(Some(STATUS), |node| statuses(node, "`status`", problems));
    let interval = time(&mut table, "interval", 1_000, TIMEOUT_MIN_MS, problems);
    let timeout = time(&mut table, "timeout", 2_000, TIMEOUT_MIN_MS, problems);
    let start_timeout = time(&mut table, "start_timeout", 30_000, TIMEOUT_MIN_MS, problems);
    let [rise, fall] =
        ["rise", "fall"].map(|field| table.take(field).map_or(Some(3), |node| number(node, &format!("`{field}`"), 1..=1000, problems)));
    table.finish(problems);
    Some(Health {
        check: check?,
        path: path?,
        grpc_service: grpc_service?,
        host: host?,
        status: status?,
        interval_ms: interval?,
        timeout_ms: timeout?,
        rise: u32::try_from(rise?).ok()?,
        fall: u32::try_from(fall?).ok()?,
        start_timeout_ms: start_timeout?,
    })
}

/// How targets are asked whether they are well.
fn check(health: &mut Table<'_>, protocol: Option<Protocol>, problems: &mut Problems) -> Option<Check> {
    let Some(node) = health.take("check") else {
        return Some(if protocol == Some(Protocol::Tcp) { Check::Connect } else { Check::Http });
    };
    let check = choice(node, "`check`", &[("http", Check::Http), ("tcp", Check::Connect), ("grpc", Check::Grpc)], problems)?;
    let (is_well, message, hint) = match check {
        Check::Http => return Some(check),
        Check::Connect => (
            protocol == Some(Protocol::Tcp),
            "`check: tcp` is for services with `protocol: tcp`",
            "the kernel accepts connections for a program that hangs: leave it out, and name a `path`",
        ),
        Check::Grpc => (
            protocol != Some(Protocol::Http1),
            "`check: grpc` needs `protocol: http2`",
            "gRPC is spoken over HTTP/2 only: its calls could not reach the targets either",
        ),
    };
    if !is_well {
        problems.add(&node.at, message, Some(hint.to_owned()));
    }
    is_well.then_some(check)
}

fn check_host(node: &Node, problems: &mut Problems) -> Option<String> {
    let host = text(node, "`host`", problems)?;
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, port),
        _ => (host.as_str(), "0"),
    };
    if is_host(name) && port.parse::<u16>().is_ok() {
        return Some(host);
    }
    problems.add(&node.at, format!("`host` must be a host such as `example.com`, found `{host}`"), None);
    None
}

fn preview_host(node: &Node, problems: &mut Problems) -> Option<String> {
    let pattern = text(node, "`preview_host`", problems)?.to_ascii_lowercase();
    let hint = Some("such as `{version}.{service}.localhost`".to_owned());
    if !pattern.contains("{version}") {
        problems.add(&node.at, "`preview_host` must have `{version}`, or all previews are one", hint);
        return None;
    }
    if !is_host(&pattern.replace("{version}", "v").replace("{service}", "s")) {
        problems.add(&node.at, format!("`preview_host` must be a host name, found `{pattern}`"), hint);
        return None;
    }
    Some(pattern)
}
