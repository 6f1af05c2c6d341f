//! `certificates`: what listeners show, until when, and another try for what an authority did not give.

use serde_json::{Value, json};

use crate::args::Place;
use crate::client::Client;
use crate::exit::Exit;

pub(crate) fn run(place: &Place, retry: Option<&str>, json: bool) -> anyhow::Result<Exit> {
    let client = Client::new(place)?;
    if let Some(name) = retry {
        client.post(&format!("/v1/certificates/{}/retry", name.to_ascii_lowercase()), &json!({}))?;
        anstream::println!("{name} is asked for; `changeover events --follow` tells what comes of it");
        return Ok(Exit::Done);
    }
    let answer = client.get("/v1/certificates")?;
    if json {
        anstream::println!("{}", serde_json::to_string_pretty(&answer)?);
        return Ok(Exit::Done);
    }
    let all = answer["certificates"].as_array().map(Vec::as_slice).unwrap_or_default();
    if all.is_empty() {
        anstream::println!("no listener has `tls`");
        return Ok(Exit::Done);
    }
    let mut rows = vec![["NAMES", "LISTENER", "FROM", "EXPIRES", "ASKED AGAIN", "FAILURES"].map(str::to_owned).to_vec()];
    rows.extend(all.iter().map(row));
    super::status::table(&rows);
    for it in all {
        if let Some(problem) = it["problem"].as_str() {
            anstream::println!("{}: {problem}", names(it));
        }
    }
    Ok(Exit::Done)
}

fn names(it: &Value) -> String {
    let names: Vec<&str> = it["names"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if names.is_empty() { "-".to_owned() } else { names.join(", ") }
}

fn row(it: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let moment = |value: &Value| value.as_i64().map_or_else(|| "-".to_owned(), |s| super::history::when(s.unsigned_abs() * 1_000));
    let from = text(&it["file"]).or_else(|| text(&it["directory"])).unwrap_or_else(|| "-".to_owned());
    let listener = text(&it["listener"]).unwrap_or_default();
    vec![names(it), listener, from, moment(&it["expires_s"]), moment(&it["next_s"]), it["failures"].to_string()]
}
