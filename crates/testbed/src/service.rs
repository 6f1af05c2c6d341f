//! A small real HTTP/1.1 service that says which version it is.
//!
//! **Invariant:** every answer carries `x-version`. SIGTERM keeps its default action: the process dies.

mod answers;
mod behaviour;
mod orders;
mod upgrade;

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::LocalSet;

use crate::hyper_io::HyperIo;

#[derive(Clone, Debug)]
pub struct Options {
    pub port: u16,
    pub version: String,
    /// What `/healthz` answers: 200, or 500 when not healthy.
    pub healthy: bool,
    /// How long it takes before the service listens.
    pub start_delay: Duration,
    /// Where `POST /orders` notes each order, one line `id version`.
    pub record: Option<PathBuf>,
    /// A folder with a file for each version that does not simply answer; see `behaviour`.
    pub behaviour: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self { port: 0, version: "v1".to_owned(), healthy: true, start_delay: Duration::ZERO, record: None, behaviour: None }
    }
}

/// Serves on 127.0.0.1 until the process ends.
pub fn run(options: Options) -> io::Result<()> {
    std::thread::sleep(options.start_delay);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, serve(options))
}

async fn serve(options: Options) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, options.port)).await?;
    announce(&options.version, listener.local_addr()?);
    let state = Rc::new(State {
        behaves: options.behaviour.map(|folder| behaviour::Behaves::new(&folder, &options.version)),
        orders: options.record.map(orders::Orders::open).transpose()?,
        version: options.version,
        healthy: options.healthy,
    });
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::task::spawn_local(connection(stream, Rc::clone(&state)));
            }
            // Out of descriptors or a peer that left early: neither ends the service.
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

struct State {
    version: String,
    healthy: bool,
    behaves: Option<behaviour::Behaves>,
    orders: Option<orders::Orders>,
}

fn announce(version: &str, address: SocketAddr) {
    // A closed stdout is no reason not to serve.
    let _ = writeln!(io::stdout(), "{version} listens on {address}");
}

async fn connection(stream: TcpStream, state: Rc<State>) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| answers::answer(Rc::clone(&state), request));
    // A connection that breaks is the client's to notice; the service only serves the next one.
    let _ = http1::Builder::new().serve_connection(HyperIo(stream), service).with_upgrades().await;
}
