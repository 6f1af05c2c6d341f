//! What happened, as JSON lines: the old ones since a number, then, when followed, the new ones as they come.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use engine::Happening;
use futures_util::stream;
use serde::Deserialize;
use tokio::sync::broadcast;

use crate::Room;
use crate::answers::{Problems, Questions};

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Wanted {
    /// Only those after this number.
    #[serde(default)]
    since: u64,
    service: Option<String>,
    /// Go on as they happen.
    #[serde(default)]
    follow: bool,
}

/// Read from the store at once.
const PAGE_EVENTS: usize = 1_000;

struct Following {
    room: Arc<Room>,
    old: std::vec::IntoIter<Happening>,
    /// The page before was full.
    may_have_more: bool,
    new: Option<broadcast::Receiver<Happening>>,
    last: u64,
    service: Option<String>,
}

/// What happened, an object a line: the old ones, then, when followed, the new ones as they come.
#[utoipa::path(get, path = "/v1/events", tag = "changeover", params(Wanted),
    responses((status = 200, description = "`{seq, at_ms, service, release, kind, text}`, a line each", body = String,
        content_type = "application/x-ndjson"), Problems))]
pub(crate) async fn events(State(room): State<Arc<Room>>, Questions(wanted): Questions<Wanted>) -> Response {
    let new = wanted.follow.then(|| room.counter.engine.subscribe());
    let following = Following { room, old: Vec::new().into_iter(), may_have_more: true, new, last: wanted.since, service: wanted.service };
    let lines = stream::unfold(following, |mut following| async move {
        let happening = following.next().await?;
        following.last = happening.seq;
        let mut line = serde_json::to_vec(&happening).expect("plain data");
        line.push(b'\n');
        Some((Ok::<_, std::convert::Infallible>(Bytes::from(line)), following))
    });
    ([("content-type", "application/x-ndjson")], Body::from_stream(lines)).into_response()
}

impl Following {
    async fn next(&mut self) -> Option<Happening> {
        if self.old.len() == 0 && self.may_have_more {
            let page = self.room.counter.engine.store().happenings(self.last, self.service.clone(), PAGE_EVENTS).await;
            self.may_have_more = page.len() == PAGE_EVENTS;
            self.old = page.into_iter();
        }
        if let Some(happening) = self.old.next() {
            return Some(happening);
        }
        loop {
            match self.new.as_mut()?.recv().await {
                Ok(it) if it.seq > self.last && self.service.as_ref().is_none_or(|service| *service == it.service) => return Some(it),
                Ok(_) => {}
                // A reader that cannot keep up asks again with `since`.
                Err(_) => return None,
            }
        }
    }
}
