//! Verbs that ask once and are answered once.

use serde_json::json;

use crate::args::{Place, Promote};
use crate::client::{Client, who};
use crate::exit::{Exit, problem};

pub(crate) fn verb(place: &Place, service: &str, verb: &str) -> anyhow::Result<Exit> {
    Client::new(place)?.post(&format!("/v1/services/{service}/{verb}"), &json!({ "who": who() }))?;
    anstream::println!("{service}: {verb} done");
    Ok(Exit::Done)
}

pub(crate) fn promote(place: &Place, promote: &Promote) -> anyhow::Result<Exit> {
    let (client, service) = (Client::new(place)?, promote.service.as_str());
    let body = json!({ "who": who(), "full": promote.full, "step": promote.step, "message": promote.message });
    let answer = client.post(&format!("/v1/services/{service}/promote"), &body)?;
    super::deploy::follow(&client, service, answer["release"].as_u64().unwrap_or_default(), super::deploy::since(&answer))
}

pub(crate) fn retry(place: &Place, service: &str) -> anyhow::Result<Exit> {
    let client = Client::new(place)?;
    let answer = client.post(&format!("/v1/services/{service}/retry"), &json!({ "who": who() }))?;
    super::deploy::follow(&client, service, answer["release"].as_u64().unwrap_or_default(), super::deploy::since(&answer))
}

pub(crate) fn pause(place: &Place, service: &str, message: Option<String>) -> anyhow::Result<Exit> {
    let answer = Client::new(place)?.post(&format!("/v1/services/{service}/pause"), &json!({ "who": who(), "message": message }))?;
    let percent = answer["weight"].as_f64().unwrap_or_default() / 100.0;
    anstream::println!("{service}: release {} stays at {percent} %   go on: changeover resume {service}", answer["release"]);
    Ok(Exit::Done)
}

pub(crate) fn resume(place: &Place, service: Option<&str>) -> anyhow::Result<Exit> {
    if let Some(service) = service {
        let answer = Client::new(place)?.post(&format!("/v1/services/{service}/resume"), &json!({ "who": who() }))?;
        anstream::println!("{service}: release {} goes on", answer["release"]);
        return Ok(Exit::Done);
    }
    Client::new(place)?.post("/v1/resume", &json!({ "who": who() }))?;
    anstream::println!("releases go on");
    Ok(Exit::Done)
}

pub(crate) fn metrics(place: &Place) -> anyhow::Result<Exit> {
    anstream::print!("{}", Client::new(place)?.text("/v1/metrics")?);
    Ok(Exit::Done)
}

pub(crate) fn abort(place: &Place, service: &str, message: Option<String>, force: bool) -> anyhow::Result<Exit> {
    let body = json!({ "who": who(), "message": message, "force": force });
    let answer = Client::new(place)?.post(&format!("/v1/services/{service}/abort"), &body)?;
    anstream::println!("{service}: release {} aborted, {} serves", answer["release"], answer["to"].as_str().unwrap_or("nothing"));
    Ok(Exit::Done)
}

pub(crate) fn down(place: &Place, keep_versions: bool) -> anyhow::Result<Exit> {
    Client::new(place)?.post("/v1/down", &json!({ "keep_versions": keep_versions }))?;
    anstream::println!("down{}", if keep_versions { "; the versions run on" } else { "" });
    Ok(Exit::Done)
}

/// At most so many requests wait at once.
const HOLD_QUEUE_MAX: u32 = 10_000;

pub(crate) fn hold(place: &Place, service: &str, off: bool, wait: &str) -> anyhow::Result<Exit> {
    let wait: jiff::SignedDuration = wait
        .parse()
        .map_err(|error| problem(Exit::Usage, format!("`--wait {wait}` is no duration: {error}"), Some("such as 30s".to_owned())))?;
    let held = json!({ "hold": { "wait_max_ms": wait.as_millis() as u64, "queue_max": HOLD_QUEUE_MAX } });
    mode(place, service, if off { json!("serve") } else { held })
}

pub(crate) fn maintenance(place: &Place, service: &str, off: bool, page: Option<&std::path::Path>) -> anyhow::Result<Exit> {
    let page = match page {
        Some(file) => {
            std::fs::read_to_string(file).map_err(|error| problem(Exit::Usage, format!("cannot read {}: {error}", file.display()), None))?
        }
        None => "Under maintenance. Please come back in a moment.\n".to_owned(),
    };
    mode(place, service, if off { json!("serve") } else { json!({ "maintenance": { "page": page } }) })
}

fn mode(place: &Place, service: &str, mode: serde_json::Value) -> anyhow::Result<Exit> {
    let body = json!({ "mode": mode, "who": who() });
    Client::new(place)?.post(&format!("/v1/services/{service}/mode"), &body)?;
    let how = mode.as_str().unwrap_or_else(|| mode.as_object().and_then(|it| it.keys().next()).map_or("", String::as_str));
    anstream::println!("{service}: {how}");
    Ok(Exit::Done)
}
