//! `deploy`: begins a release and shows it to its end.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::args::{Deploy, Place};
use crate::client::{Client, who};
use crate::exit::{Exit, problem};

/// A worker that crashed is back long before this.
const RECONNECT_MAX: Duration = Duration::from_secs(30);

pub(crate) fn run(place: &Place, deploy: &Deploy) -> anyhow::Result<Exit> {
    let client = Client::new(place)?;
    let body = json!({
        "version": deploy.version, "addresses": deploy.addresses, "message": deploy.message,
        "supersede": deploy.supersede, "queue": deploy.queue, "who": who(),
    });
    let path = format!("/v1/services/{}/deploy", deploy.service);
    let answer = client.post(&path, &body)?;
    let Some(number) = answer["release"].as_u64() else { return Ok(Exit::Done) };
    follow(&client, &deploy.service, number, since(&answer))
}

/// The newest event before what was asked.
pub(crate) fn since(answer: &Value) -> u64 {
    answer["since"].as_u64().unwrap_or_default()
}

/// Shows the release's events after `since` until it ends.
pub(crate) fn follow(client: &Client, service: &str, number: u64, since: u64) -> anyhow::Result<Exit> {
    let began = Instant::now();
    let (mut since, mut ending, mut first) = (since, None, false);
    let mut lost_since: Option<Instant> = None;
    while ending.is_none() {
        let seen = client.events(&format!("&follow=true&service={service}"), since, |event| {
            if event["release"].as_u64() != Some(number) {
                return true;
            }
            ending = ended(event);
            first |= event["kind"] == "began" && event["text"].as_str().is_some_and(|text| text.contains("first deployment"));
            if ending.is_none() {
                show(event);
            }
            ending.is_none()
        });
        match seen {
            Ok(last) => (since, lost_since) = (last, None),
            Err(error) if lost_since.get_or_insert_with(Instant::now).elapsed() > RECONNECT_MAX => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
    let (kind, reason) = ending.expect("the loop ends with it");
    let took = began.elapsed().as_secs_f64();
    match kind.as_str() {
        "promoted" => {
            let undo = if first { String::new() } else { format!("   undo: changeover rollback {service}") };
            anstream::println!("done in {took:.1} s.{undo}");
            Ok(Exit::Done)
        }
        "failed" => Err(problem(Exit::Failed, format!("{service} {reason}"), None)),
        _ => Err(problem(Exit::NotPromoted, format!("{service} release {number} {}: {reason}", kind.replace('_', " ")), None)),
    }
}

fn show(event: &Value) {
    let text = event["text"].as_str().unwrap_or_default();
    if event["kind"] == "began" { anstream::println!("{text}") } else { anstream::println!("  {text}") }
}

fn ended(event: &Value) -> Option<(String, String)> {
    let kind = event["kind"].as_str()?;
    ["promoted", "failed", "rolled_back", "aborted", "superseded"]
        .contains(&kind)
        .then(|| (kind.to_owned(), event["text"].as_str().unwrap_or_default().to_owned()))
}
