//! How a new version comes to serve: `blue_green` and its gates.

use model::{BlueGreen, Gate, GateKind, Promotion};

use crate::command::command;
use crate::node::{Kind, Node};
use crate::problems::Problems;
use crate::service::{STATUS, TIMEOUT_MIN_MS, time};
use crate::table::Table;
use crate::values::{choice, list, number, path, percent, statuses, text};

pub(crate) fn strategy(service: &mut Table<'_>, problems: &mut Problems) -> Option<BlueGreen> {
    let place = format!("`strategy` of {}", service.place);
    let settings_place = format!("`blue_green` of {}", service.place);
    let mut settings = Table::empty(&service.at, settings_place.as_str());
    match service.take("strategy") {
        None => {}
        Some(node) if matches!(node.kind, Kind::Scalar(_)) => {
            choice(node, "`strategy`", &[("blue_green", ())], problems)?;
        }
        Some(node) => {
            let mut table = Table::open(node, place, problems)?;
            if let Some(node) = table.take("blue_green") {
                settings = Table::open(node, settings_place, problems)?;
            }
            table.finish(problems);
        }
    }
    blue_green(settings, problems)
}

fn blue_green(mut table: Table<'_>, problems: &mut Problems) -> Option<BlueGreen> {
    let promotions = [("auto", Promotion::Auto), ("manual", Promotion::Manual)];
    let promotion = table.take("promotion");
    let promotion = promotion.map_or(Some(Promotion::Auto), |node| choice(node, "`promotion`", &promotions, problems));
    let gates = table.take("gates").map_or(Some(Vec::new()), |node| gates(node, problems));
    let watch = time(&mut table, "watch", 60_000, 0, problems);
    let errors = table.take("watch_errors").map_or(Some(100), |node| percent(node, "`watch_errors`", problems));
    let requests = table.take("watch_requests");
    let requests = requests.map_or(Some(50), |node| number(node, "`watch_requests`", 0..=u64::MAX, problems));
    let drain = time(&mut table, "drain", 30_000, 0, problems);
    let standby = time(&mut table, "standby", 600_000, 0, problems);
    table.finish(problems);
    Some(BlueGreen {
        promotion: promotion?,
        gates: gates?,
        watch_ms: watch?,
        watch_errors_max: errors?,
        watch_requests_min: requests?,
        drain_ms: drain?,
        standby_ms: standby?,
    })
}

fn gates(node: &Node, problems: &mut Problems) -> Option<Vec<Gate>> {
    let mut gates: Vec<Gate> = Vec::new();
    for item in list(node, "`gates`", problems)? {
        let Some(gate) = gate(item, problems) else { continue };
        if gates.iter().any(|other| other.name == gate.name) {
            problems.add(&item.at, format!("two gates are named `{}`", gate.name), None);
        }
        gates.push(gate);
    }
    Some(gates)
}

fn gate(node: &Node, problems: &mut Problems) -> Option<Gate> {
    let mut table = Table::open(node, "a gate", problems)?;
    let name = match table.take("name") {
        Some(node) => text(node, "`name`", problems),
        None => {
            table.missing("name", "such as `name: smoke`", problems);
            None
        }
    };
    if let Some(name) = &name {
        table.place = format!("gate `{name}`");
    }
    let kind = kind(&mut table, problems);
    let default_ms = if matches!(kind, Some(GateKind::Migrate { .. })) { 300_000 } else { 30_000 };
    let timeout = time(&mut table, "timeout", default_ms, TIMEOUT_MIN_MS, problems);
    table.finish(problems);
    Some(Gate { name: name?, kind: kind?, timeout_ms: timeout? })
}

fn kind(table: &mut Table<'_>, problems: &mut Problems) -> Option<GateKind> {
    let [run, http, migrate] = ["command", "http", "migrate"].map(|field| table.take(field));
    let irreversible = table.take_entry("irreversible");
    if let (Some((key, _)), None) = (irreversible, migrate) {
        problems.add(&key.at, "`irreversible` has a meaning with `migrate` only", None);
    }
    match (run, http, migrate) {
        (Some(node), None, None) => Some(GateKind::Command { command: command(node, "`command`", problems)? }),
        (None, Some(node), None) => http_gate(node, &table.place, problems),
        (None, None, Some(node)) => {
            let switch = |(_, node): &(_, Node)| choice(node, "`irreversible`", &[("true", true), ("false", false)], problems);
            let irreversible = irreversible.map_or(Some(false), switch);
            Some(GateKind::Migrate { command: command(node, "`migrate`", problems)?, irreversible: irreversible? })
        }
        _ => {
            let message = format!("{} must have one of `command`, `http` and `migrate`", table.place);
            problems.add(&table.at, message, None);
            None
        }
    }
}

fn http_gate(node: &Node, place: &str, problems: &mut Problems) -> Option<GateKind> {
    let mut table = Table::open(node, format!("`http` of {place}"), problems)?;
    let at_path = table.take("path").map_or(Some("/".to_owned()), |node| path(node, "`path`", problems));
    let status = table.take("status").map_or(Some(STATUS), |node| statuses(node, "`status`", problems));
    table.finish(problems);
    Some(GateKind::Http { path: at_path?, status: status? })
}
