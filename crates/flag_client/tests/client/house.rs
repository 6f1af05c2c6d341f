//! A real flag server on a port of its own, which can be killed and comes back on the same port; and what it hears.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use changeover_flags::{Flags, Options, State};
use flag_engine::Board;
use flag_server::{Admission, Admitted, Audience, Config, Exposure, Open, Outcome, Readiness, Refused, Report, Role, Scope, Server};
use flags::{Bucketing, Set};
use testbed::wait::until;

/// A busy machine needs seconds where a free one needs milliseconds.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
pub(crate) const ENVIRONMENT: &str = "production";
pub(crate) const TOKEN: &str = "co_a-token-for-tests";

pub(crate) struct House {
    pub(crate) board: Arc<Board>,
    pub(crate) ears: Arc<Ears>,
    pub(crate) address: SocketAddr,
    admission: Arc<dyn Admission>,
    server: Option<Server>,
}

/// Admits who has [`TOKEN`].
struct Locked(Open);

impl Admission for Locked {
    fn admit(&self, token: Option<&str>, scope: Scope, environment: Option<&str>) -> Result<Admitted, Refused> {
        if token == Some(TOKEN) { self.0.admit(token, scope, environment) } else { Err(Refused::Unauthorized) }
    }
}

/// What clients reported.
#[derive(Default)]
pub(crate) struct Ears {
    pub(crate) exposures: Mutex<Vec<Exposure>>,
    pub(crate) outcomes: Mutex<Vec<Outcome>>,
}

impl Audience for Ears {
    fn evaluated(&self, _: &str, _: &flags::Evaluation<'_>, _: &flags::Context) {}
    fn missing(&self, _: &str, _: &str) {}

    fn reported(&self, _: &str, report: Report) -> Result<usize, String> {
        let count = report.exposures.len() + report.outcomes.len();
        self.exposures.lock().expect("no panic").extend(report.exposures);
        self.outcomes.lock().expect("no panic").extend(report.outcomes);
        Ok(count)
    }
}

impl House {
    /// Serves `set`, everything on one port.
    pub(crate) fn with(set: &str) -> Self {
        let mut house = Self::empty();
        house.publish(set);
        house.open();
        house
    }

    /// Serves `set` to who has [`TOKEN`].
    pub(crate) fn locked(set: &str) -> Self {
        let mut house = Self::empty();
        house.admission = Arc::new(Locked(Open(house.board.clone())));
        house.publish(set);
        house.open();
        house
    }

    /// Has a port, which nobody serves yet.
    pub(crate) fn empty() -> Self {
        let port = testbed::ports::free().expect("a free port");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let board: Arc<Board> = Arc::default();
        Self { admission: Arc::new(Open(board.clone())), board, ears: Arc::default(), address, server: None }
    }

    pub(crate) fn publish(&self, set: &str) {
        self.board.publish(ENVIRONMENT, Set::from_json(set, Bucketing::V2).expect("a good set"));
    }

    pub(crate) fn open(&mut self) {
        let config = Config {
            threads: 1,
            board: self.board.clone(),
            admission: self.admission.clone(),
            audience: self.ears.clone(),
            readiness: Arc::new(|| Readiness { ready: true, refused: Vec::new() }),
            context: serde_json::Map::from_iter([("region".to_owned(), "eu".into())]),
            origins: Vec::new(),
            stream_key: [7; 32],
        };
        let server = Server::start(config).expect("a server");
        // The port may be in use for a moment after the server before.
        let listener = until(PATIENCE, "the port", || TcpListener::bind(self.address).ok());
        server.listen(Role::All, listener).expect("listening");
        self.server = Some(server);
    }

    /// Connections are cut.
    pub(crate) fn kill(&mut self) {
        self.server = None;
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn options(&self) -> Options {
        Options::new(self.url()).init_deadline(PATIENCE)
    }

    pub(crate) fn flags(&self) -> Flags {
        let flags = Flags::connect(self.options()).expect("good options");
        assert_eq!(flags.state(), State::Ready, "{:?}", flags.status());
        flags
    }
}

pub(crate) fn wait_for(flags: &Flags, state: State) {
    until(PATIENCE, state.as_str(), || flags.state() == state);
}

/// One boolean flag, `new-scoring-algorithm`, that is on or off for everybody.
pub(crate) fn one_flag(on: bool) -> String {
    let variant = if on { "on" } else { "off" };
    format!(
        r#"{{"flags": {{"new-scoring-algorithm": {{"state": "ENABLED", "variants": {{"on": true, "off": false}}, "defaultVariant": "{variant}"}}}}}}"#
    )
}

/// A flag of every type, and what else can come of asking. The server adds `region` to every context.
pub(crate) const EVERY_TYPE: &str = r#"{
  "metadata": {"flagSetId": "production", "team": "web"},
  "flags": {
    "a-bool": {"state": "ENABLED", "variants": {"on": true, "off": false}, "defaultVariant": "on"},
    "a-string": {"state": "ENABLED", "variants": {"r": "red", "b": "blue"}, "defaultVariant": "r"},
    "an-int": {"state": "ENABLED", "variants": {"many": 42}, "defaultVariant": "many"},
    "a-float": {"state": "ENABLED", "variants": {"ten": 10.0}, "defaultVariant": "ten"},
    "a-half": {"state": "ENABLED", "variants": {"half": 0.5}, "defaultVariant": "half"},
    "an-object": {"state": "ENABLED", "variants": {"o": {"seats": 3, "share": 0.5, "tags": ["a"]}}, "defaultVariant": "o"},
    "by-country": {
      "state": "ENABLED", "variants": {"on": true, "off": false}, "defaultVariant": "off",
      "targeting": {"if": [{"==": [{"var": "country"}, "AT"]}, "on"]}
    },
    "by-region": {
      "state": "ENABLED", "variants": {"on": true, "off": false}, "defaultVariant": "off",
      "targeting": {"if": [{"==": [{"var": "region"}, "eu"]}, "on"]}
    },
    "by-share": {
      "state": "ENABLED", "variants": {"on": true, "off": false}, "defaultVariant": "off",
      "targeting": {"fractional": [["on", 50], ["off", 50]]}
    },
    "no-default": {"state": "ENABLED", "variants": {"on": true, "off": false}},
    "disabled": {"state": "DISABLED", "variants": {"on": true, "off": false}, "defaultVariant": "on"}
  }
}"#;
