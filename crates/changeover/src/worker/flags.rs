//! The flags of the worker: engine and server of flags, as far as the file wants them, on sockets that the keeper owns.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use control::{FlagRight, TokenFile};
use engine::FlagPlane;
use flag_engine::{Board, Config, EnvironmentConfig, Handle, Meters, Outcome};
use flag_server::{Admission, Admitted, Audience, Readiness, Refused, RefusedSet, Report, Role, Scope, Server};
use model::{FlagPort, Flags};
use tokio::sync::{mpsc, watch};

/// Streams get their last word, requests their answer.
const DRAIN_MAX: Duration = Duration::from_secs(2);
/// A start opens the state and the sockets; the API does not wait longer for that.
const START_MAX: Duration = Duration::from_secs(2);
/// Evaluations are short; the data plane needs its cores.
const THREADS_MAX: usize = 2;

/// How requests ended is asked of the data plane this often.
const REQUESTS_EVERY: Duration = Duration::from_millis(50);

#[derive(Clone)]
pub(crate) struct FlagRoom(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    wanted: mpsc::UnboundedSender<Option<Flags>>,
    /// The first wish has been followed.
    begun: watch::Sender<bool>,
}

#[derive(Default)]
struct State {
    wanted: Option<Flags>,
    sockets: HashMap<SocketAddr, TcpListener>,
    /// What each address serves now.
    open: HashMap<SocketAddr, FlagPort>,
    running: Option<Running>,
}

struct Running {
    handle: Handle,
    server: Arc<Server>,
    required: Arc<AtomicBool>,
}

/// What the room works with, once the state is open.
pub(crate) struct Needs {
    pub(crate) store: store::Store,
    pub(crate) state_dir: PathBuf,
    pub(crate) tokens: PathBuf,
    pub(crate) told: flag_engine::Told,
}

/// What is wanted, in order; to be given to [`FlagRoom::run`].
pub(crate) type Wanted = mpsc::UnboundedReceiver<Option<Flags>>;

impl FlagRoom {
    pub(crate) fn new() -> (Self, Wanted) {
        let (wanted, following) = mpsc::unbounded_channel();
        (Self(Arc::new(Inner { state: Mutex::default(), wanted, begun: watch::Sender::new(false) })), following)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the file's wish has been followed once, so that whoever asks first is not told that there are no flags.
    pub(crate) async fn begun(&self) {
        let mut begun = self.0.begun.subscribe();
        // Later than that the API says so.
        let _ = tokio::time::timeout(START_MAX, begun.wait_for(|begun| *begun)).await;
    }

    /// Absent while the file wants no flags.
    pub(crate) fn handle(&self) -> Option<Handle> {
        let state = self.state();
        state.wanted.as_ref()?;
        state.running.as_ref().map(|running| running.handle.clone())
    }

    pub(crate) fn metrics(&self) -> String {
        let state = self.state();
        let Some(running) = &state.running else { return String::new() };
        format!("{}{}", running.server.metrics(), running.handle.meters().text())
    }

    /// Follows the file, one wish after the other.
    pub(crate) async fn run(self, mut wanted: Wanted, needs: Needs) {
        let mut needs = Some(needs);
        while let Some(flags) = wanted.recv().await {
            self.state().wanted.clone_from(&flags);
            let config = flags.as_ref().map(config).unwrap_or_else(|| Config { environments: Vec::new(), ready_after_ms: 0 });
            let running = self.state().running.as_ref().map(|running| (running.handle.clone(), running.required.clone()));
            match (running, &flags) {
                (Some((handle, required)), _) => {
                    required.store(flags.as_ref().is_some_and(needs_tokens), Relaxed);
                    let _ = handle.configure(config).await;
                }
                (None, Some(flags)) => {
                    let Some(needs) = needs.take() else { continue };
                    match start(flags, config, needs).await {
                        Ok(running) => self.state().running = Some(running),
                        Err(error) => eprintln!("error: flags cannot be served: {error:#}"),
                    }
                }
                (None, None) => {}
            }
            self.open();
            self.0.begun.send_replace(true);
        }
    }

    /// Serves on every socket that is wanted, and on no other.
    fn open(&self) {
        let mut state = self.state();
        let State { wanted, sockets, open, running } = &mut *state;
        let Some(running) = running else { return };
        let roles: HashMap<SocketAddr, FlagPort> =
            wanted.iter().flat_map(|flags| &flags.listen).map(|(port, address)| (*address, *port)).collect();
        open.retain(|address, port| {
            let stays = roles.get(address) == Some(port) && sockets.contains_key(address);
            if !stays {
                running.server.unlisten(*address);
            }
            stays
        });
        for (address, port) in roles {
            let Some(socket) = sockets.get(&address).filter(|_| !open.contains_key(&address)) else { continue };
            let listened = socket.try_clone().and_then(|socket| running.server.listen(role(port), socket));
            match listened {
                Ok(()) => drop(open.insert(address, port)),
                Err(error) => eprintln!("error: flags cannot be served on {address}: {error}"),
            }
        }
    }

    /// Tells the trials how requests end, while one waits for that.
    pub(crate) async fn follow_requests(self, proxy: proxy::Proxy) {
        let mut ticks = tokio::time::interval(REQUESTS_EVERY);
        loop {
            ticks.tick().await;
            let meters = self.state().running.as_ref().map(|running| running.handle.meters().clone());
            let Some(meters) = meters else { continue };
            let waits = meters.awaits_requests();
            proxy.watch_requests(waits);
            if waits {
                meters.requests_ended(&proxy.requests_ended());
            }
        }
    }

    /// Takes leave of clients.
    pub(crate) async fn drain(&self) {
        let server = self.state().running.as_ref().map(|running| running.server.clone());
        if let Some(server) = server {
            server.drain(DRAIN_MAX).await;
        }
    }
}

impl FlagPlane for FlagRoom {
    fn follow(&self, flags: Option<&Flags>) {
        let _ = self.0.wanted.send(flags.cloned());
    }

    fn listen(&self, address: SocketAddr, socket: TcpListener) {
        self.state().sockets.insert(address, socket);
        self.open();
    }

    fn unlisten(&self, address: SocketAddr) {
        self.state().sockets.remove(&address);
        self.open();
    }
}

/// From elsewhere nobody is answered without one.
fn needs_tokens(flags: &Flags) -> bool {
    flags.tokens_required || flags.listen.iter().any(|(_, address)| !address.ip().is_loopback())
}

fn role(port: FlagPort) -> Role {
    match port {
        FlagPort::All => Role::All,
        FlagPort::Evaluation => Role::Evaluation,
        FlagPort::Management => Role::Management,
        FlagPort::Sync => Role::Sync,
        FlagPort::Ofrep => Role::Ofrep,
    }
}

fn config(flags: &Flags) -> Config {
    let environment =
        |it: &model::FlagEnvironment| EnvironmentConfig { name: it.name.clone(), files: it.files.clone(), second_person: it.second_person };
    Config { environments: flags.environments.iter().map(environment).collect(), ready_after_ms: flags.ready_after_ms }
}

async fn start(flags: &Flags, config: Config, needs: Needs) -> anyhow::Result<Running> {
    let board = Arc::new(Board::default());
    let (handle, _task) = flag_engine::start(config, &needs.state_dir, needs.store, board.clone(), needs.told).await?;
    let required = Arc::new(AtomicBool::new(needs_tokens(flags)));
    let admission = Tokens { file: TokenFile::new(needs.tokens), board: board.clone(), required: required.clone() };
    let asked = handle.clone();
    let server = Server::start(flag_server::Config {
        threads: std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX),
        board,
        admission: Arc::new(admission),
        audience: Arc::new(Listeners(handle.meters().clone())),
        readiness: Arc::new(move || readiness(&asked)),
        context: serde_json::Map::new(),
        origins: Vec::new(),
        stream_key: stream_key(&needs.state_dir)?,
    })?;
    Ok(Running { handle, server: Arc::new(server), required })
}

/// Whoever never had a set is served an empty one, and that is told.
fn readiness(handle: &Handle) -> Readiness {
    let problems = handle.problems();
    let refused = problems.iter().map(|(environment, problem)| RefusedSet {
        environment: environment.clone(),
        source: problem.clone(),
        problems: Vec::new(),
    });
    Readiness { ready: true, refused: refused.collect() }
}

/// Addresses of event streams stay good over a restart.
fn stream_key(state_dir: &Path) -> std::io::Result<[u8; 32]> {
    use std::io::Write;
    let path = state_dir.join("flags.key");
    if let Ok(bytes) = std::fs::read(&path)
        && let Ok(key) = bytes.try_into()
    {
        return Ok(key);
    }
    let mut key = [0; 32];
    getrandom::fill(&mut key).map_err(|error| std::io::Error::other(error.to_string()))?;
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
    file.write_all(&key)?;
    Ok(key)
}

/// Who may ask, by the token file.
struct Tokens {
    file: TokenFile,
    board: Arc<Board>,
    required: Arc<AtomicBool>,
}

impl Admission for Tokens {
    fn admit(&self, token: Option<&str>, scope: Scope, environment: Option<&str>) -> Result<Admitted, Refused> {
        let wanted = match scope {
            Scope::Evaluate => FlagRight::Evaluate,
            Scope::Sync => FlagRight::Sync,
            Scope::Write => FlagRight::Write,
        };
        let all = self.board.environments();
        let named = |name: &str| all.iter().find(|it| &***it == name).cloned().ok_or(Refused::UnknownEnvironment);
        let chosen = |name: Option<&str>| name.map_or_else(|| all.first().cloned().ok_or(Refused::UnknownEnvironment), named);
        let Some(token) = token else {
            if self.required.load(Relaxed) {
                return Err(Refused::Unauthorized);
            }
            return Ok(Admitted { environment: chosen(environment)? });
        };
        let tokens = self.file.now();
        let known = tokens.as_ref().as_ref().ok().and_then(|tokens| tokens.of(token)).ok_or(Refused::Unauthorized)?;
        match known.scope.of_flags(wanted).ok_or(Refused::Forbidden)? {
            Some(own) if environment.is_some_and(|environment| environment != own) => Err(Refused::Forbidden),
            Some(own) => Ok(Admitted { environment: named(own)? }),
            None => Ok(Admitted { environment: chosen(environment)? }),
        }
    }
}

/// Exposures and outcomes go to the meters.
struct Listeners(Arc<Meters>);

impl Audience for Listeners {
    fn evaluated(&self, environment: &str, evaluation: &flags::Evaluation<'_>, context: &flags::Context) {
        self.0.evaluated(environment, evaluation, context);
    }

    fn missing(&self, environment: &str, key: &str) {
        self.0.missing(environment, key);
    }

    fn reported(&self, environment: &str, report: Report) -> Result<usize, String> {
        let exposures = report
            .exposures
            .iter()
            .filter(|it| self.0.exposure_reported(environment, &it.flag, &it.targeting_key, &it.variant, it.request_id.as_deref()));
        let exposures = exposures.count();
        let outcomes = report.outcomes.iter().filter(|it| {
            let (user, request) = (it.targeting_key.as_deref(), it.request_id.as_deref());
            let outcome = Outcome { user, request, metric: &it.metric, value: it.value, failed: it.failed.unwrap_or(false) };
            self.0.outcome_reported(environment, &outcome)
        });
        Ok(exposures + outcomes.count())
    }
}
