//! `init`: a commented file, without asking anything.

use std::io::Write;

use crate::args::Place;
use crate::exit::{Exit, problem};

pub(crate) fn run(place: &Place) -> anyhow::Result<Exit> {
    let mut file = std::fs::File::create_new(&place.file).map_err(|error| {
        let hint = "it is left as it is; name another file with --file";
        problem(Exit::Failed, format!("cannot write {}: {error}", place.file.display()), Some(hint.to_owned()))
    })?;
    file.write_all(config::template().as_bytes())?;
    anstream::println!("wrote {}; next: changeover up", place.file.display());
    Ok(Exit::Done)
}
