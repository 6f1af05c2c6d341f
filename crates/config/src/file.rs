//! The top of the file: listeners, ports, access log, API, services; and what must hold between services.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use model::{AccessLog, AccessLogFormat, AccessLogScope, Desired, Flags, Forwarders, Listener, ListenerName, PortRange, ServiceName};

use crate::acme;
use crate::api;
use crate::flags;
use crate::forwarders;
use crate::node::{At, Kind, Node};
use crate::problems::Problems;
use crate::service::{self, House};
use crate::table::{Table, entries};
use crate::tcp;
use crate::tls;
use crate::values::{choice, number, text};

const PORTS: PortRange = PortRange { first: 21_000, last: 21_999 };
/// Where Linux takes ports for outgoing connections, unless told otherwise.
const EPHEMERAL: PortRange = PortRange { first: 32_768, last: 60_999 };

pub(crate) fn desired(root: &Node, folder: &Path, problems: &mut Problems) -> Option<Desired> {
    let mut table = Table::open(root, "the file", problems)?;
    let flags_node = table.take_entry("flags").map(|(_, node)| node).or_else(|| table.left_empty("flags"));
    let listeners = listeners(&mut table, flags_node.is_none(), folder, problems);
    let ports = table.take("ports").map_or(Some(PORTS), |node| ports(node, listeners.as_ref(), problems));
    let access_log = access_log(&mut table, problems);
    let house = House { listeners: listeners.as_ref(), folder };
    let services = table.take("services").map_or(Some(BTreeMap::new()), |node| services(node, &house, problems));
    let taken = api::Taken { listeners: listeners.as_ref(), ports };
    let api = table.take("api").map_or(Some(None), |node| api::api(node, folder, &taken, socket_address, problems).map(Some));
    let flags = flags_node.map_or(Some(None), |node| flags::flags(node, folder, socket_address, problems).map(Some));
    table.finish(problems);
    let (listeners, ports, api, flags) = (listeners?, ports?, api?, flags?);
    if let (Some(flags), Some(node)) = (&flags, flags_node) {
        apart(flags, &listeners, ports, api.as_ref(), node, problems);
    }
    Some(Desired { listeners, services: services?, ports, access_log: access_log?, api, flags })
}

/// Ports of flags belong to nobody else.
fn apart(
    flags: &Flags,
    listeners: &BTreeMap<ListenerName, Listener>,
    ports: PortRange,
    api: Option<&model::Api>,
    node: &Node,
    problems: &mut Problems,
) {
    for (_, address) in &flags.listen {
        let taken = listeners.iter().find(|(_, it)| it.address == *address).map(|(name, _)| format!("listener `{name}`"));
        let taken = taken.or_else(|| api.filter(|api| api.listen == *address).map(|_| "`api`".to_owned()));
        let taken = taken.or_else(|| (ports.first..=ports.last).contains(&address.port()).then(|| "the range `ports`".to_owned()));
        if let Some(taken) = taken {
            let hint = "choose another one with `listen`, such as `listen: 127.0.0.1:8013`";
            problems.add(&node.at, format!("{address} of `flags` is in {taken}"), Some(hint.to_owned()));
        }
    }
}

/// `needed`: nothing else comes in.
fn listeners(table: &mut Table<'_>, needed: bool, folder: &Path, problems: &mut Problems) -> Option<BTreeMap<ListenerName, Listener>> {
    let Some(node) = table.take("listeners") else {
        if !needed {
            return Some(BTreeMap::new());
        }
        table.missing("listeners", "add `listeners: { main: 127.0.0.1:8080 }`", problems);
        return None;
    };
    let mut listeners: BTreeMap<ListenerName, Listener> = BTreeMap::new();
    let mut asking = BTreeMap::new();
    let entries = entries(node, "`listeners`", problems)?;
    if entries.is_empty() && needed {
        problems.add(&node.at, "`listeners` is empty", Some("say `{ main: 127.0.0.1:8080 }`".to_owned()));
    }
    for (key, value) in entries {
        let name = ListenerName::new(&key.text).map_err(|e| problems.add(&key.at, e.to_string(), None));
        let listener = listener(value, &format!("listener `{}`", key.text), folder, problems);
        let (Ok(name), Some((listener, open))) = (name, listener) else { continue };
        if let Some((other, _)) = listeners.iter().find(|(_, l)| l.address == listener.address) {
            problems.add(&value.at, format!("listeners `{other}` and `{name}` have the same address"), None);
        }
        asking.extend(open.map(|open| (name.clone(), open)));
        listeners.insert(name, listener);
    }
    acme::settle(&mut listeners, &asking, problems);
    Some(listeners)
}

fn listener(node: &Node, place: &str, folder: &Path, problems: &mut Problems) -> Option<(Listener, Option<acme::Open>)> {
    if let Kind::Map(_) = node.kind {
        let mut table = Table::open(node, place, problems)?;
        let address = table.take("address");
        if address.is_none() {
            table.missing("address", "such as `address: 127.0.0.1:8080`", problems);
        }
        let tls = match (table.take("tls"), table.left_empty("tls")) {
            (Some(node), _) => tls::of_listener(node, place, folder, problems).map(Some),
            // Left empty by mistake it would speak in clear.
            (None, Some(node)) => {
                let hint = "such as `tls: { certificate: example.pem, key: example.key }`; leave it out to speak in clear";
                problems.add(&node.at, format!("`tls` of {place} is empty"), Some(hint.to_owned()));
                None
            }
            (None, None) => Some(None),
        };
        let limit = table.take("connections_per_address");
        let limit = limit.map_or(Some(None), |node| number(node, "`connections_per_address`", 1..=1_000_000, problems).map(Some));
        let forwarders = forwarders::of_listener(&mut table, problems);
        table.finish(problems);
        let connections_per_address = limit?.map(|limit| limit as u32);
        let address = socket_address(address?, place, problems)?;
        let (tls, open) = tls?.unzip();
        return Some((Listener { address, tls, connections_per_address, forwarders: forwarders? }, open.flatten()));
    }
    let address = socket_address(node, place, problems)?;
    Some((Listener { address, tls: None, connections_per_address: None, forwarders: Forwarders::default() }, None))
}

fn socket_address(node: &Node, place: &str, problems: &mut Problems) -> Option<SocketAddr> {
    let text = text(node, place, problems)?;
    if let Ok(address) = text.parse::<SocketAddr>() {
        if address.port() == 0 {
            problems.add(
                &node.at,
                format!("{place} needs a port, so that clients find it"),
                Some(format!("such as `{}:8080`", address.ip())),
            );
        }
        return Some(address);
    }
    let port = text.rsplit(':').next().and_then(|port| port.parse::<u16>().ok());
    let hint = match (port, text.rsplit_once(':')) {
        (Some(port), None | Some(("localhost", _))) => format!("say `127.0.0.1:{port}`"),
        (Some(port), Some(("" | "*", _))) => format!("say `0.0.0.0:{port}`, or `127.0.0.1:{port}` for this machine only"),
        _ => "such as `127.0.0.1:8080` or `[::]:80`".to_owned(),
    };
    problems.add(&node.at, format!("{place} must be an IP address and a port, found `{text}`"), Some(hint));
    None
}

fn ports(node: &Node, listeners: Option<&BTreeMap<ListenerName, Listener>>, problems: &mut Problems) -> Option<PortRange> {
    let text = text(node, "`ports`", problems)?;
    let range = text
        .split_once('-')
        .and_then(|(first, last)| Some(PortRange { first: first.trim().parse().ok()?, last: last.trim().parse().ok()? }));
    let Some(range) = range.filter(|range| 1024 <= range.first && range.first <= range.last) else {
        let message = format!("`ports` must be a range within 1024-65535, found `{text}`");
        problems.add(&node.at, message, Some("such as `21000-21999`".to_owned()));
        return None;
    };
    if range.first <= EPHEMERAL.last && EPHEMERAL.first <= range.last {
        let message = format!("`ports` overlaps {}-{}", EPHEMERAL.first, EPHEMERAL.last);
        let hint = "the kernel takes those for outgoing connections; the default is `21000-21999`";
        problems.add(&node.at, message, Some(hint.to_owned()));
    }
    let inside = |listener: &Listener| (range.first..=range.last).contains(&listener.address.port());
    if let Some((name, listener)) = listeners.into_iter().flatten().find(|(_, listener)| inside(listener)) {
        let message = format!("`ports` holds port {} of listener `{name}`", listener.address.port());
        problems.add(&node.at, message, Some("choose a range without it".to_owned()));
    }
    Some(range)
}

fn access_log(table: &mut Table<'_>, problems: &mut Problems) -> Option<AccessLog> {
    let scopes = [("none", AccessLogScope::None), ("failed", AccessLogScope::Failed), ("all", AccessLogScope::All)];
    let formats = [("json", AccessLogFormat::Json), ("common", AccessLogFormat::Common)];
    let mut log = match table.take("access_log") {
        Some(node) => Table::open(node, "`access_log`", problems)?,
        None => Table::empty(&At::default(), "`access_log`"),
    };
    let scope = log.take("requests");
    let scope = scope.map_or(Some(AccessLogScope::Failed), |node| choice(node, "`requests`", &scopes, problems));
    let format = log.take("format");
    let format = format.map_or(Some(AccessLogFormat::Json), |node| choice(node, "`format`", &formats, problems));
    log.finish(problems);
    Some(AccessLog { scope: scope?, format: format? })
}

fn services(node: &Node, house: &House<'_>, problems: &mut Problems) -> Option<BTreeMap<ServiceName, model::Service>> {
    let mut services = BTreeMap::new();
    let (mut routes_seen, mut listeners_named) = (Vec::new(), Vec::new());
    let mut shared_previews = BTreeMap::new();
    for (key, value) in entries(node, "`services`", problems)? {
        let name = ServiceName::new(&key.text).map_err(|e| problems.add(&key.at, e.to_string(), None));
        let Some((service, places)) = service::service(&key.text, &key.at, value, house, problems) else { continue };
        for (route, at) in service.routes.iter().zip(places) {
            if let Ok(name) = &name {
                listeners_named.push((name.clone(), route.listener.clone(), at.clone()));
            }
            let owner = routes_seen.iter().find(|(seen, _)| seen == route);
            // Whose listener another one's is, is told below.
            if let Some((_, owner)) = owner.filter(|_| service.protocol != model::Protocol::Tcp) {
                let message = format!("a route of service `{}` is also one of service `{owner}`", key.text);
                problems.add(&at, message, Some("change its `listener`, `host` or `path`".to_owned()));
            }
            if service.protocol != model::Protocol::Tcp {
                routes_seen.push((route.clone(), &key.text));
            }
        }
        if !service.preview_host.contains("{service}")
            && let Some(owner) = shared_previews.insert(service.preview_host.clone(), &key.text)
        {
            let message = format!("services `{owner}` and `{}` have the same `preview_host`", key.text);
            problems.add(&key.at, message, Some("put `{service}` into it".to_owned()));
        }
        if let Ok(name) = name {
            services.insert(name, service);
        }
    }
    if let Some(listeners) = house.listeners {
        tcp::apart(&services, &listeners_named, listeners, problems);
    }
    Some(services)
}
