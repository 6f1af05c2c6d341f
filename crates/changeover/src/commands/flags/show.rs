//! What is known of flags, for people; `--json` for programs.

use std::time::Duration;

use serde_json::Value;

use super::text;
use crate::args::Place;
use crate::client::{Client, encoded};
use crate::commands::history::when;
use crate::commands::status::table;
use crate::exit::Exit;

const WATCH_EVERY: Duration = Duration::from_secs(1);
const DAY_MS: u64 = 24 * 3_600 * 1_000;

fn print_json(value: &Value) -> anyhow::Result<Exit> {
    anstream::println!("{}", serde_json::to_string_pretty(value)?);
    Ok(Exit::Done)
}

fn rows(heads: &[&str]) -> Vec<Vec<String>> {
    vec![heads.iter().map(|head| (*head).to_owned()).collect()]
}

pub(super) fn list(place: &Place, json: bool) -> anyhow::Result<Exit> {
    let list = Client::new(place)?.get("/v1/flags")?;
    if json {
        return print_json(&list);
    }
    let names: Vec<String> = list["environments"].as_array().into_iter().flatten().map(|it| text(&it["environment"])).collect();
    let mut table_rows = rows(&["FLAG", "STAGE", "OWNER"]);
    table_rows[0].extend(names.iter().map(|name| name.to_uppercase()));
    for flag in list["flags"].as_array().into_iter().flatten() {
        let expired = if flag["expired"] == true { " (expired)" } else { "" };
        let mut row = vec![text(&flag["key"]), format!("{}{expired}", text(&flag["stage"]).replace('_', " ")), text(&flag["owner"])];
        row.extend(names.iter().map(|name| answers(&flag["environments"][name])));
        table_rows.push(row);
    }
    if table_rows.len() == 1 {
        anstream::eprintln!("no flags yet: changeover flags create new-scoring-algorithm --owner ana");
    } else {
        table(&table_rows);
    }
    for environment in list["environments"].as_array().into_iter().flatten() {
        if let Some(problem) = environment["problem"].as_str() {
            anstream::eprintln!("{}: what was good before is served: {problem}", text(&environment["environment"]));
        }
    }
    Ok(Exit::Done)
}

/// What one environment answers, in a few words.
fn answers(it: &Value) -> String {
    if it.is_null() {
        return "-".to_owned();
    }
    if let Some(shares) = it["shares"].as_array() {
        let share = |pair: &Value| format!("{} {} %", text(&pair[0]), pair[1].as_f64().unwrap_or_default() / 100.0);
        return shares.iter().map(share).collect::<Vec<_>>().join(", ");
    }
    match &it["answers"]["everybody"] {
        Value::String(variant) if it["on"] == true => variant.clone(),
        Value::String(variant) => format!("off ({variant})"),
        _ if it["answers"]["by_rule"] == true => "by rule".to_owned(),
        _ => "off (code's default)".to_owned(),
    }
}

fn life(flag: &Value) -> String {
    let life = &flag["life"];
    if life == "kill_switch" {
        return "a kill switch".to_owned();
    }
    if let Some(reason) = life["permanent"]["reason"].as_str() {
        return format!("permanent: {reason}");
    }
    let at = life["temporary"]["expires_ms"].as_u64().unwrap_or_default();
    let expired = if flag["expired"] == true { ", has expired" } else { "" };
    format!("temporary, until {}{expired}", when(at))
}

pub(super) fn flag(place: &Place, key: &str, json: bool) -> anyhow::Result<Exit> {
    let flag = Client::new(place)?.get(&format!("/v1/flags/flag?key={}", encoded(key)))?;
    if json {
        return print_json(&flag);
    }
    anstream::println!("{}   {}, owner {}", text(&flag["key"]), text(&flag["stage"]).replace('_', " "), text(&flag["owner"]));
    if let Some(description) = flag["description"].as_str() {
        anstream::println!("  {description}");
    }
    anstream::println!("  {}", life(&flag));
    for (name, it) in flag["environments"].as_object().into_iter().flatten() {
        // A file's flag that nobody has touched was never changed here.
        let since = it["changed_ms"].as_u64().filter(|at| *at > 0).map(|at| format!(", since {}", when(at))).unwrap_or_default();
        anstream::println!("  {name}: {}{since}", answers(it));
        for needed in it["requires"].as_array().into_iter().flatten() {
            anstream::println!("    needs {} = {}", text(&needed["flag"]), joined(&needed["variants"], " or "));
        }
        match it["last_evaluated_ms"].as_u64() {
            Some(at) => anstream::println!("    last asked {}; {}", when(at), counts(&it["evaluations"])),
            None => anstream::println!("    never asked of the server"),
        }
        if let Some(definition) = flag["definitions"].get(name) {
            anstream::println!("    {definition}");
        }
    }
    Ok(Exit::Done)
}

fn joined(list: &Value, with: &str) -> String {
    list.as_array().into_iter().flatten().map(text).collect::<Vec<_>>().join(with)
}

fn counts(evaluations: &Value) -> String {
    let of = |(name, count): (&String, &Value)| format!("{} {count}", if name.is_empty() { "code's default" } else { name });
    evaluations.as_object().into_iter().flatten().map(of).collect::<Vec<_>>().join(", ")
}

pub(super) fn history(place: &Place, key: Option<&str>, limit: usize, json: bool) -> anyhow::Result<Exit> {
    let of = key.map(|key| format!("&key={}", encoded(key))).unwrap_or_default();
    let history = Client::new(place)?.get(&format!("/v1/flags/history?limit={limit}{of}"))?;
    if json {
        return print_json(&history);
    }
    let mut table_rows = rows(&["CHANGE", "WHEN", "FLAG", "ENVIRONMENT", "WHAT", "WHO", "WHY"]);
    for change in history["changes"].as_array().into_iter().flatten().rev() {
        let who = match change["agreed"].as_str() {
            Some(agreed) => format!("{} + {agreed}", text(&change["who"])),
            None => text(&change["who"]),
        };
        table_rows.push(vec![
            change["number"].to_string(),
            when(change["at_ms"].as_u64().unwrap_or_default()),
            text(&change["key"]),
            text(&change["environment"]),
            text(&change["action"]).replace('_', " "),
            who,
            text(&change["why"]),
        ]);
    }
    table(&table_rows);
    Ok(Exit::Done)
}

pub(super) fn proposals(place: &Place, json: bool) -> anyhow::Result<Exit> {
    let proposals = Client::new(place)?.get("/v1/flags/proposals")?;
    if json {
        return print_json(&proposals);
    }
    let mut table_rows = rows(&["PROPOSAL", "WHEN", "ENVIRONMENT", "WHAT", "WHO", "WHY"]);
    for proposal in proposals["proposals"].as_array().into_iter().flatten() {
        let request = &proposal["request"];
        let action = request["action"].as_object().and_then(|action| action.iter().next());
        let what = action.map(|(name, body)| format!("{name} {}", text(&body["key"]))).unwrap_or_default();
        table_rows.push(vec![
            proposal["number"].to_string(),
            when(proposal["at_ms"].as_u64().unwrap_or_default()),
            text(&request["environment"]),
            what,
            text(&request["who"]),
            text(&request["why"]),
        ]);
    }
    table(&table_rows);
    Ok(Exit::Done)
}

pub(super) fn schedules(place: &Place, json: bool) -> anyhow::Result<Exit> {
    let schedules = Client::new(place)?.get("/v1/flags/schedules")?;
    if json {
        return print_json(&schedules);
    }
    let mut table_rows = rows(&["SCHEDULE", "WHEN", "FLAG", "ENVIRONMENT", "SWITCH", "WHO", "WHY"]);
    for schedule in schedules["schedules"].as_array().into_iter().flatten() {
        table_rows.push(vec![
            schedule["number"].to_string(),
            when(schedule["at_ms"].as_u64().unwrap_or_default()),
            text(&schedule["key"]),
            text(&schedule["environment"]),
            if schedule["on"] == true { "on" } else { "off" }.to_owned(),
            text(&schedule["who"]),
            text(&schedule["why"]),
        ]);
    }
    table(&table_rows);
    Ok(Exit::Done)
}

pub(super) fn debt(place: &Place, json: bool) -> anyhow::Result<Exit> {
    let debt = Client::new(place)?.get("/v1/flags/debt")?;
    if json {
        return print_json(&debt);
    }
    let now_ms = debt["now_ms"].as_u64().unwrap_or_default();
    let days = |at: &Value| at.as_u64().map_or("never".to_owned(), |at| format!("{} d ago", now_ms.saturating_sub(at) / DAY_MS));
    let mut table_rows = rows(&["FLAG", "STAGE", "OWNER", "AGE", "LAST ASKED", "ANSWERS", "DEPENDENTS", "IN CODE"]);
    let (mut expired, mut ready) = (0, 0);
    for flag in debt["flags"].as_array().into_iter().flatten() {
        expired += usize::from(flag["expired"] == true);
        ready += usize::from(flag["stage"] == "ready_to_remove");
        let environments = flag["environments"].as_object();
        let last = environments.into_iter().flatten().filter_map(|(_, it)| it["last_evaluated_ms"].as_u64()).max();
        let keeps = match &flag["keeps"] {
            Value::Null => "several".to_owned(),
            one => one["variant"].as_str().map_or("code's default".to_owned(), |variant| format!("{variant} everywhere")),
        };
        let places: usize =
            flag["references"].as_object().into_iter().flatten().filter_map(|(_, it)| it["places"].as_array().map(Vec::len)).sum();
        let in_code = if debt_is_scanned(flag) { places.to_string() } else { "not scanned".to_owned() };
        let stage = format!("{}{}", text(&flag["stage"]).replace('_', " "), if flag["expired"] == true { ", expired" } else { "" });
        table_rows.push(vec![
            text(&flag["key"]),
            stage,
            if flag["no_owner"] == true { "nobody".to_owned() } else { text(&flag["owner"]) },
            flag["created_ms"]
                .as_u64()
                .filter(|at| *at > 0)
                .map_or("-".to_owned(), |at| format!("{} d", now_ms.saturating_sub(at) / DAY_MS)),
            last.map_or("never".to_owned(), |at| days(&at.into())),
            keeps,
            joined(&flag["dependents"], ", "),
            in_code,
        ]);
    }
    table(&table_rows);
    anstream::println!("{expired} expired, {ready} ready to remove");
    if ready > 0 {
        anstream::eprintln!("next: changeover flags scan DIR --key KEY says what to keep, and where");
    }
    Ok(Exit::Done)
}

fn debt_is_scanned(flag: &Value) -> bool {
    flag["scanned"].as_u64().is_some_and(|repositories| repositories > 0)
}

pub(super) fn report(place: &Place, key: &str, environment: Option<&str>, watch: bool, json: bool) -> anyhow::Result<Exit> {
    let of = environment.map(|it| format!("&environment={}", encoded(it))).unwrap_or_default();
    let client = Client::new(place)?;
    loop {
        let trial = client.get(&format!("/v1/flags/trial?key={}{of}", encoded(key)))?;
        if json {
            anstream::println!("{}", if watch { trial.to_string() } else { serde_json::to_string_pretty(&trial)? });
        } else {
            trial_lines(&trial).iter().for_each(|line| anstream::println!("{line}"));
        }
        let has_ended = !trial["state"]["ended"].is_null() || !trial["ended"].is_null();
        if has_ended && watch {
            // Whoever waits in a script learns how it ended.
            let is_back = trial["state"]["ended"]["outcome"].as_str().is_some_and(|outcome| outcome != "promoted");
            return Ok(if is_back { Exit::NotPromoted } else { Exit::Done });
        }
        if !watch {
            return Ok(Exit::Done);
        }
        std::thread::sleep(WATCH_EVERY);
    }
}

fn percent(parts: &Value) -> String {
    format!("{} %", parts.as_f64().unwrap_or_default() / 100.0)
}

fn trial_lines(trial: &Value) -> Vec<String> {
    let (key, environment) = (text(&trial["key"]), text(&trial["environment"]));
    if trial["kind"] == "rollout" {
        return rollout_lines(trial, &key, &environment);
    }
    let mut lines = vec![format!("{key} in {environment}   experiment, since {}", when(trial["begun_ms"].as_u64().unwrap_or_default()))];
    let report = &trial["report"];
    lines.push(format!("  {}", text(&report["ratio"]["sentence"])));
    for goal in report["goals"].as_array().into_iter().flatten() {
        lines.push(format!("  {}", text(&goal["goal"]["name"])));
        for variant in goal["variants"].as_array().into_iter().flatten() {
            let value = variant["value"].as_f64().map_or("-".to_owned(), |value| format!("{value:.4}"));
            let (low, high) = (variant["interval"]["low"].as_f64(), variant["interval"]["high"].as_f64());
            let interval = low.zip(high).map(|(low, high)| format!(" ({low:.4} to {high:.4})")).unwrap_or_default();
            lines.push(format!("    {:<16} {:>9} users  {value}{interval}", text(&variant["variant"]), variant["users"]));
        }
        for comparison in goal["comparisons"].as_array().into_iter().flatten() {
            lines.push(format!("    {}", text(&comparison["sentence"])));
        }
    }
    if let Some(waiting) = trial["waiting"].as_u64().filter(|waiting| *waiting > 0) {
        lines.push(format!("  {waiting} users have not had their time yet"));
    }
    if let Some(keep) = trial["ended"]["keep"].as_str() {
        lines.push(format!("  ended {}: everybody gets `{keep}`", when(trial["ended"]["at_ms"].as_u64().unwrap_or_default())));
    }
    lines
}

fn rollout_lines(trial: &Value, key: &str, environment: &str) -> Vec<String> {
    let steps: Vec<String> = trial["steps"].as_array().into_iter().flatten().map(percent).collect();
    let variant = text(&trial["variant"]);
    let mut lines = vec![format!(
        "{key} in {environment}   rollout of `{variant}`: {} of users   steps {}",
        percent(&trial["weight"]),
        steps.join(" → ")
    )];
    let look = &trial["look"];
    for (name, seen) in look["seen"].as_object().into_iter().flatten() {
        let number = |at: usize| seen[at].as_u64().unwrap_or_default();
        let share = |bad: u64, all: u64| if all == 0 { "-".to_owned() } else { format!("{:.2} %", 100.0 * bad as f64 / all as f64) };
        lines.push(format!(
            "  {name:<12} `{variant}` {} of {} users, `{}` {} of {}",
            share(number(1), number(0)),
            number(0),
            text(&trial["control"]),
            share(number(3), number(2)),
            number(2)
        ));
    }
    if let Some(sentence) = look["sentence"].as_str().filter(|sentence| !sentence.is_empty()) {
        lines.push(format!("  {}: {sentence}", text(&look["verdict"])));
    }
    if let Some(who) = trial["paused"]["who"].as_str() {
        lines.push(format!("  paused by {who}   go on: changeover flags resume {key}"));
    }
    if let Some(ended) = trial["state"].get("ended") {
        lines.push(format!("  {}: {}", text(&ended["outcome"]).replace('_', " "), text(&ended["reason"])));
    }
    lines
}
