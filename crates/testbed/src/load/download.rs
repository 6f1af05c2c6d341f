//! A download that takes its time and must arrive whole.

use std::io;
use std::net::SocketAddr;
use std::thread;

use bytes::Bytes;
use http::header::{CONNECTION, HOST};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use tokio::task::LocalSet;

use super::connection::{Connection, Failure, chain};

/// Asks the service for `bytes` spread over `millis`; an error unless exactly that many arrive.
/// Blocks, on a thread of its own: safe to call from within a runtime that may be blocked.
pub fn slow_download(address: SocketAddr, host: &str, bytes: u64, millis: u64) -> io::Result<u64> {
    let host = host.to_owned();
    let download = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        LocalSet::new().block_on(&runtime, async {
            let received = receive(address, &host, bytes, millis).await;
            received.map_err(io::Error::other)
        })
    });
    let received = download.join().expect("a download does not panic")?;
    if received == bytes {
        return Ok(received);
    }
    Err(io::Error::other(format!("{received} of {bytes} bytes arrived")))
}

async fn receive(address: SocketAddr, host: &str, bytes: u64, millis: u64) -> Result<u64, String> {
    let mut connection = Connection::open_h1(address).await?;
    let request = Request::get(format!("/slow?bytes={bytes}&millis={millis}"))
        .header(HOST, host)
        .header(CONNECTION, "close")
        .body(Full::<Bytes>::default())
        .map_err(|error| chain(&error))?;
    let response = connection.send(request).await.map_err(|error| match error {
        Failure::Unsent => "closed before the request".to_owned(),
        Failure::Lost(error) => error,
    })?;
    if response.status() != StatusCode::OK {
        return Err(format!("status {}", response.status()));
    }
    let mut body = response.into_body();
    let mut received = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| format!("after {received} bytes: {}", chain(&error)))?;
        received += frame.data_ref().map_or(0, |data| data.len() as u64);
    }
    Ok(received)
}
