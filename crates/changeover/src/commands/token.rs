//! `token`: makes one for the API over TCP, and shows it this once.

use anyhow::Context;

use crate::args::{Place, Token};
use crate::exit::{Exit, problem};

pub(crate) fn run(place: &Place, wanted: &Token) -> anyhow::Result<Exit> {
    let scope: control::Scope = wanted.scope.parse().map_err(|()| {
        let hint = "read, act, evaluate, sync, write, or such as evaluate:production";
        problem(Exit::Usage, format!("`{}` is no scope", wanted.scope), Some(hint.to_owned()))
    })?;
    let of_flags = matches!(scope, control::Scope::Flags { .. });
    // `flags serve` has no file of the user's.
    let api = if of_flags && !place.file.exists() { None } else { super::check::read(place)?.api };
    if api.is_none() && !of_flags {
        let hint = format!("add `api: 127.0.0.1:9180` to {}", place.file.display());
        return Err(problem(Exit::Usage, "there is no `api` in the file, so nobody could use a token", Some(hint)));
    }
    let path = api.map_or_else(|| place.state_dir.join("tokens"), |api| control::token_file(&api, &place.state_dir));
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let name = wanted.name.clone().unwrap_or_else(crate::client::who);
    let token = control::make_token(&path, scope.clone(), &name).map_err(explain)?;
    anstream::eprintln!("{name} may {scope}; it is in {} and is not shown again", path.display());
    anstream::println!("{token}");
    Ok(Exit::Done)
}

/// Reads the token file of `api`: what is wrong with it is told before anything starts.
pub(crate) fn check(api: &model::Api, place: &Place) -> anyhow::Result<control::Tokens> {
    control::Tokens::read(&control::token_file(api, &place.state_dir)).map_err(explain)
}

fn explain(error: control::TokenFileError) -> anyhow::Error {
    let hint = error.hint();
    problem(Exit::Usage, format!("{:#}", anyhow::Error::new(error)), Some(hint))
}
