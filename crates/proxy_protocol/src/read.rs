//! A header off a socket.

use std::io;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::parse::{BODY_BYTES_MAX, HEAD_BYTES, LINE_BYTES_MAX, SIGNATURE};
use crate::{Announced, Malformed, Parsed, parse};

/// No header came.
#[derive(Debug)]
pub enum Unreadable {
    Malformed(Malformed),
    /// The connection ended, or broke.
    Over(io::Error),
}

impl From<io::Error> for Unreadable {
    fn from(error: io::Error) -> Self {
        Self::Over(error)
    }
}

/// Takes the header off the socket, and nothing behind it. Waits for as long as it takes: the caller has a limit.
///
/// # Errors
/// What came is no header, or the connection ended.
pub async fn read(socket: &mut TcpStream) -> Result<Announced, Unreadable> {
    // No header is shorter than this: "PROXY UNKNOWN" with its end has 15 bytes.
    let mut bytes = vec![0; SIGNATURE.len()];
    socket.read_exact(&mut bytes).await?;
    let found = parse(&bytes).map_err(Unreadable::Malformed)?;
    debug_assert_eq!(found, Parsed::Incomplete, "no header is that short");
    if bytes == SIGNATURE {
        take(socket, &mut bytes, HEAD_BYTES - SIGNATURE.len()).await?;
        let length = usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
        if length > BODY_BYTES_MAX {
            return Err(Unreadable::Malformed(Malformed("it is too long")));
        }
        take(socket, &mut bytes, length).await?;
    } else {
        take_line(socket, &mut bytes).await?;
    }
    match parse(&bytes).map_err(Unreadable::Malformed)? {
        Parsed::Header(announced, length) if length == bytes.len() => Ok(announced),
        _ => Err(Unreadable::Malformed(Malformed("it is cut off"))),
    }
}

async fn take(socket: &mut TcpStream, bytes: &mut Vec<u8>, count: usize) -> io::Result<()> {
    let from = bytes.len();
    bytes.resize(from + count, 0);
    socket.read_exact(&mut bytes[from..]).await.map(drop)
}

/// A line's end can only be looked for: what is there is looked at first, and taken up to the end.
async fn take_line(socket: &mut TcpStream, bytes: &mut Vec<u8>) -> io::Result<()> {
    let mut seen = [0; LINE_BYTES_MAX];
    while bytes.len() < LINE_BYTES_MAX && !bytes.ends_with(b"\r\n") {
        let room = LINE_BYTES_MAX - bytes.len();
        let length = socket.peek(&mut seen[..room]).await?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let line = seen[..length].iter().position(|byte| *byte == b'\n').map_or(length, |end| end + 1);
        take(socket, bytes, line).await?;
    }
    Ok(())
}
