//! `flags`: what was typed becomes a request; answers become lines.

mod code;
mod serve;
mod show;

use serde_json::{Map, Value, json};

use crate::args::Place;
use crate::args::flags::{Bucketing, Create, Describe, Eval, Experiment, Flags, Life, Require, Rollout, Said, Schedule, Switch, Target};
use crate::client::{Client, encoded};
use crate::exit::{Exit, problem};

pub(crate) fn run(place: &Place, flags: Flags) -> anyhow::Result<Exit> {
    let of = |key: &str| json!({ "key": key });
    match flags {
        Flags::Serve(wanted) => serve::run(place, &wanted),
        Flags::List { json } => show::list(place, json),
        Flags::Show { key, json } => show::flag(place, &key, json),
        Flags::Eval(eval) => evaluate(place, &eval),
        Flags::Create(create) => write(place, create_body(&create)?, None, create.message),
        Flags::Describe(describe) => {
            let body = describe_body(&describe)?;
            write(place, body, None, describe.message)
        }
        Flags::On(it) => write_said(place, json!({ "on": of(&it.key) }), it.said),
        Flags::Off(it) => write_said(place, json!({ "off": of(&it.key) }), it.said),
        Flags::Target(target) => {
            let body = target_body(&target)?;
            write_said(place, body, target.said)
        }
        Flags::Require(Require { key, flag, variants, unmet, said }) => {
            write_said(place, json!({ "require": { "key": key, "flag": flag, "variants": variants, "unmet": unmet } }), said)
        }
        Flags::Unrequire { key, flag, said } => write_said(place, json!({ "unrequire": { "key": key, "flag": flag } }), said),
        Flags::Rollout(rollout) => {
            let (body, key) = (rollout_body(&rollout)?, rollout.key.clone());
            let answer = post(place, &body, rollout.said.environment.as_deref(), rollout.said.message.as_deref())?;
            // Not what waits for a second person.
            if answer["change"].is_u64() {
                anstream::println!("follow it: changeover flags report {key} --watch   stop it: changeover flags off {key}");
            }
            Ok(Exit::Done)
        }
        Flags::Experiment(experiment) => {
            let body = experiment_body(&experiment)?;
            write_said(place, body, experiment.said)
        }
        Flags::Pause(it) => write_said(place, json!({ "pause": of(&it.key) }), it.said),
        Flags::Resume(it) => write_said(place, json!({ "resume": of(&it.key) }), it.said),
        Flags::End { key, keep, said } => write_said(place, json!({ "end": { "key": key, "keep": keep } }), said),
        Flags::Report { key, environment, watch, json } => show::report(place, &key, environment.as_deref(), watch, json),
        Flags::Schedule(wanted) => schedule(place, &wanted),
        Flags::Schedules { json } => show::schedules(place, json),
        Flags::Unschedule { schedule } => {
            Client::new(place)?.post("/v1/flags/unschedule", &json!({ "schedule": schedule }))?;
            anstream::println!("schedule {schedule} is forgotten");
            Ok(Exit::Done)
        }
        Flags::History { key, limit, json } => show::history(place, key.as_deref(), limit, json),
        Flags::Revert { change, force, message } => write(place, json!({ "revert": { "change": change, "force": force } }), None, message),
        Flags::Proposals { json } => show::proposals(place, json),
        Flags::Approve { proposal } => decide(place, proposal, true),
        Flags::Reject { proposal } => decide(place, proposal, false),
        Flags::Debt { json } => show::debt(place, json),
        Flags::Scan(scan) => code::scan(place, &scan),
        Flags::Check(check) => code::check(place, &check),
        Flags::Archive { key, force, message } => write(place, json!({ "archive": { "key": key, "force": force } }), None, message),
        Flags::Restore { key, message } => write(place, json!({ "restore": of(&key) }), None, message),
        Flags::Bucketing { to, rebucket, said } => {
            let to = if to == Bucketing::V2 { "v2" } else { "v3" };
            write_said(place, json!({ "bucketing": { "to": to, "rebucket": rebucket } }), said)
        }
        Flags::Export { environment } => {
            let query = environment.map(|it| format!("?environment={}", encoded(&it))).unwrap_or_default();
            let document = Client::new(place)?.get(&format!("/v1/flags/document{query}"))?;
            anstream::println!("{}", serde_json::to_string_pretty(&document)?);
            Ok(Exit::Done)
        }
    }
}

/// For `status`: what of flags needs somebody. Nothing where no flags are served.
pub(crate) fn summary(client: &Client) {
    let Ok(list) = client.get("/v1/flags") else { return };
    let flags: Vec<&Value> = list["flags"].as_array().into_iter().flatten().collect();
    let count = |is: &dyn Fn(&Value) -> bool| flags.iter().filter(|flag| is(flag)).count();
    let rolls = |flag: &Value| flag["environments"].as_object().is_some_and(|all| all.values().any(|it| !it["shares"].is_null()));
    let parts = [
        (count(&rolls), "in a rollout or an experiment", "list"),
        (count(&|flag| flag["expired"] == true), "expired", "debt"),
        (count(&|flag| flag["stage"] == "ready_to_remove"), "ready to remove", "debt"),
    ];
    let told: Vec<String> = parts.iter().filter(|(count, ..)| *count > 0).map(|(count, what, _)| format!("{count} {what}")).collect();
    if let Some((_, _, verb)) = parts.iter().find(|(count, ..)| *count > 0) {
        anstream::println!("flags: {} of {}   see: changeover flags {verb}", told.join(", "), flags.len());
    }
    for environment in list["environments"].as_array().into_iter().flatten().filter(|it| !it["problem"].is_null()) {
        anstream::println!(
            "flags of {}: what was good before is served: {}",
            text(&environment["environment"]),
            text(&environment["problem"])
        );
    }
}

fn write_said(place: &Place, action: Value, said: Said) -> anyhow::Result<Exit> {
    write(place, action, said.environment, said.message)
}

fn write(place: &Place, action: Value, environment: Option<String>, why: Option<String>) -> anyhow::Result<Exit> {
    post(place, &action, environment.as_deref(), why.as_deref()).map(|_| Exit::Done)
}

/// Says what was answered, and returns it.
fn post(place: &Place, action: &Value, environment: Option<&str>, why: Option<&str>) -> anyhow::Result<Value> {
    let answer = Client::new(place)?.post("/v1/flags", &json!({ "action": action, "environment": environment, "why": why }))?;
    tell(&answer);
    Ok(answer)
}

fn tell(answer: &Value) {
    let text = |name: &str| answer[name].as_str().unwrap_or_default();
    match answer["change"].as_u64().filter(|_| answer["can_revert"] == true) {
        Some(change) => anstream::println!("{}   undo: changeover flags revert {change}", text("said")),
        None => anstream::println!("{}", text("said")),
    }
    for warning in answer["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        anstream::eprintln!("warning: {warning}");
    }
    if let Some(waits) = answer["waits"].as_str() {
        anstream::println!("{waits}");
    }
    for moved in answer["moves"].as_array().into_iter().flatten() {
        let share = moved["moves"].as_f64().unwrap_or_default() * 100.0;
        anstream::println!("  {}: {share:.1} % of users get another variant", moved["flag"].as_str().unwrap_or_default());
    }
}

fn decide(place: &Place, proposal: u64, agree: bool) -> anyhow::Result<Exit> {
    let answer = Client::new(place)?.post("/v1/flags/proposals", &json!({ "proposal": proposal, "agree": agree }))?;
    tell(&answer);
    Ok(Exit::Done)
}

fn usage(message: String, hint: &str) -> anyhow::Error {
    problem(Exit::Usage, message, Some(hint.to_owned()))
}

/// `NAME=VALUE`; the value as JSON, or as text where it is none.
fn pair(text: &str, option: &str) -> anyhow::Result<(String, Value)> {
    let (name, value) = text
        .split_once('=')
        .filter(|(name, _)| !name.is_empty())
        .ok_or_else(|| usage(format!("`{option} {text}` is no NAME=VALUE"), &format!("such as {option} blue=true")))?;
    Ok((name.to_owned(), serde_json::from_str(value).unwrap_or_else(|_| value.into())))
}

fn pairs(texts: &[String], option: &str) -> anyhow::Result<Map<String, Value>> {
    texts.iter().map(|text| pair(text, option)).collect()
}

/// Milliseconds; a day has 24 hours.
fn duration_ms(text: &str, option: &str) -> anyhow::Result<u64> {
    let wrong = || usage(format!("`{option} {text}` is no duration"), &format!("such as {option} 10m, {option} 2h or {option} 30d"));
    let span: jiff::Span = text.parse().map_err(|_| wrong())?;
    let ms = span.total((jiff::Unit::Millisecond, jiff::SpanRelativeTo::days_are_24_hours())).map_err(|_| wrong())?;
    if ms >= 1.0 { Ok(ms as u64) } else { Err(wrong()) }
}

fn now_ms() -> u64 {
    jiff::Timestamp::now().as_millisecond().unsigned_abs()
}

fn life_body(life: &Life) -> anyhow::Result<Option<Value>> {
    Ok(if life.kill_switch {
        Some(json!("kill_switch"))
    } else if let Some(reason) = &life.permanent {
        Some(json!({ "permanent": { "reason": reason } }))
    } else if let Some(expires) = &life.expires {
        Some(json!({ "temporary": { "expires_ms": now_ms() + duration_ms(expires, "--expires")? } }))
    } else {
        None
    })
}

fn create_body(create: &Create) -> anyhow::Result<Value> {
    let variants = (!create.variants.is_empty()).then(|| pairs(&create.variants, "--variant")).transpose()?;
    let life = life_body(&create.life)?.unwrap_or_else(|| json!({ "temporary": { "expires_ms": null } }));
    Ok(json!({ "create": {
        "key": create.key, "variants": variants, "on": create.on, "off": create.off, "owner": create.owner,
        "description": create.description, "life": life,
    } }))
}

fn describe_body(describe: &Describe) -> anyhow::Result<Value> {
    let Describe { key, owner, description, life, .. } = describe;
    let life = life_body(life)?;
    if owner.is_none() && description.is_none() && life.is_none() {
        return Err(usage("nothing to change".to_owned(), "say --owner, --description, --expires, --permanent or --kill-switch"));
    }
    Ok(json!({ "describe": { "key": key, "owner": owner, "description": description, "life": life } }))
}

fn target_body(target: &Target) -> anyhow::Result<Value> {
    if target.rule.is_none() && !target.no_rule && target.serve.is_none() {
        return Err(usage("nothing to change".to_owned(), "say --rule, --no-rule or --serve"));
    }
    let rule = match &target.rule {
        Some(rule) => Some(read_rule(rule)?),
        None => target.no_rule.then(|| json!({})),
    };
    Ok(json!({ "target": { "key": target.key, "targeting": rule, "serve": target.serve } }))
}

fn read_rule(rule: &str) -> anyhow::Result<Value> {
    let is_text = rule.trim_start().starts_with(['{', '"', '[']) || rule.trim() == "null";
    let (text, name) = if is_text {
        (rule.to_owned(), "--rule".to_owned())
    } else {
        let text = std::fs::read_to_string(rule)
            .map_err(|error| usage(format!("cannot read {rule}: {error}"), "give a file, or the JSON itself"))?;
        (text, rule.to_owned())
    };
    serde_json::from_str(&text).map_err(|error| {
        let place = format!("{name}:{}:{}", error.line(), error.column());
        let line = text.lines().nth(error.line().saturating_sub(1)).unwrap_or_default();
        usage(format!("{place}: no JSON: {error}\n  | {line}"), r#"such as {"if": [{"==": [{"var": "plan"}, "pro"]}, "on", null]}"#)
    })
}

/// Parts per 10,000 of a share in percent.
fn weight(text: &str, option: &str) -> anyhow::Result<u32> {
    let number = text.trim().trim_end_matches('%');
    let parts = number.parse::<f64>().ok().map(|percent| percent * 100.0).filter(|parts| (0.0..=10_000.0).contains(parts));
    let whole = parts.filter(|parts| (parts - parts.round()).abs() < 1e-6);
    whole
        .map(|parts| parts.round() as u32)
        .ok_or_else(|| usage(format!("`{text}` of {option} is no share"), "a share is 0 to 100 percent, with two decimals at most"))
}

fn rollout_body(rollout: &Rollout) -> anyhow::Result<Value> {
    let steps = rollout.steps.iter().map(|step| weight(step, "--steps")).collect::<anyhow::Result<Vec<u32>>>()?;
    let mut criteria = rollout.outcomes.clone();
    if rollout.requests {
        criteria.push("requests".to_owned());
    }
    Ok(json!({ "rollout": {
        "key": rollout.key, "variant": rollout.variant, "steps": steps,
        "every_ms": duration_ms(&rollout.every, "--every")?, "criteria": criteria,
    } }))
}

fn experiment_body(experiment: &Experiment) -> anyhow::Result<Value> {
    let share = |text: &String| {
        let (name, percent) = text
            .split_once('=')
            .ok_or_else(|| usage(format!("`{text}` of --shares is no VARIANT=PERCENT"), "such as --shares blue=50,green=50"))?;
        Ok((name.to_owned(), weight(percent, "--shares")?))
    };
    let shares = experiment.shares.iter().map(share).collect::<anyhow::Result<Vec<_>>>()?;
    let goals = experiment.goals.iter().map(|text| goal(text)).collect::<anyhow::Result<Vec<_>>>()?;
    Ok(json!({ "experiment": {
        "key": experiment.key, "shares": shares, "control": experiment.control, "goals": goals,
        "window_ms": duration_ms(&experiment.window, "--window")?,
    } }))
}

fn goal(text: &str) -> anyhow::Result<Value> {
    let mut words = text.split(':');
    let name = words.next().unwrap_or_default();
    let (mut kind, mut better) = (json!("conversion"), "higher");
    for word in words {
        match word {
            "conversion" => kind = json!("conversion"),
            "mean" => kind = json!({ "mean": { "cap": null } }),
            "lower" => better = "lower",
            "higher" => better = "higher",
            _ => return Err(usage(format!("`{word}` of --goal {text} is unknown"), "NAME, NAME:mean, and `:lower` when less is better")),
        }
    }
    Ok(json!({ "name": name, "kind": kind, "better": better }))
}

fn schedule(place: &Place, wanted: &Schedule) -> anyhow::Result<Exit> {
    let at_ms = match (&wanted.at, &wanted.after) {
        (Some(at), _) => at
            .parse::<jiff::Timestamp>()
            .map(|at| at.as_millisecond().unsigned_abs())
            .map_err(|_| usage(format!("`--at {at}` is no time"), "such as --at 2026-12-01T09:00Z; or --in 2h"))?,
        (None, Some(after)) => now_ms() + duration_ms(after, "--in")?,
        (None, None) => return Err(usage("when?".to_owned(), "such as --at 2026-12-01T09:00Z, or --in 2h")),
    };
    let on = wanted.switch == Switch::On;
    let body = json!({ "key": wanted.key, "environment": wanted.said.environment, "on": on, "at_ms": at_ms, "why": wanted.said.message });
    let answer = Client::new(place)?.post("/v1/flags/schedules", &body)?;
    let number = &answer["schedule"];
    let what = if on { "on" } else { "off" };
    let when = super::history::when(at_ms);
    anstream::println!("{} goes {what} at {when}   forget it: changeover flags unschedule {number}", wanted.key);
    Ok(Exit::Done)
}

fn evaluate(place: &Place, eval: &Eval) -> anyhow::Result<Exit> {
    let mut context = pairs(&eval.values, "--with")?;
    if let Some(user) = &eval.user {
        context.insert("targetingKey".to_owned(), user.as_str().into());
    }
    let body = json!({ "key": eval.key, "environment": eval.environment, "context": context });
    let answer = Client::new(place)?.post("/v1/flags/evaluate", &body)?;
    if eval.json {
        anstream::println!("{}", serde_json::to_string_pretty(&answer)?);
        return Ok(Exit::Done);
    }
    match answer["variant"].as_str() {
        Some(variant) => anstream::println!("{} = {} ({variant}, {})", eval.key, answer["value"], text(&answer["reason"])),
        None => anstream::println!("{}: the code's default ({})", eval.key, text(&answer["reason"])),
    }
    Ok(Exit::Done)
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| "-".to_owned(), str::to_owned)
}
