//! What we say to whom we pass a connection on.

use std::net::{IpAddr, SocketAddr};

use crate::parse::SIGNATURE;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    V1,
    V2,
}

/// For a connection of `source` to `destination`. Where only one of the two is IPv6, both are written as IPv6.
pub fn header(version: Version, source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let ips = match (source.ip(), destination.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => (IpAddr::V4(source), IpAddr::V4(destination)),
        (source, destination) => (IpAddr::V6(as_v6(source)), IpAddr::V6(as_v6(destination))),
    };
    let is_v4 = ips.0.is_ipv4();
    match version {
        Version::V1 => {
            let family = if is_v4 { "TCP4" } else { "TCP6" };
            format!("PROXY {family} {} {} {} {}\r\n", ips.0, ips.1, source.port(), destination.port()).into_bytes()
        }
        Version::V2 => {
            let mut bytes = SIGNATURE.to_vec();
            bytes.extend([0x21, if is_v4 { 0x11 } else { 0x21 }]);
            bytes.extend(if is_v4 { 12u16 } else { 36 }.to_be_bytes());
            for ip in [ips.0, ips.1] {
                match ip {
                    IpAddr::V4(ip) => bytes.extend(ip.octets()),
                    IpAddr::V6(ip) => bytes.extend(ip.octets()),
                }
            }
            bytes.extend(source.port().to_be_bytes());
            bytes.extend(destination.port().to_be_bytes());
            bytes
        }
    }
}

/// For a connection of our own: a health check.
pub fn local(version: Version) -> Vec<u8> {
    match version {
        Version::V1 => b"PROXY UNKNOWN\r\n".to_vec(),
        Version::V2 => [&SIGNATURE[..], &[0x20, 0x00, 0, 0]].concat(),
    }
}

fn as_v6(ip: IpAddr) -> std::net::Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}
