//! Each message once, the defaults, the template, and text that nobody would write.

use std::path::Path;

use model::{HostPattern, Runtime};
use proptest::prelude::*;

use crate::{Rejected, parse, schema, template};

const FULL: &str = r#"
listeners: { main: 127.0.0.1:8080, admin: { address: "[::1]:8081" } }
ports: 21000-21999
access_log: { requests: all, format: common }
api: { listen: 127.0.0.1:9180, tokens: ./tokens, hosts: [Changeover.example.com] }
services:
  web:
    routes: [ { listener: main, host: "*.Example.com", path: /api/ } ]
    run:
      runtime: process
      command: ./server --port {port}
      env: { VERSION: 1.10, ON: yes, N: 0x10, EMPTY: , TEXT: "a b" }
      cwd: ./sub
      user: www-data
      targets: 2
      stop_signal: SIGINT
      stop_grace: 1m 30s
    health: { path: /healthz, host: , status: 200, interval: 1s, timeout: 2s, rise: 3, fall: 3, start_timeout: 30s }
    strategy:
      blue_green:
        promotion: manual
        gates:
          - { name: smoke, command: [./smoke.sh, "a b"] }
          - { name: warm, http: { path: /warm, status: 200-204 } }
          - { name: db, migrate: ./migrate.sh, irreversible: true, timeout: 5m }
        watch: 60s
        watch_errors: 0.5%
        watch_requests: 50
        drain: 30s
        standby: { hot: 5m, frozen: 4h }
    preview_host: "{version}.{service}.localhost"
    timeouts: { response_header: 30s, stream_idle: 5m }
"#;

fn read(text: &str) -> Result<model::Desired, Rejected> {
    parse(text, Path::new("/srv/changeover.yaml"))
}

/// The one service's fields are `fields`; the first message must be `expect` at line:column.
fn check(fields: &str, expect: &str) {
    check_file(&format!("listeners: {{ main: 127.0.0.1:80 }}\nservices:\n  web:\n    {fields}\n"), expect);
}

fn check_file(text: &str, expect: &str) {
    let rejected = read(text).expect_err(text);
    let d = &rejected.diagnostics[0];
    let hint = d.hint.as_ref().map(|hint| format!(" | {hint}")).unwrap_or_default();
    assert_eq!(format!("{}:{} {}{hint}", d.line, d.column, d.message), expect, "{text}\n{rejected}");
}

#[test]
fn everything_is_read() {
    let desired = read(FULL).unwrap_or_else(|e| panic!("{e}"));
    let web = desired.services.values().next().unwrap();
    assert_eq!(web.routes[0].host, HostPattern::Suffix(".example.com".to_owned()));
    assert_eq!(web.routes[0].path, "/api");
    let api = desired.api.expect("an api");
    assert_eq!(
        (api.tokens.as_deref(), api.hosts.as_slice()),
        (Some(Path::new("/srv/./tokens")), ["changeover.example.com".to_owned()].as_slice())
    );
    assert_eq!((web.strategy.watch_errors_max, web.strategy.gates.len(), web.run.targets), (50, 3, 2));
    assert_eq!((web.strategy.standby_ms, web.strategy.frozen_ms), (300_000, 14_400_000));
    let Runtime::Process { env, cwd, stop_grace_ms, .. } = &web.run.runtime else { panic!("a process") };
    assert_eq!((cwd.as_path(), *stop_grace_ms), (Path::new("/srv/sub"), 90_000));
    let values: Vec<_> = env.values().map(String::as_str).collect();
    assert_eq!(values, ["", "0x10", "yes", "a b", "1.10"]);
}

#[test]
fn the_template_works_as_it_is() {
    let plain = read(template()).unwrap_or_else(|e| panic!("{e}"));
    let minimal =
        "listeners: { main: 127.0.0.1:8080 }\nservices:\n  web:\n    run: { command: python3 -m http.server {port} --bind 127.0.0.1 }";
    let minimal = minimal.replace("python3 -m http.server {port} --bind 127.0.0.1", "'python3 -m http.server {port} --bind 127.0.0.1'");
    assert_eq!(plain, read(&minimal).unwrap_or_else(|e| panic!("{e}")));
}

#[test]
fn a_mistake_is_shown_where_it_was_made() {
    let text = "listeners: { main: 127.0.0.1:80 }\nservices:\n  web:\n    run: { command: x }\n    helth: { path: / }\n";
    let shown = parse(text, Path::new("changeover.yaml")).unwrap_err().to_string();
    let expect = "\
error: unknown field `helth` in service `web`
 --> changeover.yaml:5:5
  |
5 |     helth: { path: / }
  |     ^^^^^ did you mean `health`?";
    assert_eq!(shown, expect);
}

#[test]
fn several_mistakes_are_met_at_once() {
    let text = "listeners: { main: 80 }\nports: 9-8\nservices:\n  web: { run: { targets: 0 } }\n";
    assert_eq!(read(text).unwrap_err().diagnostics.len(), 4);
}

#[test]
fn each_mistake_has_its_message() {
    let duration = "must be a duration such as `500ms`, `10s` or `5m`, found";
    check("health: { interval: 10 }\n    run: { command: x }", &format!("4:25 `interval` {duration} `10` | say `10s`"));
    check("health: { interval: 1ms }\n    run: { command: x }", "4:25 `interval` must be at least 10ms, found `1ms`");
    check("run: { targets: 65, command: x }", "4:21 `targets` must be a whole number from 1 to 64, found `65`");
    check("routes: [{ listener: man }]\n    run: { command: x }", "4:26 unknown listener `man` | did you mean `main`?");
    check("routes: [{ path: api }]\n    run: { command: x }", "4:22 `path` must be a path that starts with `/`, found `api` | say `/api`");
    check("run: { stop_signal: TREM, command: x }", "4:25 unknown value `TREM` of `stop_signal` | did you mean `TERM`?");
    check(
        "run: { runtime: static, command: x }",
        "4:29 `command` has no meaning with `runtime: static` | remove it, or use `runtime: process`",
    );
    check(
        "run: { runtime: process }",
        "4:10 missing field `command` in `run` of service `web` | such as `command: ./server --port {port}`, or `runtime: static`",
    );
    check("run: { command: a | b }", "4:21 `command` has `|`, and no shell runs it | say `[sh, -c, \"exec …\"]`");
    let blue_green = |standby: &str| format!("strategy: {{ blue_green: {{ standby: {standby} }} }}\n    run: {{ command: x }}");
    let stages = "`standby: { hot: 10m, frozen: 4h }`";
    check(&blue_green("frozen"), &format!("4:40 `standby` does not say for how long | such as {stages}"));
    check(&blue_green("{ warm: 1h }"), "4:42 unknown field `warm` in `standby` | expected `hot` or `frozen`");
    check(&blue_green("{ frozen: 4 }"), &format!("4:50 `frozen` {duration} `4` | say `4s`"));
    check(
        "strategy: { blue_green: { standby: { frozen: 4h } } }\n    run: { runtime: static }",
        "3:3 what runs elsewhere cannot be `frozen` | say how long it stays hot: `standby: 10m`",
    );
    check("strategy: rolling\n    run: { command: x }", "4:15 unknown value `rolling` of `strategy` | expected `blue_green` or `canary`");
    check(
        "strategy: { blue_green: { watch_errors: 1 } }\n    run: { command: x }",
        "4:45 `watch_errors` must be a share from `0%` to `100%`, with two decimals at most, found `1` | say `1%`",
    );
    let canary = |settings: &str| format!("strategy: {{ canary: {{ {settings} }} }}\n    run: {{ command: x }}");
    check(&canary("steps: [5%, 1%]"), "4:39 steps must rise: 1% comes after 5% | such as `steps: [1%, 5%, 20%, 100%]`");
    let share = "must be a share from `0%` to `100%`, with two decimals at most, found";
    check(&canary("steps: [1%, 120%]"), &format!("4:39 a step {share} `120%`"));
    check(&canary("steps: [5]"), &format!("4:35 a step {share} `5` | say `5%`"));
    check(
        &canary("analysis: none"),
        "4:37 `analysis: none` does not say why | a canary without criteria is a slower way to fail; \
         if it must be: `analysis: { none: \"the reason\" }`",
    );
    check(&canary("analysis: { guards: [{ erors: 2% }] }"), "4:50 unknown metric `erors` | did you mean `errors`?");
    check(
        &canary("analysis: { metrics: [{ name: q, tolerance: 1, prometheus: { url: 'http://h', query: up } }] }"),
        "4:112 `query` has no `{version}`, so that candidate and stable would be the same | it is asked once for each version: \
         such as `{version=\"{version}\"}`",
    );
    check(
        &canary("analysis: { budget: 0% }"),
        "4:47 `budget` must be above 0% | no number of requests can show that nothing at all gets worse; such as `0.1%`",
    );
    check(
        &canary("promotion: manual"),
        "4:27 `promotion` has no meaning with `canary` | a gate of a step waits for a person: \
         `gates: [{ name: ok, approval: { otherwise: abort } }]`",
    );
    check(
        &canary("gates: [{ name: ok, approval: {} }]"),
        "4:57 missing field `otherwise` in `approval` of gate `ok` | what follows when nobody approves in time: \
         `otherwise: abort` or `otherwise: proceed`",
    );
    check_file("services: {}", "1:1 missing field `listeners` in the file | add `listeners: { main: 127.0.0.1:8080 }`");
    check_file("listeners: { a: 127.0.0.1:80, b: 127.0.0.1:80 }", "1:34 listeners `a` and `b` have the same address");
    check_file(
        "listeners: { a: 127.0.0.1:80 }\nports: 40000-40010",
        "2:8 `ports` overlaps 32768-60999 | the kernel takes those for outgoing connections; the default is `21000-21999`",
    );
    check_file(
        "listeners: { a: 127.0.0.1:80 }\nports: 80-90",
        "2:8 `ports` must be a range within 1024-65535, found `80-90` | such as `21000-21999`",
    );
    check_file(
        "listeners: { a: 127.0.0.1:80 }\nservices:\n  We: { run: { command: x } }",
        "3:3 `We` cannot be the name of a service: 1 to 63 of a-z, 0-9 and `-`, not first or last",
    );
    check_file(
        "listeners: { a: 127.0.0.1:80 }\nservices:\n  x: { run: { command: x } }\n  y: { run: { command: x } }",
        "4:3 a route of service `y` is also one of service `x` | change its `listener`, `host` or `path`",
    );
}

const CANARY: &str = r#"
listeners: { main: 127.0.0.1:8080 }
services:
  web:
    run: { command: ./server }
    strategy:
      canary:
        steps: [0.1%, { weight: 5%, dwell: 2m, max: 1h, targets: 2, gates: [{ name: ok, approval: { otherwise: proceed }, timeout: 2h }] }]
        keep: 1h
        mirror: { methods: [GET], body: 1000 }
        sticky: { header: X-User, window: 30s }
        analysis:
          tolerate: { errors: 0.1%, slower: 50% }
          warm_up: 10s
          timeout_bad: 15s
          budget: 0.05%
          latency_budget: 1%
          expired: ask
          independence: 2.5
          guards: [{ errors: 2%, p99: 800ms }, { queue: 40 }]
          metrics:
            - { name: queue, prometheus: { url: "http://127.0.0.1:9090", query: "q{version='{version}'}" }, tolerance: 5, margin: 10, interval: 1s }
            - { name: heap, command: [./heap, "{version}"], tolerance: 1, higher_is_better: true, skewed: true, dry_run: true, missing_max: 1m }
            - { name: depth, http: { url: "http://h/{version}", pointer: /a/b }, tolerance: 1, timeout: 1s }
"#;

#[test]
fn a_canary_is_read() {
    let desired = read(CANARY).expect("sound");
    let canary = desired.services.values().next().and_then(|web| web.strategy.canary.clone()).expect("a canary");
    let weights: Vec<u16> = canary.steps.iter().map(|step| step.weight).collect();
    assert_eq!(weights, [0, 10, 500, 10_000], "all of it comes last by itself, and copies come first");
    assert_eq!((canary.steps[2].dwell_ms, canary.steps[2].max_ms, canary.steps[2].targets), (120_000, 3_600_000, Some(2)));
    let model::Analysis::Judged(judging) = canary.analysis else { panic!("it is judged") };
    assert_eq!((judging.budget, judging.timeout_bad_ms, judging.guards.len(), judging.metrics.len()), (0.000_5, 15_000, 3, 3));
    let plain = "listeners: { main: 127.0.0.1:8080 }\nservices: { web: { run: { command: x }, strategy: canary } }";
    let desired = read(plain).expect("a word is enough");
    let canary = desired.services.values().next().and_then(|web| web.strategy.canary.clone()).expect("a canary");
    assert_eq!(canary.steps.iter().map(|step| step.weight).collect::<Vec<_>>(), [100, 500, 2_000, 10_000]);
    let schema = schema();
    for word in CANARY.split(|c: char| !c.is_ascii_lowercase() && c != '_' && c != ':') {
        let Some(field) = word.strip_suffix(':').filter(|f| !["main", "web", "http", "", ":", "errors", "queue"].contains(f)) else {
            continue;
        };
        assert!(schema.contains(&format!("\"{field}\": {{")) || field.starts_with('p'), "{field}");
    }
}

#[test]
fn mistakes_in_api_have_their_message() {
    let check = |api: &str, expect: &str| check_file(&format!("listeners: {{ main: 127.0.0.1:80 }}\napi: {api}"), expect);
    check("127.0.0.1:80", "2:6 `api` has the address of listener `main` | clients come there; choose another port, such as 9180");
    check("127.0.0.1:21005", "2:6 `api` has a port of `ports` (21000-21999) | choose one outside, such as 9180");
    check("9180", "2:6 `api` must be an IP address and a port, found `9180` | say `127.0.0.1:9180`");
    check("{ tokens: x }", "2:6 missing field `listen` in `api` | such as `listen: 127.0.0.1:9180`");
    check("{ listen: 127.0.0.1:9180, token: x }", "2:32 unknown field `token` in `api` | did you mean `tokens`?");
    check(
        "{ listen: 127.0.0.1:9180, tokens: act ana 0123 }",
        "2:40 `tokens` must be the path of a file | write the tokens into a file (`changeover token` does), and its path here",
    );
    check(
        "{ listen: 127.0.0.1:9180, hosts: ['page.test:443'] }",
        "2:40 a name of `hosts` must be a host, found `page.test:443` | leave the port out: `page.test`",
    );
}

const TLS: &str = r#"
listeners:
  main:
    address: 127.0.0.1:8443
    tls:
      certificates:
        - { names: [Example.com, "*.example.com"], certificate: tls/example.pem, key: tls/example.key }
        - { certificate: /etc/other.pem, key: /etc/other.key }
      default: www.example.com
      client_ca: people.pem
      client_auth: optional
  short: { address: 127.0.0.1:8444, tls: { certificate: a.pem, key: a.key } }
services:
  web:
    routes: [{ listener: main }]
    run: { command: ./server }
    tls: { ca: internal.pem, name: App.internal, certificate: us.pem, key: us.key }
  plain:
    routes: [{ listener: short }]
    run: { command: ./server }
    tls:
"#;

#[test]
fn a_limit_for_each_address_is_read() {
    let file = |limit: &str| format!("listeners: {{ main: {{ address: 127.0.0.1:80, connections_per_address: {limit} }} }}");
    let limit =
        |text: &str| read(text).unwrap_or_else(|e| panic!("{e}")).listeners.values().next().and_then(|it| it.connections_per_address);
    assert_eq!((limit(&file("200")), limit("listeners: { main: 127.0.0.1:80 }")), (Some(200), None));
    check_file(&file("0"), "1:70 `connections_per_address` must be a whole number from 1 to 1000000, found `0`");
    assert!(schema().contains("\"connections_per_address\": {"));
}

#[test]
fn who_is_believed_is_read() {
    let file = |text: &str| {
        format!(
            "listeners: {{ main: {{ address: 127.0.0.1:80, {text} }} }}\nservices: {{ web: {{ run: {{ command: ./a }}, target_proxy_protocol: v2 }} }}"
        )
    };
    let desired = read(&file("proxy_protocol: [10.0.0.0/8, 192.0.2.1], trusted_proxies: ['fd00::/8']")).unwrap_or_else(|e| panic!("{e}"));
    let networks = |networks: &[model::IpNet]| networks.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    let forwarders = &desired.listeners.values().next().expect("one").forwarders;
    assert_eq!(networks(&forwarders.proxy_protocol), "10.0.0.0/8 192.0.2.1/32");
    assert_eq!(networks(&forwarders.fields), "fd00::/8");
    assert_eq!(desired.services.values().next().expect("one").target_proxy_protocol, Some(model::ProxyProtocol::V2));
    let refused = |text: &str, why: &str| {
        let error = read(&file(text)).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains(why) && error.contains("changeover.yaml:1:"), "{error}");
    };
    refused("proxy_protocol: [10.0.0.1/8]", "`10.0.0.1/8` of `proxy_protocol` has bits behind its prefix");
    refused("trusted_proxies: [everybody]", "`trusted_proxies` must be networks or addresses, found `everybody`");
    refused("proxy_protocol: []", "`proxy_protocol` is empty");
    refused("proxy_protocol: ", "`proxy_protocol` is empty");
    assert!(schema().contains("\"target_proxy_protocol\": {"));
}

#[test]
fn tls_is_read() {
    use model::{Authorities, Certificate, ClientAuth, DefaultCertificate, TargetTls};
    let desired = read(TLS).unwrap_or_else(|e| panic!("{e}"));
    let listeners: Vec<_> = desired.listeners.values().map(|listener| listener.tls.clone().expect("tls")).collect();
    let pair = |names: &[&str], certificate: &str, key: &str| Certificate {
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        certificate: certificate.into(),
        key: key.into(),
    };
    let first = pair(&["example.com", "*.example.com"], "/srv/tls/example.pem", "/srv/tls/example.key");
    assert_eq!(listeners[0].certificates, [first, pair(&[], "/etc/other.pem", "/etc/other.key")]);
    assert_eq!(listeners[0].default, DefaultCertificate::Name("www.example.com".to_owned()));
    assert_eq!(listeners[0].client_auth, Some(ClientAuth { ca: "/srv/people.pem".into(), required: false }));
    assert_eq!((&listeners[1].default, &listeners[1].client_auth), (&DefaultCertificate::First, &None));
    assert_eq!(listeners[1].certificates, [pair(&[], "/srv/a.pem", "/srv/a.key")]);
    let services: Vec<_> = desired.services.values().map(|service| service.tls.clone().expect("tls")).collect();
    assert_eq!(services[0], TargetTls { ca: Authorities::System, name: None, identity: None }, "left empty, it is not left out");
    let identity = Some(("/srv/us.pem".into(), "/srv/us.key".into()));
    let ca = Authorities::File("/srv/internal.pem".into());
    assert_eq!(services[1], TargetTls { ca, name: Some("app.internal".to_owned()), identity });
    let required = TLS.replace("      client_auth: optional\n", "").replace("default: www.example.com", "default: none");
    let desired = read(&required).unwrap_or_else(|e| panic!("{e}"));
    let main = desired.listeners.values().next().and_then(|listener| listener.tls.clone()).expect("tls");
    assert!(main.client_auth.is_some_and(|auth| auth.required) && main.default == DefaultCertificate::Nothing);
    let schema = schema();
    for field in ["certificates", "names", "certificate", "key", "default", "client_ca", "client_auth", "tls", "ca", "name"] {
        assert!(schema.contains(&format!("\"{field}\": {{")), "{field}");
    }
}

#[test]
fn mistakes_in_tls_have_their_message() {
    let check_tls = |tls: &str, expect: &str| check_file(&format!("listeners:\n  main: {{ address: 127.0.0.1:443, tls: {tls} }}"), expect);
    check_tls(
        "",
        "2:38 `tls` of listener `main` is empty | such as `tls: { certificate: example.pem, key: example.key }`; leave it out to speak in clear",
    );
    check_tls(
        "{}",
        "2:40 missing field `certificates` in `tls` of listener `main` | \
         such as `certificates: [{ certificate: example.pem, key: example.key }]`, or `acme`",
    );
    check_tls("{ certificates: [] }", "2:56 `certificates` is empty | such as `certificate: example.pem, key: example.key`");
    check_tls(
        "{ certificate: a.pem }",
        "2:40 missing field `key` in `tls` of listener `main` | such as `certificate: example.pem, key: example.key`",
    );
    check_tls(
        "{ certificates: [{ certificate: a.pem, key: a.key }], key: b.key }",
        "2:94 `key` stands beside `certificates` | put it into an entry of `certificates`, or leave `certificates` out",
    );
    check_tls(
        "{ certificate: a.pem, key: a.key, names: [127.0.0.1] }",
        "2:82 a name of `names` must be a name, found the address `127.0.0.1` | \
         clients that connect to an address name nobody; they get the `default`",
    );
    check_tls(
        "{ certificate: a.pem, key: a.key, names: ['a.test:443'] }",
        "2:82 a name of `names` must be a host or `*.` and a host, found `a.test:443` | leave the port out: `a.test`",
    );
    check_tls(
        "{ certificate: a.pem, key: a.key, names: [a.test], default: b.test }",
        "2:100 no certificate has the name `b.test` of `default` | one of the `names` or `domains`, `first` or `none`",
    );
    check_tls(
        "{ certificate: a.pem, key: a.key, client_auth: required }",
        "2:87 `client_auth` without `client_ca` | add `client_ca`: the file of the authorities that clients' certificates come from",
    );
    check_tls(
        "{ certificate: a.pem, key: a.key, client_ca: }",
        "2:83 `client_ca` is empty | leave it out to ask clients for no certificate",
    );
    check_tls(
        "{ certificate: a.pem, key: a.key, nams: x }",
        "2:74 unknown field `nams` in `tls` of listener `main` | did you mean `names`?",
    );
    check_tls(
        "{ certificate: '-----BEGIN CERTIFICATE-----', key: a.key }",
        "2:55 `certificate` must be the path of a file | write it into a file, and its path here",
    );
    check(
        "run: { command: x }\n    tls: { certificate: a.pem }",
        "5:10 missing field `key` in `tls` of service `web` | it belongs to `certificate`",
    );
    check(
        "run: { command: x }\n    tls: { name: 'a b' }",
        "5:18 `name` must be a host or an address, found `a b` | such as `app.internal`: what the targets' certificate names",
    );
}

#[test]
fn acme_is_read() {
    use model::{Acme, Authorities, Challenge};
    let of = |listeners: &str| {
        let desired = read(&format!("listeners: {{ {listeners} }}")).unwrap_or_else(|e| panic!("{e}"));
        desired.listeners.into_values().find_map(|listener| listener.tls?.acme).expect("acme")
    };
    let short = of("main: { address: 0.0.0.0:443, tls: { acme: { domains: [Shop.example], terms_agreed: true } } }");
    let directory = "https://acme-v02.api.letsencrypt.org/directory".to_owned();
    let domains = vec!["shop.example".to_owned()];
    assert_eq!(short, Acme { domains, email: None, directory, ca: Authorities::System, challenge: Challenge::TlsAlpn });
    let full = of("main: { address: 0.0.0.0:443, tls: { acme: { domains: [a.example, b.example], email: ops@b.example, \
         directory: 'https://ca.internal:14000/dir', ca: ca.pem, challenge: http-01, terms_agreed: true } } }, plain: 0.0.0.0:8080");
    assert_eq!((full.domains.len(), full.email.as_deref()), (2, Some("ops@b.example")));
    assert_eq!((full.directory.as_str(), full.challenge), ("https://ca.internal:14000/dir", Challenge::Http));
    assert_eq!(full.ca, Authorities::File("/srv/ca.pem".into()));
    let asked = "tls: { acme: { domains: [a.example], directory: staging, terms_agreed: true } }";
    assert!(of(&format!("main: {{ address: 0.0.0.0:443, {asked} }}")).directory.contains("acme-staging-v02"));
    let check =
        |listeners: &str, expected: Challenge| assert_eq!(of(&listeners.replace("ASKED", asked)).challenge, expected, "{listeners}");
    check("main: { address: '[::]:443', ASKED }, plain: 0.0.0.0:80", Challenge::TlsAlpn);
    check("main: { address: 0.0.0.0:8443, ASKED }, plain: 0.0.0.0:80", Challenge::Http);
    check("main: { address: 0.0.0.0:8443, ASKED }, plain: 0.0.0.0:8080", Challenge::TlsAlpn);
    let beside = read(
        "listeners: { main: { address: 0.0.0.0:443, tls: { certificate: a.pem, key: a.key, default: a.example, \
                       acme: { domains: [a.example], terms_agreed: true } } } }",
    );
    let tls = beside.unwrap_or_else(|e| panic!("{e}")).listeners.into_values().next().and_then(|listener| listener.tls).expect("tls");
    assert!(tls.certificates.len() == 1 && tls.acme.is_some());
    let schema = schema();
    for field in ["acme", "domains", "email", "directory", "challenge", "terms_agreed"] {
        assert!(schema.contains(&format!("\"{field}\": {{")), "{field}");
    }
}

#[test]
fn mistakes_in_acme_have_their_message() {
    let check_acme = |acme: &str, expect: &str| {
        check_file(&format!("listeners:\n  main:\n    address: 127.0.0.1:443\n    tls:\n      acme: {acme}"), expect);
    };
    check_acme("", "5:11 `acme` is empty | such as `acme: { domains: [example.com], terms_agreed: true }`");
    check_acme(
        "{ terms_agreed: true }",
        "5:13 missing field `domains` in `acme` of listener `main` | such as `domains: [example.com, www.example.com]`",
    );
    check_acme(
        "{ domains: [a.example] }",
        "5:13 `acme` of listener `main` does not agree to the authority's terms | read the terms of the authority \
         (Let's Encrypt: https://letsencrypt.org/repository/); who agrees says `terms_agreed: true`",
    );
    let check_domain =
        |name: &str, expect: &str| check_acme(&format!("{{ terms_agreed: true, domains: [{name}] }}"), &format!("5:45 {expect}"));
    check_domain(
        "'*.a.example'",
        "`*.a.example`: an authority gives a wildcard only for a proof in DNS, which is not there | \
         name each host; a wildcard can come from files, in `certificates`",
    );
    check_domain(
        "192.0.2.1",
        "a name of `domains` must be a name, found the address `192.0.2.1` | such as `domains: [example.com, www.example.com]`",
    );
    check_domain("'a.example:443'", "a name of `domains` must be a host, found `a.example:443` | leave the port out: `a.example`");
    check_domain("a_b.example", "a name of `domains` must be a host, found `a_b.example` | such as `example.com`");
    check_domain("-a.example", "a name of `domains` must be a host, found `-a.example` | such as `example.com`");
    check_domain(
        "käse.example",
        "`käse.example` must be written in ASCII | as `xn--…`: what `idn` or a browser's address line makes of it",
    );
    check_domain(
        "localhost",
        "`localhost` is no public name | \
         Let's Encrypt is for names that the whole internet knows; an authority of your own stands in `directory`",
    );
    let check_more = |more: &str, expect: &str| check_acme(&format!("{{ terms_agreed: true, domains: [a.example], {more} }}"), expect);
    check_more("email: 'mailto:a@b'", "5:64 `email` must be one address, found `mailto:a@b` | such as `ops@example.com`");
    check_more(
        "directory: 'http://ca/dir'",
        "5:68 `directory` must be an authority that speaks ACME over HTTPS, found `http://ca/dir` | \
         `letsencrypt`, `staging` (Let's Encrypt for trying out), or such as `https://ca.internal/acme/directory`",
    );
    check_more(
        "challenge: dns-01",
        "5:68 `dns-01` is not there | \
         say `http-01` or `tls-alpn-01`; with `certificates`, another program may bring what DNS has proven",
    );
    check_more(
        "challenge: http-01",
        "5:13 `http-01` needs a listener in clear: there the authority asks | \
         add one, such as `plain: 0.0.0.0:80` in `listeners`, or say `challenge: tls-alpn-01`",
    );
    check_more("domain: b", "5:57 unknown field `domain` in `acme` of listener `main` | did you mean `domains`?");
    let asked = |port: u16, more: &str| {
        format!("{{ address: 0.0.0.0:{port}, tls: {{ acme: {{ domains: [a.example], terms_agreed: true{more} }} }} }}")
    };
    check_file(
        &format!("listeners:\n  a: {}\n  b: {}", asked(443, ""), asked(8443, ", directory: staging")),
        "3:44 `a.example` stands in `acme` of listeners `a` and `b`, which ask differently | \
         give both the same `directory`, `ca` and `email`: a name has one certificate",
    );
}

#[test]
fn services_may_be_absent() {
    assert!(read("listeners: { main: 127.0.0.1:80 }").unwrap().services.is_empty());
}

#[test]
fn the_schema_knows_every_field_of_the_full_example() {
    let schema = schema();
    assert!(schema.contains("https://json-schema.org/draft/2020-12/schema"));
    for word in FULL.split(|c: char| !c.is_ascii_lowercase() && c != '_' && c != ':') {
        let Some(field) = word.strip_suffix(':').filter(|f| !["main", "admin", "web", "", ":"].contains(f)) else { continue };
        assert!(schema.contains(&format!("\"{field}\": {{")), "{field}");
    }
}

proptest! {
    #[test]
    fn no_text_panics(text in "\\PC*", cut in 0..FULL.len(), noise in "[\\PC\n\r\t\0]{0,8}") {
        let _ = read(&text).map_err(|e| e.to_string());
        let _ = read(&format!("{}{noise}{}", &FULL[..cut], &FULL[cut..])).map_err(|e| e.to_string());
    }
}

#[test]
fn what_targets_speak_is_read() {
    let file = |text: &str| format!("listeners: {{ main: 127.0.0.1:80 }}\nservices: {{ web: {{ run: {{ command: ./a }}{text} }} }}");
    let service = |text: &str| {
        let desired = read(&file(text)).unwrap_or_else(|e| panic!("{e}"));
        let service = desired.services.into_values().next().expect("one");
        (service.protocol, service.health.check, service.health.grpc_service)
    };
    assert_eq!(service(""), (model::Protocol::Http1, model::Check::Http, String::new()));
    assert_eq!(service(", protocol: http2"), (model::Protocol::Http2, model::Check::Http, String::new()));
    let asks = ", protocol: http2, health: { check: grpc, service: a.B }";
    assert_eq!(service(asks), (model::Protocol::Http2, model::Check::Grpc, "a.B".to_owned()));
    let refused = |text: &str, why: &str| {
        let error = read(&file(text)).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains(why) && error.contains("changeover.yaml:2:"), "{error}");
    };
    refused(", health: { check: grpc }", "`check: grpc` needs `protocol: http2`");
    refused(", protocol: http2, health: { service: a.B }", "`service` has no meaning without `check: grpc`");
    refused(", protocol: http2, health: { check: tcp }", "`check: tcp` is for services with `protocol: tcp`");
    refused(", protocol: http3", "did you mean `http1`?");
    assert!(schema().contains("\"grpc\""));
}
