//! A client of HTTP/2 that writes its frames by hand, and so any frames.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::DEADLINE;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GO_AWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;

pub const PROTOCOL_ERROR: u32 = 1;
pub const ENHANCE_YOUR_CALM: u32 = 11;

#[derive(Debug, Clone)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    /// Of a GOAWAY or RST_STREAM.
    pub fn error(&self) -> u32 {
        let at = if self.kind == GO_AWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().expect("four bytes"))
    }

    /// Of an answer's head: the proxy's encoder puts the status first, indexed or as a literal.
    pub fn status(&self) -> u16 {
        match self.payload[0] {
            0x88 => 200,
            0x89 => 204,
            0x8a => 206,
            0x8b => 304,
            0x8c => 400,
            0x8d => 404,
            0x8e => 500,
            _ => 0,
        }
    }
}

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// Fields as literals, never indexed (RFC 7541 §6.2.2).
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    let text = |text: &str, block: &mut Vec<u8>| {
        let length = text.len();
        match length {
            0..127 => block.push(length as u8),
            _ => {
                let mut rest = length - 127;
                block.push(127);
                while rest >= 128 {
                    block.push((rest % 128) as u8 | 128);
                    rest /= 128;
                }
                block.push(rest as u8);
            }
        }
        // One byte for each character: bytes that are no text can be said, too.
        block.extend(text.chars().map(|character| character as u8));
    };
    for (name, value) in fields {
        block.push(0);
        text(name, &mut block);
        text(value, &mut block);
    }
    block
}

pub const GET: [(&str, &str); 4] = [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/")];

pub struct Frames {
    pub stream: TcpStream,
    buffer: Vec<u8>,
}

impl Frames {
    /// With these settings (RFC 9113 §6.5.1).
    pub fn connect(address: SocketAddr, settings: &[(u16, u32)]) -> Frames {
        let mut stream = TcpStream::connect(address).expect("connect");
        stream.set_read_timeout(Some(DEADLINE)).expect("timeout");
        stream.set_write_timeout(Some(DEADLINE)).expect("timeout");
        stream.set_nodelay(true).expect("nodelay");
        let payload: Vec<u8> = settings.iter().flat_map(|(name, value)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat()).collect();
        let hello = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &frame(SETTINGS, 0, 0, &payload)].concat();
        stream.write_all(&hello).expect("written");
        Frames { stream, buffer: Vec::new() }
    }

    /// The peer may have closed.
    pub fn write(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    pub fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> bool {
        self.write(&frame(kind, flags, stream, payload))
    }

    pub fn get(&mut self, stream: u32) -> bool {
        self.send(HEADERS, END_STREAM | END_HEADERS, stream, &block(&GET))
    }

    /// The next frame; `None`: the connection is over.
    pub fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(length) = self.buffer.first_chunk::<9>().map(|head| u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize)
                && self.buffer.len() >= 9 + length
            {
                let bytes: Vec<u8> = self.buffer.drain(..9 + length).collect();
                let stream = u32::from_be_bytes(bytes[5..9].try_into().expect("four bytes"));
                return Some(Frame { kind: bytes[3], flags: bytes[4], stream, payload: bytes[9..].to_vec() });
            }
            let mut chunk = [0; 16_384];
            match self.stream.read(&mut chunk) {
                Ok(read @ 1..) => self.buffer.extend(&chunk[..read]),
                Ok(0) => return None,
                Err(error) => {
                    assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock, "nothing came within {DEADLINE:?}");
                    return None;
                }
            }
        }
    }

    /// The first frame like this. Panics when the connection ends before.
    pub fn until(&mut self, wanted: impl Fn(&Frame) -> bool) -> Frame {
        let mut seen = Vec::new();
        while let Some(frame) = self.next() {
            if wanted(&frame) {
                return frame;
            }
            seen.push((frame.kind, frame.stream));
        }
        panic!("closed after {seen:?}");
    }

    /// The error of the GOAWAY that ends the connection; `None`: it ends without one, or with a reset that overtook it.
    pub fn ends_with(&mut self) -> Option<u32> {
        let mut error = None;
        while let Some(frame) = self.next() {
            if frame.kind == GO_AWAY {
                error = Some(frame.error());
            }
        }
        error
    }

    /// Asks, and waits until the answer has ended; its status.
    pub fn ask(&mut self, stream: u32) -> u16 {
        assert!(self.get(stream), "closed");
        let head = self.until(|frame| frame.stream == stream && matches!(frame.kind, HEADERS | RST_STREAM));
        assert_eq!(head.kind, HEADERS, "{head:?}");
        if head.flags & END_STREAM == 0 {
            self.until(|frame| frame.stream == stream && frame.flags & END_STREAM != 0);
        }
        head.status()
    }
}
