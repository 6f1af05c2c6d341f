//! `plan` and `apply`: the running changeover follows the file.

use serde_json::{Value, json};

use crate::args::Place;
use crate::client::{Client, who};
use crate::exit::Exit;

pub(crate) fn plan(place: &Place) -> anyhow::Result<Exit> {
    let answer = ask(place, "/v1/plan", json!({}))?;
    show(&answer, "nothing would change");
    Ok(Exit::Done)
}

pub(crate) fn apply(place: &Place) -> anyhow::Result<Exit> {
    let answer = ask(place, "/v1/apply", json!({ "who": who() }))?;
    show(&answer, "nothing changed");
    Ok(Exit::Done)
}

fn ask(place: &Place, path: &str, mut body: Value) -> anyhow::Result<Value> {
    // Read here first: a mistake is shown also when nothing runs.
    let desired = super::check::read(place)?;
    if let Some(api) = &desired.api {
        super::token::check(api, place)?;
    }
    body["text"] = json!(super::check::text(place)?);
    body["path"] = json!(place.file);
    Client::new(place)?.post(path, &body)
}

fn show(answer: &Value, nothing: &str) {
    let changes: Vec<&str> = answer["changes"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if changes.is_empty() {
        anstream::println!("{nothing}");
    }
    for change in changes {
        anstream::println!("{change}");
    }
}
