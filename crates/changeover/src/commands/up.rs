//! `up`: becomes the keeper.

use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::args::Place;
use crate::exit::{Exit, problem};

pub(crate) fn run(place: &Place) -> anyhow::Result<Exit> {
    let desired = super::check::read(place)?;
    let tokens = desired.api.as_ref().map(|api| super::token::check(api, place)).transpose()?;
    // Account, keys and tokens are in it.
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&place.state_dir).map_err(|error| {
        let hint = "make it, and give it to the user who runs changeover, or name another one with --state-dir";
        problem(Exit::Failed, format!("cannot use the state directory {}: {error}", place.state_dir.display()), Some(hint.to_owned()))
    })?;
    let own = own_file()?;
    let worker_command = [
        own.as_os_str(),
        "worker".as_ref(),
        "--file".as_ref(),
        place.file.as_os_str(),
        "--state-dir".as_ref(),
        place.state_dir.as_os_str(),
    ]
    .map(std::ffi::OsStr::to_os_string)
    .to_vec();
    let flag_addresses = || desired.flags.iter().flat_map(|flags| &flags.listen);
    let listen = desired.listeners.values().map(|listener| listener.address).chain(flag_addresses().map(|(_, it)| *it)).collect();
    let keeper = keeper::open(keeper::Options { state_dir: place.state_dir.clone(), worker_command, listen }).map_err(explain)?;
    for (name, listener) in &desired.listeners {
        match keeper.unopened().iter().find(|(address, _)| *address == listener.address) {
            Some((address, reason)) => anstream::eprintln!("listener {name}: not open: cannot listen on {address}: {reason}"),
            None => anstream::eprintln!("listener {name}: {}://{}", scheme(&desired, name), listener.address),
        }
    }
    for (port, address) in flag_addresses() {
        let what = match port {
            model::FlagPort::All => "everything",
            model::FlagPort::Evaluation => "evaluation",
            model::FlagPort::Management => "health and metrics",
            model::FlagPort::Sync => "sync",
            model::FlagPort::Ofrep => "OFREP",
        };
        match keeper.unopened().iter().find(|(unopened, _)| unopened == address) {
            Some((_, reason)) => anstream::eprintln!("flags, {what}: not open: cannot listen on {address}: {reason}"),
            None => anstream::eprintln!("flags, {what}: {address}"),
        }
    }
    for address in keeper.unused_sockets() {
        anstream::eprintln!(
            "socket {address}: given by the service manager, and no listener of the file has this address: nobody answers there"
        );
    }
    if let (Some(api), Some(tokens)) = (&desired.api, tokens) {
        let sign_in = if tokens.is_empty() { "; make a token with `changeover token`" } else { "" };
        anstream::eprintln!("page: http://{}{sign_in}", api.listen);
        if !api.listen.ip().is_loopback() {
            anstream::eprintln!(
                "  it is open to other machines without encryption: put a proxy that speaks TLS before it, or an SSH tunnel"
            );
        }
    }
    if let Some(service) = desired.services.keys().next() {
        anstream::eprintln!("next: changeover deploy {service} --version v1");
    } else if desired.flags.is_some() {
        anstream::eprintln!("next: changeover flags list");
    }
    keep(keeper).map_err(explain)
}

/// The name that we were started by, as long as it leads to what runs: a link may lead elsewhere by the next upgrade.
fn own_file() -> std::io::Result<PathBuf> {
    let running = std::env::current_exe()?;
    let Some(called) = std::env::args_os().next().map(PathBuf::from) else { return Ok(running) };
    let candidates = if called.components().count() > 1 {
        vec![std::path::absolute(&called)?]
    } else {
        std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).map(|folder| folder.join(&called)).collect()
    };
    let leads_here = |candidate: &PathBuf| candidate.is_absolute() && candidate.canonicalize().is_ok_and(|file| file == running);
    Ok(candidates.into_iter().find(leads_here).unwrap_or(running))
}

fn keep(keeper: keeper::Keeper) -> Result<Exit, keeper::Error> {
    match keeper.run()? {
        0 => Ok(Exit::Done),
        64 => Ok(Exit::Usage),
        _ => Ok(Exit::Failed),
    }
}

/// The hidden commands of a keeper that becomes another binary; they come before any other argument is looked at.
pub(crate) fn resumed() -> Option<ExitCode> {
    let mut arguments = std::env::args().skip(1);
    let done = match arguments.next()?.as_str() {
        keeper::CHECK => keeper::check_resume().map(|()| Exit::Done),
        keeper::RESUME => arguments.next()?.parse().ok().map(keeper::resume)?.and_then(keep),
        _ => return None,
    };
    Some(match done {
        Ok(exit) => exit.into(),
        Err(error) => {
            anstream::eprintln!("error: {:#}", anyhow::Error::from(error));
            Exit::Failed.into()
        }
    })
}

fn explain(error: keeper::Error) -> anyhow::Error {
    match error {
        keeper::Error::AlreadyRunning { .. } => {
            let hint = "change what it does with `changeover apply`, end it with `changeover down`, or use another --state-dir";
            problem(Exit::Conflict, error.to_string(), Some(hint.to_owned()))
        }
        keeper::Error::Listen { address, .. } => {
            let hint = format!("see who does with `ss -ltnp sport = :{}`, or change `listeners` in the file", address.port());
            problem(Exit::Failed, error.to_string(), Some(hint))
        }
        _ => error.into(),
    }
}

/// What clients say before the address.
fn scheme(desired: &model::Desired, listener: &model::ListenerName) -> &'static str {
    let mut services = desired.services.values();
    let is_tcp =
        services.any(|service| service.protocol == model::Protocol::Tcp && service.routes.iter().any(|route| route.listener == *listener));
    let is_tls = desired.listeners.get(listener).is_some_and(|it| it.tls.is_some());
    match (is_tcp, is_tls) {
        (false, false) => "http",
        (false, true) => "https",
        (true, false) => "tcp",
        (true, true) => "tls",
    }
}
