//! Clients that keep asking and count what they did not get.
//!
//! **Invariant:** a request is never retried. Once its connection was used for writing it, it is either
//! answered in full or lost. Only a connection that the peer closed in order before the client
//! began to write is replaced without a loss.

mod client;
mod connection;
mod download;
mod ledger;
mod tunnel;

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::LocalSet;

use client::{Client, Kind};
pub use download::slow_download;
use ledger::Ledger;
pub use ledger::Tally;
pub use tunnel::EchoTunnel;

#[derive(Clone, Debug)]
pub struct LoadOptions {
    pub address: SocketAddr,
    pub host: String,
    /// `GET /` over one connection, as long as the peer keeps it.
    pub keep_alive_clients: usize,
    /// `GET /` over a new connection each time.
    pub fresh_clients: usize,
    /// `GET /` over HTTP/2 with prior knowledge.
    pub h2_clients: usize,
    /// `POST /orders` with an id of its own each time, over one connection.
    pub post_clients: usize,
    /// How long each client pauses between two requests.
    pub pace: Option<Duration>,
}

impl LoadOptions {
    /// No clients yet.
    pub fn new(address: SocketAddr, host: impl Into<String>) -> Self {
        Self { address, host: host.into(), keep_alive_clients: 0, fresh_clients: 0, h2_clients: 0, post_clients: 0, pace: None }
    }

    fn kinds(&self) -> impl Iterator<Item = Kind> + use<> {
        let counts = [
            (Kind::KeepAlive, self.keep_alive_clients),
            (Kind::Fresh, self.fresh_clients),
            (Kind::H2, self.h2_clients),
            (Kind::Post, self.post_clients),
        ];
        counts.into_iter().flat_map(|(kind, count)| std::iter::repeat_n(kind, count))
    }
}

/// A running load on a thread of its own. Dropping it ends it without waiting.
pub struct Load {
    ledger: Arc<Ledger>,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Load {
    pub fn start(options: LoadOptions) -> Self {
        let ledger = Arc::new(Ledger::default());
        let (stop, stopped) = watch::channel(false);
        let of_thread = Arc::clone(&ledger);
        let thread = thread::spawn(move || run(options, &of_thread, &stopped));
        Self { ledger, stop, thread: Some(thread) }
    }

    pub fn snapshot(&self) -> Tally {
        self.ledger.tally()
    }

    /// When the latest-started request that `version` answered was started.
    pub fn last_started_on(&self, version: &str) -> Option<Instant> {
        self.ledger.last_started_on(version)
    }

    /// Starts no more requests, waits for the running ones and returns the final count.
    pub fn stop(mut self) -> Tally {
        self.stop.send_replace(true);
        let thread = self.thread.take().expect("the thread is joined once");
        thread.join().expect("clients do not panic");
        self.ledger.tally()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

fn run(options: LoadOptions, ledger: &Arc<Ledger>, stopped: &watch::Receiver<bool>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime needs only a few descriptors");
    let options = Rc::new(options);
    LocalSet::new().block_on(&runtime, async {
        let clients: Vec<_> = options
            .kinds()
            .map(|kind| Client::new(kind, Rc::clone(&options), Arc::clone(ledger)))
            .map(|client| tokio::task::spawn_local(client.run(stopped.clone())))
            .collect();
        for client in clients {
            client.await.expect("clients do not panic");
        }
    });
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::net::Ipv4Addr;

    use http::{Request, Response};
    use hyper::body::Incoming;
    use hyper::server::conn::http2;
    use hyper::service::service_fn;
    use tokio::net::TcpListener;

    use super::*;
    use crate::hyper_io::{HyperIo, LocalExecutor};
    use crate::{ports, wait};

    async fn answer(request: Request<Incoming>) -> Result<Response<String>, Infallible> {
        let host = request.uri().host().unwrap_or_default().to_owned();
        let response = Response::builder().header("x-version", "v2").body(host);
        Ok(response.expect("a sound response"))
    }

    /// An h2 service that sends GOAWAY on each connection after 50 ms.
    async fn serve(port: u16) {
        let address = (Ipv4Addr::LOCALHOST, port);
        let listener = TcpListener::bind(address).await.expect("a free port");
        while let Ok((stream, _)) = listener.accept().await {
            tokio::task::spawn_local(async move {
                let connection = http2::Builder::new(LocalExecutor).serve_connection(HyperIo(stream), service_fn(answer));
                let mut connection = std::pin::pin!(connection);
                let limit = Duration::from_millis(50);
                if tokio::time::timeout(limit, connection.as_mut()).await.is_err() {
                    connection.as_mut().graceful_shutdown();
                    let _ = connection.await;
                }
            });
        }
    }

    #[test]
    fn h2_connections_told_to_go_away_lose_nothing() {
        let port = ports::free().expect("a free port");
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = { runtime }.enable_all().build().expect("a runtime");
            LocalSet::new().block_on(&runtime, serve(port));
        });
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let deadline = Duration::from_secs(10);
        wait::until(deadline, "service listens", || std::net::TcpStream::connect(address).is_ok());
        let mut options = LoadOptions::new(address, "shop.test");
        options.h2_clients = 3;
        let load = Load::start(options);
        wait::until(deadline, "GOAWAY seen", || load.snapshot().connections_closed_by_peer >= 6);
        let tally = load.stop();
        assert_eq!(tally.lost, 0, "{:?}", tally.last_errors);
        assert_eq!(tally.by_version["v2"], tally.requests);
    }
}
