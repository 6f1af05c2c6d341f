//! The flag server with a set of a given size, and the least that any HTTP server in Rust does beside it.
//!
//! **Invariant**: the yardstick reads the same requests and writes answers of the same size; it only does not think.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use anyhow::Context;
use bytes::Bytes;
use flag_engine::Board;
use flag_server::{Audience, Config, Open, Readiness, Report, Role, Server};
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

/// Nobody listens: what exposures cost is measured where they are kept.
struct Nobody;

impl Audience for Nobody {
    fn evaluated(&self, _: &str, _: &flags::Evaluation<'_>, _: &flags::Context) {}
    fn missing(&self, _: &str, _: &str) {}
    fn reported(&self, _: &str, _: Report) -> Result<usize, String> {
        Ok(0)
    }
}

/// One third static, one third with a rule of three clauses, one third with shares. `first` is what the first flag answers.
pub fn document(flags: usize, first: &str) -> String {
    let variants = r#""state":"ENABLED","variants":{"on":true,"off":false}"#;
    let flag = |index: usize| match index % 3 {
        0 => format!(r#""flag-{index}":{{{variants},"defaultVariant":"{}"}}"#, if index == 0 { first } else { "off" }),
        1 => format!(
            r#""flag-{index}":{{{variants},"defaultVariant":"off","targeting":{{"if":[{{"and":[{{"==":[{{"var":"country"}},"at"]}},{{">":[{{"var":"age"}},17]}},{{"ends_with":[{{"var":"email"}},"@example.com"]}}]}},"on",null]}}}}"#
        ),
        _ => format!(r#""flag-{index}":{{{variants},"defaultVariant":"off","targeting":{{"fractional":[["on",20],["off",80]]}}}}"#),
    };
    let all: Vec<String> = (0..flags).map(flag).collect();
    format!(r#"{{"flags":{{{}}},"metadata":{{"flagSetId":"live"}}}}"#, all.join(","))
}

pub fn publish(board: &Board, document: &str) -> anyhow::Result<()> {
    let set = flags::Set::from_json(document, flags::Bucketing::V2).map_err(|problems| anyhow::anyhow!("{}", problems[0]))?;
    board.publish("live", set);
    Ok(())
}

/// Everything on one port, on one thread that runs where the caller does.
pub fn start(board: Arc<Board>, listener: TcpListener) -> anyhow::Result<Server> {
    let server = Server::start(Config {
        threads: 1,
        board: board.clone(),
        admission: Arc::new(Open(board)),
        audience: Arc::new(Nobody),
        readiness: Arc::new(|| Readiness { ready: true, refused: Vec::new() }),
        context: serde_json::Map::new(),
        origins: Vec::new(),
        stream_key: [1; 32],
    })?;
    server.listen(Role::All, listener)?;
    Ok(server)
}

/// `role-flags ADDRESS FLAGS`: until it is ended.
pub(crate) fn play(arguments: &[String]) -> anyhow::Result<()> {
    let [address, flags] = arguments else { anyhow::bail!("an address and a number of flags") };
    let board = Arc::new(Board::default());
    publish(&board, &document(flags.parse()?, "off"))?;
    let _server = start(board, TcpListener::bind(address.parse::<SocketAddr>()?)?)?;
    loop {
        std::thread::park();
    }
}

/// `role-yardstick ADDRESS`: hyper, one thread, a fixed answer to whatever was read.
pub(crate) fn play_yardstick(arguments: &[String]) -> anyhow::Result<()> {
    let address: SocketAddr = arguments.first().context("an address")?.parse()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(address).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer)));
        }
    })
}

async fn answer(request: hyper::Request<hyper::body::Incoming>) -> Result<hyper::Response<Full<Bytes>>, Infallible> {
    // A body that breaks off is answered like any other: nobody looks.
    let _ = request.into_body().collect().await;
    let text = r#"{"key":"flag-100","reason":"TARGETING_MATCH","variant":"on","value":true,"metadata":{"flagSetId":"live"}}"#;
    let mut response = hyper::Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    response.headers_mut().insert("content-type", hyper::header::HeaderValue::from_static("application/json"));
    response.headers_mut().insert("cache-control", hyper::header::HeaderValue::from_static("no-store"));
    Ok(response)
}
