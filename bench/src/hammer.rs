//! A cheap closed-loop load: fixed bytes out, just enough parsing to know that the answer is whole and good.

use std::cell::Cell;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const REQUEST: &[u8] = b"GET /products/42?sort=price HTTP/1.1\r\nhost: shop.example.com\r\nuser-agent: Mozilla/5.0 (X11; Linux x86_64) bench\r\naccept: text/html,application/xhtml+xml;q=0.9,*/*;q=0.8\r\naccept-language: en-US,en;q=0.5\r\naccept-encoding: gzip, deflate, br\r\ncookie: session=8c2f1e6a0b9d4f73; theme=dark\r\n\r\n";

/// `role-hammer ADDRESS CONNECTIONS MILLIS`: prints how many requests were answered.
pub(crate) fn play(arguments: &[String]) -> anyhow::Result<()> {
    let address: SocketAddr = arguments[0].parse()?;
    let (connections, millis): (usize, u64) = (arguments[1].parse()?, arguments[2].parse()?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    let answered = local.block_on(&runtime, async {
        let until = Instant::now() + Duration::from_millis(millis);
        let count = Rc::new(Cell::new(0u64));
        let clients: Vec<_> = (0..connections).map(|_| tokio::task::spawn_local(ask_until(address, until, count.clone()))).collect();
        for client in clients {
            client.await??;
        }
        anyhow::Ok(count.get())
    })?;
    println!("{answered}");
    Ok(())
}

async fn ask_until(address: SocketAddr, until: Instant, count: Rc<Cell<u64>>) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; 16 * 1024];
    while Instant::now() < until {
        stream.write_all(REQUEST).await?;
        let mut filled = 0;
        loop {
            let size = stream.read(&mut buffer[filled..]).await?;
            anyhow::ensure!(size > 0, "the peer closed");
            filled += size;
            if is_whole(&buffer[..filled])? {
                break;
            }
        }
        count.set(count.get() + 1);
    }
    Ok(())
}

/// Whether the answer has all of its `content-length`.
fn is_whole(answer: &[u8]) -> anyhow::Result<bool> {
    let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(false) };
    let head = std::str::from_utf8(&answer[..end])?;
    anyhow::ensure!(head.starts_with("HTTP/1.1 200"), "an answer that is not good: {head}");
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    Ok(answer.len() - end - 4 >= length.context("an answer without content-length")?)
}

/// `role-idle ADDRESS CONNECTIONS`: opens them, asks once on each, says `ready`, and holds them until standard input ends.
pub(crate) fn play_idle(arguments: &[String]) -> anyhow::Result<()> {
    let address: SocketAddr = arguments[0].parse()?;
    let connections: usize = arguments[1].parse()?;
    let mut streams = Vec::new();
    let mut buffer = vec![0; 16 * 1024];
    for _ in 0..connections {
        let mut stream = std::net::TcpStream::connect(address)?;
        stream.write_all(REQUEST)?;
        let mut filled = 0;
        while !is_whole(&buffer[..filled])? {
            let size = stream.read(&mut buffer[filled..])?;
            anyhow::ensure!(size > 0, "the peer closed");
            filled += size;
        }
        streams.push(stream);
    }
    println!("ready");
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
