//! Who is believed what it says of clients: `proxy_protocol` and `trusted_proxies` of a listener, `target_proxy_protocol` of a service.

use std::net::IpAddr;

use model::{Forwarders, IpNet, ProxyProtocol};

use crate::node::Node;
use crate::problems::Problems;
use crate::table::Table;
use crate::values::{choice, list, text};

const HINT: &str = "such as `[10.0.0.0/8]`; `[0.0.0.0/0, \"::/0\"]` is everybody";

pub(crate) fn of_listener(table: &mut Table<'_>, problems: &mut Problems) -> Option<Forwarders> {
    let mut read = |field: &'static str| match table.take(field) {
        Some(node) => networks(node, &format!("`{field}`"), problems),
        None => match table.left_empty(field) {
            Some(node) => {
                problems.add(&node.at, format!("`{field}` is empty"), Some(HINT.to_owned()));
                None
            }
            None => Some(Vec::new()),
        },
    };
    let (proxy_protocol, fields) = (read("proxy_protocol"), read("trusted_proxies"));
    Some(Forwarders { proxy_protocol: proxy_protocol?, fields: fields? })
}

pub(crate) fn of_service(table: &mut Table<'_>, problems: &mut Problems) -> Option<Option<ProxyProtocol>> {
    let known = [("v1", ProxyProtocol::V1), ("v2", ProxyProtocol::V2)];
    let node = table.take("target_proxy_protocol");
    node.map_or(Some(None), |node| choice(node, "`target_proxy_protocol`", &known, problems).map(Some))
}

fn networks(node: &Node, what: &str, problems: &mut Problems) -> Option<Vec<IpNet>> {
    let items = list(node, what, problems)?;
    if items.is_empty() {
        problems.add(&node.at, format!("{what} is empty"), Some(HINT.to_owned()));
        return None;
    }
    let all: Vec<_> = items.iter().map(|item| network(item, what, problems)).collect();
    all.into_iter().collect()
}

/// `10.1.0.0/16`, or one address.
fn network(node: &Node, what: &str, problems: &mut Problems) -> Option<IpNet> {
    let text = text(node, what, problems)?;
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(IpNet::from(address));
    }
    let Ok(network) = text.parse::<IpNet>() else {
        problems.add(&node.at, format!("{what} must be networks or addresses, found `{text}`"), Some(HINT.to_owned()));
        return None;
    };
    if network.trunc() != network {
        let hint = format!("say `{}`, or `{}` for one address", network.trunc(), network.addr());
        problems.add(&node.at, format!("`{text}` of {what} has bits behind its prefix"), Some(hint));
        return None;
    }
    Some(network)
}
