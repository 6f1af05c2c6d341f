//! Updates of an open page: the pieces that have changed, rendered here. The first message has all of them.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::charts::{self, KINDS};
use super::flags::{self, Moment, Place};
use super::release::{Around, View, legend, no_such_service};
use super::services::Overview;
use super::{House, Reader, not_yet, words};
use crate::answers::{Refused, Segments, rejected};
use crate::caller::Caller;
use crate::observer::{LIVE_MAX, Observed};

enum Subject {
    Services { order: Vec<String> },
    Service { name: String },
    History { releases: Option<u64> },
    Flags(Place),
}

struct Watching {
    house: House,
    caller: Caller,
    subject: Subject,
    now: watch::Receiver<Arc<Observed>>,
    seq: u64,
    sent: HashMap<String, String>,
    charts_about: String,
    last_point_s: u64,
    _place: OwnedSemaphorePermit,
}

pub(crate) async fn services(State(house): State<House>, caller: Caller) -> Response {
    let Some(observed) = house.observed().await else { return not_yet() };
    let order = Overview::of(&house, &observed).order();
    watch_it(house, caller, Subject::Services { order })
}

pub(crate) async fn service(State(house): State<House>, caller: Caller, Segments(name): Segments<String>) -> Response {
    let Some(observed) = house.observed().await else { return not_yet() };
    if observed.status.service(&name).is_none() {
        return no_such_service(&name);
    }
    watch_it(house, caller, Subject::Service { name })
}

pub(crate) async fn history(State(house): State<House>, caller: Caller) -> Response {
    watch_it(house, caller, Subject::History { releases: None })
}

pub(crate) fn flags(house: House, caller: Caller, place: Place) -> Response {
    watch_it(house, caller, Subject::Flags(place))
}

fn watch_it(house: House, caller: Caller, subject: Subject) -> Response {
    let Ok(place) = house.observer.places.clone().try_acquire_owned() else {
        let message = format!("{LIVE_MAX} pages are live already");
        return Refused(rejected("unavailable", message, Some("close some, or reload this one by hand"))).into_response();
    };
    let mut now = house.observer.subscribe();
    now.mark_changed();
    let (sent, charts_about) = (HashMap::new(), String::new());
    let watching = Watching { house, caller, subject, now, seq: 0, sent, charts_about, last_point_s: 0, _place: place };
    let events = stream::unfold(watching, |mut watching| async move {
        let message = watching.next().await?;
        Some((Ok::<_, Infallible>(Event::default().data(message.to_string())), watching))
    });
    Sse::new(events).keep_alive(KeepAlive::new().interval(Duration::from_secs(15))).into_response()
}

impl Watching {
    /// None ends the stream: the token was taken back, or we end.
    async fn next(&mut self) -> Option<Value> {
        self.now.changed().await.ok()?;
        let observed = self.now.borrow_and_update().clone();
        if self.caller.visit().is_some_and(|visit| !self.house.gate.still_admits(visit)) {
            return None;
        }
        self.seq += 1;
        let mut message = json!({ "seq": self.seq, "at": words::second(observed.at_ms) });
        let parts = match &mut self.subject {
            Subject::Services { order } => {
                let overview = Overview::of(&self.house, &observed);
                message["title"] = json!(overview.title);
                let head = overview.head(&observed, overview.order() != *order);
                let rows = overview.rows.into_iter().map(|(name, class, html)| {
                    message["classes"][format!("service-{name}")] = json!(class);
                    (format!("service-{name}"), html)
                });
                std::iter::once(("head".to_owned(), head)).chain(rows.collect::<Vec<_>>()).collect()
            }
            Subject::Service { name } => {
                let name = name.clone();
                self.service(&name, &observed, &mut message).await?
            }
            Subject::History { releases } => {
                let count = observed.status.services.iter().filter_map(|it| it.release.as_ref().map(|it| it.number)).sum::<u64>();
                let newer = count.saturating_sub(*releases.get_or_insert(count));
                let html = if newer == 0 { String::new() } else { format!("<p class=\"note\"><a href=\"\">{newer} new</a></p>") };
                vec![("newer".to_owned(), html)]
            }
            Subject::Flags(place) => {
                // A flag that is gone, or flags that are served no more: the page itself says so.
                let view = flags::view(&self.house, place, &Reader::of(&self.caller), Moment { now_ms: observed.at_ms, is_live: true })
                    .await
                    .ok()?;
                message["title"] = json!(view.title);
                if let Some(expect) = view.expect {
                    message["expect"] = json!(expect);
                }
                view.parts.into_iter().map(|(id, html)| (id.to_owned(), html)).collect()
            }
        };
        let mut changed = serde_json::Map::new();
        for (id, html) in parts {
            if self.sent.get(&id) != Some(&html) {
                changed.insert(id.clone(), json!(html));
                self.sent.insert(id, html);
            }
        }
        message["parts"] = Value::Object(changed);
        Some(message)
    }

    async fn service(&mut self, name: &str, observed: &Observed, message: &mut Value) -> Option<Vec<(String, String)>> {
        let service = observed.status.service(name)?;
        let release = service.release.as_ref();
        let events = match release {
            Some(release) => self.house.events_of(name, release.number).await,
            None => Vec::new(),
        };
        let trend = release.and_then(|release| self.house.observer.trend_of(name, release));
        let trend = trend.or_else(|| Some(self.house.observer.trend(name)));
        let reader = Reader::of(&self.caller);
        let view = View::of(service, release, true, Around { reader: &reader, note: None, events: &events, trend, now_ms: observed.at_ms });
        message["title"] = json!(view.title);
        message["bar"] = json!(view.has_bar);
        message["expect"] = json!(release.map(|release| release.expectation()));
        let fresh = self.charts_about != view.charts_about;
        let mut parts: Vec<(String, String)> = view
            .parts
            .into_iter()
            .filter(|(id, _)| *id != "said" && (*id != "charts" || fresh))
            .map(|(id, html)| (id.to_owned(), html))
            .collect();
        if fresh {
            self.charts_about = view.charts_about;
            self.last_point_s = 0;
        } else {
            let shown = charts::shown(&view.trend, &view.lines);
            parts.extend(shown.into_iter().map(|kind| (format!("legend-{}", kind.id), legend(&view.trend, &view.lines, kind))));
        }
        let data = charts::data(&view.trend, &view.lines, self.last_point_s + 1);
        if let Some(last) = data["seconds"].as_array().and_then(|it| it.last()).and_then(Value::as_u64) {
            self.last_point_s = last;
        }
        if fresh || data["seconds"].as_array().is_some_and(|it| !it.is_empty()) {
            message["chart"] = data;
            message["chart"]["fresh"] = json!(fresh);
            message["chart"]["lines"] = json!(view.lines.iter().map(|it| json!([it.role, it.version])).collect::<Vec<_>>());
            message["chart"]["kinds"] = json!(KINDS.iter().map(|it| it.id).collect::<Vec<_>>());
        }
        Some(parts)
    }
}
