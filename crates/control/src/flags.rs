//! Flags over the API: what can be asked, and the one way to change something.

use std::sync::Arc;

use axum::extract::State;
use engine::Rejected;
use flag_engine::{Action, Question, References, Request, Schedule};
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::Room;
use crate::answers::{Answer, Asked, Problems, Questions, rejected};
use crate::caller::Caller;
use crate::tokens::FlagRight;

type Shared = State<Arc<Room>>;

/// A page of the history.
const CHANGES_DEFAULT: usize = 50;
const CHANGES_MAX: usize = 10_000;

pub(crate) fn router() -> OpenApiRouter<Arc<Room>> {
    OpenApiRouter::new()
        .routes(routes!(list, write))
        .routes(routes!(one))
        .routes(routes!(history))
        .routes(routes!(debt))
        .routes(routes!(proposals, decide))
        .routes(routes!(schedules, schedule))
        .routes(routes!(unschedule))
        .routes(routes!(trial))
        .routes(routes!(evaluate))
        .routes(routes!(problems))
        .routes(routes!(document))
        .routes(routes!(refer))
}

pub(crate) fn handle(room: &Room) -> Result<flag_engine::Handle, Rejected> {
    (room.counter.flags)().ok_or_else(|| {
        rejected("not_found", "no flags are served here", Some("add `flags: {}` to changeover.yaml, or run `changeover flags serve`"))
    })
}

async fn ask(room: &Room, caller: &Caller, question: Question) -> Answer {
    let environment = match &question {
        Question::Trial { environment, .. } | Question::Evaluate { environment, .. } | Question::Document { environment } => {
            environment.as_deref()
        }
        _ => None,
    };
    if let Err(rejected) = permits(caller, FlagRight::Sync, environment) {
        return Answer(Err(rejected));
    }
    match handle(room) {
        Ok(flags) => Answer(flags.ask(question).await),
        Err(rejected) => Answer(Err(rejected)),
    }
}

/// A token of one environment says nothing of the others.
fn permits(caller: &Caller, wanted: FlagRight, environment: Option<&str>) -> Result<(), Rejected> {
    match caller.of_flags(wanted) {
        None => Err(rejected("forbidden", "this token does not permit that of flags", Some("see `changeover token --help`"))),
        Some(None) => Ok(()),
        Some(Some(own)) if environment == Some(own) => Ok(()),
        Some(Some(own)) => Err(rejected("forbidden", format!("this token is for the environment `{own}` only"), Some("name it"))),
    }
}

/// All flags, with what each environment answers.
#[utoipa::path(get, path = "/v1/flags", tag = "flags", responses((status = 200, description = "The flags", body = Value), Problems))]
async fn list(State(room): Shared, caller: Caller) -> Answer {
    ask(&room, &caller, Question::List).await
}

/// A change. The answer says what was done, or that it waits for a second person.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Write {
    /// Kept in the history.
    #[serde(default)]
    why: Option<String>,
    /// Needed where there are several.
    #[serde(default)]
    environment: Option<String>,
    /// One of `{"on": {"key": …}}`, `off`, `create`, `describe`, `target`, `require`, `unrequire`, `rollout`, `experiment`, `pause`,
    /// `resume`, `end`, `archive`, `restore`, `revert`, `bucketing`.
    #[schema(value_type = Object)]
    action: Action,
}

/// Change a flag.
#[utoipa::path(post, path = "/v1/flags", tag = "flags", request_body = Write,
    responses((status = 200, description = "It is done, or proposed", body = Value), Problems))]
async fn write(State(room): Shared, caller: Caller, Asked(asked): Asked<Write>) -> Answer {
    let flags = match permits(&caller, FlagRight::Write, asked.environment.as_deref()).and_then(|()| handle(&room)) {
        Ok(flags) => flags,
        Err(rejected) => return Answer(Err(rejected)),
    };
    let bound_to = caller.of_flags(FlagRight::Write).flatten().map(str::to_owned);
    let request = Request { who: caller.person(), why: asked.why, environment: asked.environment, bound_to, action: asked.action };
    Answer(flags.write(request).await)
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Of {
    key: String,
    environment: Option<String>,
}

/// One flag, with its definition per environment.
#[utoipa::path(get, path = "/v1/flags/flag", tag = "flags", params(Of),
    responses((status = 200, description = "The flag", body = Value), Problems))]
async fn one(State(room): Shared, caller: Caller, Questions(of): Questions<Of>) -> Answer {
    ask(&room, &caller, Question::Flag { key: of.key }).await
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Changes {
    /// Of one flag.
    key: Option<String>,
    /// So many at most; 50 when absent.
    limit: Option<usize>,
}

/// What was changed: who, when, why, before, after. Newest first.
#[utoipa::path(get, path = "/v1/flags/history", tag = "flags", params(Changes),
    responses((status = 200, description = "The changes", body = Value), Problems))]
async fn history(State(room): Shared, caller: Caller, Questions(of): Questions<Changes>) -> Answer {
    let limit = of.limit.unwrap_or(CHANGES_DEFAULT).min(CHANGES_MAX);
    ask(&room, &caller, Question::History { key: of.key, limit }).await
}

/// How far each flag's life has come, with the evidence.
#[utoipa::path(get, path = "/v1/flags/debt", tag = "flags", responses((status = 200, description = "The flags", body = Value), Problems))]
async fn debt(State(room): Shared, caller: Caller) -> Answer {
    ask(&room, &caller, Question::Debt).await
}

/// Changes that wait for a second person.
#[utoipa::path(get, path = "/v1/flags/proposals", tag = "flags",
    responses((status = 200, description = "The proposals", body = Value), Problems))]
async fn proposals(State(room): Shared, caller: Caller) -> Answer {
    ask(&room, &caller, Question::Proposals).await
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Decision {
    proposal: u64,
    /// False refuses it.
    agree: bool,
}

/// Agree to a proposal of somebody else, or refuse it.
#[utoipa::path(post, path = "/v1/flags/proposals", tag = "flags", request_body = Decision,
    responses((status = 200, description = "What was done", body = Value), Problems))]
async fn decide(State(room): Shared, caller: Caller, Asked(asked): Asked<Decision>) -> Answer {
    // Which environment it is about only the proposal says.
    match permits(&caller, FlagRight::Write, None).and_then(|()| handle(&room)) {
        Ok(flags) => Answer(flags.decide(asked.proposal, asked.agree, caller.person()).await),
        Err(rejected) => Answer(Err(rejected)),
    }
}

/// What the clock will switch.
#[utoipa::path(get, path = "/v1/flags/schedules", tag = "flags",
    responses((status = 200, description = "The schedules", body = Value), Problems))]
async fn schedules(State(room): Shared, caller: Caller) -> Answer {
    ask(&room, &caller, Question::Schedules).await
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Scheduled {
    key: String,
    #[serde(default)]
    environment: Option<String>,
    /// False switches it off.
    on: bool,
    /// Wall clock, milliseconds since 1970.
    at_ms: u64,
    #[serde(default)]
    why: Option<String>,
}

/// Switch a flag at a time.
#[utoipa::path(post, path = "/v1/flags/schedules", tag = "flags", request_body = Scheduled,
    responses((status = 200, description = "Its number", body = Value), Problems))]
async fn schedule(State(room): Shared, caller: Caller, Asked(asked): Asked<Scheduled>) -> Answer {
    let flags = match permits(&caller, FlagRight::Write, asked.environment.as_deref()).and_then(|()| handle(&room)) {
        Ok(flags) => flags,
        Err(rejected) => return Answer(Err(rejected)),
    };
    let (key, on, at_ms, why) = (asked.key, asked.on, asked.at_ms, asked.why);
    let environment = asked.environment.unwrap_or_default();
    Answer(flags.schedule(Schedule { number: 0, key, environment, on, at_ms, who: caller.person(), why }).await)
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Unscheduled {
    schedule: u64,
}

/// Forget a schedule.
#[utoipa::path(post, path = "/v1/flags/unschedule", tag = "flags", request_body = Unscheduled,
    responses((status = 200, description = "It is forgotten", body = Value), Problems))]
async fn unschedule(State(room): Shared, caller: Caller, Asked(asked): Asked<Unscheduled>) -> Answer {
    match permits(&caller, FlagRight::Write, None).and_then(|()| handle(&room)) {
        Ok(flags) => Answer(flags.unschedule(asked.schedule, caller.person()).await),
        Err(rejected) => Answer(Err(rejected)),
    }
}

/// The newest rollout or experiment of a flag, with what is known.
#[utoipa::path(get, path = "/v1/flags/trial", tag = "flags", params(Of),
    responses((status = 200, description = "The trial", body = Value), Problems))]
async fn trial(State(room): Shared, caller: Caller, Questions(of): Questions<Of>) -> Answer {
    ask(&room, &caller, Question::Trial { key: of.key, environment: of.environment }).await
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Evaluated {
    key: String,
    #[serde(default)]
    environment: Option<String>,
    /// With `targetingKey`.
    #[serde(default)]
    context: Map<String, Value>,
}

/// What a context gets. Not counted.
#[utoipa::path(post, path = "/v1/flags/evaluate", tag = "flags", request_body = Evaluated,
    responses((status = 200, description = "The answer", body = Value), Problems))]
async fn evaluate(State(room): Shared, caller: Caller, Asked(asked): Asked<Evaluated>) -> Answer {
    let question = Question::Evaluate { key: asked.key, environment: asked.environment, context: asked.context };
    ask(&room, &caller, question).await
}

/// Why what is served is not what stands in the files.
#[utoipa::path(get, path = "/v1/flags/problems", tag = "flags",
    responses((status = 200, description = "By environment", body = Value), Problems))]
async fn problems(State(room): Shared, caller: Caller) -> Answer {
    match permits(&caller, FlagRight::Sync, None).and_then(|()| handle(&room)) {
        Ok(flags) => Answer(Ok(serde_json::json!(*flags.problems()))),
        Err(rejected) => Answer(Err(rejected)),
    }
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct OfEnvironment {
    environment: Option<String>,
}

/// The set of an environment as it is served, in flagd's format.
#[utoipa::path(get, path = "/v1/flags/document", tag = "flags", params(OfEnvironment),
    responses((status = 200, description = "The set", body = Value), Problems))]
async fn document(State(room): Shared, caller: Caller, Questions(of): Questions<OfEnvironment>) -> Answer {
    ask(&room, &caller, Question::Document { environment: of.environment }).await
}

/// Remember where keys stand in the code of a repository.
#[utoipa::path(post, path = "/v1/flags/references", tag = "flags", request_body = Object,
    responses((status = 200, description = "How many keys", body = Value), Problems))]
async fn refer(State(room): Shared, caller: Caller, Asked(asked): Asked<References>) -> Answer {
    match permits(&caller, FlagRight::Write, None).and_then(|()| handle(&room)) {
        Ok(flags) => Answer(flags.refer(asked).await),
        Err(rejected) => Answer(Err(rejected)),
    }
}
