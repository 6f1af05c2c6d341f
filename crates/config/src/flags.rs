//! `flags`: where flags are served, and their environments.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use model::{FlagEnvironment, FlagPort, Flags};

use crate::node::{Kind, Node};
use crate::problems::Problems;
use crate::table::{Table, entries};
use crate::values::{choice, duration, list, text};

/// flagd's ports, so that its clients need to be told nothing.
const PORTS: [(FlagPort, &str, u16); 4] = [
    (FlagPort::Evaluation, "evaluation", 8013),
    (FlagPort::Management, "management", 8014),
    (FlagPort::Sync, "sync", 8015),
    (FlagPort::Ofrep, "ofrep", 8016),
];
/// Two sprints: long enough to be sure, short enough to remember.
const READY_AFTER_MS: u64 = 14 * 24 * 3_600 * 1_000;
const NAME_CHARS_MAX: usize = 64;

type ReadAddress = fn(&Node, &str, &mut Problems) -> Option<SocketAddr>;

pub(crate) fn flags(node: &Node, folder: &Path, socket_address: ReadAddress, problems: &mut Problems) -> Option<Flags> {
    let mut table = match node.kind {
        Kind::Nothing => Table::empty(&node.at, "`flags`"),
        _ => Table::open(node, "`flags`", problems)?,
    };
    let listen = match table.take("listen") {
        Some(node) => listen(node, socket_address, problems),
        None => Some(all_ports(IpAddr::from([127, 0, 0, 1]))),
    };
    let environments = match table.take("environments") {
        Some(node) => environments(node, folder, problems),
        None => Some(vec![FlagEnvironment { name: "production".to_owned(), files: Vec::new(), second_person: false }]),
    };
    let ready = table.take("ready_after").map_or(Some(READY_AFTER_MS), |node| duration(node, "`ready_after`", 0, problems));
    let tokens = [("required", true), ("from_outside", false)];
    let tokens = table.take("tokens").map_or(Some(false), |node| choice(node, "`tokens`", &tokens, problems));
    table.finish(problems);
    Some(Flags { listen: listen?, environments: environments?, ready_after_ms: ready?, tokens_required: tokens? })
}

fn all_ports(host: IpAddr) -> Vec<(FlagPort, SocketAddr)> {
    PORTS.iter().map(|(port, _, number)| (*port, SocketAddr::new(host, *number))).collect()
}

fn listen(node: &Node, socket_address: ReadAddress, problems: &mut Problems) -> Option<Vec<(FlagPort, SocketAddr)>> {
    if let Kind::Map(_) = node.kind {
        let mut table = Table::open(node, "`listen` of `flags`", problems)?;
        let mut all: Vec<(FlagPort, SocketAddr)> = Vec::new();
        for (port, name, _) in PORTS {
            let Some(node) = table.take(name) else { continue };
            let Some(address) = socket_address(node, &format!("`{name}`"), problems) else { continue };
            if all.iter().any(|(_, other)| *other == address) {
                let hint = format!("`listen: {address}` serves everything on one port");
                problems.add(&node.at, format!("`{name}` has the address of another port"), Some(hint));
            }
            all.push((port, address));
        }
        table.finish(problems);
        return Some(all);
    }
    if let Kind::Scalar(host) = &node.kind
        && let Ok(host) = host.parse::<IpAddr>()
    {
        return Some(all_ports(host));
    }
    socket_address(node, "`listen` of `flags`", problems).map(|address| vec![(FlagPort::All, address)])
}

fn environments(node: &Node, folder: &Path, problems: &mut Problems) -> Option<Vec<FlagEnvironment>> {
    let entries = entries(node, "`environments`", problems)?;
    if entries.is_empty() {
        problems.add(&node.at, "`environments` is empty", Some("say `{ production: {} }`".to_owned()));
        return None;
    }
    let mut all = Vec::new();
    for (key, value) in entries {
        let name = key.text.as_str();
        let good = (1..=NAME_CHARS_MAX).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        if !good {
            let hint = format!("1 to {NAME_CHARS_MAX} of a-z, A-Z, 0-9, `-`, `_` and `.`");
            problems.add(&key.at, format!("`{name}` cannot be the name of an environment"), Some(hint));
        }
        let place = format!("environment `{name}`");
        let mut table = match value.kind {
            Kind::Nothing => Table::empty(&key.at, place),
            _ => Table::open(value, place, problems)?,
        };
        let files = match table.take("files") {
            Some(node) => {
                let file = |node: &Node, problems: &mut Problems| text(node, "a file", problems).map(|path| folder.join(path));
                list(node, "`files`", problems)?.iter().map(|node| file(node, problems)).collect()
            }
            None => Some(Vec::new()),
        };
        let asks = [("true", true), ("false", false)];
        let second_person = table.take("second_person").map_or(Some(false), |node| choice(node, "`second_person`", &asks, problems));
        table.finish(problems);
        all.push(FlagEnvironment { name: name.to_owned(), files: files?, second_person: second_person? });
    }
    Some(all)
}
