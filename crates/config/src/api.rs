//! `api`: the API and the page over TCP. An address alone, or a map.

use std::net::SocketAddr;
use std::path::Path;

use model::{Api, Listener, ListenerName, PortRange};

use crate::node::{Kind, Node};
use crate::problems::Problems;
use crate::table::Table;
use crate::values::{is_host, list, text};

/// What the address must not collide with.
pub(crate) struct Taken<'a> {
    pub(crate) listeners: Option<&'a std::collections::BTreeMap<ListenerName, Listener>>,
    pub(crate) ports: Option<PortRange>,
}

pub(crate) fn api(
    node: &Node,
    folder: &Path,
    taken: &Taken<'_>,
    socket_address: impl Fn(&Node, &str, &mut Problems) -> Option<SocketAddr>,
    problems: &mut Problems,
) -> Option<Api> {
    let (listen_node, tokens, hosts) = if let Kind::Map(_) = node.kind {
        let mut table = Table::open(node, "`api`", problems)?;
        let listen = table.take("listen");
        if listen.is_none() {
            table.missing("listen", "such as `listen: 127.0.0.1:9180`", problems);
        }
        let tokens = table.take("tokens").map_or(Some(None), |node| path(node, folder, problems).map(Some));
        let hosts = table.take("hosts").map_or(Some(Vec::new()), |node| hosts(node, problems));
        table.finish(problems);
        (listen?, tokens?, hosts?)
    } else {
        (node, None, Vec::new())
    };
    let listen = socket_address(listen_node, "`api`", problems)?;
    if let Some((name, _)) = taken.listeners.into_iter().flatten().find(|(_, it)| it.address == listen) {
        let message = format!("`api` has the address of listener `{name}`");
        problems.add(&listen_node.at, message, Some("clients come there; choose another port, such as 9180".to_owned()));
    }
    if let Some(ports) = taken.ports.filter(|ports| (ports.first..=ports.last).contains(&listen.port())) {
        let message = format!("`api` has a port of `ports` ({}-{})", ports.first, ports.last);
        problems.add(&listen_node.at, message, Some("choose one outside, such as 9180".to_owned()));
    }
    Some(Api { listen, tokens, hosts })
}

fn path(node: &Node, folder: &Path, problems: &mut Problems) -> Option<std::path::PathBuf> {
    let text = text(node, "`tokens`", problems)?;
    if text.split_whitespace().count() > 1 || text.is_empty() {
        let hint = "write the tokens into a file (`changeover token` does), and its path here";
        problems.add(&node.at, "`tokens` must be the path of a file", Some(hint.to_owned()));
        return None;
    }
    Some(folder.join(text))
}

fn hosts(node: &Node, problems: &mut Problems) -> Option<Vec<String>> {
    let host = |node: &Node, problems: &mut Problems| {
        let text = text(node, "a name of `hosts`", problems)?.to_ascii_lowercase();
        if is_host(&text) {
            return Some(text);
        }
        let port = text.rsplit_once(':').filter(|(host, _)| is_host(host));
        let hint = port.map_or("such as `changeover.example.com`".to_owned(), |(host, _)| format!("leave the port out: `{host}`"));
        problems.add(&node.at, format!("a name of `hosts` must be a host, found `{text}`"), Some(hint));
        None
    };
    list(node, "`hosts`", problems)?.iter().map(|node| host(node, problems)).collect()
}
