//! The worker: does everything but own sockets and processes, and may crash. Wires the rooms together.

mod corridor;
mod flags;
mod link;

use std::sync::Arc;

use anyhow::Context;

use crate::args::Place;
use crate::exit::Exit;
use corridor::Corridor;
use flags::{FlagRoom, Needs};
use link::Link;

/// Answers that are on their way when we leave.
const ANSWER_MAX: std::time::Duration = std::time::Duration::from_millis(200);

pub(crate) fn run(place: &Place) -> anyhow::Result<Exit> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(work(place))
}

async fn work(place: &Place) -> anyhow::Result<Exit> {
    let succeeds = std::env::var("CHANGEOVER_WORKER_SUCCEEDS").is_ok_and(|succeeds| succeeds == "1");
    let file = crate::commands::check::read(place);
    let access_log = file.as_ref().ok().map(|desired| (desired.access_log.clone(), place.state_dir.join("access.log")));
    // Once a worker of this keeper was ready, what was last applied counts: the file may have changed since.
    let desired = if succeeds { None } else { Some(file?) };
    let black_box = keeper::inherited_memory().context("the worker is started by `changeover up` only")?;
    let cut = proxy::left_in_flight(&black_box);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let corridor =
        proxy::Proxy::start(proxy::Config { threads, access_log, black_box: Some(black_box) }).context("cannot start the data plane")?;
    let link = Link::meet(&place.state_dir).context("cannot talk to the keeper")?;
    let mut api = desired.as_ref().and_then(|desired| desired.api.clone());
    let config = engine::Config {
        state_dir: place.state_dir.clone(),
        folder: place.file.parent().map(std::path::Path::to_path_buf).unwrap_or_default(),
        desired,
        cut,
    };
    let data_plane = Corridor::new(corridor.clone());
    tokio::spawn(data_plane.clone().sample());
    let (flags, wanted) = FlagRoom::new();
    let (engine, task) = engine::start(config, Arc::new(data_plane), Arc::new(link.clone()), Arc::new(flags.clone()))
        .await
        .with_context(|| format!("cannot open the state in {}", place.state_dir.display()))?;
    if succeeds {
        let applied = engine.store().values("desired").await;
        let applied = applied.first().and_then(|(_, text)| serde_json::from_str::<model::Desired>(text).ok());
        api = applied.and_then(|desired| desired.api);
    }
    link.listen(engine.clone());
    let tokens = api.as_ref().map_or_else(|| place.state_dir.join("tokens"), |api| control::token_file(api, &place.state_dir));
    let teller = engine.clone();
    let told = Box::new(move |kind: &str, text: String| teller.told(kind, text));
    let needs = Needs { store: engine.store().clone(), state_dir: place.state_dir.clone(), tokens, told };
    tokio::spawn(flags.clone().run(wanted, needs));
    tokio::spawn(flags.clone().follow_requests(corridor.clone()));
    let (metrics, flag_metrics, flag_handle) = (corridor.clone(), flags.clone(), flags.clone());
    let counter = control::Counter {
        engine,
        parse: Box::new(|text, path| config::parse(text, path).map_err(|rejected| rejected.to_string())),
        metrics: Box::new(move || metrics.metrics() + &flag_metrics.metrics()),
        flags: Box::new(move || flag_handle.handle()),
        api,
        state_dir: place.state_dir.clone(),
    };
    flags.begun().await;
    let socket = control::bind(&place.socket()).with_context(|| format!("cannot serve {}", place.socket().display()))?;
    link.ready();
    let ended = tokio_util::sync::CancellationToken::new();
    let ending = ended.clone();
    let mut api = tokio::spawn(async move { control::serve(socket, counter, ending.cancelled_owned()).await });
    tokio::select! {
        _ = task => {}
        served = &mut api => {
            served.context("the API ended")?.with_context(|| format!("cannot serve {}", place.socket().display()))?;
        }
    }
    flags.drain().await;
    // Whoever asked for the end gets an answer; whoever follows events does not keep us.
    ended.cancel();
    let _ = tokio::time::timeout(ANSWER_MAX, api).await;
    Ok(Exit::Done)
}
