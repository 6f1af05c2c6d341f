//! How a new version comes to serve: `blue_green`, what `canary` has in common with it, and gates.

use model::{Gate, GateKind, Promotion, Strategy};

use crate::canary::canary;
use crate::command::command;
use crate::node::{Kind, Node};
use crate::problems::Problems;
use crate::service::{STATUS, TIMEOUT_MIN_MS, time};
use crate::table::Table;
use crate::values::{choice, duration, list, number, path, percent, statuses, text};

pub(crate) fn strategy(service: &mut Table<'_>, problems: &mut Problems) -> Option<Strategy> {
    let place = format!("`strategy` of {}", service.place);
    let of = |name: &str| format!("`{name}` of {}", service.place);
    let (blue_green_place, canary_place) = (of("blue_green"), of("canary"));
    match service.take("strategy") {
        None => blue_green(Table::empty(&service.at, blue_green_place), problems),
        Some(node) if matches!(node.kind, Kind::Scalar(_)) => {
            match choice(node, "`strategy`", &[("blue_green", false), ("canary", true)], problems)? {
                true => canary(Table::empty(&node.at, canary_place), problems),
                false => blue_green(Table::empty(&node.at, blue_green_place), problems),
            }
        }
        Some(node) => {
            let mut table = Table::open(node, place, problems)?;
            let (at, settings) = (table.at.clone(), [table.take_entry("blue_green"), table.take_entry("canary")]);
            table.finish(problems);
            match settings {
                [Some(_), Some((key, _))] => {
                    let hint = "a release has steps (`canary`), or it has none (`blue_green`)";
                    problems.add(&key.at, "`canary` and `blue_green` exclude each other", Some(hint.to_owned()));
                    None
                }
                [None, Some((_, node))] => canary(Table::open(node, canary_place, problems)?, problems),
                [Some((_, node)), None] => blue_green(Table::open(node, blue_green_place, problems)?, problems),
                [None, None] => blue_green(Table::empty(&at, blue_green_place), problems),
            }
        }
    }
}

/// The previous version stays hot for this long.
const STANDBY_MS: u64 = 600_000;

fn blue_green(mut table: Table<'_>, problems: &mut Problems) -> Option<Strategy> {
    let promotions = [("auto", Promotion::Auto), ("manual", Promotion::Manual)];
    let promotion = table.take("promotion");
    let promotion = promotion.map_or(Some(Promotion::Auto), |node| choice(node, "`promotion`", &promotions, problems));
    let strategy = common(&mut table, problems);
    table.finish(problems);
    Some(Strategy { promotion: promotion?, ..strategy? })
}

/// What both strategies have; a canary's watch follows its last step.
pub(crate) fn common(table: &mut Table<'_>, problems: &mut Problems) -> Option<Strategy> {
    let gates = table.take("gates").map_or(Some(Vec::new()), |node| gates(node, problems));
    let watch = time(table, "watch", 60_000, 0, problems);
    let errors = table.take("watch_errors").map_or(Some(100), |node| percent(node, "`watch_errors`", problems));
    let requests = table.take("watch_requests");
    let requests = requests.map_or(Some(50), |node| number(node, "`watch_requests`", 0..=u64::MAX, problems));
    let drain = time(table, "drain", 30_000, 0, problems);
    let standby = standby(table, problems);
    Some(Strategy {
        promotion: Promotion::Auto,
        gates: gates?,
        watch_ms: watch?,
        watch_errors_max: errors?,
        watch_requests_min: requests?,
        drain_ms: drain?,
        standby_ms: standby?.0,
        frozen_ms: standby?.1,
        canary: None,
    })
}

/// How long the previous version stays hot, and then frozen; milliseconds.
fn standby(table: &mut Table<'_>, problems: &mut Problems) -> Option<(u64, u64)> {
    let Some(node) = table.take("standby") else { return Some((STANDBY_MS, 0)) };
    match &node.kind {
        Kind::Map(_) => {}
        Kind::Scalar(word) if ["hot", "frozen", "stopped"].contains(&word.as_str()) => {
            let hint = "such as `standby: { hot: 10m, frozen: 4h }`";
            problems.add(&node.at, "`standby` does not say for how long", Some(hint.to_owned()));
            return None;
        }
        _ => return Some((duration(node, "`standby`", 0, problems)?, 0)),
    }
    let mut stages = Table::open(node, "`standby`", problems)?;
    let hot = time(&mut stages, "hot", STANDBY_MS, 0, problems);
    let frozen = time(&mut stages, "frozen", 0, 0, problems);
    stages.finish(problems);
    Some((hot?, frozen?))
}

pub(crate) fn gates(node: &Node, problems: &mut Problems) -> Option<Vec<Gate>> {
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
    let default_ms = match kind {
        Some(GateKind::Migrate { .. }) => 300_000,
        Some(GateKind::Approval { .. }) => 3_600_000,
        _ => 30_000,
    };
    let timeout = time(&mut table, "timeout", default_ms, TIMEOUT_MIN_MS, problems);
    table.finish(problems);
    Some(Gate { name: name?, kind: kind?, timeout_ms: timeout? })
}

fn kind(table: &mut Table<'_>, problems: &mut Problems) -> Option<GateKind> {
    let [run, http, migrate, approval] = ["command", "http", "migrate", "approval"].map(|field| table.take(field));
    let irreversible = table.take_entry("irreversible");
    if let (Some((key, _)), None) = (irreversible, migrate) {
        problems.add(&key.at, "`irreversible` has a meaning with `migrate` only", None);
    }
    match (run, http, migrate, approval) {
        (Some(node), None, None, None) => Some(GateKind::Command { command: command(node, "`command`", problems)? }),
        (None, Some(node), None, None) => http_gate(node, &table.place, problems),
        (None, None, Some(node), None) => {
            let switch = |(_, node): &(_, Node)| choice(node, "`irreversible`", &[("true", true), ("false", false)], problems);
            let irreversible = irreversible.map_or(Some(false), switch);
            Some(GateKind::Migrate { command: command(node, "`migrate`", problems)?, irreversible: irreversible? })
        }
        (None, None, None, Some(node)) => {
            let mut table = Table::open(node, format!("`approval` of {}", table.place), problems)?;
            let Some(node) = table.take("otherwise") else {
                table.missing(
                    "otherwise",
                    "what follows when nobody approves in time: `otherwise: abort` or `otherwise: proceed`",
                    problems,
                );
                return None;
            };
            table.finish(problems);
            let otherwise_passes = choice(node, "`otherwise`", &[("abort", false), ("proceed", true)], problems)?;
            Some(GateKind::Approval { otherwise_passes })
        }
        _ => {
            let message = format!("{} must have one of `command`, `http`, `migrate` and `approval`", table.place);
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
