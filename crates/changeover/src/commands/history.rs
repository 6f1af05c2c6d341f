//! `history`: releases, newest last.

use serde_json::Value;

use crate::args::Place;
use crate::client::Client;
use crate::exit::Exit;

pub(crate) fn run(place: &Place, service: Option<&str>, json: bool) -> anyhow::Result<Exit> {
    let query = service.map(|service| format!("?service={service}")).unwrap_or_default();
    let history = Client::new(place)?.get(&format!("/v1/history{query}"))?;
    if json {
        anstream::println!("{}", serde_json::to_string_pretty(&history)?);
        return Ok(Exit::Done);
    }
    let mut rows = vec![["SERVICE", "RELEASE", "WHEN", "FROM", "TO", "OUTCOME", "WHO", "WHY"].map(str::to_owned).to_vec()];
    rows.extend(history["releases"].as_array().into_iter().flatten().map(row));
    super::status::table(&rows);
    Ok(Exit::Done)
}

fn row(it: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let ending = &it["state"]["ended"]["ending"];
    let outcome = match ending["outcome"].as_str() {
        Some(outcome) => outcome.replace('_', " "),
        None => "running".to_owned(),
    };
    vec![
        text(&it["service"]),
        it["number"].to_string(),
        when(it["began_at_ms"].as_u64().unwrap_or_default()),
        text(&it["stable"]),
        text(&it["candidate"]),
        outcome,
        text(&it["who"]),
        text(&it["message"]),
    ]
}

pub(crate) fn when(at_ms: u64) -> String {
    jiff::Timestamp::from_millisecond(at_ms as i64).map(|at| at.to_string().chars().take(19).collect::<String>() + "Z").unwrap_or_default()
}
