//! What a page says first: is it worse, what must I do, what happens by itself.

use super::seen::{Analysis, Metric, Release, Rollback, Service};
use super::words;

/// Shape, word and colour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Badge {
    pub(crate) class: &'static str,
    pub(crate) icon: &'static str,
    pub(crate) text: String,
}

pub(crate) fn badge(class: &'static str, icon: &'static str, text: impl Into<String>) -> Badge {
    Badge { class, icon, text: text.into() }
}

pub(crate) struct Account {
    /// Of the edge.
    pub(crate) class: &'static str,
    pub(crate) badge: Badge,
    pub(crate) say: String,
    /// Question and answer; what is between backticks is set as code.
    pub(crate) answers: Vec<(&'static str, String)>,
}

/// How a release stands, or how it ended. `service` is what runs now.
pub(crate) fn of_release(service: &Service, release: &Release) -> Account {
    match &release.ending {
        Some(ending) => ended(service, release, &ending.outcome, &ending.reason),
        None if release.is_canary() => canary(service, release),
        None => blue_green(service, release),
    }
}

pub(crate) fn of_service(service: &Service) -> Account {
    let (class, badge) = match service.serves {
        _ if service.stopped => ("", badge("", "off", "stopped")),
        None => ("", badge("", "off", "nothing deployed")),
        Some(_) => health(service),
    };
    let say = match &service.serves {
        _ if service.stopped => "Stopped by a person. No version runs.".to_owned(),
        None => "Nothing is deployed yet.".to_owned(),
        Some(version) => format!("{version} serves everyone."),
    };
    let name = &service.service;
    let answers = match &service.serves {
        _ if service.stopped => vec![("What you can do", format!("`changeover start {name}`"))],
        None => vec![("What you can do", format!("`changeover deploy {name} --version v1`"))],
        Some(_) => vec![("What you need to do", "Nothing.".to_owned())],
    };
    Account { class, badge, say, answers }
}

fn health(service: &Service) -> (&'static str, Badge) {
    if service.healthy >= service.wanted {
        return ("good", badge("good", "ok", "healthy"));
    }
    let down = service.wanted - service.healthy;
    ("bad", badge("bad", "bad", format!("{down} of {} targets down", service.wanted)))
}

/// Who serves, and how well.
fn who_serves(service: &Service) -> String {
    let Some(version) = &service.serves else { return "Nobody: no version was ever confirmed.".to_owned() };
    let health = if service.healthy >= service.wanted { "healthy" } else { "not healthy" };
    format!("`{version}`, {health}, {} of {} targets, all clients.", service.healthy, service.wanted)
}

pub(crate) fn stable(release: &Release) -> String {
    release.stable.as_ref().map_or("no version".to_owned(), |stable| format!("`{stable}`"))
}

fn switch_takes(service: &Service) -> String {
    service.last_switch_us.map_or("at once".to_owned(), |us| format!("in about {}", words::ms(Some(us / 1_000.0))))
}

fn blue_green(service: &Service, release: &Release) -> Account {
    let (candidate, stable) = (&release.candidate, stable(release));
    let nothing = ("What you need to do", "Nothing.".to_owned());
    let running = |text: &str| badge("run", "run", text);
    let (class, badge, say, answers) = match release.state.as_str() {
        "starting" => {
            let next = ("What happens next", "Its health is checked, then its gates run.".to_owned());
            let worse = ("If it does not become healthy", format!("It is stopped. {stable} serves on."));
            ("run", running("starting"), format!("{candidate} starts. Nobody gets it yet."), vec![nothing, next, worse])
        }
        "gating" => {
            let first = release.steps.first().map(|step| words::weight(step.weight));
            let then = first.map_or("all traffic switches at once".to_owned(), |weight| format!("it gets {weight} of the traffic"));
            let next = ("What happens next", format!("When every gate has passed, {then}."));
            let worse = ("If a gate fails", format!("It is stopped. {stable} serves on."));
            ("run", running("gates run"), format!("{candidate} is healthy; its gates run. Nobody gets it yet."), vec![nothing, next, worse])
        }
        "awaiting_promotion" => {
            let answers = vec![
                ("What you need to do", "Look at the preview, then decide.".to_owned()),
                ("What happens if nobody answers", format!("It waits. {stable} serves on.")),
                ("If you promote", format!("All traffic switches {}.", switch_takes(service))),
            ];
            let badge = badge("warn", "hand", "waits for you");
            ("warn", badge, format!("{candidate} is ready. Nobody gets it until you promote it."), answers)
        }
        "returning" | "retiring" => {
            let next = ("What happens next", format!("What `{candidate}` took, it finishes; then it is stopped."));
            let serves = ("Who serves now", who_serves(service));
            ("warn", badge("warn", "back", "going back"), format!("Going back. {} serves.", plain(&stable)), vec![nothing, serves, next])
        }
        state => {
            let say = match state {
                "switching" => format!("Switching to {candidate}."),
                "draining" => format!("{candidate} serves everyone. {} finishes what it took.", plain(&stable)),
                _ => format!("{candidate} serves everyone and is watched."),
            };
            let next = ("What happens next", "When the watch has passed, it is confirmed.".to_owned());
            let worse = ("If it gets worse", format!("Back to {stable} by itself, {}.", switch_takes(service)));
            ("run", running(state), say, vec![nothing, next, worse])
        }
    };
    Account { class, badge, say, answers }
}

fn canary(service: &Service, release: &Release) -> Account {
    let weight = words::weight(release.candidate_weight());
    let stable = stable(release);
    let at_no_step = ["starting", "gating", "awaiting_promotion", "switching", "draining", "watching", "returning", "retiring"];
    if at_no_step.contains(&release.state.as_str()) {
        return blue_green(service, release);
    }
    let running = badge("run", "run", format!("canary, {weight}"));
    let (class, badge) = match (&release.paused, &release.waits) {
        (Some(_), _) => ("warn", badge("", "hold", "paused")),
        (None, Some(_)) => ("warn", badge("warn", "hand", "waits for you")),
        (None, None) if release.analysis.as_ref().is_some_and(is_bad) => ("bad", running),
        (None, None) => ("run", running),
    };
    let next_step = release.step.and_then(|step| release.steps.get(step + 1)).map(|step| words::weight(step.weight));
    let to_do = match (&release.paused, &release.waits) {
        (Some(_), _) => "Resume it when you have seen enough.".to_owned(),
        (None, Some(waits)) => format!("Decide: it waits for {waits}."),
        (None, None) => "Nothing.".to_owned(),
    };
    let next = match (&release.paused, &release.analysis) {
        (Some(_), _) => format!("Nothing advances. It stays at {weight}."),
        (None, Some(analysis)) if analysis.action == "rollback" || analysis.action == "withdraw" => format!("Back to {stable}."),
        (None, _) if release.waits.is_some() => "Nothing, until a person decides.".to_owned(),
        (None, analysis) => {
            let next = next_step.unwrap_or_else(|| "It is confirmed".to_owned());
            match analysis.as_ref().and_then(forecast) {
                Some(forecast) => format!("{next} in about {forecast}, if it stays as it is."),
                None => format!("{next}, as soon as it is settled and has been looked at long enough."),
            }
        }
    };
    let worse = format!("Back to {stable} by itself, {}.", switch_takes(service));
    let answers = vec![("What you need to do", to_do), ("What happens next", next), ("If it gets worse", worse)];
    let say = release.analysis.as_ref().map_or_else(
        || match &release.unjudged {
            Some(reason) => format!("{weight} of the traffic. Nothing is compared: {}", sentence(reason)),
            None => format!("{weight} of the traffic. Nothing is compared."),
        },
        |it| verdict(it, &weight),
    );
    Account { class, badge, say, answers }
}

fn is_bad(analysis: &Analysis) -> bool {
    ["regressed", "guard_rail"].contains(&analysis.verdict.as_str()) || analysis.action == "rollback"
}

/// The judge's answer in a sentence.
fn verdict(analysis: &Analysis, weight: &str) -> String {
    let sentence = sentence(&analysis.sentence);
    match analysis.verdict.as_str() {
        "regressed" | "guard_rail" => format!("Worse: {}", if sentence.is_empty() { "going back.".to_owned() } else { lower(&sentence) }),
        "expired" => "Not decided within the time of this step.".to_owned(),
        "warming" => format!("Too early to say. {weight} of the traffic, warming up."),
        "none" => format!("Not known: nothing is measured. Held at {weight}."),
        _ if analysis.split.as_ref().is_some_and(|split| split.ok == Some(false)) => {
            "Not judged: the requests are not split as they should be.".to_owned()
        }
        _ if analysis.reason == "suspicion" => match analysis.metrics.iter().find(|metric| metric.state == "suspect") {
            Some(metric) => format!("{} look worse, not proven. Held at {weight}.", name(metric)),
            None => format!("Looks worse, not proven. Held at {weight}."),
        },
        "healthy" => "Not worse so far.".to_owned(),
        _ => match open_metrics(analysis) {
            Some(names) => format!("Not worse so far. Held at {weight} until {names} settled."),
            None => format!("Not worse so far. Held at {weight}."),
        },
    }
}

fn open_metrics(analysis: &Analysis) -> Option<String> {
    let open: Vec<String> =
        analysis.metrics.iter().filter(|it| ["not_yet", "suspect", "warming"].contains(&it.state.as_str())).map(name).collect();
    match open.as_slice() {
        [] => None,
        [one] => Some(format!("{} {}", lower(one), if one == "Errors" { "are" } else { "is" })),
        [first, second] => Some(format!("{} and {} are", lower(first), lower(second))),
        more => Some(format!("{} metrics are", more.len())),
    }
}

/// The longest wait that the metrics tell.
fn forecast(analysis: &Analysis) -> Option<String> {
    let waits = analysis.metrics.iter().filter(|it| it.state == "not_yet");
    let longest = waits
        .map(|it| it.more_s)
        .collect::<Option<Vec<_>>>()?
        .into_iter()
        .fold(None, |most, it| Some(f64::max(most.unwrap_or(0.0), it)))?;
    longest.is_finite().then(|| words::span(longest.max(1.0) as u64))
}

/// `errors` as `Errors`, `p99` as `Latency p99`.
pub(crate) fn name(metric: &Metric) -> String {
    let is_quantile =
        metric.name.strip_prefix('p').is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|it| it.is_ascii_digit()));
    if is_quantile {
        return format!("Latency {}", metric.name);
    }
    sentence(&metric.name.replace('_', " ")).trim_end_matches('.').to_owned()
}

/// Begins with a capital and ends with a stop.
pub(crate) fn sentence(text: &str) -> String {
    let text = text.trim();
    let mut letters = text.chars();
    let Some(first) = letters.next() else { return String::new() };
    let stop = if text.ends_with(['.', '!', '?', '…', ')']) { "" } else { "." };
    format!("{}{}{stop}", first.to_uppercase(), letters.as_str())
}

fn lower(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| format!("{}{}", first.to_lowercase(), letters.as_str()))
}

fn plain(marked: &str) -> String {
    marked.replace('`', "")
}

fn ended(service: &Service, release: &Release, outcome: &str, reason: &str) -> Account {
    let (candidate, stable) = (&release.candidate, stable(release));
    let reason = sentence(reason);
    let serves = ("Who serves now", who_serves(service));
    let nothing = |more: &str| ("What you need to do", format!("Nothing{more}."));
    let (class, badge, say, to_do) = match outcome {
        "promoted" => {
            let say = match &release.stable {
                Some(_) => format!("Promoted: {candidate} took over from {}.", plain(&stable)),
                None => format!("Promoted: {candidate} is the first version."),
            };
            ("good", badge("good", "ok", "promoted"), say, nothing(""))
        }
        "rolled_back" => {
            let say = format!("Rolled back: {}", lower(&reason));
            (
                "bad",
                badge("bad", "back", "rolled back"),
                say,
                ("What you need to do", format!("Nothing tonight. Fix it, then deploy a new version.{}", kept(service, candidate))),
            )
        }
        "aborted" => ("", badge("", "off", "aborted"), format!("Aborted: {}", lower(&reason)), nothing("")),
        "withdrawn" => {
            let to_do = ("What you need to do", "Find out why it could not be measured; then `retry`.".to_owned());
            ("warn", badge("warn", "back", "withdrawn"), format!("Withdrawn: {}", lower(&reason)), to_do)
        }
        "failed" => {
            let to_do = ("What you need to do", "Nothing tonight. No client got it.".to_owned());
            ("bad", badge("bad", "bad", "failed"), format!("Never switched: {}", lower(&reason)), to_do)
        }
        "superseded" => ("", badge("", "off", "superseded"), format!("Superseded: {}", lower(&reason)), nothing("")),
        other => ("", badge("", "off", other.replace('_', " ")), reason.clone(), nothing("")),
    };
    let back = match outcome {
        "promoted" => ("If it turns out bad", rollback_takes(&service.rollback)),
        _ => ("How sure", release.analysis.as_ref().map_or("Nothing was compared.".to_owned(), |it| sentence(&it.sentence))),
    };
    let mut answers = vec![to_do, serves];
    if outcome == "promoted" || release.is_canary() {
        answers.push(back);
    }
    Account { class, badge, say, answers }
}

/// For how long a version that was taken back can still be looked at.
fn kept(service: &Service, version: &str) -> String {
    let kept = service.kept.as_ref().filter(|kept| kept.version == version && kept.left_ms > 0);
    kept.map_or(String::new(), |kept| format!(" `{version}` stays up for {} more, to be looked at.", words::span(kept.left_ms / 1_000)))
}

/// What a rollback would do, and how long it would take, as far as that was measured.
pub(crate) fn rollback_takes(it: &Rollback) -> String {
    if let Some(gate) = &it.irreversible {
        return format!("A rollback is refused: migration `{gate}` cannot be undone.");
    }
    let Some(to) = &it.to else { return "There is no version to go back to.".to_owned() };
    if it.standby == "hot" {
        let takes = it.took_us.map_or("at once".to_owned(), |us| format!("in about {}", words::ms(Some(us / 1_000.0))));
        let left = it.left_ms.map(|ms| format!(", for {} more", words::span(ms / 1_000))).unwrap_or_default();
        return format!("A rollback to `{to}` takes effect {takes}: it is hot{left}.");
    }
    if it.standby == "frozen" {
        let takes = it.thaw_ms.map_or(String::new(), |ms| format!(", which took {}", words::ms(Some(ms as f64))));
        let left = it.left_ms.map(|ms| format!(", for {} more", words::span(ms / 1_000))).unwrap_or_default();
        return format!("A rollback lets `{to}` go on first{takes}: it is frozen{left}.");
    }
    let start = it.start_ms.map_or(String::new(), |ms| format!(", which took {}", words::ms(Some(ms as f64))));
    format!("A rollback starts `{to}` first{start}.")
}

/// In the list of services: how bad it is, the badge, and a line about it. Less is worse.
pub(crate) fn in_list(service: &Service, ended_ms: Option<u64>, now_ms: u64) -> (u8, Badge, String) {
    const RECENT_MS: u64 = 3_600_000;
    let down = service.targets.iter().find(|target| !target.healthy && Some(&target.version) == service.serves.as_ref());
    if !service.stopped && service.serves.is_some() && service.healthy < service.wanted {
        let line = down.map_or("A target is missing.".to_owned(), |it| {
            let answer = if it.last_answer.is_empty() { "no answer yet".to_owned() } else { it.last_answer.clone() };
            format!("`{}` fails its health check: {answer}", it.address)
        });
        return (0, health(service).1, line);
    }
    if let Some(release) = service.running() {
        let account = of_release(service, release);
        let rank = if account.badge.class == "warn" || account.class == "warn" { 2 } else { 3 };
        return (rank, account.badge, account.say);
    }
    let account = of_service(service);
    let Some(release) = &service.release else { return (4, account.badge, account.say) };
    let last = of_release(service, release);
    let age = ended_ms.map(|ended| now_ms.saturating_sub(ended));
    if ["rolled_back", "withdrawn", "failed"].contains(&release.ending.as_ref().map_or("", |it| it.outcome.as_str()))
        && age.is_some_and(|age| age < RECENT_MS)
    {
        let ago = words::span(age.unwrap_or_default() / 1_000);
        return (1, badge("warn", "back", format!("{} {ago} ago", last.badge.text)), last.say);
    }
    if service.stopped {
        return (4, account.badge, account.say);
    }
    let when = ended_ms.map_or(String::new(), |ended| format!(" {}", words::when(ended, now_ms)));
    (4, account.badge, format!("Last release {}{when}.", last.badge.text))
}
