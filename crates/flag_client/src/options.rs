//! What a program says about its flags before it uses them.
//!
//! **Invariant**: options that were accepted can be used: addresses parse, the token fits into a header. A token is never printed.
//! Not here: connecting (`stream.rs`, `remote.rs`).

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use http::Uri;
use http::uri::{PathAndQuery, Scheme};
use tokio::runtime::Handle;
use tonic::metadata::{Ascii, MetadataValue};

/// As long as flagd's providers wait at start.
pub const INIT_DEADLINE: Duration = Duration::from_millis(500);
/// As long as flagd's providers wait for a remote evaluation.
pub const EVALUATION_TIMEOUT: Duration = Duration::from_millis(500);
/// Seldom enough to cost nothing, often enough that half a minute passes at most until a silent death is noticed.
pub const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// Nobody waits longer; sums of times stay far from overflowing.
const DEADLINE_MAX: Duration = Duration::from_secs(24 * 3_600);
/// More often would be a load of its own.
const KEEP_ALIVE_MIN: Duration = Duration::from_millis(50);
const SYNC_PORT: u16 = 8015;
/// Where reports go when evaluations use a port of flagd's: the server's OFREP port.
const REPORT_PORT: u16 = 8016;
/// Ports of flagd's that speak gRPC alone: evaluation and sync.
const GRPC_PORTS: [u16; 2] = [8013, 8015];
const REPORT_PATH: &str = "/changeover/v1/report";

/// Where the server is, and how to use it. `Options::from("http://127.0.0.1:8015")` is enough.
#[derive(Clone)]
pub struct Options {
    server: String,
    pub(crate) environment: Option<String>,
    selector: Option<String>,
    token: Option<String>,
    pub(crate) init_deadline: Duration,
    pub(crate) evaluation_timeout: Duration,
    pub(crate) keep_alive: Duration,
    pub(crate) bootstrap: Option<PathBuf>,
    pub(crate) keep_bootstrap: bool,
    report: Report,
    pub(crate) runtime: Option<Handle>,
}

#[derive(Clone)]
enum Report {
    BesideServer,
    To(String),
    Off,
}

/// Why options cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OptionsError {
    #[error("`{address}` is not the address of a server: write `http://host:port`")]
    Address { address: String },
    #[error("`{address}` asks for TLS, which is not built in: use `http://` to a proxy beside the program that speaks TLS")]
    Tls { address: String },
    #[error("the token has characters that a header cannot carry: it is ASCII without spaces; was a line break read with it?")]
    Token,
    #[error("the selector or environment `{selector}` has characters that a header cannot carry: use visible ASCII")]
    Selector { selector: String },
    #[error("cannot start the thread that keeps the flags fresh")]
    Thread(#[source] std::io::Error),
}

impl Options {
    /// `server` is `http://host:port`: of sync (8015 by default) for in-process flags, of evaluation (8013) for remote ones.
    pub fn new(server: impl Into<String>) -> Self {
        Self {
            server: server.into(),
            environment: None,
            selector: None,
            token: None,
            init_deadline: INIT_DEADLINE,
            evaluation_timeout: EVALUATION_TIMEOUT,
            keep_alive: KEEP_ALIVE,
            bootstrap: None,
            keep_bootstrap: false,
            report: Report::BesideServer,
            runtime: None,
        }
    }

    /// In-process flags, from what flagd's own providers read: `FLAGD_HOST` (127.0.0.1), `FLAGD_SYNC_PORT` (8015),
    /// `FLAGD_SOURCE_SELECTOR`, `FLAGD_DEADLINE_MS`. What is not a number counts as not given.
    pub fn from_env() -> Self {
        Self::from_names(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    fn from_names(read: impl Fn(&str) -> Option<String>) -> Self {
        let host = read("FLAGD_HOST").unwrap_or_else(|| "127.0.0.1".to_owned());
        let port = read("FLAGD_SYNC_PORT").and_then(|port| port.parse().ok()).unwrap_or(SYNC_PORT);
        let deadline = read("FLAGD_DEADLINE_MS").and_then(|ms| ms.parse().ok()).map_or(INIT_DEADLINE, Duration::from_millis);
        let options = Self::new(format!("http://{host}:{port}")).init_deadline(deadline);
        Self { selector: read("FLAGD_SOURCE_SELECTOR"), ..options }
    }

    /// The server's default unless given.
    #[must_use]
    pub fn environment(mut self, name: impl Into<String>) -> Self {
        self.environment = Some(name.into());
        self
    }

    /// As flagd takes it, such as `flagSetId=payments`; wins over the environment.
    #[must_use]
    pub fn selector(mut self, selector: impl Into<String>) -> Self {
        self.selector = Some(selector.into());
        self
    }

    /// Sent as `authorization: Bearer`, to the server and with reports.
    #[must_use]
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// The longest time that connecting waits for a first set; [`INIT_DEADLINE`] unless given.
    #[must_use]
    pub fn init_deadline(mut self, deadline: Duration) -> Self {
        self.init_deadline = deadline.min(DEADLINE_MAX);
        self
    }

    /// The longest time that a remote evaluation waits for its answer; [`EVALUATION_TIMEOUT`] unless given.
    #[must_use]
    pub fn evaluation_timeout(mut self, timeout: Duration) -> Self {
        self.evaluation_timeout = timeout.min(DEADLINE_MAX);
        self
    }

    /// How often the server is asked for a sign of life, which it has as long to give; [`KEEP_ALIVE`] unless given. A server that
    /// went without a word, with its machine or behind a cut cable, is noticed after twice this time. Servers other than changeover
    /// may take frequent asking for an attack.
    #[must_use]
    pub fn keep_alive(mut self, interval: Duration) -> Self {
        self.keep_alive = interval.clamp(KEEP_ALIVE_MIN, DEADLINE_MAX);
        self
    }

    /// A set in flagd's format, JSON or YAML, that holds while the server does not answer at start.
    #[must_use]
    pub fn bootstrap(mut self, path: impl Into<PathBuf>) -> Self {
        self.bootstrap = Some(path.into());
        self
    }

    /// Writes every accepted set into the bootstrap file, as JSON, for the next start.
    #[must_use]
    pub fn keep_bootstrap(mut self, keep: bool) -> Self {
        self.keep_bootstrap = keep;
        self
    }

    /// Where exposures and outcomes go, `http://host:port`. Unless given: the server's own port, or 8016 beside flagd's gRPC ports.
    #[must_use]
    pub fn report_to(mut self, address: impl Into<String>) -> Self {
        self.report = Report::To(address.into());
        self
    }

    /// Nothing is reported.
    #[must_use]
    pub fn no_reports(mut self) -> Self {
        self.report = Report::Off;
        self
    }

    /// Streams on this runtime, which must have its IO and time drivers enabled, instead of on a thread of its own.
    #[must_use]
    pub fn runtime(mut self, handle: Handle) -> Self {
        self.runtime = Some(handle);
        self
    }

    pub(crate) fn checked(self) -> Result<Checked, OptionsError> {
        let server = address(&self.server)?;
        let report = match &self.report {
            Report::Off => None,
            Report::To(other) => Some(report_uri(&address(other)?)),
            Report::BesideServer => Some(report_uri(&beside(&server))),
        };
        let selector = self.selector.clone().or_else(|| self.environment.as_ref().map(|name| format!("flagSetId={name}")));
        let selector_header =
            selector.as_deref().map(|text| text.parse().map_err(|_| OptionsError::Selector { selector: text.to_owned() })).transpose()?;
        let authorization = self.token.as_deref().map(bearer).transpose()?;
        Ok(Checked { server, report, selector, selector_header, authorization, options: self })
    }
}

/// Options that can be used.
pub(crate) struct Checked {
    pub(crate) server: Uri,
    /// With its path.
    pub(crate) report: Option<Uri>,
    pub(crate) selector: Option<String>,
    pub(crate) selector_header: Option<MetadataValue<Ascii>>,
    pub(crate) authorization: Option<MetadataValue<Ascii>>,
    pub(crate) options: Options,
}

fn bearer(token: &str) -> Result<MetadataValue<Ascii>, OptionsError> {
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(OptionsError::Token);
    }
    let mut value: MetadataValue<Ascii> = format!("Bearer {token}").parse().map_err(|_| OptionsError::Token)?;
    value.set_sensitive(true);
    Ok(value)
}

fn address(text: &str) -> Result<Uri, OptionsError> {
    let wrong = || OptionsError::Address { address: text.to_owned() };
    let uri: Uri = text.parse().map_err(|_| wrong())?;
    if uri.scheme() == Some(&Scheme::HTTPS) {
        return Err(OptionsError::Tls { address: text.to_owned() });
    }
    let only_host = uri.path().is_empty() || uri.path() == "/";
    if uri.scheme() != Some(&Scheme::HTTP) || uri.port_u16().is_none() || !only_host || uri.query().is_some() {
        return Err(wrong());
    }
    Ok(uri)
}

/// Where the server takes reports.
fn beside(server: &Uri) -> Uri {
    let Some(host) = server.host().filter(|_| server.port_u16().is_some_and(|port| GRPC_PORTS.contains(&port))) else {
        return server.clone();
    };
    format!("http://{host}:{REPORT_PORT}").parse().unwrap_or_else(|_| server.clone())
}

fn report_uri(address: &Uri) -> Uri {
    let mut parts = address.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::from_static(REPORT_PATH));
    Uri::from_parts(parts).unwrap_or_else(|_| address.clone())
}

impl From<&str> for Options {
    fn from(server: &str) -> Self {
        Self::new(server)
    }
}

impl From<String> for Options {
    fn from(server: String) -> Self {
        Self::new(server)
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let token = if self.token.is_some() { "hidden" } else { "none" };
        f.debug_struct("Options")
            .field("server", &self.server)
            .field("environment", &self.environment)
            .field("selector", &self.selector)
            .field("token", &format_args!("{token}"))
            .field("bootstrap", &self.bootstrap)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report_of(options: Options) -> Option<String> {
        options.checked().expect("good options").report.map(|uri| uri.to_string())
    }

    #[test]
    fn reports_go_beside_the_server() {
        assert_eq!(report_of("http://flags:8015".into()).as_deref(), Some("http://flags:8016/changeover/v1/report"));
        assert_eq!(report_of("http://[::1]:8013".into()).as_deref(), Some("http://[::1]:8016/changeover/v1/report"));
        assert_eq!(report_of("http://flags:9000".into()).as_deref(), Some("http://flags:9000/changeover/v1/report"));
        assert_eq!(
            report_of(Options::new("http://flags:8015").report_to("http://other:1/")).as_deref(),
            Some("http://other:1/changeover/v1/report")
        );
        assert_eq!(report_of(Options::new("http://flags:8015").no_reports()), None);
    }

    #[test]
    fn flagds_names_are_read() {
        let options = Options::from_names(|_| None);
        assert_eq!((options.server.as_str(), options.init_deadline), ("http://127.0.0.1:8015", INIT_DEADLINE));
        let options = Options::from_names(|name| {
            let value = match name {
                "FLAGD_HOST" => "flags.internal",
                "FLAGD_SYNC_PORT" => "9015",
                "FLAGD_SOURCE_SELECTOR" => "flagSetId=payments",
                _ => "soon",
            };
            Some(value.to_owned())
        });
        assert_eq!((options.server.as_str(), options.init_deadline), ("http://flags.internal:9015", INIT_DEADLINE));
        assert_eq!(options.selector.as_deref(), Some("flagSetId=payments"));
    }

    #[test]
    fn an_environment_is_a_flag_set_and_a_selector_wins() {
        let named = Options::new("http://f:1").environment("production");
        assert_eq!(named.clone().checked().expect("good").selector.as_deref(), Some("flagSetId=production"));
        assert_eq!(named.selector("source=a").checked().expect("good").selector.as_deref(), Some("source=a"));
    }

    #[test]
    fn wrong_options_say_what_to_write_instead() {
        for address in ["", "flags:8015", "http://flags", "http://flags:8015/path", "ftp://flags:1", "http://flags:99999"] {
            let error = Options::new(address).checked().err().expect(address).to_string();
            assert!(error.contains("http://host:port"), "{error}");
        }
        assert!(matches!(Options::new("https://flags:8015").checked(), Err(OptionsError::Tls { .. })));
        assert!(matches!(Options::new("http://f:1").token("a\n").checked(), Err(OptionsError::Token)));
        assert!(matches!(Options::new("http://f:1").environment("a\nb").checked(), Err(OptionsError::Selector { .. })));
    }

    #[test]
    fn endless_times_have_an_end() {
        let options = Options::new("http://f:1").init_deadline(Duration::MAX).evaluation_timeout(Duration::MAX).keep_alive(Duration::ZERO);
        let times = [options.init_deadline, options.evaluation_timeout, options.keep_alive];
        assert_eq!(times, [DEADLINE_MAX, DEADLINE_MAX, KEEP_ALIVE_MIN]);
    }

    #[test]
    fn a_token_is_not_printed() {
        let options = Options::new("http://f:1").token("secret-token");
        assert!(!format!("{options:?}").contains("secret"));
        assert!(!format!("{:?}", options.checked().expect("good").authorization).contains("secret"));
    }
}
