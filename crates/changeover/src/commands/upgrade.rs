//! `upgrade`: replaces changeover itself, and shows how that goes.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::args::{Place, Upgrade};
use crate::client::{Client, who};
use crate::exit::{Exit, problem};

/// All phases of an upgrade together take less.
const UPGRADE_MAX: Duration = Duration::from_secs(90);
const ASK_AGAIN: Duration = Duration::from_millis(20);

pub(crate) fn run(place: &Place, upgrade: &Upgrade) -> anyhow::Result<Exit> {
    let client = Client::new(place)?;
    let drain = upgrade.drain.as_secs().max(0);
    let binary = upgrade.binary.as_ref().map(std::path::absolute).transpose()?;
    let began = Instant::now();
    let answer = client.post("/v1/upgrade", &json!({ "binary": binary, "drain_s": drain, "who": who() }))?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    anstream::println!(
        "upgrade    {} ({}) is started and checked beside the running one",
        text(&answer["version"]),
        text(&answer["binary"])
    );
    let mut since = super::deploy::since(&answer);
    let mut ended = None;
    while ended.is_none() {
        // The worker that is asked ends with its part of it.
        let seen = client.events("&follow=true", since, |event| {
            if matches!(event["kind"].as_str(), Some("upgraded" | "upgrade_failed")) {
                ended = Some((event["kind"] == "upgraded", text(&event["text"])));
            }
            ended.is_none()
        });
        match seen {
            Ok(last) => since = last,
            Err(error) if began.elapsed() > UPGRADE_MAX => return Err(error),
            Err(_) => {}
        }
        if ended.is_none() {
            if began.elapsed() > UPGRADE_MAX {
                let hint = "see `changeover events` for what became of it";
                return Err(problem(Exit::Failed, format!("no word of the upgrade for {UPGRADE_MAX:?}"), Some(hint.to_owned())));
            }
            std::thread::sleep(ASK_AGAIN);
        }
    }
    let (is_done, said) = ended.unwrap_or_default();
    if !is_done {
        return Err(problem(Exit::Failed, said, None));
    }
    anstream::println!("serve      {said} (at most {:#})", upgrade.drain);
    anstream::println!("done in {:.1} s.   back: changeover upgrade --binary OLD", began.elapsed().as_secs_f64());
    Ok(Exit::Done)
}
