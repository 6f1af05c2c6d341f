//! `flags serve`: `up` with a file of ours that wants flags and nothing else.

use crate::args::Place;
use crate::args::flags::Serve;
use crate::exit::{Exit, problem};

pub(crate) fn run(place: &Place, wanted: &Serve) -> anyhow::Result<Exit> {
    for file in &wanted.files {
        if let Err(error) = std::fs::metadata(file) {
            return Err(problem(Exit::Usage, format!("cannot read {}: {error}", file.display()), None));
        }
    }
    let quoted = |text: &str| serde_json::to_string(text).expect("a text");
    let files: Vec<String> =
        wanted.files.iter().map(|file| Ok(quoted(&std::path::absolute(file)?.to_string_lossy()))).collect::<std::io::Result<_>>()?;
    let listen = wanted.listen.map(|address| format!("  listen: {}\n", quoted(&address.to_string()))).unwrap_or_default();
    let text = format!(
        "# Written by `changeover flags serve`, at each start.\nflags:\n{listen}  environments:\n    {}:\n      files: [{}]\n",
        quoted(&wanted.environment),
        files.join(", ")
    );
    std::fs::create_dir_all(&place.state_dir).map_err(|error| {
        let hint = "name another one with --state-dir";
        problem(Exit::Failed, format!("cannot use the state directory {}: {error}", place.state_dir.display()), Some(hint.to_owned()))
    })?;
    let file = place.state_dir.join("flags-serve.yaml");
    std::fs::write(&file, text)?;
    super::super::up::run(&Place { file, state_dir: place.state_dir.clone() })
}
