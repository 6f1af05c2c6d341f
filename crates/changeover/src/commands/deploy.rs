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
    if deploy.dry_run {
        return dry_run(&client, deploy);
    }
    let body = json!({
        "version": deploy.version, "addresses": deploy.addresses, "message": deploy.message,
        "supersede": deploy.supersede, "queue": deploy.queue, "who": who(),
    });
    let path = format!("/v1/services/{}/deploy", deploy.service);
    let answer = client.post(&path, &body)?;
    let Some(number) = answer["release"].as_u64() else { return Ok(Exit::Done) };
    follow(&client, &deploy.service, number, since(&answer))
}

/// The plan, with what each step needs at the traffic of now.
fn dry_run(client: &Client, deploy: &Deploy) -> anyhow::Result<Exit> {
    let forecast = client.get(&format!("/v1/services/{}/forecast?version={}", deploy.service, deploy.version))?;
    let text = |value: &Value| value.as_str().unwrap_or("nothing").to_owned();
    anstream::println!("{} {} → {}   nothing is done (dry run)", deploy.service, text(&forecast["from"]), text(&forecast["candidate"]));
    let names = |gates: &Value| gates.as_array().into_iter().flatten().filter_map(Value::as_str).collect::<Vec<_>>().join(", ");
    let units = forecast["units"].as_str().unwrap_or("requests");
    let gates = names(&forecast["gates"]);
    if !gates.is_empty() {
        anstream::println!("  gates      {gates}");
    }
    let steps: Vec<&Value> = forecast["steps"].as_array().into_iter().flatten().collect();
    if steps.is_empty() {
        let what = if units == "connections" { "all new connections" } else { "all requests" };
        anstream::println!("  switch     {what} at once, when it is healthy");
    }
    for (index, step) in steps.iter().enumerate() {
        let percent = step["weight"].as_f64().unwrap_or_default() / 100.0;
        let gates = names(&step["gates"]);
        let gates = if gates.is_empty() { String::new() } else { format!(", after {gates}") };
        let lasts = match (step["seconds"].as_f64(), percent < 100.0) {
            (Some(seconds), _) => format!(
                "about {}: {} {units}, {} of them to {}",
                in_words(seconds),
                step["requests"],
                step["candidate_requests"],
                text(&forecast["candidate"])
            ),
            (None, true) => "no end in sight with this traffic".to_owned(),
            (None, false) => format!("watched for {}", in_words(forecast["watch_ms"].as_f64().unwrap_or_default() / 1_000.0)),
        };
        anstream::println!("  step {}/{}   {percent} %{gates}: {lasts}", index + 1, steps.len());
    }
    if let Some(rate) = forecast["rate"].as_f64() {
        let errors = forecast["errors"].as_f64().unwrap_or_default() * 100.0;
        anstream::println!("  traffic    {rate:.0} {units}/s, {errors:.2} % of them fail on {}", text(&forecast["from"]));
    }
    if let Some(reason) = forecast["unjudged"].as_str() {
        anstream::println!("  not judged: {reason}");
    }
    if let Some(note) = forecast["note"].as_str() {
        anstream::println!("  {note}");
    }
    if let Some(proposal) = forecast["proposal"].as_str() {
        anstream::println!("  a plan that would work: {proposal}");
    }
    Ok(Exit::Done)
}

fn in_words(seconds: f64) -> String {
    match seconds {
        seconds if seconds < 120.0 => format!("{seconds:.0} s"),
        seconds if seconds < 7_200.0 => format!("{:.0} min", seconds / 60.0),
        seconds => format!("{:.1} h", seconds / 3_600.0),
    }
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
    ["promoted", "failed", "rolled_back", "aborted", "withdrawn", "superseded"]
        .contains(&kind)
        .then(|| (kind.to_owned(), event["text"].as_str().unwrap_or_default().to_owned()))
}
