//! The worker: does everything but own sockets and processes, and may crash. Wires the rooms together.

mod corridor;
mod link;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;

use crate::args::Place;
use crate::exit::Exit;
use corridor::Corridor;
use link::Link;

/// A worker that leaves: idle connections may still send a request within this …
const IDLE_GRACE: Duration = Duration::from_secs(2);
/// … and everything has ended, or is cut, within this.
const DRAIN_MAX: Duration = Duration::from_secs(30);

pub(crate) fn run(place: &Place) -> anyhow::Result<Exit> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(work(place))
}

async fn work(place: &Place) -> anyhow::Result<Exit> {
    let crashes = std::env::var("CHANGEOVER_WORKER_CRASHES").is_ok_and(|crashes| crashes != "0");
    // After a crash the last applied configuration counts: the file may have changed since.
    let desired = if crashes { None } else { Some(crate::commands::check::read(place)?) };
    let access_log = desired.as_ref().map(|desired| (desired.access_log.clone(), place.state_dir.join("access.log")));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let corridor = proxy::Proxy::start(proxy::Config { threads, access_log }).context("cannot start the data plane")?;
    let link = Link::meet(&place.state_dir).context("cannot talk to the keeper")?;
    let config = engine::Config {
        state_dir: place.state_dir.clone(),
        folder: place.file.parent().map(std::path::Path::to_path_buf).unwrap_or_default(),
        desired,
    };
    let data_plane = Arc::new(Corridor(corridor.clone()));
    let (engine, task) = engine::start(config, data_plane, Box::new(link.clone())).await
        .with_context(|| format!("cannot open the state in {}", place.state_dir.display()))?;
    link.listen(engine.clone());
    let metrics = corridor.clone();
    let counter = control::Counter {
        engine,
        parse: Box::new(|text, path| config::parse(text, path).map_err(|rejected| rejected.to_string())),
        metrics: Box::new(move || metrics.metrics()),
    };
    let socket = place.socket();
    let api = tokio::spawn(async move { control::serve(&socket, counter).await });
    tokio::select! {
        _ = task => {}
        served = api => {
            served.context("the API ended")?.with_context(|| format!("cannot serve {}", place.socket().display()))?;
        }
    }
    corridor.drain(IDLE_GRACE, DRAIN_MAX).await;
    Ok(Exit::Done)
}
