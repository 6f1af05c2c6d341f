//! Before every request over TCP: is it meant for us, who asks, may they.
//!
//! **Invariant**: without a token there is the sign-in form and its style, and nothing else.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use engine::Rejected;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};

use crate::answers::{Refused, rejected};
use crate::caller::Caller;
use crate::page;
use crate::sessions::{Sessions, Visit};
use crate::tokens::{FlagRight, Scope, TokenFile};

/// The name of the session's cookie.
pub(crate) const COOKIE: &str = "changeover_session";
/// What starts the commands that a file names, and what ends everything: a token is not a shell on this machine.
const LOCAL_ONLY: &[&str] = &["/v1/apply", "/v1/down", "/v1/upgrade"];

/// Where a request came from.
#[derive(Clone, Copy)]
pub(crate) struct Peer(pub(crate) IpAddr);

pub(crate) struct Gate {
    pub(crate) listen: SocketAddr,
    /// Lower case, no port.
    pub(crate) hosts: Vec<String>,
    pub(crate) tokens: TokenFile,
    pub(crate) sessions: Arc<Sessions>,
}

pub(crate) async fn guard(State(gate): State<Arc<Gate>>, mut request: Request, next: Next) -> Response {
    let is_asset = request.uri().path().starts_with("/assets/");
    let mut response = match gate.admit(&request) {
        Ok(caller) => {
            if let Some(caller) = caller {
                request.extensions_mut().insert(caller);
            }
            next.run(request).await
        }
        Err(response) => *response,
    };
    harden(response.headers_mut(), is_asset);
    response
}

impl Gate {
    /// The caller, none where nobody needs to be known, or the answer.
    fn admit(&self, request: &Request) -> Result<Option<Caller>, Box<Response>> {
        let (path, headers) = (request.uri().path(), request.headers());
        let acts = ![Method::GET, Method::HEAD, Method::OPTIONS].contains(request.method());
        self.check_host(headers).map_err(refusal(path))?;
        let bearer = bearer(headers);
        if acts && bearer.is_none() {
            check_origin(headers).map_err(refusal(path))?;
        }
        if path == "/login" || path.starts_with("/assets/") {
            return Ok(None);
        }
        let caller = self.caller(headers, bearer).map_err(refusal(path))?;
        let Some(caller) = caller else { return Err(Box::new(nobody(request))) };
        if acts {
            may_act(&caller, path).map_err(refusal(path))?;
        } else if !caller.may_read() && !is_flags(path) {
            let hint = "use one with the scope `read` or `act`";
            return Err(refusal(path)(rejected("forbidden", "this token is for flags only", Some(hint))));
        }
        Ok(Some(caller))
    }

    /// A page elsewhere whose name is made to point here (DNS rebinding) still says its own name.
    fn check_host(&self, headers: &HeaderMap) -> Result<(), Rejected> {
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default().to_ascii_lowercase();
        let (name, port) = split_host(&host);
        let address: Option<IpAddr> = name.trim_start_matches('[').trim_end_matches(']').parse().ok();
        let by_address = address.is_some_and(|address| address == self.listen.ip() || self.listen.ip().is_unspecified());
        let is_ours = match port {
            _ if self.hosts.iter().any(|host| host == name) => true,
            Some(port) => port == self.listen.port() && (by_address || name == "localhost"),
            None => self.listen.port() == 80 && (by_address || name == "localhost"),
        };
        if is_ours {
            return Ok(());
        }
        let hint = "open the address of `api` in changeover.yaml, or add the name to `api.hosts`";
        Err(rejected("wrong_host", format!("`{host}` is not a name of this changeover"), Some(hint)))
    }

    fn caller(&self, headers: &HeaderMap, bearer: Option<&str>) -> Result<Option<Caller>, Rejected> {
        let admitted = self.tokens.now();
        let Ok(tokens) = admitted.as_ref() else {
            let hint = "its error is in the output of `changeover up`";
            return Err(rejected("unavailable", "the token file cannot be used", Some(hint)));
        };
        if let Some(bearer) = bearer {
            let Some(token) = tokens.of(bearer) else {
                return Err(rejected("unauthorized", "this token is not valid", Some("make one with `changeover token`")));
            };
            return Ok(Some(Caller::Remote { name: token.name.clone(), scope: token.scope.clone(), visit: None }));
        }
        let visit = cookie(headers).and_then(|id| self.sessions.of(id));
        Ok(visit.and_then(|visit| {
            let token = tokens.with(visit.token())?;
            Some(Caller::Remote { name: token.name.clone(), scope: token.scope.clone(), visit: Some(visit) })
        }))
    }

    /// Whether a browser that once came in still may.
    pub(crate) fn still_admits(&self, visit: &Visit) -> bool {
        self.sessions.is_open(visit) && self.tokens.now().as_ref().as_ref().is_ok_and(|tokens| tokens.with(visit.token()).is_some())
    }
}

fn may_act(caller: &Caller, path: &str) -> Result<(), Rejected> {
    if LOCAL_ONLY.contains(&path) {
        let hint = "say it on the machine itself, with the command line";
        return Err(rejected("forbidden", "this is answered over the Unix socket only", Some(hint)));
    }
    if path == "/logout" {
        return Ok(());
    }
    if caller.visit().is_some() && is_api(path) {
        let hint = "send the token in the field `authorization: Bearer …`";
        return Err(rejected("forbidden", "a browser's session may look at the API, not act through it", Some(hint)));
    }
    match caller {
        Caller::Local { .. } | Caller::Remote { scope: Scope::Act, .. } => Ok(()),
        // In which environment is asked there.
        Caller::Remote { .. } if is_flags(path) && caller.of_flags(needed(path)).is_some() => Ok(()),
        Caller::Remote { name, scope, .. } => {
            let hint = "use one with the scope `act`, made by `changeover token --scope act`";
            Err(rejected("forbidden", format!("the token `{name}` has the scope `{scope}`: it may look, not act"), Some(hint)))
        }
    }
}

/// An evaluation is asked with a body, and changes nothing.
fn needed(path: &str) -> FlagRight {
    if path == "/v1/flags/evaluate" { FlagRight::Sync } else { FlagRight::Write }
}

fn is_flags(path: &str) -> bool {
    path == "/v1/flags" || path.starts_with("/v1/flags/")
}

/// A form that another site sends in a visitor's name: browsers say where it comes from.
fn check_origin(headers: &HeaderMap) -> Result<(), Rejected> {
    let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let site = text(HeaderName::from_static("sec-fetch-site"));
    let origin = text(header::ORIGIN).map(|origin| origin.split_once("://").map_or(origin, |(_, host)| host));
    let same_origin = origin.is_none_or(|origin| text(header::HOST).is_some_and(|host| host.eq_ignore_ascii_case(origin)));
    if same_origin && site.is_none_or(|site| site == "same-origin") {
        return Ok(());
    }
    Err(rejected("forbidden", "this was sent by another site; nothing was done", Some("act on the page itself")))
}

pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?;
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

pub(crate) fn cookie(headers: &HeaderMap) -> Option<&str> {
    let all = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    all.flat_map(|value| value.split(';')).find_map(|pair| pair.trim().strip_prefix(COOKIE)?.strip_prefix('='))
}

fn split_host(host: &str) -> (&str, Option<u16>) {
    match host.rsplit_once(':') {
        Some((name, port)) if !name.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => (name, port.parse().ok()),
        _ => (host, None),
    }
}

fn is_api(path: &str) -> bool {
    path == "/v1" || path.starts_with("/v1/")
}

fn refusal(path: &str) -> impl FnOnce(Rejected) -> Box<Response> {
    let is_api = is_api(path);
    move |rejected| Box::new(if is_api { Refused(rejected).into_response() } else { page::refused(&rejected) })
}

/// Programs are told; browsers are shown the form.
fn nobody(request: &Request) -> Response {
    let path = request.uri().path();
    let navigates = request.method() == Method::GET && !is_api(path) && !path.ends_with("/live");
    if !navigates {
        let hint = "send it in the field `authorization: Bearer …`; `changeover token` makes one";
        return Refused(rejected("unauthorized", "a token is needed", Some(hint))).into_response();
    }
    // A link on another site brings no strict cookie along; from our own page it comes.
    let came_from = request.headers().get("sec-fetch-site").and_then(|site| site.to_str().ok());
    if came_from.is_some_and(|site| site == "cross-site" || site == "same-site") {
        return page::arrive();
    }
    let next = request.uri().path_and_query().map_or("/", |it| it.as_str());
    let target = if next == "/" { "/login".to_owned() } else { format!("/login?next={}", page::query_value(next)) };
    Redirect::to(&target).into_response()
}

/// What a browser may do with an answer: nothing but show it.
fn harden(headers: &mut HeaderMap, may_keep: bool) {
    const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
        form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
    let fields = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        // Not `no-referrer`: forms would come from the origin `null`.
        (header::REFERRER_POLICY, "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    for (name, value) in fields {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if !may_keep {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
}

/// The cookie is for this host, for forms and pages of this site, and out of reach of scripts.
pub(crate) fn set_cookie(id: &str, max_age_s: u64) -> HeaderValue {
    HeaderValue::from_str(&format!("{COOKIE}={id}; Path=/; Max-Age={max_age_s}; HttpOnly; SameSite=Strict")).expect("hexadecimal")
}

pub(crate) fn too_many_guesses() -> Response {
    let mut response = page::refused(&rejected("too_many", "too many wrong tokens; wait a few seconds", None));
    debug_assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
    response
}
