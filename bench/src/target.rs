//! Targets: one as cheap as can be, and the testbed's service.

use std::net::Ipv4Addr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const SMALL_BYTES: usize = 1024;
const LARGE_BYTES: usize = 100 * 1024;
/// Requests that begin with this get the large body.
pub const LARGE_PATH: &str = "/large";

/// `role-target PORT…`: answers every request without a body with 1 KiB, or 100 KiB.
pub(crate) fn play(arguments: &[String]) -> anyhow::Result<()> {
    let ports = arguments.iter().map(|port| port.parse::<u16>()).collect::<Result<Vec<_>, _>>()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let listening = ports.into_iter().map(|port| tokio::task::spawn_local(listen(port)));
        for listening in listening.collect::<Vec<_>>() {
            listening.await??;
        }
        Ok(())
    })
}

async fn listen(port: u16) -> anyhow::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::task::spawn_local(serve(stream));
    }
}

fn answer(body_bytes: usize) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {body_bytes}\r\nserver: target\r\n\r\n");
    let mut answer = head.into_bytes();
    answer.resize(answer.len() + body_bytes, b'x');
    answer
}

async fn serve(mut stream: TcpStream) -> std::io::Result<()> {
    let (small, large) = (answer(SMALL_BYTES), answer(LARGE_BYTES));
    let large_start = format!("GET {LARGE_PATH}");
    let mut read = vec![0; 16 * 1024];
    let mut filled = 0;
    loop {
        let size = stream.read(&mut read[filled..]).await?;
        if size == 0 {
            return Ok(());
        }
        filled += size;
        if read[..filled].ends_with(b"\r\n\r\n") {
            let answer = if read.starts_with(large_start.as_bytes()) { &large } else { &small };
            filled = 0;
            stream.write_all(answer).await?;
        }
    }
}

/// `role-service VERSION PORT`: the testbed's service.
pub(crate) fn play_service(arguments: &[String]) -> anyhow::Result<()> {
    let options = testbed::service::Options { version: arguments[0].clone(), port: arguments[1].parse()?, ..Default::default() };
    Ok(testbed::service::run(options)?)
}
