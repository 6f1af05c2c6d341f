//! `status`: one line a service, and what a rollback would do.

use serde_json::Value;

use crate::args::Place;
use crate::client::Client;
use crate::exit::{Exit, problem};

/// How often `--watch` asks.
const AGAIN: std::time::Duration = std::time::Duration::from_secs(1);

pub(crate) fn run(place: &Place, service: Option<&str>, watch: bool, json: bool) -> anyhow::Result<Exit> {
    let client = Client::new(place)?;
    loop {
        let mut status = client.get("/v1/status")?;
        if let (Some(wanted), Some(services)) = (service, status["services"].as_array_mut()) {
            services.retain(|it| it["service"] == wanted);
            if services.is_empty() {
                return Err(problem(Exit::Usage, format!("there is no service `{wanted}`"), Some("changeover status".to_owned())));
            }
        }
        if watch && !json {
            // Clears the screen, and begins at its top.
            anstream::print!("\x1b[2J\x1b[H");
        }
        show(&status, service.is_some() || watch, json)?;
        if service.is_none() && !json {
            super::flags::summary(&client);
        }
        if !watch {
            return Ok(Exit::Done);
        }
        std::thread::sleep(AGAIN);
    }
}

fn show(status: &Value, evidence: bool, json: bool) -> anyhow::Result<()> {
    if json {
        anstream::println!("{}", serde_json::to_string_pretty(status)?);
        return Ok(());
    }
    let mut rows = vec![["SERVICE", "SERVES", "RELEASE", "HEALTH", "REQ/S", "ERRORS", "P99", "ROLLBACK"].map(str::to_owned).to_vec()];
    rows.extend(status["services"].as_array().into_iter().flatten().map(row));
    table(&rows);
    for service in status["services"].as_array().into_iter().flatten() {
        notes(service);
        if evidence {
            release(service);
        }
    }
    for listener in status["not_open"].as_array().into_iter().flatten() {
        anstream::println!("{} is not open: {}", text(&listener["address"]), text(&listener["error"]));
    }
    let (serves, own) = (&status["changeover"]["version"], env!("CARGO_PKG_VERSION"));
    if serves.as_str().is_some_and(|serves| serves != own) {
        anstream::println!("changeover {} serves, this command is {own}; `changeover upgrade` replaces what serves", text(serves));
    }
    Ok(())
}

/// A canary speaks in evidence.
fn release(service: &Value) {
    let (it, name) = (&service["release"], text(&service["service"]));
    let said = &it["analysis"];
    if said.is_null() || !it["ending"].is_null() {
        return;
    }
    let (weight, steps) = (it["weight"].as_f64().unwrap_or_default() / 100.0, it["steps"].as_array().map_or(0, Vec::len));
    let step = it["step"].as_u64().map_or(String::new(), |step| format!("step {} of {steps}: ", step + 1));
    let (stable, candidate) = (text(&it["stable"]), text(&it["candidate"]));
    anstream::println!();
    anstream::println!("{name} {stable} → {candidate}   release {}, canary   {step}{weight} %", it["number"]);
    let (stable_head, candidate_head) = (format!("{stable} ({} %)", 100.0 - weight), format!("{candidate} ({weight} %)"));
    let mut rows = vec![vec![String::new(), stable_head, candidate_head, "what we know".to_owned(), "verdict".to_owned()]];
    rows.extend(said["metrics"].as_array().into_iter().flatten().map(|metric| {
        let of = |field: &str| metric[field].as_str().unwrap_or("-").to_owned();
        vec![of("name"), of("stable_text"), of("candidate_text"), of("sentence"), of("state").replace('_', " ")]
    }));
    table(&rows);
    anstream::println!("{}", text(&said["sentence"]));
    let wait = said["metrics"].as_array().into_iter().flatten().filter_map(|metric| metric["more_s"].as_u64()).max();
    let next = it["step"].as_u64().and_then(|step| it["steps"][step as usize + 1]["weight"].as_f64());
    let when = wait.map(|seconds| format!(" (about {})", duration(seconds * 1_000))).unwrap_or_default();
    let next = next.map(|weight| format!("next: {} % when everything is settled{when} · ", weight / 100.0)).unwrap_or_default();
    match it["paused"]["who"].as_str() {
        Some(who) => anstream::println!("paused by {who} · go on: changeover resume {name} · abort: changeover abort {name}"),
        None => anstream::println!("{next}hold: changeover pause {name} · abort: changeover abort {name}"),
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or("-").to_owned()
}

fn row(it: &Value) -> Vec<String> {
    let release = &it["release"];
    let state = match release["ending"]["outcome"].as_str() {
        Some(outcome) => format!("{} {}", release["number"], outcome.replace('_', " ")),
        None if release.is_null() => "-".to_owned(),
        None => {
            let weight = release["weight"].as_f64().unwrap_or_default() / 100.0;
            let state = match (release["paused"].is_object(), release["step"].as_u64()) {
                (true, _) => format!("paused at {weight} %"),
                (false, Some(_)) => format!("{weight} %, {}", text(&release["state"]).replace('_', " ")),
                (false, None) => text(&release["state"]).replace('_', " "),
            };
            format!("{} {} → {}: {state}", release["number"], text(&release["stable"]), text(&release["candidate"]))
        }
    };
    let shown = |value: &Value, how: &dyn Fn(f64) -> String| value.as_f64().map_or("-".to_owned(), how);
    vec![
        text(&it["service"]),
        text(&it["serves"]),
        state,
        format!("{}/{}", it["healthy"], it["wanted"]),
        shown(&it["rate"], &|rate| format!("{rate:.0}")),
        shown(&it["errors"], &|share| format!("{:.2} %", share * 100.0)),
        shown(&it["p99_ms"], &|ms| duration(ms as u64)),
        rollback(&it["rollback"]),
    ]
}

/// What a rollback would do, and how long it would take, as far as that was measured.
fn rollback(it: &Value) -> String {
    if let Some(gate) = it["irreversible"].as_str() {
        return format!("refused: migration `{gate}` cannot be undone");
    }
    let Some(to) = it["to"].as_str() else { return "-".to_owned() };
    if it["standby"] == "hot" {
        let takes = it["took_us"].as_u64().map_or("at once".to_owned(), |us| format!("in {:.1} ms", us as f64 / 1_000.0));
        let left = it["left_ms"].as_u64().map(|ms| format!(", {} left", duration(ms))).unwrap_or_default();
        return format!("→ {to} {takes} (hot{left})");
    }
    if it["standby"] == "frozen" {
        let takes = it["thaw_ms"].as_u64().map_or("when it answers again".to_owned(), |ms| format!("in {}", duration(ms)));
        let left = it["left_ms"].as_u64().map(|ms| format!(", {} left", duration(ms))).unwrap_or_default();
        return format!("→ {to} {takes} (frozen{left})");
    }
    match it["start_ms"].as_u64() {
        Some(ms) => format!("→ {to} in {} (stopped: it starts first)", duration(ms)),
        None => format!("→ {to} after its start (stopped)"),
    }
}

fn duration(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..10_000 => format!("{:.1} s", ms as f64 / 1_000.0),
        10_000..120_000 => format!("{} s", ms / 1_000),
        _ => format!("{} min", ms / 60_000),
    }
}

/// What is out of the ordinary, and how to end it.
fn notes(it: &Value) {
    let service = text(&it["service"]);
    if it["stopped"] == Value::Bool(true) {
        anstream::println!("{service} is stopped: changeover start {service}");
    }
    if let Some(mode) = it["mode"].as_object().and_then(|mode| mode.keys().next()) {
        let what = match (mode == "hold", it["protocol"] == "tcp") {
            (true, true) => "new connections wait",
            (true, false) => "requests wait",
            (false, true) => "new connections are reset",
            (false, false) => "answers 503 with its page",
        };
        anstream::println!("{service}: {mode}, {what}: changeover {mode} {service} --off");
    }
    if !it["paused"].is_null() {
        anstream::println!("{service} is paused, because the worker crashed several times: changeover resume");
    }
    if let Some(number) = it["queued"]["number"].as_u64() {
        anstream::println!("{service}: release {number} ({}) waits for the running one", text(&it["queued"]["version"]));
    }
}

/// Columns as wide as their widest cell.
pub(crate) fn table(rows: &[Vec<String>]) {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|column| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0))
        .collect();
    for row in rows {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        anstream::println!("{}", cells.join("  ").trim_end());
    }
}
