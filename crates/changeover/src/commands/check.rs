//! `check` and `schema`: the configuration file, read and explained.

use std::time::Duration;

use model::{Challenge, Desired, Protocol};

use crate::args::Place;
use crate::exit::{Exit, problem};

pub(crate) fn run(place: &Place) -> anyhow::Result<Exit> {
    let desired = read(place)?;
    if let Some(api) = &desired.api {
        super::token::check(api, place)?;
    }
    warn_of_files(&desired);
    explain_acme(&desired);
    explain_tcp(&desired);
    let count = |number: usize, what: &str| format!("{number} {what}{}", if number == 1 { "" } else { "s" });
    let (services, listeners) = (count(desired.services.len(), "service"), count(desired.listeners.len(), "listener"));
    let flags = desired.flags.as_ref().map(|flags| format!(", flags of {}", count(flags.environments.len(), "environment")));
    anstream::println!("{} is good: {services} on {listeners}{}", place.file.display(), flags.unwrap_or_default());
    Ok(Exit::Done)
}

/// Certificates may be missing where a file is only checked: that is no mistake in it.
fn warn_of_files(desired: &Desired) {
    let of_listeners = desired.listeners.iter().filter_map(|(name, listener)| Some(tls::look_once(name.as_str(), listener.tls.as_ref()?)));
    let of_targets = desired.services.values().filter_map(|service| Some(tls::look_once_at_trust(service.tls.as_ref()?)));
    for news in of_listeners.chain(of_targets).flatten() {
        anstream::eprintln!("warning: {}", news.text);
    }
}

/// What will be asked of whom, and what must be so that it is given.
fn explain_acme(desired: &Desired) {
    let in_clear: Vec<u16> = desired.listeners.values().filter(|it| it.tls.is_none()).map(|it| it.address.port()).collect();
    for (name, listener) in &desired.listeners {
        let Some(acme) = listener.tls.as_ref().and_then(|tls| tls.acme.as_ref()) else { continue };
        let (port, proof) = (acme.challenge.port(), acme.challenge.name());
        anstream::println!(
            "listener {name}: {} is asked for {}; it connects to port {port} of each name to see that it is ours ({proof})",
            acme.directory,
            acme.domains.join(", ")
        );
        let (is_there, whose) = match acme.challenge {
            Challenge::TlsAlpn => (listener.address.port() == port, format!("listener {name} is on port {}", listener.address.port())),
            Challenge::Http => (in_clear.contains(&port), "no listener in clear is on that port".to_owned()),
        };
        if !is_there {
            anstream::eprintln!("warning: {whose}: what comes to port {port} of {} must reach it", acme.domains.join(", "));
        }
    }
}

/// What becomes of connections in which nothing is read.
fn explain_tcp(desired: &Desired) {
    for (name, service) in desired.services.iter().filter(|(_, service)| service.protocol == Protocol::Tcp) {
        let listeners = service.routes.iter().filter_map(|route| desired.listeners.get(&route.listener).map(|it| (&route.listener, it)));
        for (listener, it) in listeners {
            let drain = Duration::from_millis(service.strategy.drain_ms);
            anstream::println!(
                "service {name}: whatever comes to listener {listener} ({}) is its own; at a switch new connections go to the new version, and \
                 those that are open stay until they end, at most {drain:?} (`drain`)",
                it.address
            );
        }
    }
}

pub(crate) fn schema() -> anyhow::Result<Exit> {
    anstream::println!("{}", config::schema());
    Ok(Exit::Done)
}

pub(crate) fn read(place: &Place) -> anyhow::Result<Desired> {
    config::parse(&text(place)?, &place.file).map_err(|rejected| {
        let rendered = rejected.to_string();
        problem(Exit::Usage, rendered.strip_prefix("error: ").unwrap_or(&rendered), None)
    })
}

pub(crate) fn text(place: &Place) -> anyhow::Result<String> {
    std::fs::read_to_string(&place.file).map_err(|error| {
        let hint = "write one with `changeover init`, or name another file with --file";
        problem(Exit::Usage, format!("cannot read {}: {error}", place.file.display()), Some(hint.to_owned()))
    })
}
