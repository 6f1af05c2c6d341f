//! `rollback`: back, at once, and how long it took.

use serde_json::json;

use crate::args::{Place, Rollback};
use crate::client::{Client, who};
use crate::exit::Exit;

pub(crate) fn run(place: &Place, rollback: &Rollback) -> anyhow::Result<Exit> {
    let client = Client::new(place)?;
    let body = json!({ "to": rollback.to, "force": rollback.force, "who": who() });
    let answer = client.post(&format!("/v1/services/{}/rollback", rollback.service), &body)?;
    let text = |key: &str| answer[key].as_str().unwrap_or("nothing").to_owned();
    let (from, to) = (text("from"), text("to"));
    if answer["hot"] == json!(true) {
        let ms = answer["took_us"].as_f64().unwrap_or_default() / 1000.0;
        anstream::println!(
            "{} {from} → {to} in {ms:.1} ms (it was hot). {from} is rejected: a later `rollback` will not return to it.",
            rollback.service
        );
        return Ok(Exit::Done);
    }
    let first = if answer["standby"] == json!("frozen") { "it is frozen and goes on first" } else { "it must start first" };
    anstream::println!("{} {from} → {to}: {first}; {from} serves meanwhile", rollback.service);
    super::deploy::follow(&client, &rollback.service, answer["release"].as_u64().unwrap_or_default(), super::deploy::since(&answer))
}
