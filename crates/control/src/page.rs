//! The page: rendered here, whole, for every browser; live where there is script.
//!
//! Not here: who may see it (guard), decisions (engine).

mod account;
mod acting;
mod actions;
mod assets;
mod charts;
pub(crate) mod flags;
mod history;
mod live;
mod release;
pub(crate) mod seen;
mod services;
mod sign_in;
pub(crate) mod words;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::Request;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use engine::Rejected;
use http::StatusCode;

use crate::Room;
use crate::answers::{self, rejected, status_of};
use crate::caller::Caller;
use crate::guard::Gate;
use crate::observer::Observer;

/// What the page is made from.
#[derive(Clone)]
pub(crate) struct House {
    pub(crate) room: Arc<Room>,
    pub(crate) observer: Arc<Observer>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) flags: Arc<flags::Shared>,
}

pub(crate) fn router(house: House) -> Router {
    Router::new()
        .route("/", get(services::page))
        .route("/live", get(live::services))
        .route("/history", get(history::page))
        .route("/history/live", get(live::history))
        .route("/services/{service}", get(release::page))
        .route("/services/{service}/live", get(live::service))
        .route("/services/{service}/history", get(history::of_service))
        .route("/services/{service}/releases/{number}", get(release::finished))
        .route("/services/{service}/{action}", post(acting::act))
        .merge(flags::router())
        .route("/login", get(sign_in::form).post(sign_in::sign_in))
        .route("/logout", post(sign_in::sign_out))
        .route("/assets/{name}", get(assets::asset))
        .with_state(house)
}

/// Who looks.
pub(crate) struct Reader {
    pub(crate) name: String,
    pub(crate) scope: String,
    /// Empty for one without a session: a program, which has the API.
    pub(crate) form_token: String,
    pub(crate) may_act: bool,
}

impl Reader {
    pub(crate) fn of(caller: &Caller) -> Self {
        let (name, scope) = match caller {
            Caller::Local { .. } => (String::new(), String::new()),
            Caller::Remote { name, scope, .. } => (name.clone(), scope.to_string()),
        };
        let form_token = caller.visit().map_or(String::new(), |visit| visit.form_token().to_owned());
        Self { name, scope, form_token, may_act: caller.may_act() && caller.visit().is_some() }
    }
}

/// What every page has.
pub(crate) struct Frame {
    pub(crate) title: String,
    /// `services`, `flags`, `history`, or none.
    pub(crate) place: &'static str,
    /// Where its updates come from.
    pub(crate) live: Option<String>,
    pub(crate) reader: Option<Reader>,
    /// Buttons stay at the bottom of a phone.
    pub(crate) has_bar: bool,
    /// There are flags to link to.
    pub(crate) has_flags: bool,
    pub(crate) at: String,
}

impl Frame {
    fn bare(title: &str) -> Self {
        Self {
            title: format!("{title} · changeover"),
            place: "",
            live: None,
            reader: None,
            has_bar: false,
            has_flags: false,
            at: String::new(),
        }
    }

    pub(crate) fn asset(&self, name: &str) -> String {
        assets::path(name)
    }
}

#[derive(Template)]
#[template(path = "problem.html")]
struct ProblemPage {
    frame: Frame,
    title: String,
    message: String,
    hint: Option<String>,
}

#[derive(Template)]
#[template(path = "arrive.html")]
struct Arrive;

pub(crate) fn html(template: &impl Template) -> Response {
    Html(part(template)).into_response()
}

pub(crate) fn part(template: &impl Template) -> String {
    // Nothing but blanks would take up room.
    template.render().expect("writing into memory").trim().to_owned()
}

/// Why nothing is shown, or was done, for people.
pub(crate) fn refused(rejected: &Rejected) -> Response {
    let status = status_of(rejected);
    let title = match status {
        StatusCode::NOT_FOUND => "Nothing here",
        StatusCode::FORBIDDEN => "Not allowed",
        StatusCode::TOO_MANY_REQUESTS => "Too many tries",
        StatusCode::MISDIRECTED_REQUEST => "Not here",
        _ => "Nothing was done",
    };
    let message = account::sentence(&rejected.message);
    let page =
        ProblemPage { frame: Frame::bare(title), title: title.to_owned(), message, hint: rejected.hint.as_deref().map(account::sentence) };
    (status, html(&page)).into_response()
}

/// The engine has not answered since the start.
pub(crate) fn not_yet() -> Response {
    refused(&rejected("unavailable", "the engine does not answer yet", Some("reload in a moment; `changeover up` says what it does")))
}

/// Reloads itself, from our own site this time.
pub(crate) fn arrive() -> Response {
    html(&Arrive)
}

pub(crate) async fn nothing_here(request: Request) -> Response {
    let path = request.uri().path();
    let is_for_people =
        matches!(request.extensions().get::<Caller>(), Some(Caller::Remote { visit: Some(_), .. })) && !path.starts_with("/v1");
    if !is_for_people {
        return answers::no_such_path(request).await.into_response();
    }
    refused(&rejected("not_found", format!("there is no page at {path}"), None))
}

/// Written so that it can be the value of a query.
pub(crate) fn query_value(text: &str) -> String {
    let keep = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    text.bytes().map(|byte| if keep(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}
