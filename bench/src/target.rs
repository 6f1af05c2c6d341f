//! Targets: one as cheap as can be, and the testbed's service.

use std::net::Ipv4Addr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const BODY_BYTES: usize = 1024;

/// `role-target PORT`: answers every request without a body with 1 KiB.
pub(crate) fn play(arguments: &[String]) -> anyhow::Result<()> {
    let port: u16 = arguments[0].parse()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio::task::spawn_local(serve(stream));
        }
    })
}

async fn serve(mut stream: TcpStream) -> std::io::Result<()> {
    let mut answer =
        format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {BODY_BYTES}\r\nserver: target\r\n\r\n").into_bytes();
    answer.resize(answer.len() + BODY_BYTES, b'x');
    let mut read = vec![0; 16 * 1024];
    let mut filled = 0;
    loop {
        let size = stream.read(&mut read[filled..]).await?;
        if size == 0 {
            return Ok(());
        }
        filled += size;
        if read[..filled].ends_with(b"\r\n\r\n") {
            filled = 0;
            stream.write_all(&answer).await?;
        }
    }
}

/// `role-service VERSION PORT`: the testbed's service.
pub(crate) fn play_service(arguments: &[String]) -> anyhow::Result<()> {
    let options = testbed::service::Options { version: arguments[0].clone(), port: arguments[1].parse()?, ..Default::default() };
    Ok(testbed::service::run(options)?)
}
