//! Bytes to what they say.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::{Addresses, Announced};

/// Of version 2: "\r\n\r\n\0\r\nQUIT\n".
pub(crate) const SIGNATURE: [u8; 12] = [0x0D, 0x0A, 0x0D, 0x0A, 0x00, 0x0D, 0x0A, 0x51, 0x55, 0x49, 0x54, 0x0A];
pub(crate) const HEAD_BYTES: usize = 16;
/// The longest line of version 1, with its CRLF: two IPv6 addresses (section 2.1).
pub(crate) const LINE_BYTES_MAX: usize = 107;
/// Addresses, and extensions of senders that say much; a certificate is not among them.
pub(crate) const BODY_BYTES_MAX: usize = 4096;

const TYPE_CRC32C: u8 = 0x03;
const TYPE_SSL: u8 = 0x20;
/// In the first byte of `PP2_TYPE_SSL`: the client connected over TLS.
const CLIENT_SSL: u8 = 0x01;

/// It is no header, or one that contradicts itself. For people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed {
    /// So far it is a header.
    Incomplete,
    /// The header, and how many bytes it has.
    Header(Announced, usize),
}

/// What these bytes, from the first one of a connection on, begin with.
pub fn parse(bytes: &[u8]) -> Result<Parsed, Malformed> {
    let known = bytes.len().min(SIGNATURE.len());
    if bytes[..known] == SIGNATURE[..known] {
        return version_2(bytes);
    }
    let known = bytes.len().min(LINE_START.len());
    if bytes[..known] == LINE_START[..known] { version_1(bytes) } else { Err(Malformed("it does not begin with a header")) }
}

const LINE_START: &[u8] = b"PROXY ";

fn version_1(bytes: &[u8]) -> Result<Parsed, Malformed> {
    let window = &bytes[..bytes.len().min(LINE_BYTES_MAX)];
    let Some(end) = window.windows(2).position(|pair| pair == b"\r\n") else {
        return if window.len() == LINE_BYTES_MAX { Err(Malformed("its line is too long")) } else { Ok(Parsed::Incomplete) };
    };
    let line = std::str::from_utf8(&window[..end]).map_err(|_| Malformed("its line is no text"))?;
    let mut words = line.split(' ').skip(1);
    let addresses = match words.next() {
        // Whatever follows (section 2.1).
        Some("UNKNOWN") => None,
        Some(family @ ("TCP4" | "TCP6")) => {
            let mut address = || words.next().and_then(|word| address_of(word, family == "TCP6")).ok_or(Malformed("its address is none"));
            let (source, destination) = (address()?, address()?);
            let mut port = || words.next().and_then(port_of).ok_or(Malformed("its port is none"));
            let (source_port, destination_port) = (port()?, port()?);
            if words.next().is_some() {
                return Err(Malformed("its line has too many words"));
            }
            let (source, destination) = (SocketAddr::new(source, source_port), SocketAddr::new(destination, destination_port));
            Some(Addresses { source, destination })
        }
        _ => return Err(Malformed("its family is unknown")),
    };
    Ok(Parsed::Header(Announced { addresses, is_tls: false }, end + 2))
}

fn address_of(word: &str, is_v6: bool) -> Option<IpAddr> {
    if is_v6 { word.parse::<Ipv6Addr>().ok().map(IpAddr::V6) } else { word.parse::<Ipv4Addr>().ok().map(IpAddr::V4) }
}

/// Digits only, without a zero in front.
fn port_of(word: &str) -> Option<u16> {
    let is_plain = word.bytes().all(|byte| byte.is_ascii_digit()) && (word == "0" || !word.starts_with('0'));
    word.parse().ok().filter(|_| is_plain)
}

fn version_2(bytes: &[u8]) -> Result<Parsed, Malformed> {
    let Some((head, rest)) = bytes.split_at_checked(HEAD_BYTES) else { return Ok(Parsed::Incomplete) };
    let is_local = match head[12] {
        0x20 => true,
        0x21 => false,
        _ => return Err(Malformed("its version or command is unknown")),
    };
    let length = usize::from(u16::from_be_bytes([head[14], head[15]]));
    if length > BODY_BYTES_MAX {
        return Err(Malformed("it is too long"));
    }
    let Some(body) = rest.get(..length) else { return Ok(Parsed::Incomplete) };
    let total = HEAD_BYTES + length;
    // Family and transport; of a local connection they mean nothing (section 2.2).
    let address_bytes = match head[13] {
        0x11 => 12,
        0x21 => 36,
        0x31 | 0x32 => 216,
        0x00 | 0x12 | 0x22 => 0,
        _ if is_local => 0,
        _ => return Err(Malformed("its family is unknown")),
    };
    if is_local {
        return Ok(Parsed::Header(Announced { addresses: None, is_tls: false }, total));
    }
    let Some((addresses, extensions)) = body.split_at_checked(address_bytes) else { return Err(Malformed("its addresses are cut off")) };
    let addresses = match head[13] {
        0x11 => Some(addresses_of(addresses, 4)),
        0x21 => Some(addresses_of(addresses, 16)),
        // UNIX sockets, unspecified, and datagrams, which no stream can be.
        _ => None,
    };
    let is_tls = read_extensions(if head[13] & 0x0F == 2 { &[] } else { extensions }, &bytes[..total])?;
    Ok(Parsed::Header(Announced { addresses, is_tls }, total))
}

fn addresses_of(bytes: &[u8], size: usize) -> Addresses {
    let ip = |bytes: &[u8]| match <[u8; 4]>::try_from(bytes) {
        Ok(v4) => IpAddr::from(v4),
        Err(_) => IpAddr::from(<[u8; 16]>::try_from(bytes).unwrap_or_default()),
    };
    let port = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    Addresses {
        source: SocketAddr::new(ip(&bytes[..size]), port(2 * size)),
        destination: SocketAddr::new(ip(&bytes[size..2 * size]), port(2 * size + 2)),
    }
}

/// Whether the client spoke TLS; a checksum must be right.
fn read_extensions(mut extensions: &[u8], header: &[u8]) -> Result<bool, Malformed> {
    let mut is_tls = false;
    while let [kind, high, low, rest @ ..] = extensions {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let Some((value, next)) = rest.split_at_checked(length) else { return Err(Malformed("an extension is cut off")) };
        match *kind {
            TYPE_CRC32C => {
                let Ok(told) = <[u8; 4]>::try_from(value) else { return Err(Malformed("its checksum is none")) };
                let at = header.len() - next.len() - 4;
                let counted = header.iter().enumerate().map(|(index, byte)| if (at..at + 4).contains(&index) { 0 } else { *byte });
                if crc32c(counted) != u32::from_be_bytes(told) {
                    return Err(Malformed("its checksum is wrong"));
                }
            }
            TYPE_SSL => is_tls |= value.first().is_some_and(|client| client & CLIENT_SSL != 0),
            _ => {}
        }
        extensions = next;
    }
    if extensions.is_empty() { Ok(is_tls) } else { Err(Malformed("an extension is cut off")) }
}

/// CRC-32C (Castagnoli; RFC 9260 appendix A), bit by bit: a header is short, and few have one.
pub(crate) fn crc32c(bytes: impl Iterator<Item = u8>) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82F6_3B78 } else { crc >> 1 };
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Version, header, local};

    fn of(text: &[u8]) -> Result<Parsed, Malformed> {
        parse(text)
    }

    #[test]
    fn lines_of_version_1() {
        let expect = Addresses { source: "192.0.2.1:56324".parse().expect("one"), destination: "198.51.100.7:443".parse().expect("one") };
        let line = b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\nGET";
        assert_eq!(of(line), Ok(Parsed::Header(Announced { addresses: Some(expect), is_tls: false }, line.len() - 3)));
        let unknown = b"PROXY UNKNOWN ffff::1 what ever\r\n";
        assert_eq!(of(unknown), Ok(Parsed::Header(Announced { addresses: None, is_tls: false }, unknown.len())));
        for wrong in [
            "GET / HTTP/1.1\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.7 56324\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.7 56324 443 1\r\n",
            "PROXY TCP4  192.0.2.1 198.51.100.7 56324 443\r\n",
            "PROXY TCP4 ::1 ::1 1 2\r\n",
            "PROXY TCP6 192.0.2.1 198.51.100.7 1 2\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.7 +1 2\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.7 01 2\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.7 65536 2\r\n",
            "PROXY UDP4 192.0.2.1 198.51.100.7 1 2\r\n",
        ] {
            assert!(of(wrong.as_bytes()).is_err(), "{wrong:?}");
        }
        assert!(of(format!("PROXY UNKNOWN {}", "x".repeat(LINE_BYTES_MAX)).as_bytes()).is_err());
    }

    #[test]
    fn checksums_and_tls_of_version_2() {
        assert_eq!(crc32c(b"123456789".iter().copied()), 0xE306_9283, "the check value of the catalogue");
        let mut bytes = header(Version::V2, "192.0.2.1:1".parse().expect("one"), "192.0.2.2:2".parse().expect("one"));
        bytes.extend([TYPE_SSL, 0, 5, CLIENT_SSL, 0, 0, 0, 0, TYPE_CRC32C, 0, 4, 0, 0, 0, 0]);
        bytes[14..16].copy_from_slice(&(12u16 + 8 + 7).to_be_bytes());
        let crc = crc32c(bytes.iter().copied());
        let at = bytes.len() - 4;
        bytes[at..].copy_from_slice(&crc.to_be_bytes());
        assert!(matches!(of(&bytes), Ok(Parsed::Header(Announced { is_tls: true, addresses: Some(_) }, length)) if length == bytes.len()));
        bytes[20] ^= 1;
        assert_eq!(of(&bytes), Err(Malformed("its checksum is wrong")));
    }

    #[test]
    fn local_connections_are_nobodys() {
        for version in [Version::V1, Version::V2] {
            let bytes = local(version);
            assert_eq!(of(&bytes), Ok(Parsed::Header(Announced { addresses: None, is_tls: false }, bytes.len())));
        }
    }

    fn addresses() -> impl Strategy<Value = Addresses> {
        let v4 = (any::<[u8; 4]>(), any::<[u8; 4]>()).prop_map(|(a, b)| (IpAddr::from(a), IpAddr::from(b)));
        let v6 = (any::<[u8; 16]>(), any::<[u8; 16]>()).prop_map(|(a, b)| (IpAddr::from(a), IpAddr::from(b)));
        (prop_oneof![v4, v6], any::<u16>(), any::<u16>()).prop_map(|((source, destination), from, to)| Addresses {
            source: SocketAddr::new(source, from),
            destination: SocketAddr::new(destination, to),
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_and_each_part_of_it_waits_for_more(said in addresses(), is_second: bool, behind: Vec<u8>) {
            let version = if is_second { Version::V2 } else { Version::V1 };
            let bytes = header(version, said.source, said.destination);
            for part in 0..bytes.len() {
                prop_assert_eq!(of(&bytes[..part]), Ok(Parsed::Incomplete));
            }
            let length = bytes.len();
            let all = [bytes, behind].concat();
            prop_assert_eq!(of(&all), Ok(Parsed::Header(Announced { addresses: Some(said), is_tls: false }, length)));
        }

        #[test]
        fn nothing_panics_and_no_header_is_longer_than_what_came(bytes: Vec<u8>, is_second: bool, command: u8, family: u8) {
            let start = if is_second { [&SIGNATURE[..], &[command, family]].concat() } else { LINE_START.to_vec() };
            let bytes = [start, bytes].concat();
            if let Ok(Parsed::Header(_, length)) = of(&bytes) {
                prop_assert!(length <= bytes.len());
            }
        }
    }
}
