//! `logs`: a version's output, as it was written to its file.

use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

use crate::args::{Logs, Place};
use crate::client::Client;
use crate::exit::{Exit, problem};

/// While nothing new is written.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

pub(crate) fn run(place: &Place, logs: &Logs) -> anyhow::Result<Exit> {
    let query = logs.version.as_ref().map(|version| format!("?version={version}")).unwrap_or_default();
    let answer = Client::new(place)?.get(&format!("/v1/services/{}/log{query}", logs.service))?;
    let path = Path::new(answer["file"].as_str().unwrap_or_default());
    let cannot = |error: std::io::Error| problem(Exit::Failed, format!("cannot read {}: {error}", path.display()), None);
    let mut file = std::fs::File::open(path).map_err(cannot)?;
    // What rotation took away may be a hole.
    let mut position = file.seek(SeekFrom::Start(engine::first_data(&file).map_err(cannot)?))?;
    let mut out = std::io::stdout().lock();
    let mut chunk = vec![0; 64 * 1024];
    loop {
        match file.read(&mut chunk)? {
            0 if !logs.follow => return Ok(Exit::Done),
            0 => {
                std::thread::sleep(LOOK_AGAIN);
                if file.metadata()?.len() < position {
                    anstream::eprintln!("(the log was rotated; what was written just before may be in {}.1)", path.display());
                    position = file.seek(SeekFrom::Start(engine::first_data(&file).map_err(cannot)?))?;
                }
            }
            size => {
                position += size as u64;
                out.write_all(&chunk[..size])?;
                out.flush()?;
            }
        }
    }
}
