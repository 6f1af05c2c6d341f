//! All services: those that need a look first.

use askama::Template;
use axum::extract::State;
use axum::response::Response;

use super::account::{Badge, badge, in_list};
use super::seen::{NotOpen, Service};
use super::{Frame, House, Reader, charts, flags, html, not_yet, part, words};
use crate::caller::Caller;
use crate::observer::Observed;

#[derive(Template)]
#[template(path = "services.html")]
struct ServicesPage {
    frame: Frame,
    parts: Vec<(&'static str, String)>,
    /// Name, class, content.
    services: Vec<(String, &'static str, String)>,
    zone: String,
}

#[derive(Template)]
#[template(path = "part/services_head.html")]
struct Head<'a> {
    heading: String,
    total: usize,
    tally: Vec<Badge>,
    resort: bool,
    not_open: &'a [NotOpen],
}

#[derive(Template)]
#[template(path = "part/service_row.html")]
struct Row {
    name: String,
    badge: Badge,
    line: String,
    active: String,
    candidate: String,
    standby: String,
    spark: String,
    rate: String,
    errors: String,
}

/// What is shown of all services, in the order of now.
pub(crate) struct Overview {
    pub(crate) title: String,
    /// Name, class, content.
    pub(crate) rows: Vec<(String, &'static str, String)>,
    heading: String,
    tally: Vec<Badge>,
}

impl Overview {
    pub(crate) fn of(house: &House, observed: &Observed) -> Self {
        let mut ranked: Vec<(u8, &Service, Badge, String)> = observed
            .status
            .services
            .iter()
            .map(|service| {
                let ended = service
                    .release
                    .as_ref()
                    .and_then(|release| house.observer.span(&service.service, release.number))
                    .and_then(|it| it.ended_ms);
                let (rank, badge, line) = in_list(service, ended, observed.at_ms);
                (rank, service, badge, line)
            })
            .collect();
        ranked.sort_by(|(a, left, ..), (b, right, ..)| (a, &left.service).cmp(&(b, &right.service)));
        let of_rank = |rank: u8| ranked.iter().filter(|it| it.0 == rank).count();
        let kinds = [
            ("bad", "bad", "degraded"),
            ("warn", "back", "went back"),
            ("warn", "hand", "waits for you"),
            ("run", "run", "releasing"),
            ("good", "ok", "in order"),
        ];
        let tally = (0..).zip(kinds).filter(|(rank, _)| of_rank(*rank) > 0);
        let tally = tally.map(|(rank, (class, icon, text))| badge(class, icon, format!("{} {text}", of_rank(rank)))).collect();
        let (total, look) = (ranked.len(), of_rank(0) + of_rank(1) + of_rank(2));
        let heading = match (total, look) {
            (0, _) => "No service yet".to_owned(),
            (1, 0) => "The service is in order".to_owned(),
            (total, 0) => format!("All {total} services are in order"),
            (total, 1) => format!("1 of {total} services needs a look"),
            (total, look) => format!("{look} of {total} services need a look"),
        };
        let title = match look {
            _ if total == 0 => "No service yet · changeover".to_owned(),
            0 => "All in order · services · changeover".to_owned(),
            1 => "1 needs a look · services · changeover".to_owned(),
            look => format!("{look} need a look · services · changeover"),
        };
        let rows = ranked
            .into_iter()
            .map(|(rank, service, badge, line)| {
                let class = ["bad", "warn", "warn", "run", ""][usize::from(rank)];
                (service.service.clone(), class, part(&row(house, service, badge, &line, observed.at_ms)))
            })
            .collect();
        Self { title, rows, heading, tally }
    }

    pub(crate) fn order(&self) -> Vec<String> {
        self.rows.iter().map(|(name, ..)| name.clone()).collect()
    }

    /// `resort`: the order on the screen is not that of now.
    pub(crate) fn head(&self, observed: &Observed, resort: bool) -> String {
        let tally = self.tally.clone();
        part(&Head { heading: self.heading.clone(), total: self.rows.len(), tally, resort, not_open: &observed.status.not_open })
    }
}

fn row(house: &House, service: &Service, badge: Badge, line: &str, now_ms: u64) -> Row {
    let code = |version: &String| format!("<span class=\"v\">{}</span>", words::escape(version));
    let candidate = match service.running() {
        Some(release) => format!("{} gets {}", code(&release.candidate), words::weight(release.candidate_weight())),
        None => "none".to_owned(),
    };
    let standby = match &service.rollback.to {
        Some(to) if service.running().is_some() => {
            let takes = service.rollback.took_us.map_or(String::new(), |us| format!(", would take {}", words::ms(Some(us / 1_000.0))));
            format!("{} runs; an abort goes back to it{takes}", code(to))
        }
        Some(to) if service.rollback.standby == "hot" => {
            let takes = service
                .rollback
                .took_us
                .map_or("takes effect at once".to_owned(), |us| format!("would take {}", words::ms(Some(us / 1_000.0))));
            format!("{} hot; a rollback {takes}", code(to))
        }
        Some(to) if service.rollback.standby == "frozen" => format!("{} frozen; a rollback would let it go on first", code(to)),
        Some(to) => format!("{} stopped; a rollback would start it", code(to)),
        None => "none".to_owned(),
    };
    let trend = house.observer.trend(&service.service);
    Row {
        name: service.service.clone(),
        badge,
        line: words::marked(line),
        active: service.serves.as_ref().map_or("none".to_owned(), code),
        candidate,
        standby,
        spark: service.serves.as_ref().map(|version| charts::spark(&trend, version, now_ms / 1_000)).unwrap_or_default(),
        rate: words::rate(service.rate),
        errors: words::share(service.errors),
    }
}

pub(crate) async fn page(State(house): State<House>, caller: Caller) -> Response {
    let Some(observed) = house.observed().await else { return not_yet() };
    let overview = Overview::of(&house, &observed);
    let frame = Frame {
        title: overview.title.clone(),
        place: "services",
        live: Some("/live".to_owned()),
        reader: Some(Reader::of(&caller)),
        has_bar: false,
        has_flags: flags::are_served(&house.room),
        at: words::second(observed.at_ms),
    };
    let parts = vec![("head", overview.head(&observed, false))];
    html(&ServicesPage { frame, parts, services: overview.rows, zone: words::time_zone() })
}
