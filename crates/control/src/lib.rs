//! The counter: the HTTP API over a Unix socket, where file permissions (0600) are the authentication; and, when the file says so,
//! API and page over TCP, where a token is.
//!
//! Everything the command line can do goes through here; paths carry a version. Not here: decisions (engine).

mod answers;
mod caller;
mod certificates;
mod door;
mod events;
mod flags;
mod guard;
mod observer;
mod page;
mod reads;
mod sessions;
mod tokens;
mod verbs;

use std::future::Future;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::connect_info::{ConnectInfo, Connected};
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::IncomingStream;
use axum::{Json, Router};
use engine::{Handle, Rejected};
use model::{Api, Desired};
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use utoipa::openapi::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;

use caller::Caller;
use guard::Gate;
use observer::Observer;

pub use certificates::Certificate;
pub use tokens::{Admitted, FlagRight, Scope, TOKEN_CHARS_MIN, Token, TokenFile, TokenFileError, Tokens, make as make_token};

/// A configuration file, or a maintenance page with its pictures inside.
const BODY_BYTES_MAX: usize = 2 * 1024 * 1024;

/// What the counter needs besides the engine.
pub struct Counter {
    pub engine: Handle,
    /// Reads the text of a configuration file; the error is for people.
    pub parse: Parse,
    /// Prometheus text.
    pub metrics: Box<dyn Fn() -> String + Send + Sync>,
    /// Of all listeners.
    pub certificates: Box<dyn Fn() -> Vec<Certificate> + Send + Sync>,
    /// Asks for a name's certificate at once; false when nobody asks for it at all.
    pub ask_for_certificate: Box<dyn Fn(&str) -> bool + Send + Sync>,
    /// API and page over TCP, until an `apply` says otherwise.
    pub api: Option<Api>,
    /// Where the token file is, unless `api` names another.
    pub state_dir: PathBuf,
    /// Begins an upgrade: which binary, how long the old worker may finish what it has, who asks.
    pub upgrade: Upgrade,
    /// Absent where no flags are served.
    pub flags: Box<dyn Fn() -> Option<flag_engine::Handle> + Send + Sync>,
}

impl Counter {
    fn tokens(&self) -> PathBuf {
        self.api.as_ref().map_or_else(|| self.state_dir.join("tokens"), |api| token_file(api, &self.state_dir))
    }
}

/// From a file's text, and the path to show in messages.
pub type Parse = Box<dyn Fn(&str, &Path) -> Result<Desired, String> + Send + Sync>;

/// Answers when it has begun.
pub type Upgrade =
    Box<dyn Fn(Option<PathBuf>, Option<Duration>, String) -> Pin<Box<dyn Future<Output = Result<Value, Rejected>> + Send>> + Send + Sync>;

pub(crate) struct Room {
    counter: Counter,
    /// What `apply` changes.
    settings: watch::Sender<Option<Api>>,
}

/// The file with the tokens that `api` admits.
pub fn token_file(api: &Api, state_dir: &Path) -> PathBuf {
    api.tokens.clone().unwrap_or_else(|| state_dir.join("tokens"))
}

/// Opens the API's socket.
pub fn bind(socket: &Path) -> std::io::Result<tokio::net::UnixListener> {
    // Whoever holds the keeper's lock owns the socket's path; one left behind is dead.
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = tokio::net::UnixListener::bind(socket)?;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// From now on nobody finds the socket: who connected is still answered, who comes later waits for the next worker's.
pub fn hide(socket: &Path) {
    let _ = std::fs::remove_file(socket);
}

/// Serves the API until `end`, and then what was asked already.
pub async fn serve(
    listener: tokio::net::UnixListener,
    counter: Counter,
    end: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let settings = watch::Sender::new(counter.api.clone());
    let room = Arc::new(Room { counter, settings });
    let closed = CancellationToken::new();
    let closing = closed.clone();
    tokio::spawn(door::keep(room.clone(), closed));
    let end = async move {
        end.await;
        closing.cancel();
    };
    axum::serve(listener, router_over_unix(&room).into_make_service_with_connect_info::<Process>()).with_graceful_shutdown(end).await
}

fn router_over_unix(room: &Arc<Room>) -> Router {
    let path = room.counter.tokens();
    let layer = axum::middleware::from_fn_with_state(Arc::new(TokenFile::new(path)), local);
    finish(api().with_state(room.clone())).layer(layer)
}

/// The process at the other end of the Unix socket.
#[derive(Clone, Copy)]
struct Process {
    uid: Option<u32>,
}

impl Connected<IncomingStream<'_, tokio::net::UnixListener>> for Process {
    fn connect_info(stream: IncomingStream<'_, tokio::net::UnixListener>) -> Self {
        Self { uid: stream.io().peer_cred().ok().map(|peer| peer.uid()) }
    }
}

/// Whoever may open the socket. A token they show says who they are; one that is not ours is refused, not overlooked.
async fn local(State(tokens): State<Arc<TokenFile>>, mut request: Request, next: Next) -> Response {
    let token = match guard::bearer(request.headers()) {
        Some(shown) => {
            let tokens = tokens.now();
            let Some(token) = tokens.as_ref().as_ref().ok().and_then(|tokens| tokens.of(shown)) else {
                let hint = "unset CHANGEOVER_TOKEN, or make one with `changeover token`";
                return answers::Refused(answers::rejected("unauthorized", "this token is not valid", Some(hint))).into_response();
            };
            Some((token.name.clone(), token.scope.clone()))
        }
        None => None,
    };
    let uid = request.extensions().get::<ConnectInfo<Process>>().and_then(|ConnectInfo(process)| process.uid);
    request.extensions_mut().insert(Caller::Local { uid, token });
    next.run(request).await
}

fn router_over_tcp(room: &Arc<Room>, observer: &Arc<Observer>, gate: Arc<Gate>) -> Router {
    let page = page::router(page::House { room: room.clone(), observer: observer.clone(), gate: gate.clone(), flags: Arc::default() });
    finish(api().with_state(room.clone()).merge(page)).layer(axum::middleware::from_fn_with_state(gate, guard::guard))
}

fn finish(router: Router) -> Router {
    router.fallback(page::nothing_here).method_not_allowed_fallback(answers::wrong_method).layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
}

/// All of `/v1`, and the document that describes it.
fn api() -> Router<Arc<Room>> {
    let (router, document) = OpenApiRouter::with_openapi(described())
        .merge(verbs::router())
        .merge(reads::router())
        .merge(certificates::router())
        .merge(flags::router())
        .split_for_parts();
    let document = Arc::new(document);
    router.route("/v1/openapi.json", get(|| async move { Json(document.as_ref().clone()) }))
}

fn described() -> OpenApi {
    let about = "Everything the command line can do. Over the Unix socket whoever may open it is trusted; over TCP every request needs a \
        token: `read` may GET, `act` may also POST.";
    let mut info = utoipa::openapi::Info::new("changeover", env!("CARGO_PKG_VERSION"));
    info.description = Some(about.to_owned());
    let bearer = SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build());
    let components = utoipa::openapi::ComponentsBuilder::new().security_scheme("token", bearer).build();
    utoipa::openapi::OpenApiBuilder::new()
        .info(info)
        .components(Some(components))
        .security(Some([SecurityRequirement::new("token", Vec::<String>::new())]))
        .build()
}
