//! Counts as Prometheus text. Not here: counting.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use telemetry::Histogram;

use crate::counts::{Connections, Counts};
use crate::flood::Flood;
use crate::reason::Reason;
use crate::shared::Shared;

/// Upper bounds of the exported histogram; the layout inside is far finer.
const BOUNDS_US: [(u64, &str); 14] = [
    (500, "0.0005"),
    (1_000, "0.001"),
    (2_500, "0.0025"),
    (5_000, "0.005"),
    (10_000, "0.01"),
    (25_000, "0.025"),
    (50_000, "0.05"),
    (100_000, "0.1"),
    (250_000, "0.25"),
    (500_000, "0.5"),
    (1_000_000, "1"),
    (2_500_000, "2.5"),
    (5_000_000, "5"),
    (10_000_000, "10"),
];

/// Of connections. Beyond four hours they are told apart no more.
const LIVES_US: [(u64, &str); 8] = [
    (10_000, "0.01"),
    (100_000, "0.1"),
    (1_000_000, "1"),
    (10_000_000, "10"),
    (60_000_000, "60"),
    (600_000_000, "600"),
    (3_600_000_000, "3600"),
    (14_400_000_000, "14400"),
];

pub(crate) fn text(shared: &Shared) -> String {
    let mut versions: Vec<_> = {
        let registry = shared.registry();
        let one = |(key, counts): (&(_, _), &std::sync::Arc<crate::counts::VersionCounts>)| {
            let (service, version) = (model::ServiceName::clone(&key.0), model::VersionName::clone(&key.1));
            let running = registry.of(&service, &version).fold((0, 0), |sum, live| (sum.0 + live.requests(), sum.1 + live.tunnels()));
            (format!("service=\"{service}\",version=\"{version}\""), counts.clone(), running)
        };
        registry.counts.iter().map(one).collect()
    };
    versions.sort_by(|a, b| a.0.cmp(&b.0));
    let all: Vec<_> = versions.into_iter().map(|(labels, counts, running)| (labels, counts.read(), running)).collect();
    let mut out = String::new();
    let (tcp, read): (Vec<_>, Vec<_>) = all.into_iter().partition(|(_, counts, _)| counts.connections != Connections::default());
    family(&mut out, "changeover_requests_total", "counter", "Requests answered, by class of status.");
    for (labels, counts, _) in &read {
        for (class, count) in counts.classes.iter().enumerate() {
            let _ = writeln!(out, "changeover_requests_total{{{labels},code=\"{}xx\"}} {count}", class + 1);
        }
    }
    family(&mut out, "changeover_requests_bad_total", "counter", "Answers 5xx, resets, timeouts and failed connects.");
    for (labels, counts, _) in &read {
        let _ = writeln!(out, "changeover_requests_bad_total{{{labels}}} {}", counts.bad);
    }
    family(&mut out, "changeover_request_duration_seconds", "histogram", "From the request's head to the answer's end.");
    for (labels, counts, _) in &read {
        histogram(&mut out, "changeover_request_duration_seconds", labels, &counts.latency, Some(counts.latency_sum_ns), &BOUNDS_US);
    }
    connections(&mut out, &tcp);
    family(&mut out, "changeover_in_flight", "gauge", "Requests and tunnels that run now; connections of TCP services are tunnels.");
    for (labels, _, (requests, tunnels)) in read.iter().chain(&tcp) {
        let _ = writeln!(out, "changeover_in_flight{{{labels},kind=\"request\"}} {requests}");
        let _ = writeln!(out, "changeover_in_flight{{{labels},kind=\"tunnel\"}} {tunnels}");
    }
    proxy_wide(&mut out, shared);
    out
}

/// Of services that speak any protocol: labels, counts, and what runs.
fn connections(out: &mut String, all: &[(String, Counts, (usize, usize))]) {
    if all.is_empty() {
        return;
    }
    family(out, "changeover_tcp_connections_total", "counter", "Connections of TCP services, by whether a target was reached.");
    for (labels, Counts { connections, .. }, _) in all {
        let _ = writeln!(out, "changeover_tcp_connections_total{{{labels},result=\"opened\"}} {}", connections.opened);
        let _ = writeln!(out, "changeover_tcp_connections_total{{{labels},result=\"unreached\"}} {}", connections.unreached);
    }
    let help = "Connections that the target reset, or ended early without a word.";
    family(out, "changeover_tcp_connections_reset_total", "counter", help);
    for (labels, Counts { connections, .. }, _) in all {
        let _ = writeln!(out, "changeover_tcp_connections_reset_total{{{labels}}} {}", connections.reset);
    }
    family(out, "changeover_tcp_bytes_total", "counter", "Bytes of TCP services: up from clients, down to them.");
    for (labels, Counts { connections, .. }, _) in all {
        let _ = writeln!(out, "changeover_tcp_bytes_total{{{labels},direction=\"up\"}} {}", connections.bytes_up);
        let _ = writeln!(out, "changeover_tcp_bytes_total{{{labels},direction=\"down\"}} {}", connections.bytes_down);
    }
    family(out, "changeover_tcp_connect_duration_seconds", "histogram", "From the client's connection to the target's.");
    all.iter().for_each(|(labels, counts, _)| {
        histogram(out, "changeover_tcp_connect_duration_seconds", labels, &counts.heads, None, &BOUNDS_US);
    });
    family(out, "changeover_tcp_connection_duration_seconds", "histogram", "How long connections lasted that have ended.");
    all.iter().for_each(|(labels, counts, _)| {
        let sum_ns = Some(counts.latency_sum_ns);
        histogram(out, "changeover_tcp_connection_duration_seconds", labels, &counts.latency, sum_ns, &LIVES_US);
    });
}

/// Without a sum where none is known.
fn histogram(out: &mut String, name: &str, labels: &str, values: &Histogram, sum_ns: Option<u64>, bounds: &[(u64, &str)]) {
    for (bound_us, bound) in bounds {
        let _ = writeln!(out, "{name}_bucket{{{labels},le=\"{bound}\"}} {}", values.count_up_to_ns(bound_us * 1_000));
    }
    let count = values.count();
    let _ = writeln!(out, "{name}_bucket{{{labels},le=\"+Inf\"}} {count}");
    if let Some(sum_ns) = sum_ns {
        let _ = writeln!(out, "{name}_sum{{{labels}}} {}", sum_ns as f64 / 1e9);
    }
    let _ = writeln!(out, "{name}_count{{{labels}}} {count}");
}

fn proxy_wide(out: &mut String, shared: &Shared) {
    let sum = |counts: &mut dyn Iterator<Item = &AtomicU64>| counts.map(|count| count.load(Ordering::Relaxed)).sum::<u64>();
    family(out, "changeover_made_answers_total", "counter", "Answers that the proxy made itself, by reason.");
    for reason in Reason::ALL {
        let count = sum(&mut shared.made.iter().map(|lane| &lane[*reason as usize]));
        let _ = writeln!(out, "changeover_made_answers_total{{reason=\"{}\"}} {count}", reason.name());
    }
    family(out, "changeover_held", "gauge", "Requests on hold.");
    for (service, held) in shared.registry().held() {
        let _ = writeln!(out, "changeover_held{{service=\"{service}\"}} {held}");
    }
    family(out, "changeover_connections", "gauge", "Client connections that are open.");
    let _ = writeln!(out, "changeover_connections {}", shared.connections());
    let parked: usize = shared.parked.iter().map(|lane| lane.load(Ordering::Relaxed)).sum();
    family(out, "changeover_connections_parked", "gauge", "Of these, those that rest without buffers.");
    let _ = writeln!(out, "changeover_connections_parked {parked}");
    family(out, "changeover_connections_max", "gauge", "So many may be open; more wait until one ends.");
    let _ = writeln!(out, "changeover_connections_max {}", shared.connections_max);
    family(out, "changeover_connections_total", "counter", "Client connections accepted.");
    let _ = writeln!(out, "changeover_connections_total {}", sum(&mut shared.accepted.iter()));
    family(out, "changeover_http2_floods_total", "counter", "Connections ended for a flood of HTTP/2 frames, by their kind.");
    for flood in Flood::ALL {
        let count = sum(&mut shared.floods.iter().map(|lane| &lane[flood as usize]));
        let _ = writeln!(out, "changeover_http2_floods_total{{kind=\"{}\"}} {count}", flood.name());
    }
    let refused = sum(&mut shared.headers_refused.iter());
    family(out, "changeover_proxy_protocol_refused_total", "counter", "Connections that did not begin with the header that they had to.");
    let _ = writeln!(out, "changeover_proxy_protocol_refused_total {refused}");
    family(out, "changeover_tls_handshakes_total", "counter", "Handshakes with clients; resumed ones cost no signature.");
    for (result, count) in [
        ("full", sum(&mut shared.handshakes.iter().map(|lane| &lane.full))),
        ("resumed", sum(&mut shared.handshakes.iter().map(|lane| &lane.resumed))),
        ("failed", sum(&mut shared.handshakes.iter().map(|lane| &lane.failed))),
    ] {
        let _ = writeln!(out, "changeover_tls_handshakes_total{{result=\"{result}\"}} {count}");
    }
    certificates(out, shared);
    family(out, "changeover_requests_untold_total", "counter", "Requests whose end a rollout of a flag was not told, for lack of room.");
    let _ = writeln!(out, "changeover_requests_untold_total {}", shared.watched.lost());
    if let Some(log) = &shared.log {
        family(out, "changeover_access_log_dropped_total", "counter", "Log lines lost because the disk did not keep up.");
        let _ = writeln!(out, "changeover_access_log_dropped_total {}", log.dropped());
    }
}

/// A name that is served with none has no end to watch; that it is not served is told by `changeover_certificate_usable`.
fn certificates(out: &mut String, shared: &Shared) {
    let mut states = shared.keyring.states();
    // A file may stand in several entries.
    let mut seen = std::collections::HashSet::new();
    states.retain(|state| match &state.source {
        tls::Source::File(file) => seen.insert((state.listener.clone(), file.clone())),
        tls::Source::Authority => true,
    });
    if states.is_empty() {
        return;
    }
    let escaped = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let labels = |state: &tls::State| match &state.source {
        tls::Source::File(file) => format!("listener=\"{}\",file=\"{}\"", state.listener, escaped(&file.to_string_lossy())),
        tls::Source::Authority => format!("listener=\"{}\",name=\"{}\"", state.listener, state.names.concat()),
    };
    family(out, "changeover_certificate_expires_timestamp_seconds", "gauge", "When the certificate that is shown expires.");
    for (labels, end) in states.iter().filter_map(|state| Some((labels(state), state.not_after_s?))) {
        let _ = writeln!(out, "changeover_certificate_expires_timestamp_seconds{{{labels}}} {end}");
    }
    family(out, "changeover_certificate_usable", "gauge", "Whether its files, as they are now, can be used; whether it was issued.");
    for state in &states {
        let _ = writeln!(out, "changeover_certificate_usable{{{}}} {}", labels(state), u8::from(state.problem.is_none()));
    }
}

fn family(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}
