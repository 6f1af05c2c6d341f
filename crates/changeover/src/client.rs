//! The API's client: HTTP over the Unix socket in the state directory.

use std::time::{Duration, Instant};

use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::Value;

use crate::args::Place;
use crate::exit::{Exit, problem};

/// A worker opens its state and listens well within this.
const STARTING_MAX: Duration = Duration::from_secs(10);
/// Between typing `changeover up &` and the keeper's first system call.
const JUST_STARTED_MAX: Duration = Duration::from_millis(500);
const CONNECT_AGAIN: Duration = Duration::from_millis(10);

pub(crate) struct Client {
    place: Place,
    runtime: tokio::runtime::Runtime,
}

impl Client {
    pub(crate) fn new(place: &Place) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { place: place.clone(), runtime })
    }

    pub(crate) fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.runtime.block_on(self.ask(Method::GET, path, None))
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.runtime.block_on(self.ask(Method::POST, path, Some(body)))
    }

    /// An answer that is no JSON.
    pub(crate) fn text(&self, path: &str) -> anyhow::Result<String> {
        self.runtime.block_on(async {
            let body = self.send(Method::GET, path, None).await?.into_body();
            Ok(String::from_utf8_lossy(&body.collect().await?.to_bytes()).into_owned())
        })
    }

    /// Waits for an `up` that was started just now, and for a worker that is being started again.
    async fn connect(&self) -> anyhow::Result<tokio::net::UnixStream> {
        let (socket, began) = (self.place.socket(), Instant::now());
        loop {
            let error = match tokio::net::UnixStream::connect(&socket).await {
                Ok(stream) => return Ok(stream),
                Err(error) => error,
            };
            if error.kind() == std::io::ErrorKind::PermissionDenied {
                let hint = "only the user who runs `changeover up`, and root, may ask it";
                return Err(problem(Exit::Failed, format!("not allowed to use {}", socket.display()), Some(hint.to_owned())));
            }
            let patience = if self.is_up() { STARTING_MAX } else { JUST_STARTED_MAX };
            if began.elapsed() >= patience {
                let hint = "start it with `changeover up`, or name another state directory with --state-dir";
                return Err(problem(Exit::Failed, format!("nothing answers at {}", socket.display()), Some(hint.to_owned())));
            }
            tokio::time::sleep(CONNECT_AGAIN).await;
        }
    }

    /// Whether the process lives that wrote its id into the keeper's lock.
    pub(crate) fn is_up(&self) -> bool {
        let text = std::fs::read_to_string(self.place.state_dir.join("keeper.lock")).unwrap_or_default();
        text.trim().parse::<u32>().is_ok_and(|pid| std::path::Path::new("/proc").join(pid.to_string()).exists())
    }

    /// Who only reads asks again when the worker that was asked ends, because it crashes or is upgraded.
    async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<http::Response<hyper::body::Incoming>> {
        let began = Instant::now();
        loop {
            match self.send_once(method.clone(), path, body).await {
                Err(error) if method == Method::GET && error.is::<hyper::Error>() && began.elapsed() < STARTING_MAX && self.is_up() => {
                    tokio::time::sleep(CONNECT_AGAIN).await;
                }
                answer => return answer,
            }
        }
    }

    async fn send_once(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<http::Response<hyper::body::Incoming>> {
        let stream = self.connect().await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let bytes = body.map(|body| serde_json::to_vec(body).expect("plain data")).unwrap_or_default();
        let token = std::env::var("CHANGEOVER_TOKEN").ok().filter(|token| !token.is_empty());
        let mut request = Request::builder();
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request
            .method(method)
            .uri(path)
            .header("host", "changeover")
            .header("content-type", "application/json")
            .body(Full::new(bytes::Bytes::from(bytes)))?;
        Ok(sender.send_request(request).await?)
    }

    async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        let began = Instant::now();
        loop {
            match self.ask_once(method.clone(), path, body).await? {
                // A worker that is being replaced did nothing of it: the next one is asked.
                Err(_) if began.elapsed() < STARTING_MAX && self.is_up() => tokio::time::sleep(CONNECT_AGAIN).await,
                answer => return answer,
            }
        }
    }

    /// The inner error: nothing was done, because it had ended.
    async fn ask_once(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<anyhow::Result<Value>> {
        let reads = method == Method::GET;
        let response = self.send(method, path, body).await?;
        let status = response.status();
        let bytes = match response.into_body().collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) if reads => return Ok(Err(error.into())),
            Err(error) => return Err(error.into()),
        };
        let value: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        if status.is_success() {
            return Ok(Ok(value));
        }
        let message = value["message"].as_str().map_or_else(|| String::from_utf8_lossy(&bytes).into_owned(), str::to_owned);
        let exit = match value["code"].as_str() {
            Some("conflict") => Exit::Conflict,
            Some("invalid" | "not_found") => Exit::Usage,
            _ => Exit::Failed,
        };
        let rejected = problem(exit, message, value["hint"].as_str().map(str::to_owned));
        if value["code"].as_str() == Some(engine::ENDED) { Ok(Err(rejected)) } else { Err(rejected) }
    }

    /// Calls `each` with every event since `since`, until it says stop or the stream ends. Returns the last number seen.
    pub(crate) fn events(&self, query: &str, since: u64, mut each: impl FnMut(&Value) -> bool) -> anyhow::Result<u64> {
        self.runtime.block_on(async {
            let response = self.send(Method::GET, &format!("/v1/events?since={since}{query}"), None).await?;
            let mut body = response.into_body();
            let (mut last, mut pending) = (since, Vec::new());
            while let Some(frame) = body.frame().await {
                let Ok(frame) = frame else { break };
                let Ok(data) = frame.into_data() else { continue };
                pending.extend_from_slice(&data);
                while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<u8> = pending.drain(..=end).collect();
                    let Ok(event) = serde_json::from_slice::<Value>(&line) else { continue };
                    last = event["seq"].as_u64().unwrap_or(last);
                    if !each(&event) {
                        return Ok(last);
                    }
                }
            }
            Ok(last)
        })
    }
}

/// Who asks: the user's name.
pub(crate) fn who() -> String {
    let named = std::env::var("CHANGEOVER_WHO").ok();
    let user = || nix::unistd::User::from_uid(nix::unistd::getuid()).ok().flatten().map(|user| user.name);
    named.or_else(user).unwrap_or_else(|| nix::unistd::getuid().to_string())
}

/// Of a query's value (RFC 3986 §2.3).
pub(crate) fn encoded(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|byte| if is_plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}
