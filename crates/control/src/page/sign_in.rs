//! Signing in with a token, and out. The cookie holds a random number, never the token.

use std::time::Duration;

use askama::Template;
use axum::Extension;
use axum::extract::{FromRequest, Request, State};
use axum::response::{IntoResponse, Redirect, Response};
use http::StatusCode;
use http::header::SET_COOKIE;
use serde::Deserialize;

use super::{Frame, House, html, refused};
use crate::answers::{Filled, Questions, rejected};
use crate::caller::Caller;
use crate::guard::{Peer, set_cookie, too_many_guesses};
use crate::sessions::SESSION_MAX;
use crate::tokens::TOKEN_CHARS_MIN;

/// Whoever has no token yet gets this much room …
const FORM_BYTES_MAX: usize = 4 * 1024;
/// … and this much time.
const FORM_TIME_MAX: Duration = Duration::from_secs(10);

#[derive(Template)]
#[template(path = "sign_in.html")]
struct SignIn {
    frame: Frame,
    problem: Option<&'static str>,
    next: String,
    min: usize,
}

#[derive(Deserialize)]
pub(crate) struct Arriving {
    #[serde(default)]
    next: String,
}

#[derive(Deserialize)]
struct Presented {
    token: String,
    #[serde(default)]
    next: String,
}

fn shown(next: &str, problem: Option<&'static str>) -> Response {
    html(&SignIn { frame: Frame::bare("Sign in"), problem, next: here(next), min: TOKEN_CHARS_MIN })
}

/// Only a path of this site.
fn here(next: &str) -> String {
    let is_here = next.starts_with('/') && !next.starts_with("//") && next.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    if is_here { next.to_owned() } else { "/".to_owned() }
}

pub(crate) async fn form(Questions(arriving): Questions<Arriving>) -> Response {
    shown(&arriving.next, None)
}

pub(crate) async fn sign_in(State(house): State<House>, Extension(Peer(from)): Extension<Peer>, request: Request) -> Response {
    if !house.gate.sessions.may_try(from) {
        return too_many_guesses();
    }
    let request = request.map(|body| axum::body::Body::new(http_body_util::Limited::new(body, FORM_BYTES_MAX)));
    let read = tokio::time::timeout(FORM_TIME_MAX, Filled::<Presented>::from_request(request, &())).await;
    let Ok(Ok(Filled(presented))) = read else {
        return refused(&rejected("malformed", "the form cannot be read", None));
    };
    let admitted = house.gate.tokens.now();
    let Ok(tokens) = admitted.as_ref() else {
        return refused(&rejected("unavailable", "the token file cannot be used", Some("its error is in the output of `changeover up`")));
    };
    let Some(token) = tokens.of(presented.token.trim()) else {
        house.gate.sessions.guessed_wrong(from);
        return (StatusCode::UNAUTHORIZED, shown(&presented.next, Some("This token is not valid."))).into_response();
    };
    let Ok(id) = house.gate.sessions.open(token.digest) else {
        return refused(&rejected("unavailable", "the system gives no random numbers", None));
    };
    ([(SET_COOKIE, set_cookie(&id, SESSION_MAX.as_secs()))], Redirect::to(&here(&presented.next))).into_response()
}

#[derive(Deserialize)]
pub(crate) struct Leaving {
    form_token: String,
}

pub(crate) async fn sign_out(State(house): State<House>, caller: Caller, Filled(leaving): Filled<Leaving>) -> Response {
    if let Some(visit) = caller.visit().filter(|visit| visit.is_ours(&leaving.form_token)) {
        house.gate.sessions.close(visit);
    }
    ([(SET_COOKIE, set_cookie("", 0))], Redirect::to("/login")).into_response()
}

#[cfg(test)]
mod tests {
    use super::here;

    #[test]
    fn the_way_on_stays_here() {
        let check = |next: &str, expect: &str| assert_eq!(here(next), expect);
        check("/services/web?x=1", "/services/web?x=1");
        check("https://evil.test/", "/");
        check("//evil.test/", "/");
        check("/\\evil.test/", "/");
        check("/a\r\nset-cookie: x", "/");
        check("", "/");
    }
}
