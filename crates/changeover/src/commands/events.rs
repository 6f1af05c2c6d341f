//! `events`: what happened, with numbers to go on from.

use crate::args::{Events, Place};
use crate::client::Client;
use crate::exit::Exit;

pub(crate) fn run(place: &Place, wanted: &Events) -> anyhow::Result<Exit> {
    let service = wanted.service.as_ref().map(|service| format!("&service={service}")).unwrap_or_default();
    let query = format!("{service}{}", if wanted.follow { "&follow=true" } else { "" });
    let (client, mut since) = (Client::new(place)?, wanted.since);
    let mut show = |event: &serde_json::Value| {
        if wanted.json {
            anstream::println!("{event}");
        } else {
            let at = super::history::when(event["at_ms"].as_u64().unwrap_or_default());
            let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
            anstream::println!("{} {at} {} {}: {}", event["seq"], text("service"), text("kind"), text("text"));
        }
        true
    };
    loop {
        since = client.events(&query, since, &mut show)?;
        // A worker that ends is not the end of what happens.
        if !wanted.follow || !client.is_up() {
            return Ok(Exit::Done);
        }
    }
}
