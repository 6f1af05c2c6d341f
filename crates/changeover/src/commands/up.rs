//! `up`: becomes the keeper.

use crate::args::Place;
use crate::exit::{Exit, problem};

pub(crate) fn run(place: &Place) -> anyhow::Result<Exit> {
    let desired = super::check::read(place)?;
    std::fs::create_dir_all(&place.state_dir)?;
    for (name, listener) in &desired.listeners {
        anstream::eprintln!("listener {name}: http://{}", listener.address);
    }
    if let Some(service) = desired.services.keys().next() {
        anstream::eprintln!("next: changeover deploy {service} --version v1");
    }
    let own = std::env::current_exe()?;
    let worker_command = [own.as_os_str(), "worker".as_ref(), "--file".as_ref(), place.file.as_os_str(), "--state-dir".as_ref(), place.state_dir.as_os_str()]
        .map(std::ffi::OsStr::to_os_string)
        .to_vec();
    let options = keeper::Options { state_dir: place.state_dir.clone(), worker_command };
    match keeper::run(options) {
        Ok(0) => Ok(Exit::Done),
        Ok(64) => Ok(Exit::Usage),
        Ok(_) => Ok(Exit::Failed),
        Err(error @ keeper::Error::AlreadyRunning { .. }) => {
            let hint = "change what it does with `changeover apply`, end it with `changeover down`, or use another --state-dir";
            Err(problem(Exit::Conflict, error.to_string(), Some(hint.to_owned())))
        }
        Err(error) => Err(error.into()),
    }
}
