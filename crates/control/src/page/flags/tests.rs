//! What the page says of flags of every kind, without a caretaker.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::one::Asked;
use super::record::Confirms;
use super::seen::{History, read};
use super::{Filter, View, debt, list, one, typed};
use crate::page::Reader;

const NOW_MS: u64 = 1_764_039_180_000;
const DAY_MS: u64 = 24 * 3_600 * 1_000;
const HOSTILE: &str = "<script>alert(1)</script>\"'&`";

fn reader(may_act: bool) -> Reader {
    let scope = if may_act { "act" } else { "read" }.to_owned();
    Reader { name: "ana".to_owned(), scope, form_token: "f0".to_owned(), may_act }
}

fn html(view: &View) -> String {
    let parts: Vec<&str> = view.parts.iter().map(|(_, html)| html.as_str()).collect();
    parts.join("\n").replace('\u{a0}', " ")
}

fn check(html: &str, wanted: &[&str], unwanted: &[&str]) {
    for text in wanted {
        assert!(html.contains(text), "{text} is not in\n{html}");
    }
    for text in unwanted.iter().chain(&[" style=", "<style", "<script", "onclick=", "http://", "https://", "NaN", "inf%"]) {
        assert!(!html.contains(text), "{text} is in\n{html}");
    }
}

fn flag(environment: Value) -> Value {
    json!({
        "key": "new-checkout", "owner": "ana", "description": "the new way to pay", "stage": "active",
        "life": { "temporary": { "expires_ms": NOW_MS + 3 * DAY_MS } }, "created_ms": NOW_MS - DAY_MS, "expired": false,
        "environments": { "production": environment },
        "definitions": { "production": { "state": "ENABLED", "variants": { "on": true, "off": false } } },
    })
}

fn on() -> Value {
    json!({
        "on": true, "answers": { "everybody": "on" }, "shares": null, "trial": null, "changed_ms": NOW_MS - 60_000,
        "requires": [{ "flag": "new-cart", "variants": ["on", "beta"] }], "evaluations": { "on": 3, "off": 1 }, "last_evaluated_ms": NOW_MS,
    })
}

fn parsed<T: DeserializeOwned + Default>(value: Value) -> T {
    read(value)
}

fn one(flag: Value, trial: Option<Value>, may_act: bool) -> String {
    let history: History = parsed(json!({ "changes": [
        { "number": 9, "at_ms": NOW_MS, "who": "bob", "why": "trying", "environment": "production", "said": "new-checkout is on", "before": {}, "agreed": "eve" },
        { "number": 7, "at_ms": NOW_MS, "who": "ana", "environment": "production", "said": "new-checkout is off", "before": {} },
        { "number": 4, "at_ms": NOW_MS, "who": "ana", "said": "new-checkout is there", "before": null },
    ] }));
    let trials: BTreeMap<_, _> = trial.into_iter().map(|trial| ("production".to_owned(), parsed(trial))).collect();
    let asked = Asked { flag: parsed(flag), changes: history.changes, trials, now_ms: NOW_MS };
    let reader = reader(may_act);
    html(&one::assembled(&asked, String::new(), &reader, Confirms::of(&reader)))
}

#[test]
fn a_flag_with_everything_that_is_known_of_it() {
    let html = one(flag(on()), None, true);
    check(
        &html,
        &[
            "the new way to pay",
            "(3 days left)",
            "new-cart = on or beta",
            "75.0 %",
            "Switch off new-checkout in production?",
            "changeover flags off new-checkout --environment production",
            "bob, agreed by eve",
            "Revert change 9 of new-checkout?",
            // An older one says what is lost.
            "What was changed since: 9.",
            "changeover flags revert 7 --force",
            "name=\"expect\" value=\"9\"",
            "&#34;variants&#34;",
        ],
        &["Revert change 4"],
    );
    // Switching off is refused for nothing that happened meanwhile; a revert is.
    let off = html.split("id=\"confirm-off-0\"").nth(1).and_then(|it| it.split("</dialog>").next()).expect("its dialog");
    assert!(!off.contains("name=\"expect\""), "{off}");
}

#[test]
fn whoever_may_only_look_gets_no_form() {
    let trial = rollout(|_| ());
    let html = one(flag(running(&trial)), Some(trial), false);
    check(&html, &["You may look, not act: this token has the scope read.", "Rollout of on"], &["<dialog", "<form", "class=\"btn"]);
}

#[test]
fn what_people_wrote_stays_text() {
    let mut hostile = flag(on());
    for field in ["key", "owner", "description"] {
        hostile[field] = json!(HOSTILE);
    }
    hostile["definitions"]["production"]["variants"] = json!({ HOSTILE: HOSTILE });
    hostile["environments"] = json!({ HOSTILE: { "on": true, "answers": { "everybody": HOSTILE }, "evaluations": { HOSTILE: 1 },
        "requires": [{ "flag": HOSTILE, "variants": [HOSTILE] }] } });
    hostile["stage"] = json!(HOSTILE);
    hostile["references"] = json!({ HOSTILE: { "commit": HOSTILE, "places": [{ "file": HOSTILE, "line": 1, "kind": HOSTILE }] } });
    hostile["keeps"] = json!({ "variant": HOSTILE, "value": HOSTILE });
    check(&one(hostile.clone(), None, true), &["&#60;script&#62;"], &[]);
    let listed = json!({ "flags": [hostile], "environments": [{ "environment": HOSTILE, "problem": HOSTILE }] });
    check(
        &html(&list::assembled(&parsed(listed.clone()), &Filter::default(), String::new(), &Confirms::of(&reader(true)))),
        &["/flags/flag?key=%3Cscript"],
        &[],
    );
    check(&html(&debt::assembled(&parsed(listed))), &["&#60;script&#62;"], &[]);
    assert_eq!(typed("it's"), r"'it'\''s'");
    assert_eq!(typed("--force"), "'--force'");
}

fn rollout(change: impl FnOnce(&mut Value)) -> Value {
    let mut trial = json!({
        "kind": "rollout", "number": 9, "begun_ms": NOW_MS - 60_000, "variant": "on", "control": "off", "weight": 1_000,
        "steps": [1_000, 5_000, 10_000], "step": 0, "criteria": ["requests"], "every_s": 600, "state": { "judging": { "step": 0, "since_s": 1 } },
        "paused": null,
        "look": { "verdict": "not yet", "sentence": "not decided: 3 of 120 users of `on` against 20 of 1,080 of `off`",
            "evidence_worse": -0.4, "evidence_better": 0.5, "seen": { "requests": [120, 3, 1_080, 20] }, "at_s": 1 },
    });
    change(&mut trial);
    trial
}

fn running(trial: &Value) -> Value {
    let mut it = on();
    it["answers"] = json!({ "by_rule": true });
    it["shares"] = json!([["on", 1_000], ["off", 9_000]]);
    it["trial"] = trial.clone();
    it
}

#[test]
fn a_rollout_as_it_goes_and_as_it_ended() {
    let shown = |trial: Value| one(flag(running(&trial)), Some(trial), true);
    check(
        &shown(rollout(|_| ())),
        &[
            "on 10 %, off 90 %",
            "now, at least 10 min",
            "not yet</span> <span data-announce>Not decided: 3 of 120 users of <code>on</code>",
            "50 % of the evidence to advance",
            "2.50 % (3 of 120 users)",
            "width=\"25.0%\"",
            "id=\"confirm-pause-0\"",
            "name=\"keep\" value=\"on\"",
            "changeover flags end new-checkout --keep on --environment production",
            "What runs is ended",
        ],
        &["confirm-resume"],
    );
    let paused = rollout(|it| it["paused"] = json!({ "who": "bob", "why": null, "since_s": 1 }));
    check(&shown(paused), &["paused by bob", "id=\"confirm-resume-0\""], &["confirm-pause"]);
    let back = rollout(|it| it["state"] = json!({ "ended": { "outcome": "rolled_back", "reason": "`requests` is worse: 9 of 100" } }));
    check(&shown(back), &["rolled back", "<code>requests</code> is worse: 9 of 100"], &["confirm-pause", "confirm-end", "class=\"track\""]);
    let bare = rollout(|it| it["look"] = Value::Null);
    check(&shown(bare), &["Nothing was seen yet."], &["evbar"]);
}

#[test]
fn an_experiment_shows_its_intervals_and_its_sentences() {
    let variant = |name: &str, value: f64| json!({ "variant": name, "exposed": 1_200, "users": 1_000, "value": value, "interval": { "low": value - 0.02, "high": value + 0.02 } });
    let trial = json!({
        "kind": "experiment", "number": 9, "begun_ms": NOW_MS, "shares": [["blue", 5_000], ["grey", 5_000]], "control": "grey", "window_ms": 3_600_000,
        "ended": null, "waiting": 1, "is_full": false,
        "report": { "level": 0.05, "excluded": 2, "ratio": { "is_mismatched": true, "sentence": "Users are not split as the shares say." },
            "goals": [{ "goal": { "name": "signup", "kind": "conversion", "better": "higher" }, "note": "Shares of users.",
                "variants": [variant("blue", 0.12), variant("grey", 0.10)],
                "comparisons": [{ "variant": "blue", "verdict": "winner", "sentence": "blue is better by 1.2 to 3.4 points" }] }] },
    });
    let html = one(flag(running(&trial)), Some(trial), true);
    check(
        &html,
        &[
            "class=\"note bad\">Users are not split",
            "12.00 %",
            "10.00 % to 14.00 %",
            "class=\"range\" x=\"2.0%\"",
            "blue is better by 1.2 to 3.4 points",
            "End, keep blue",
            "2 users who saw two variants left out.",
            "1 user has not had that time yet",
        ],
        &[],
    );
}

#[test]
fn of_many_flags_some_are_shown_and_the_others_are_searched() {
    let numbered =
        |number: usize| json!({ "key": format!("flag-{number:03}"), "owner": if number == 7 { "Bob" } else { "ana" }, "stage": "new" });
    let all = parsed(json!({ "flags": (0..300).map(numbered).collect::<Vec<_>>(), "environments": [] }));
    let shown = |q: &str, stage: &str| {
        let filter = Filter { q: q.to_owned(), stage: stage.to_owned() };
        html(&list::assembled(&all, &filter, String::new(), &Confirms::of(&reader(true))))
    };
    check(&shown("", ""), &["300 flags", "flag-199", "100 more are not shown", "type=\"search\""], &["flag-200"]);
    check(&shown("bob", "new"), &["flag-007", "value=\"bob\""], &["flag-006", "more are not shown"]);
    check(&shown("bob", "archived"), &["No flag is like that."], &["flag-007"]);
    check(&shown("\"><script>", ""), &["No flag is like that."], &[]);
}

#[test]
fn a_refused_file_is_told_first_and_debt_comes_with_its_evidence() {
    let problem = "/etc/flags.json:3:9: flag `a`: no variant `x`\nhint: one of: on, off";
    let mut ready = flag(on());
    ready["stage"] = json!("ready_to_remove");
    ready["expired"] = json!(true);
    ready["keeps"] = json!({ "variant": "on", "value": true });
    ready["references"] =
        json!({ "shop": { "commit": "0123456789abcdef", "places": [{ "file": "src/pay.rs", "line": 7, "kind": "call" }] } });
    ready["scanned"] = json!(1);
    let all = json!({ "flags": [ready], "environments": [
        { "environment": "production", "problem": problem, "second_person": true }, { "environment": "staging" }], "now_ms": NOW_MS });
    let listed = list::assembled(&parsed(all.clone()), &Filter::default(), String::new(), &Confirms::of(&reader(true)));
    assert!(listed.title.starts_with("A file is refused"), "{}", listed.title);
    check(
        &html(&listed),
        &[
            "<b>production</b>: the newest file is refused; what was good before is served.",
            "<li>/etc/flags.json:3:9: flag <code>a</code>: no variant <code>x</code></li>",
            "<li>hint: one of: on, off</li>",
            "asks a second person",
            "1 expired",
        ],
        &[],
    );
    check(
        &html(&debt::assembled(&parsed(all))),
        &["1 expired, 1 ready to remove", "keep <code>true</code>", "shop at 0123456789ab", "<code>src/pay.rs:7 call</code>", "1 place"],
        &[],
    );
}
