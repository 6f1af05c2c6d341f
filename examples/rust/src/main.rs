//! A small web service on the standard library: answers with its version; SIGTERM lets running requests finish.

mod stop;

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// An idle connection is closed after this.
const IDLE_MAX: Duration = Duration::from_secs(5);
const HEAD_BYTES_MAX: usize = 64 * 1024;

fn main() -> std::io::Result<()> {
    let port = argument("--port").expect("--port PORT");
    let version: Arc<str> = argument("--version").unwrap_or_else(|| "dev".to_owned()).into();
    let listener = TcpListener::bind(format!("127.0.0.1:{port}"))?;
    stop::on_sigterm();
    println!("hello {version} listens on {}", listener.local_addr()?);
    let busy = Arc::new(AtomicUsize::new(0));
    let (serving, counted) = (version.clone(), busy.clone());
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (version, busy) = (serving.clone(), counted.clone());
            thread::spawn(move || talk(&stream, &version, &busy));
        }
    });
    stop::wait();
    while busy.load(Ordering::SeqCst) > 0 {
        thread::sleep(Duration::from_millis(10));
    }
    println!("hello {version} has finished");
    Ok(())
}

fn argument(name: &str) -> Option<String> {
    std::env::args().skip_while(|argument| argument != name).nth(1)
}

/// One connection, request after request.
fn talk(stream: &TcpStream, version: &str, busy: &AtomicUsize) -> Option<()> {
    stream.set_read_timeout(Some(IDLE_MAX)).ok()?;
    stream.set_nodelay(true).ok()?;
    let mut reader = BufReader::new(stream);
    loop {
        let path = read_head(&mut reader)?;
        busy.fetch_add(1, Ordering::SeqCst);
        let sent = answer(stream, &path, version);
        busy.fetch_sub(1, Ordering::SeqCst);
        sent.ok()?;
    }
}

/// Reads up to the empty line; only requests without a body are understood.
fn read_head(reader: &mut impl BufRead) -> Option<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 || head.len() > HEAD_BYTES_MAX {
            return None;
        }
    }
    head.split(' ').nth(1).map(str::to_owned)
}

fn answer(mut stream: &TcpStream, path: &str, version: &str) -> std::io::Result<()> {
    let (status, body) = match path {
        "/" => ("200 OK", format!("hello from rust {version}\n")),
        "/healthz" => ("200 OK", "ok\n".to_owned()),
        _ => ("404 Not Found", "not found\n".to_owned()),
    };
    let head = format!("HTTP/1.1 {status}\r\ncontent-type: text/plain\r\ncontent-length: {}\r\nx-version: {version}\r\n\r\n", body.len());
    stream.write_all(format!("{head}{body}").as_bytes())
}
