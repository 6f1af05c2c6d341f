//! `protocol: tcp`: what has no meaning where nothing is read in what clients say.

use std::collections::BTreeMap;

use model::{Listener, ListenerName, Protocol, Service, ServiceName};

use crate::node::{At, Key, Kind, Node};
use crate::problems::Problems;

/// Pools of connections rest longer than bodies of HTTP.
pub(crate) const IDLE_MS: u64 = 3_600_000;

const WITH: &str = "has no meaning with `protocol: tcp`";

/// Tells of each field that only HTTP knows.
pub(crate) fn refuse(service: &Node, place: &str, problems: &mut Problems) {
    let mut tell = |at: &At, what: &str, hint: &str| problems.add(at, format!("`{what}` {WITH}"), Some(hint.to_owned()));
    if let Some((key, _)) = field(service, "preview_host") {
        tell(
            &key.at,
            &key.text,
            "a connection does not say which version it wants; try a version at its own port (`changeover status --json`)",
        );
    }
    if let Some((key, _)) = field(service, "timeouts").and_then(|(_, node)| field(node, "response_header")) {
        tell(&key.at, &key.text, "`stream_idle` is how long a connection may rest");
    }
    let health = field(service, "health").map(|(_, node)| node);
    let asks = health.and_then(|node| field(node, "check")).is_some_and(|(_, node)| is(node, "http") || is(node, "grpc"));
    for name in ["path", "host", "status"].into_iter().filter(|_| !asks) {
        if let Some((key, _)) = health.and_then(|node| field(node, name)) {
            tell(&key.at, &key.text, "a target is well when it accepts a connection; say `check: http` when it answers HTTP all the same");
        }
    }
    for strategy in strategies(service) {
        gates(strategy, &mut tell);
        if let Some((key, _)) = field(strategy, "mirror") {
            tell(&key.at, &key.text, "what is not understood cannot be copied safely");
        }
        if let Some((_, node)) = field(strategy, "sticky") {
            let hint = "a client is known by its address: `sticky: address`";
            match ["cookie", "header"].into_iter().find_map(|name| field(node, name)) {
                Some((key, _)) => tell(&key.at, &key.text, hint),
                None if is(node, "cookie") => tell(&node.at, "cookie", hint),
                None => {}
            }
        }
    }
    let Some((_, routes)) = field(service, "routes") else { return };
    let Kind::List(items) = &routes.kind else { return };
    for (key, _) in items.iter().flat_map(|item| ["host", "path"].into_iter().filter_map(|name| field(item, name))) {
        tell(&key.at, &key.text, "a connection says neither host nor path: it is its listener's");
    }
    if let Some(second) = items.get(1) {
        let hint = "name one listener, which is this service's alone".to_owned();
        problems.add(&second.at, format!("{place} has two routes, and speaks `protocol: tcp`"), Some(hint));
    }
}

/// A listener of such a service is nobody else's, and believes nothing that only HTTP says. `places`: where each service names a listener.
pub(crate) fn apart(
    services: &BTreeMap<ServiceName, Service>,
    places: &[(ServiceName, ListenerName, At)],
    listeners: &BTreeMap<ListenerName, Listener>,
    problems: &mut Problems,
) {
    let is_tcp = |name: &ServiceName| services.get(name).is_some_and(|service| service.protocol == Protocol::Tcp);
    for (index, (name, listener, at)) in places.iter().enumerate() {
        let earlier = places[..index].iter().find(|(other, theirs, _)| other != name && theirs == listener);
        if let Some((other, ..)) = earlier.filter(|(other, ..)| is_tcp(name) || is_tcp(other)) {
            let tcp = if is_tcp(name) { name } else { other };
            let message = format!("listener `{listener}` is of service `{other}` and of `{name}`, and `{tcp}` speaks `protocol: tcp`");
            let hint = "a connection says nothing by which two services could be told apart: give each a listener of its own";
            problems.add(at, message, Some(hint.to_owned()));
        }
        if is_tcp(name) && listeners.get(listener).is_some_and(|it| !it.forwarders.fields.is_empty()) {
            let message = format!("`trusted_proxies` of listener `{listener}` {WITH}, which service `{name}` speaks");
            let hint = "`X-Forwarded-For` is a field of HTTP; `proxy_protocol` says whom a connection is from";
            problems.add(at, message, Some(hint.to_owned()));
        }
    }
}

/// What stands under `strategy`, whichever it is.
fn strategies(service: &Node) -> impl Iterator<Item = &Node> {
    let strategy = field(service, "strategy").map(|(_, node)| node);
    ["blue_green", "canary"].into_iter().filter_map(move |name| field(strategy?, name).map(|(_, node)| node))
}

/// Those of the strategy and of its steps.
fn gates(strategy: &Node, tell: &mut impl FnMut(&At, &str, &str)) {
    let steps = field(strategy, "steps").map_or(&[][..], |(_, node)| items(node));
    for node in std::iter::once(strategy).chain(steps) {
        let gates = field(node, "gates").map_or(&[][..], |(_, node)| items(node));
        for (key, _) in gates.iter().filter_map(|gate| field(gate, "http")) {
            tell(&key.at, &key.text, "ask with a program that speaks the protocol: `command: …`");
        }
    }
}

fn items(node: &Node) -> &[Node] {
    match &node.kind {
        Kind::List(items) => items,
        _ => &[],
    }
}

fn field<'a>(node: &'a Node, name: &str) -> Option<&'a (Key, Node)> {
    match &node.kind {
        Kind::Map(entries) => entries.iter().find(|(key, _)| key.text == name),
        _ => None,
    }
}

fn is(node: &Node, text: &str) -> bool {
    matches!(&node.kind, Kind::Scalar(scalar) if scalar == text)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use model::{Check, Protocol, StickyBy};

    use crate::{parse, schema};

    const LISTENERS: &str = "listeners: { cache: 127.0.0.1:6379, web: 127.0.0.1:8080 }\nservices:\n";
    const RUN: &str = "protocol: tcp, run: { command: ./server }";

    fn read(services: &str) -> Result<model::Desired, crate::Rejected> {
        parse(&format!("{LISTENERS}{services}"), Path::new("/srv/changeover.yaml"))
    }

    /// This message and no other, at the place marked with `^`.
    fn check(marked: &str, expect: &str) {
        let services = marked.replace('^', "");
        let before = &marked[..marked.find('^').expect("a mark")];
        let (line, column) = (before.matches('\n').count() + 3, before.chars().rev().take_while(|it| *it != '\n').count() + 1);
        let rejected = read(&services).expect_err(&services);
        let hint = |hint: &Option<String>| hint.as_ref().map(|hint| format!(" | {hint}")).unwrap_or_default();
        let messages = rejected.diagnostics.iter().map(|it| format!("{}:{} {}{}", it.line, it.column, it.message, hint(&it.hint)));
        assert_eq!(messages.collect::<Vec<_>>(), [format!("{line}:{column} {expect}")], "{marked}");
    }

    #[test]
    fn such_a_service_is_read() {
        let service = |text: &str| {
            let desired = read(&format!("  cache: {{ routes: [{{ listener: cache }}], {RUN}{text} }}")).unwrap_or_else(|e| panic!("{e}"));
            desired.services.into_values().next().expect("one")
        };
        let plain = service("");
        assert_eq!((plain.protocol, plain.health.check, plain.stream_idle_timeout_ms), (Protocol::Tcp, Check::Connect, 3_600_000));
        assert_eq!((plain.routes.len(), plain.routes[0].listener.as_str()), (1, "cache"));
        let full =
            service(", health: { check: http, path: /up }, timeouts: { stream_idle: 10m }, strategy: { canary: { sticky: address } }");
        assert_eq!((full.health.check, full.health.path.as_str(), full.stream_idle_timeout_ms), (Check::Http, "/up", 600_000));
        assert_eq!(full.strategy.canary.and_then(|canary| canary.sticky), Some(StickyBy::Address));
        let desired = read("  web: { routes: [{ listener: web }], run: { command: ./a } }").unwrap_or_else(|e| panic!("{e}"));
        let web = desired.services.values().next().expect("one");
        assert_eq!((web.protocol, web.health.check, web.stream_idle_timeout_ms), (Protocol::Http1, Check::Http, 300_000));
        let schema = schema();
        assert!(schema.contains("\"protocol\": {") && schema.contains("\"check\": {"));
    }

    #[test]
    fn what_only_http_knows_is_refused() {
        let no = |what: &str, hint: &str| format!("`{what}` has no meaning with `protocol: tcp` | {hint}");
        let one = |text: &str, what: &str, hint: &str| {
            check(&format!("  a: {{ routes: [{{ listener: cache }}], {RUN}, {text} }}"), &no(what, hint));
        };
        let version = "a connection does not say which version it wants; try a version at its own port (`changeover status --json`)";
        one("^preview_host: '{version}.b'", "preview_host", version);
        one("timeouts: { ^response_header: 1s }", "response_header", "`stream_idle` is how long a connection may rest");
        let accepts = "a target is well when it accepts a connection; say `check: http` when it answers HTTP all the same";
        one("health: { ^path: /up }", "path", accepts);
        one("health: { check: tcp, ^status: 200 }", "status", accepts);
        let address = "a client is known by its address: `sticky: address`";
        one("strategy: { canary: { sticky: ^cookie } }", "cookie", address);
        one("strategy: { canary: { sticky: { ^header: x-user } } }", "header", address);
        one("strategy: { canary: { ^mirror: [GET] } }", "mirror", "what is not understood cannot be copied safely");
        let program = "ask with a program that speaks the protocol: `command: …`";
        one("strategy: { blue_green: { gates: [{ name: up, ^http: { path: / } }] } }", "http", program);
        one("strategy: { canary: { steps: [{ weight: 5%, gates: [{ name: up, ^http: { path: / } }] }] } }", "http", program);
        check(
            &format!("  a: {{ routes: [{{ listener: cache, ^path: /a }}], {RUN} }}"),
            &no("path", "a connection says neither host nor path: it is its listener's"),
        );
        check(
            &format!("  a: {{ routes: [{{ listener: cache }}, ^{{ listener: web }}], {RUN} }}"),
            "service `a` has two routes, and speaks `protocol: tcp` | name one listener, which is this service's alone",
        );
        check(
            "  a: { routes: [{ listener: web }], run: { command: ./a }, health: { check: ^tcp } }",
            "`check: tcp` is for services with `protocol: tcp` | \
             the kernel accepts connections for a program that hangs: leave it out, and name a `path`",
        );
        check(
            "  a: { routes: [{ listener: web }], run: { command: ./a }, protocol: ^udp }",
            "unknown value `udp` of `protocol` | expected `http1`, `http2` or `tcp`",
        );
        check(
            &format!("  ^a: {{ {RUN} }}"),
            "service `a` does not say its listener, and there are 2 | such as `routes: [{ listener: cache }]`",
        );
    }

    #[test]
    fn its_listener_is_its_own() {
        let alone = "a connection says nothing by which two services could be told apart: give each a listener of its own";
        let clash = |first: &str, second: &str, whose: &str| {
            let message = format!("listener `cache` is of service `a` and of `b`, and `{whose}` speaks `protocol: tcp` | {alone}");
            check(
                &format!("  a: {{ routes: [{{ listener: cache }}], {first} }}\n  b: {{ routes: [^{{ listener: cache }}], {second} }}"),
                &message,
            );
        };
        clash(RUN, RUN, "b");
        clash("run: { command: ./a }", RUN, "b");
        clash(RUN, "run: { command: ./a }", "a");
        let trusting = "listeners: { cache: { address: 127.0.0.1:6379, trusted_proxies: [10.0.0.0/8] } }\n";
        let rejected = parse(&format!("{trusting}services: {{ a: {{ {RUN} }} }}"), Path::new("/srv/changeover.yaml")).expect_err("trusts");
        assert!(rejected.to_string().contains("`trusted_proxies` of listener `cache` has no meaning with `protocol: tcp`"), "{rejected}");
    }
}
