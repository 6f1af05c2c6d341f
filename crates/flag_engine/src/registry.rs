//! The event loop of flags: one task that owns them, persists, then publishes.
//!
//! **Invariant**: a change is durable before it is published. One exception, on purpose: switching off acts although the disk
//! refuses; its record survives in space reserved beforehand.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use flags::{Bucketing, Set};
use model::Rejected;
use serde::Serialize;
use serde_json::Value;
use store::{Batch, Reserve, Store, StoreError};
use tokio::sync::{mpsc, oneshot};

use crate::board::Board;
use crate::change::{Proposal, References, Schedule};
use crate::changes::history;
use crate::durable::SwitchedOff;
use crate::effective::{FromFiles, Sources, document, document_of_the_rest};
use crate::files::{Good, Watched};
use crate::flag::Flag;
use crate::meters::{Meters, Use, wall_ms};
use crate::reads::Question;
use crate::request::{Action, Request};
use crate::trials::{Place, Running};
use crate::writes::Before;

/// What the caretaker of flags is told at its start, and by `apply`.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The first is the default.
    pub environments: Vec<EnvironmentConfig>,
    /// So long everybody must have got the same variant before a flag is ready to remove.
    pub ready_after_ms: u64,
}

#[derive(Debug, Clone, PartialEq)]
pub struct EnvironmentConfig {
    pub name: String,
    pub files: Vec<PathBuf>,
    /// Changes need the consent of a second person.
    pub second_person: bool,
}

/// Hears what happened: its kind, and a sentence.
pub type Told = Box<dyn Fn(&str, String) + Send + Sync>;

type Reply = oneshot::Sender<Result<Value, Rejected>>;

pub(crate) enum Input {
    Write(Box<Request>, Reply),
    Decide { proposal: u64, agree: bool, who: String, reply: Reply },
    Schedule(Box<Schedule>, Reply),
    Unschedule { number: u64, who: String, reply: Reply },
    Refer(Box<References>, Reply),
    Ask(Question, Reply),
    Configure(Config, Reply),
}

/// The way in; cheap to clone.
#[derive(Clone)]
pub struct Handle {
    inputs: mpsc::UnboundedSender<Input>,
    pub(crate) meters: Arc<Meters>,
    board: Arc<Board>,
    pub(crate) problems: Problems,
    store: Store,
}

/// By environment: why what is served is not what stands in the files.
type Problems = Arc<ArcSwap<BTreeMap<String, String>>>;

impl Handle {
    async fn send(&self, input: impl FnOnce(Reply) -> Input) -> Result<Value, Rejected> {
        let (reply, answer) = oneshot::channel();
        let ended = || Rejected::new("unavailable", "changeover is ending");
        self.inputs.send(input(reply)).map_err(|_| ended())?;
        answer.await.unwrap_or_else(|_| Err(ended()))
    }

    /// Published and durable when it is answered; the answer says what was done, or that it waits for a second person.
    pub async fn write(&self, request: Request) -> Result<Value, Rejected> {
        // Taking back does not wait for a disk that hangs, nor behind others who do.
        let _urgent = matches!(request.action, Action::Off { .. }).then(|| self.store.urgent());
        self.send(|reply| Input::Write(Box::new(request), reply)).await
    }

    /// A second person agrees to a proposal, or anybody refuses it.
    pub async fn decide(&self, proposal: u64, agree: bool, who: String) -> Result<Value, Rejected> {
        self.send(|reply| Input::Decide { proposal, agree, who, reply }).await
    }

    /// `schedule.number` is given by us.
    pub async fn schedule(&self, schedule: Schedule) -> Result<Value, Rejected> {
        self.send(|reply| Input::Schedule(Box::new(schedule), reply)).await
    }

    pub async fn unschedule(&self, number: u64, who: String) -> Result<Value, Rejected> {
        self.send(|reply| Input::Unschedule { number, who, reply }).await
    }

    /// Remembers where keys stand in the code of a repository.
    pub async fn refer(&self, references: References) -> Result<Value, Rejected> {
        self.send(|reply| Input::Refer(Box::new(references), reply)).await
    }

    pub async fn ask(&self, question: Question) -> Result<Value, Rejected> {
        self.send(|reply| Input::Ask(question, reply)).await
    }

    pub async fn configure(&self, config: Config) -> Result<Value, Rejected> {
        self.send(|reply| Input::Configure(config, reply)).await
    }

    pub fn meters(&self) -> &Arc<Meters> {
        &self.meters
    }

    pub fn board(&self) -> &Arc<Board> {
        &self.board
    }

    /// By environment: why what is served is not what stands in the files.
    pub fn problems(&self) -> Arc<BTreeMap<String, String>> {
        self.problems.load_full()
    }
}

pub(crate) struct Environment {
    pub(crate) config: EnvironmentConfig,
    pub(crate) bucketing: Bucketing,
    pub(crate) files: Vec<Watched>,
    pub(crate) from_files: FromFiles,
    /// Why what is served is not what stands in the files.
    pub(crate) problem: Option<String>,
}

pub(crate) struct Registry {
    pub(crate) config: Config,
    pub(crate) flags: BTreeMap<String, Flag>,
    pub(crate) environments: Vec<Environment>,
    pub(crate) schedules: BTreeMap<u64, Schedule>,
    pub(crate) proposals: BTreeMap<u64, Proposal>,
    pub(crate) references: BTreeMap<String, References>,
    pub(crate) store: Store,
    pub(crate) reserve: Reserve<SwitchedOff>,
    pub(crate) number: u64,
    pub(crate) meters: Arc<Meters>,
    board: Arc<Board>,
    told: Told,
    /// What the disk owes: keys whose value there may be another than here; absent values are to be deleted. It goes with the next
    /// commit, before what that brings, so that nothing older is written over something newer.
    pub(crate) owed: BTreeMap<String, Option<String>>,
    /// What was refused last may have reached the disk.
    pub(crate) unsure: bool,
    /// Counts from before the start, by environment and key.
    uses: BTreeMap<(String, String), Use>,
    pub(crate) trials: BTreeMap<Place, Running>,
    /// Trials that should be watched and cannot be; tried again every second.
    pub(crate) unwatched: BTreeSet<Place>,
    pub(crate) state_dir: PathBuf,
    pub(crate) problems: Problems,
    ticks: u64,
}

/// Files, schedules and trials are looked at this often.
const LOOK: Duration = Duration::from_millis(200);
/// Counts are written down every so many looks: what a crash forgets of them.
const WRITE_COUNTS: u64 = 50;
/// Trials are looked at every so many looks; a commit that failed is tried again.
const EVERY_SECOND: u64 = 5;

/// Loads what was kept, publishes every environment, and begins to work. Errors of single files are told, not returned.
pub async fn start(
    config: Config,
    state_dir: &std::path::Path,
    store: Store,
    board: Arc<Board>,
    told: Told,
) -> Result<(Handle, tokio::task::JoinHandle<()>), StoreError> {
    let (reserve, switched_off) = Reserve::open(&state_dir.join("flags.ring")).map_err(StoreError::Reserve)?;
    let (inputs, inbox) = mpsc::unbounded_channel();
    let meters = Arc::new(Meters::default());
    let mut registry = Registry {
        config: Config { environments: Vec::new(), ..config },
        flags: by(load::<Flag>(&store, "flag/").await?, |flag| flag.key.clone()),
        environments: Vec::new(),
        schedules: by(load(&store, "flagschedule/").await?, |it: &Schedule| it.number),
        proposals: by(load(&store, "flagproposal/").await?, |it: &Proposal| it.number),
        references: by(load(&store, "flagrefs/").await?, |it: &References| it.repository.clone()),
        number: load::<u64>(&store, "flaglast").await?.first().copied().unwrap_or_default(),
        uses: load::<(String, String, Use)>(&store, "flaguse/").await?.into_iter().map(|(a, b, it)| ((a, b), it)).collect(),
        store,
        reserve,
        meters: meters.clone(),
        board: board.clone(),
        told,
        owed: BTreeMap::new(),
        unsure: false,
        trials: BTreeMap::new(),
        unwatched: BTreeSet::new(),
        state_dir: state_dir.to_owned(),
        problems: Problems::default(),
        ticks: 0,
    };
    registry.replay(switched_off);
    registry.follow(config.environments).await;
    let (problems, store) = (registry.problems.clone(), registry.store.clone());
    let task = tokio::spawn(registry.run(inbox));
    Ok((Handle { inputs, meters, board, problems, store }, task))
}

fn by<K: Ord, T>(all: Vec<T>, key: impl Fn(&T) -> K) -> BTreeMap<K, T> {
    all.into_iter().map(|it| (key(&it), it)).collect()
}

/// One broken row never takes another down; a table that cannot be read is no empty one. A disk that hangs is waited for.
async fn load<T: serde::de::DeserializeOwned>(store: &Store, prefix: &str) -> Result<Vec<T>, StoreError> {
    let read = |(key, text): (String, String)| {
        serde_json::from_str(&text).map_err(|error| eprintln!("a stored value of flags is unreadable: {key}: {error}")).ok()
    };
    loop {
        match store.values_in_time(prefix).await {
            Ok(values) => return Ok(values.into_iter().filter_map(read).collect()),
            Err(StoreError::Unknown(_)) => tokio::time::sleep(LOOK).await,
            Err(error) => return Err(error),
        }
    }
}

pub(crate) fn kept<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("plain data")
}

impl Registry {
    async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Input>) {
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                _ = looks.tick() => self.look().await,
                input = inbox.recv() => match input {
                    Some(input) => self.handle(input).await,
                    None => return,
                },
            }
        }
    }

    async fn handle(&mut self, input: Input) {
        match input {
            Input::Write(request, reply) => drop(reply.send(self.write(*request, None).await)),
            Input::Decide { proposal, agree, who, reply } => drop(reply.send(self.decide(proposal, agree, who).await)),
            Input::Schedule(schedule, reply) => drop(reply.send(self.schedule(*schedule).await)),
            Input::Unschedule { number, who, reply } => drop(reply.send(self.unschedule(number, &who).await)),
            Input::Refer(references, reply) => drop(reply.send(self.refer(*references).await)),
            Input::Ask(Question::History { key, limit }, reply) => {
                let history = history(self.store.clone(), key, limit);
                tokio::spawn(async move { reply.send(Ok(history.await)) });
            }
            Input::Ask(question, reply) => drop(reply.send(self.answer(question).await)),
            Input::Configure(config, reply) => {
                self.config.ready_after_ms = config.ready_after_ms;
                self.follow(config.environments).await;
                drop(reply.send(Ok(Value::Null)));
            }
        }
    }

    async fn look(&mut self) {
        self.ticks += 1;
        self.look_at_files().await;
        self.look_at_schedules().await;
        if self.ticks.is_multiple_of(EVERY_SECOND) {
            self.look_at_trials().await;
            self.save_again().await;
        }
        if self.ticks.is_multiple_of(WRITE_COUNTS) {
            self.write_counts().await;
        }
    }

    pub(crate) fn tell(&self, kind: &str, text: String) {
        (self.told)(kind, text);
    }

    /// The environments of the configuration, as they are now.
    async fn follow(&mut self, wanted: Vec<EnvironmentConfig>) {
        for gone in self.environments.extract_if(.., |it| !wanted.iter().any(|config| config.name == it.config.name)) {
            self.board.withdraw(&gone.config.name);
            self.meters.forget(&gone.config.name);
        }
        let recorded: Vec<(String, Bucketing)> = load(&self.store, "flagenv/").await.unwrap_or_default();
        let goods: Vec<(String, PathBuf, Good)> = load(&self.store, "flagfile/").await.unwrap_or_default();
        let mut old = std::mem::take(&mut self.environments);
        for config in wanted {
            let before = old.iter().position(|it| it.config.name == config.name).map(|index| old.swap_remove(index));
            let of_store = || recorded.iter().find(|(name, _)| *name == config.name).map_or(Bucketing::default(), |(_, it)| *it);
            // Users do not move because the store could not be read.
            let bucketing = before.as_ref().map_or_else(of_store, |it| it.bucketing);
            let mut watched = before.map(|it| it.files).unwrap_or_default();
            let files = config.files.iter().map(|path| {
                let known = watched.iter().position(|it| it.path == *path).map(|index| watched.swap_remove(index));
                let good = || goods.iter().find(|(name, file, _)| *name == config.name && file == path).map(|(.., good)| good.clone());
                known.unwrap_or_else(|| Watched::new(path.clone(), good()))
            });
            let files = files.collect();
            self.environments.push(Environment { config, bucketing, files, from_files: FromFiles::default(), problem: None });
        }
        let mut renewed = Vec::new();
        // In the file's order: the first is the default.
        for index in 0..self.environments.len() {
            self.add_up(index);
            let is_new = self.look_at_new_files(index).await;
            self.publish(index);
            if is_new {
                renewed.push(self.environments[index].config.name.clone());
            }
        }
        for name in renewed {
            self.renew_trials(&name).await;
        }
        self.look_at_files().await;
        self.follow_trials().await;
    }

    pub(crate) fn sources(&self, index: usize) -> Sources<'_> {
        let environment = &self.environments[index];
        Sources {
            environment: &environment.config.name,
            flags: &self.flags,
            files: &environment.from_files,
            bucketing: environment.bucketing,
        }
    }

    pub(crate) fn before<T>(&self, index: usize, ask: impl FnOnce(Before<'_>) -> T) -> T {
        let environments: Vec<&FromFiles> = self.environments.iter().map(|it| &it.from_files).collect();
        let names: Vec<&str> = self.environments.iter().map(|it| it.config.name.as_str()).collect();
        ask(Before { sources: self.sources(index), environments: &environments, names: &names, now_ms: wall_ms(), number: self.number + 1 })
    }

    /// Everybody sees what this environment's flags are now.
    pub(crate) fn publish(&mut self, index: usize) {
        match compile(self.sources(index)) {
            Ok(set) => self.publish_set(index, set),
            // An environment that has never been published answers nothing at all.
            Err(error) if self.board.now(&self.environments[index].config.name).is_none() => self.publish_the_rest(index, error),
            Err(error) => self.cannot_serve(index, error, "what was served before stays"),
        }
    }

    /// After something was taken back: that never waits for what others have become.
    pub(crate) fn publish_off(&mut self, index: usize) {
        match compile(self.sources(index)) {
            Ok(set) => self.publish_set(index, set),
            Err(error) => self.publish_the_rest(index, error),
        }
    }

    fn publish_the_rest(&mut self, index: usize, error: String) {
        let (document, problems) = document_of_the_rest(self.sources(index));
        let set = Set::from_json(&document.to_string(), self.environments[index].bucketing);
        let (set, problem) = match set {
            Ok(set) => (Some(set), problems.join("; ")),
            Err(_) if self.board.now(&self.environments[index].config.name).is_none() => {
                (Set::from_json(r#"{"flags":{}}"#, Bucketing::default()).ok(), error)
            }
            Err(_) => (None, error),
        };
        self.cannot_serve(index, problem, "the others are served");
        set.into_iter().for_each(|set| self.publish_set(index, set));
    }

    fn cannot_serve(&mut self, index: usize, problem: String, but: &str) {
        let environment = &mut self.environments[index];
        eprintln!("error: flags of {} cannot be served as they are: {problem}; {but}", environment.config.name);
        environment.problem = Some(problem);
    }

    /// It is what this environment's flags are now, compiled.
    pub(crate) fn publish_set(&mut self, index: usize, set: Set) {
        let name = &self.environments[index].config.name;
        let uses = &self.uses;
        let before = |key: &str| uses.get(&(name.clone(), key.to_owned())).cloned().unwrap_or_default();
        self.meters.follow(name, &set, &before);
        self.board.publish(name, set);
    }

    async fn write_counts(&mut self) {
        let unwritten = self.meters.unwritten();
        if unwritten.is_empty() {
            return;
        }
        let put =
            |(environment, key, used): &(String, String, Use)| (format!("flaguse/{environment}/{key}"), kept(&(environment, key, used)));
        let puts = unwritten.iter().map(put).collect();
        // Counts are no reason to say anything.
        let _ = self.store.commit(Batch { puts, ..Batch::default() }).await;
        self.uses.extend(unwritten.into_iter().map(|(environment, key, used)| ((environment, key), used)));
    }
}

/// What `sources` make, ready to be served. The error is for people.
pub(crate) fn compile(sources: Sources<'_>) -> Result<Set, String> {
    let document = document(sources)?;
    Set::from_json(&document.to_string(), sources.bucketing).map_err(|problems| {
        let told: Vec<String> = problems.iter().map(said).collect();
        told.join("; ")
    })
}

/// Without the place: the text was made by us.
fn said(problem: &flags::Problem) -> String {
    let of = problem.flag.as_ref().map(|flag| format!("flag `{flag}`: ")).unwrap_or_default();
    let hint = problem.hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default();
    format!("{of}{}{hint}", problem.message)
}
