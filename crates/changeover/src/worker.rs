//! The worker: does everything but own sockets and processes, and may crash. Wires the rooms together.
//!
//! What it does it does in *lives*: an upgrade ends the life of engine, API and flags, and leaves the data plane. When the upgrade comes to
//! nothing, another life begins on the same data plane.

mod certificates;
mod corridor;
mod flags;
mod link;
mod processes;
mod upgrades;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use engine::Ended;
use keeper::{FromKeeper, ToKeeper};
use model::Desired;
use tokio::runtime::Runtime;

use crate::args::Place;
use crate::exit::Exit;
use corridor::Corridor;
use flags::{FlagRoom, Needs};
use link::{Heard, Hearing, Link, Standing, Verdict};
use upgrades::{Asked, Upgrades};

/// Answers that are on their way when we leave.
const ANSWER_MAX: Duration = Duration::from_millis(200);
/// Who had just connected to the API sends what it asks within this, and hears that nothing of it was done; cut, it could not know.
const LAST_ASKED: Duration = Duration::from_millis(100);
/// Another process may hold the state a moment longer.
const OPEN_MAX: Duration = Duration::from_secs(3);
const OPEN_AGAIN: Duration = Duration::from_millis(50);

pub(crate) fn run(place: &Place) -> anyhow::Result<Exit> {
    let copy = std::env::var_os(keeper::COPY_ENVIRONMENT_NAME).map(PathBuf::from);
    let link = Link::meet(&place.state_dir).context("cannot talk to the keeper")?;
    if copy.is_some() {
        tell_panics(&link);
    }
    let is_successor = copy.is_some();
    let done = work(place, &link, copy);
    if let (true, Err(error)) = (is_successor, &done) {
        let _ = link.say(&ToKeeper::Failed { reason: format!("{error:#}") });
    }
    done
}

/// Whoever asked for the upgrade wants to know why it came to nothing.
fn tell_panics(link: &Link) {
    let (link, before) = (link.clone(), std::panic::take_hook());
    std::panic::set_hook(Box::new(move |information| {
        let _ = link.say(&ToKeeper::Failed { reason: format!("it panicked: {information}").replace('\n', " ") });
        before(information);
    }));
}

/// What a life begins with.
struct Birth {
    desired: Option<Desired>,
    cut: u64,
    /// Heard already, and meant for it.
    heard: Option<Hearing>,
    why: Why,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    Start,
    /// It takes over from another worker.
    Upgrade,
    /// It let go of the state, and its successor came to nothing.
    Resume,
}

/// What is left of a life that has released the state.
struct Left {
    heard: Heard,
    flags: FlagRoom,
}

fn work(place: &Place, link: &Link, copy: Option<PathBuf>) -> anyhow::Result<Exit> {
    let succeeds = std::env::var("CHANGEOVER_WORKER_SUCCEEDS").is_ok_and(|succeeds| succeeds == "1");
    let file = crate::commands::check::read(place);
    let access_log = file.as_ref().ok().map(|desired| (desired.access_log.clone(), place.state_dir.join("access.log")));
    // Once a worker of this keeper was ready, what was last applied counts: the file may have changed since.
    let desired = if succeeds { None } else { Some(file?) };
    let black_box = keeper::inherited_memory().context("the worker is started by `changeover up` only")?;
    let cut = proxy::left_in_flight(&black_box);
    proxy::raise_descriptor_limit();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let proxy =
        proxy::Proxy::start(proxy::Config { threads, access_log, black_box: Some(black_box) }).context("cannot start the data plane")?;
    let corridor = Corridor::new(proxy.clone(), link.clone());
    let mut heard = link.listen();
    let mut birth = Birth { desired, cut, heard: None, why: if copy.is_some() { Why::Upgrade } else { Why::Start } };
    if let Some(copy) = copy {
        upgrades::prepare(&copy).map_err(anyhow::Error::msg)?;
        link.say(&ToKeeper::Prepared).map_err(anyhow::Error::msg)?;
        let Some(welcome) = link.await_place(&heard) else { return Ok(Exit::Done) };
        if let Hearing::Message(FromKeeper::Welcome { remembered: Some(text), .. }, _) = &welcome
            && let Ok(keys) = serde_json::from_str(text)
        {
            // Clients of the worker before need no new handshake.
            proxy.keyring().adopt_ticket_keys(keys);
        }
        birth.heard = Some(welcome);
        upgrades::fault("taking");
    }
    loop {
        let keeper_is_gone = matches!(birth.heard, Some(Hearing::Orphaned));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let lived = runtime.block_on(live(place, link, &proxy, &corridor, birth, heard));
        runtime.shutdown_background();
        let left = match lived {
            Ok(Some(left)) => left,
            Ok(None) => return Ok(Exit::Done),
            Err(error) if keeper_is_gone && is_busy(&error) => {
                // The successor had the state already when the keeper ended, and serves.
                link.stands(Standing::Retired);
                retire(&corridor, None, upgrades::DRAIN_MAX)?;
                return Ok(Exit::Done);
            }
            Err(error) => return Err(error),
        };
        heard = left.heard;
        match Link::await_verdict(&heard) {
            Verdict::Resume(hearing) => birth = Birth { desired: None, cut: 0, heard: Some(hearing), why: Why::Resume },
            Verdict::Retire { drain_ms } => {
                link.stands(Standing::Retired);
                let cut = retire(&corridor, Some((left.flags, heard)), Duration::from_millis(drain_ms))?;
                let _ = link.say(&ToKeeper::Drained { cut });
                return Ok(Exit::Done);
            }
        }
    }
}

fn is_busy(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| cause.downcast_ref::<engine::StoreError>().is_some_and(engine::StoreError::is_busy))
}

/// What was left of the last life is finished, too.
fn retire(corridor: &Corridor, left: Option<(FlagRoom, Heard)>, limit: Duration) -> anyhow::Result<usize> {
    let runtime: Runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (tell, late) = tokio::sync::mpsc::unbounded_channel();
    let flags = left.map(|(flags, heard)| {
        std::thread::spawn(move || Link::heard_late(&heard).try_for_each(|late| tell.send(late)));
        flags
    });
    let drain_flags = async {
        if let Some(flags) = &flags {
            flags.drain().await;
        }
    };
    let (cut, ()) = runtime.block_on(async { tokio::join!(corridor.retire(limit, late), drain_flags) });
    Ok(cut)
}

/// Engine, API and flags, until they end (`None`), or until the state was released.
async fn live(
    place: &Place,
    link: &Link,
    proxy: &proxy::Proxy,
    corridor: &Corridor,
    birth: Birth,
    heard: Heard,
) -> anyhow::Result<Option<Left>> {
    let mut api = birth.desired.as_ref().and_then(|desired| desired.api.clone());
    let is_first = birth.desired.is_some();
    tokio::spawn(corridor.clone().sample());
    let (flags, wanted) = FlagRoom::new();
    let (engine, task) = start_engine(place, link, proxy, corridor, &flags, &birth).await?;
    keeper::outlive_keeper().context("cannot outlive the keeper")?;
    link.stands(Standing::HasTheState);
    if !is_first {
        let applied = engine.store().values("desired").await;
        let applied = applied.first().and_then(|(_, text)| serde_json::from_str::<Desired>(text).ok());
        api = applied.and_then(|desired| desired.api);
    }
    let own = std::env::var_os(keeper::BINARY_ENVIRONMENT_NAME).map_or_else(|| std::env::current_exe().unwrap_or_default(), PathBuf::from);
    let upgrades = Upgrades::new(link.clone(), &place.state_dir, own);
    // What was issued is shown from the first handshake on.
    let clerk = certificates::clerk(proxy.keyring(), &engine, corridor.listening()).await;
    let board = clerk.board();
    if let Some(hearing) = birth.heard {
        link.heard_before(&engine, hearing);
    }
    let pump = {
        let (link, engine, upgrades) = (link.clone(), engine.clone(), upgrades.clone());
        std::thread::spawn(move || link.tell(&engine, heard, &upgrades))
    };
    tokio::spawn(certificates::tell(proxy.keyring().clone(), engine.clone()));
    tokio::spawn(clerk.run());
    let tokens = api.as_ref().map_or_else(|| place.state_dir.join("tokens"), |api| control::token_file(api, &place.state_dir));
    let teller = engine.clone();
    let told = Box::new(move |kind: &str, text: String| teller.told(kind, text));
    let needs = Needs { store: engine.store().clone(), state_dir: place.state_dir.clone(), tokens, told };
    tokio::spawn(flags.clone().run(wanted, needs));
    tokio::spawn(flags.clone().follow_requests(proxy.clone()));
    let (metrics, flag_metrics, flag_handle, upgrader) = (proxy.clone(), flags.clone(), flags.clone(), engine.clone());
    let (acme_metrics, seen, asked, keyring) = (board.clone(), board.clone(), board, proxy.keyring().clone());
    let counter = control::Counter {
        engine: engine.clone(),
        parse: Box::new(|text, path| config::parse(text, path).map_err(|rejected| rejected.to_string())),
        metrics: Box::new(move || metrics.metrics() + &acme_metrics.metrics() + &flag_metrics.metrics()),
        flags: Box::new(move || flag_handle.handle()),
        upgrade: Box::new(move |binary, drain, who| {
            let (upgrades, engine) = (upgrades.clone(), upgrader.clone());
            Box::pin(async move { upgrades.ask(&engine, Asked { binary, drain, who }).await })
        }),
        certificates: Box::new(move || certificates::list(&keyring, &seen)),
        ask_for_certificate: Box::new(move |name| asked.try_now(name)),
        api,
        state_dir: place.state_dir.clone(),
    };
    flags.begun().await;
    let socket = control::bind(&place.socket()).with_context(|| format!("cannot serve {}", place.socket().display()))?;
    if birth.why == Why::Upgrade {
        let text =
            format!("changeover {} (pid {}) serves; the one before it finishes what it has", env!("CARGO_PKG_VERSION"), std::process::id());
        engine.told("upgraded", text);
    }
    link.ready();
    let ended = tokio_util::sync::CancellationToken::new();
    let ending = ended.clone();
    let mut api = tokio::spawn(async move { control::serve(socket, counter, ending.cancelled_owned()).await });
    let how = tokio::select! {
        how = task => how.unwrap_or(Ended::Down),
        served = &mut api => {
            served.context("the API ended")?.with_context(|| format!("cannot serve {}", place.socket().display()))?;
            Ended::Down
        }
    };
    if how == Ended::Released {
        link.stands(Standing::HasNotTheState);
        // Before the next one binds its own there.
        control::hide(&place.socket());
        engine.store().close().await;
        let remembered = serde_json::to_string(&proxy.keyring().ticket_keys()).unwrap_or_default();
        // A keeper that is gone is heard of below.
        let _ = link.say(&ToKeeper::Released { remembered });
        tokio::time::sleep(LAST_ASKED).await;
    } else {
        flags.drain().await;
    }
    // Whoever asked for the end gets an answer; whoever follows events does not keep us.
    ended.cancel();
    let _ = tokio::time::timeout(ANSWER_MAX, api).await;
    if how == Ended::Down {
        return Ok(None);
    }
    let heard = pump.join().map_err(|_| anyhow::anyhow!("the keeper is heard no more"))?;
    Ok(Some(Left { heard, flags }))
}

async fn start_engine(
    place: &Place,
    link: &Link,
    proxy: &proxy::Proxy,
    corridor: &Corridor,
    flags: &FlagRoom,
    birth: &Birth,
) -> anyhow::Result<(engine::Handle, tokio::task::JoinHandle<Ended>)> {
    let until = tokio::time::Instant::now() + OPEN_MAX;
    loop {
        let config = engine::Config {
            state_dir: place.state_dir.clone(),
            folder: place.file.parent().map(std::path::Path::to_path_buf).unwrap_or_default(),
            desired: birth.desired.clone(),
            cut: birth.cut,
            resumes: birth.why == Why::Resume,
            keyring: proxy.keyring().clone(),
        };
        let (data_plane, link, flags) = (Arc::new(corridor.clone()), Arc::new(link.clone()), Arc::new(flags.clone()));
        match engine::start(config, data_plane, link, flags).await {
            Ok(started) => return Ok(started),
            Err(error) if error.is_busy() && tokio::time::Instant::now() < until => tokio::time::sleep(OPEN_AGAIN).await,
            Err(error) => {
                return Err(anyhow::Error::new(error).context(format!("cannot open the state in {}", place.state_dir.display())));
            }
        }
    }
}
