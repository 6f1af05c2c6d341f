//! Numbers that are measured elsewhere: asked of Prometheus, a command or a JSON document, once for each version.
//!
//! **Invariant**: what is not one finite number is an error in words, never a number.

use std::process::Stdio;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use model::{Moment, ServiceName, Source, VersionName};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::net::TcpStream;

/// An answer with one number is shorter.
const ANSWER_BYTES_MAX: usize = 256 * 1024;
/// Of what a source said wrongly, in messages.
const SHOWN_MAX: usize = 120;

/// What is known of one metric.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Measurement {
    /// Candidate, stable; of the last interval that gave both.
    pub values: Option<(f64, f64)>,
    /// When that was.
    pub at: Option<Moment>,
    /// Why the last interval gave nothing.
    pub error: Option<String>,
    /// Since when it gives nothing.
    pub missing_since: Option<Moment>,
    pub next_at: Moment,
    /// It gave both within this step.
    pub in_step: bool,
}

pub(crate) async fn measure(source: &Source, service: &ServiceName, version: &VersionName, timeout: Duration) -> Result<f64, String> {
    let fill = |text: &str| text.replace("{version}", version.as_str()).replace("{service}", service.as_str());
    let asked = async {
        match source {
            Source::Prometheus { url, query } => prometheus(url, &fill(query)).await,
            Source::Command { command } => run(command.iter().map(|word| fill(word)).collect(), service, version).await,
            Source::Http { url, pointer } => json(&fill(url), pointer).await,
        }
    };
    let value = tokio::time::timeout(timeout, asked).await.map_err(|_| format!("no answer within {timeout:?}"))??;
    if value.is_finite() { Ok(value) } else { Err(format!("gives {value}, which is no number")) }
}

/// The HTTP API of Prometheus, an instant query: prometheus.io/docs/prometheus/latest/querying/api.
async fn prometheus(url: &str, query: &str) -> Result<f64, String> {
    let url = format!("{}/api/v1/query?query={}", url.trim_end_matches('/'), escaped(query));
    let (status, body) = get(&url).await?;
    let answer: Value = serde_json::from_str(&body).map_err(|_| format!("answers {status} without JSON: {}", shown(&body)))?;
    if answer["status"] != "success" {
        return Err(format!("says: {}", shown(answer["error"].as_str().unwrap_or(&body))));
    }
    let data = &answer["data"];
    let sample = match data["resultType"].as_str() {
        Some("scalar") => &data["result"],
        Some("vector") => match data["result"].as_array().map(Vec::as_slice).unwrap_or_default() {
            [] => return Err("the query finds no series".to_owned()),
            [series] => &series["value"],
            many => return Err(format!("the query finds {} series, where one is wanted: aggregate them, such as with sum(…)", many.len())),
        },
        other => return Err(format!("the query gives a {}, where one number is wanted", other.unwrap_or("nothing"))),
    };
    let text = sample[1].as_str().ok_or("the answer has no value")?;
    text.parse().map_err(|_| format!("gives `{}`, which is no number", shown(text)))
}

async fn run(command: Vec<String>, service: &ServiceName, version: &VersionName) -> Result<f64, String> {
    let (program, arguments) = command.split_first().ok_or("the command is empty")?;
    let output = tokio::process::Command::new(program)
        .args(arguments)
        .env("CHANGEOVER_SERVICE", service.as_str())
        .env("CHANGEOVER_VERSION", version.as_str())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|error| format!("cannot run {program}: {error}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.trim().lines().last().map(|line| format!(": {}", shown(line))).unwrap_or_default();
        return Err(format!("the command ended with {}{said}", output.status));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let last = text.trim().lines().last().unwrap_or_default().trim();
    if last.is_empty() {
        return Err("the command prints nothing".to_owned());
    }
    last.parse().map_err(|_| format!("the command's last line is no number: {}", shown(last)))
}

async fn json(url: &str, pointer: &str) -> Result<f64, String> {
    let (status, body) = get(url).await?;
    if !(200..300).contains(&status) {
        return Err(format!("answers {status}"));
    }
    let document: Value = serde_json::from_str(&body).map_err(|_| format!("answers without JSON: {}", shown(&body)))?;
    let value = document.pointer(pointer).ok_or_else(|| format!("the document has nothing at `{pointer}`"))?;
    value
        .as_f64()
        .or_else(|| value.as_str()?.parse().ok())
        .ok_or_else(|| format!("gives {}, which is no number", shown(&value.to_string())))
}

async fn get(url: &str) -> Result<(u16, String), String> {
    let uri: http::Uri = url.parse().map_err(|error| format!("`{}` is no address: {error}", shown(url)))?;
    let (host, port) = (uri.host().unwrap_or_default().to_owned(), uri.port_u16().unwrap_or(80));
    let address = (host.trim_start_matches('[').trim_end_matches(']'), port);
    let stream = TcpStream::connect(address).await.map_err(|error| format!("cannot connect to {host}:{port}: {error}"))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    let talk = tokio::spawn(connection);
    let answer = async {
        let request = hyper::Request::get(uri.path_and_query().map_or("/", |path| path.as_str()))
            .header("host", format!("{host}:{port}"))
            .header("accept", "application/json")
            .header("user-agent", "changeover")
            .header("connection", "close")
            .body(Empty::<bytes::Bytes>::new())
            .map_err(|error| error.to_string())?;
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await.map_err(|error| error.to_string())?;
        Ok((status, String::from_utf8_lossy(&body.to_bytes()).into_owned()))
    }
    .await;
    talk.abort();
    answer
}

/// For a query string (RFC 3986 §2.3).
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

fn shown(text: &str) -> String {
    let line: String = text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).take(SHOWN_MAX).collect();
    if line.is_empty() { "nothing".to_owned() } else { line }
}
