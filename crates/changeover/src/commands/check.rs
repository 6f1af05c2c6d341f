//! `check` and `schema`: the configuration file, read and explained.

use model::Desired;

use crate::args::Place;
use crate::exit::{Exit, problem};

pub(crate) fn run(place: &Place) -> anyhow::Result<Exit> {
    let desired = read(place)?;
    if let Some(api) = &desired.api {
        super::token::check(api, place)?;
    }
    let count = |number: usize, what: &str| format!("{number} {what}{}", if number == 1 { "" } else { "s" });
    let (services, listeners) = (count(desired.services.len(), "service"), count(desired.listeners.len(), "listener"));
    let flags = desired.flags.as_ref().map(|flags| format!(", flags of {}", count(flags.environments.len(), "environment")));
    anstream::println!("{} is good: {services} on {listeners}{}", place.file.display(), flags.unwrap_or_default());
    Ok(Exit::Done)
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
