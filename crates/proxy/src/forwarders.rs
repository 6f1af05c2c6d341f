//! Whom a connection or a request is from, when somebody in between says so.
//!
//! **Invariant**: only who is named in the file is believed. What anybody else says of a client is a part of its request, or no request.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http1::{Fields, Known};
use model::{Forwarders, IpNet, ListenerName};
use proxy_protocol::{Announced, Unreadable};
use tokio::net::TcpStream;

use crate::lane::Lane;

/// The header comes with the first packet (the specification asks for at least 3 s).
const HEADER_MAX: Duration = Duration::from_secs(3);
/// More addresses than this in a field are nobody's way here.
const ADDRESSES_MAX: usize = 32;

pub(crate) fn contains(networks: &[IpNet], address: IpAddr) -> bool {
    let address = address.to_canonical();
    networks.iter().any(|network| network.contains(&address))
}

/// Whoever connects from here says first who its client is.
pub(crate) fn announces(lane: &Lane, listener: &ListenerName, peer: IpAddr) -> bool {
    lane.table().forwarders(listener).is_some_and(|forwarders| contains(&forwarders.proxy_protocol, peer))
}

/// `None`: no header came, and the connection is to be closed.
pub(crate) async fn announced(lane: &Rc<Lane>, socket: &mut TcpStream) -> Option<Announced> {
    match tokio::time::timeout(HEADER_MAX, proxy_protocol::read(socket)).await {
        Ok(Ok(announced)) => Some(announced),
        // Whoever connects and says nothing was no client: health checks of balancers do so.
        Ok(Err(Unreadable::Over(_))) => None,
        Ok(Err(Unreadable::Malformed(_))) | Err(_) => {
            lane.shared.headers_refused[lane.index].fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            None
        }
    }
}

/// Who may say of its requests whom they are from; `None`: not this one.
pub(crate) fn believed(lane: &Lane, listener: &ListenerName, peer: IpAddr) -> Option<Arc<Forwarders>> {
    let table = lane.table();
    table.forwarders(listener).filter(|forwarders| contains(&forwarders.fields, peer)).cloned()
}

/// The last address in `X-Forwarded-For` that is not one of ours; `peer` when there is none. What stands before it anybody may have
/// written.
pub(crate) fn client_of(forwarders: &Forwarders, fields: &Fields, peer: IpAddr) -> IpAddr {
    let lists: Vec<&[u8]> = fields.all(Known::XForwardedFor).collect();
    let words = lists.iter().rev().flat_map(|list| list.rsplit(|byte| *byte == b','));
    let mut last = peer;
    for word in words.take(ADDRESSES_MAX) {
        let Some(address) = std::str::from_utf8(word).ok().and_then(|word| address_of(word.trim())) else { break };
        last = address.to_canonical();
        if !contains(&forwarders.fields, address) {
            break;
        }
    }
    last
}

/// With a port, as some write it, or without.
fn address_of(word: &str) -> Option<IpAddr> {
    let ip = word.parse::<IpAddr>().or_else(|_| word.trim_start_matches('[').trim_end_matches(']').parse());
    ip.or_else(|_| word.parse::<SocketAddr>().map(|address| address.ip())).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_address_that_is_not_ours_is_the_clients() {
        let ours =
            Forwarders { proxy_protocol: Vec::new(), fields: vec!["10.0.0.0/8".parse().expect("one"), "fd00::/8".parse().expect("one")] };
        let peer: IpAddr = "10.0.0.1".parse().expect("one");
        let check = |lists: &[&str], expect: &str| {
            let mut fields = Fields::default();
            lists.iter().for_each(|list| fields.push(Known::XForwardedFor, list.as_bytes()));
            assert_eq!(client_of(&ours, &fields, peer).to_string(), expect, "{lists:?}");
        };
        check(&[], "10.0.0.1");
        check(&["203.0.113.9"], "203.0.113.9");
        check(&["6.6.6.6, 203.0.113.9, 10.0.0.7"], "203.0.113.9");
        check(&["6.6.6.6", "203.0.113.9:4711", "[fd00::1]"], "203.0.113.9");
        check(&["10.0.0.9, 10.0.0.8"], "10.0.0.9");
        check(&["203.0.113.9, unknown, 10.0.0.8"], "10.0.0.8");
        check(&["2001:db8::1,fd00::2"], "2001:db8::1");
        check(&["::ffff:203.0.113.9, ::ffff:10.0.0.8"], "203.0.113.9");
    }
}
