//! `analysis show`: what the judge saw of a release, and why it said what it said.

use serde_json::Value;

use super::history::when;
use super::status::table;
use crate::args::Place;
use crate::client::Client;
use crate::exit::{Exit, problem};

pub(crate) fn show(place: &Place, release: &str, json: bool) -> anyhow::Result<Exit> {
    let client = Client::new(place)?;
    let (service, number) = find(&client, release)?;
    let analysis = client.get(&format!("/v1/services/{service}/releases/{number}/analysis"))?;
    if json {
        anstream::println!("{}", serde_json::to_string_pretty(&analysis)?);
        return Ok(Exit::Done);
    }
    let it = &analysis["release"];
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    anstream::println!("{service} {} → {}   release {number}", text(&it["stable"]), text(&it["candidate"]));
    let ending = &it["state"]["ended"]["ending"];
    if let Some(outcome) = ending["outcome"].as_str() {
        anstream::println!("{}: {}", outcome.replace('_', " "), text(&ending["reason"]));
    }
    if let Some(reason) = it["settings"]["canary"]["analysis"]["none"]["reason"].as_str() {
        anstream::println!("not judged, because: {reason}");
    }
    let last = &analysis["last"];
    if last.is_null() {
        anstream::println!("nothing was judged");
        return Ok(Exit::Done);
    }
    anstream::println!();
    let mut rows = vec![["METRIC", "STABLE", "CANDIDATE", "WORSE", "BETTER", "WHAT WE KNOW", ""].map(str::to_owned).to_vec()];
    rows.extend(last["metrics"].as_array().into_iter().flatten().map(metric));
    table(&rows);
    let split = &last["split"];
    anstream::println!(
        "split: {} requests to the candidate, {} to stable{}",
        split["candidate"],
        split["stable"],
        if split["ok"] == Value::Bool(false) { "; that is not the weight" } else { "" }
    );
    anstream::println!();
    let mut rows = vec![["WHEN", "STEP", "AGE", "VERDICT", "WORSE", "BETTER", "ACTION", "WHY"].map(str::to_owned).to_vec()];
    rows.extend(analysis["looks"].as_array().into_iter().flatten().map(look));
    table(&rows);
    Ok(Exit::Done)
}

/// `43`, where only one service has a release of that number, or `web/43`.
fn find(client: &Client, release: &str) -> anyhow::Result<(String, u64)> {
    let hint = || Some("such as `43` or `web/43`; see `changeover history`".to_owned());
    let wrong = || problem(Exit::Usage, format!("`{release}` is no release"), hint());
    if let Some((service, number)) = release.split_once('/') {
        return Ok((service.to_owned(), number.parse().map_err(|_| wrong())?));
    }
    let number: u64 = release.parse().map_err(|_| wrong())?;
    let history = client.get("/v1/history")?;
    let releases = history["releases"].as_array().into_iter().flatten();
    let services: Vec<String> =
        releases.filter(|it| it["number"] == number).filter_map(|it| it["service"].as_str().map(str::to_owned)).collect();
    match services.as_slice() {
        [] => Err(problem(Exit::Usage, format!("there is no release {number}"), Some("see `changeover history`".to_owned()))),
        [service] => Ok((service.clone(), number)),
        several => {
            let named: Vec<String> = several.iter().map(|service| format!("{service}/{number}")).collect();
            Err(problem(Exit::Usage, format!("several services have a release {number}"), Some(format!("say one of {}", named.join(", ")))))
        }
    }
}

fn metric(it: &Value) -> Vec<String> {
    let text = |field: &str| it[field].as_str().unwrap_or("-").to_owned();
    let state = text("state").replace('_', " ");
    vec![text("name"), text("stable_text"), text("candidate_text"), share(&it["worse"]), share(&it["better"]), text("sentence"), state]
}

fn look(it: &Value) -> Vec<String> {
    let text = |field: &str| it[field].as_str().unwrap_or("-").to_owned();
    vec![
        when(it["at_ms"].as_u64().unwrap_or_default()),
        it["step"].as_u64().map_or("-".to_owned(), |step| (step + 1).to_string()),
        format!("{} s", it["step_age_s"]),
        text("verdict").replace('_', " "),
        share(&it["evidence_worse"]),
        share(&it["evidence_better"]),
        text("action"),
        text("sentence"),
    ]
}

/// How far it is to a decision; 100 % decides.
pub(crate) fn share(value: &Value) -> String {
    value.as_f64().map_or("-".to_owned(), |value| format!("{:.0} %", (value * 100.0).max(0.0)))
}
