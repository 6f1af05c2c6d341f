//! A tunnel: bytes both ways after an upgrade, for as long as both sides like. A half-close is passed on.
//!
//! Not here: the cut, which aborts the task that runs this.

use bytes::Bytes;
use hyper::upgrade::{OnUpgrade, Upgraded};
use tokio::io::{AsyncWriteExt, copy_bidirectional_with_sizes};
use tokio::net::TcpStream;

use crate::io::Io;

/// Per direction; messages of tunnels are small, and many tunnels are idle.
const COPY_BYTES: usize = 16 * 1024;

pub(crate) async fn run(from_client: OnUpgrade, from_target: OnUpgrade) {
    let Ok(target) = from_target.await else {
        return;
    };
    let Ok(client) = from_client.await else {
        return;
    };
    let (Some((mut client, client_early)), Some((mut target, target_early))) = (open(client), open(target)) else {
        return;
    };
    let early = async {
        target.write_all(&client_early).await?;
        client.write_all(&target_early).await
    };
    if early.await.is_ok() {
        let _ = copy_bidirectional_with_sizes(&mut client, &mut target, COPY_BYTES, COPY_BYTES).await;
    }
}

/// The socket itself, and what hyper had read beyond the head.
fn open(upgraded: Upgraded) -> Option<(TcpStream, Bytes)> {
    let parts = upgraded.downcast::<Io>().ok()?;
    let (stream, unread) = parts.io.into_parts();
    debug_assert!(unread.is_empty() || parts.read_buf.is_empty(), "early bytes are read before the socket is");
    let early = if parts.read_buf.is_empty() { unread } else { parts.read_buf };
    Some((stream, early))
}
