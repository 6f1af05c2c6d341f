//! What the page says about releases of every kind, without an engine.

use serde_json::{Value, json};

use super::release::{Around, View};
use super::seen::Status;
use super::{Frame, Reader, words};
use crate::observer::{Mark, Point, Trend};

fn reader(may_act: bool) -> Reader {
    Reader { name: "ana".to_owned(), scope: if may_act { "act" } else { "read" }.to_owned(), form_token: "f0".to_owned(), may_act }
}

fn canary(change: impl FnOnce(&mut Value)) -> Value {
    let mut service: Value = serde_json::from_str(include_str!("canary.json")).expect("JSON");
    change(&mut service);
    json!({ "services": [service] })
}

fn trend() -> Trend {
    let wave = |index: u64, base: f64| base * (1.0 + 0.08 * ((index as f64) / 5.0).sin());
    let points = |from: u64, rate: f64, errors: f64, ms: f64| {
        (from..180).map(move |index| Point {
            at_s: 1_764_039_000 + index,
            rate: Some(wave(index, rate)),
            errors: Some(wave(index + 3, errors)),
            p50_ms: Some(wave(index + 7, ms / 3.0)),
            p99_ms: Some(wave(index + 1, ms)),
        })
    };
    let mut trend = Trend::default();
    trend.points.insert("2.14.0".to_owned(), points(0, 1522.0, 0.0042, 121.0).collect());
    trend.points.insert("2.15.0".to_owned(), points(49, 80.0, 0.0051, 124.0).collect());
    trend.marks.push_back(Mark { at_s: 1_764_039_049, text: "1 %".to_owned(), bad: false });
    trend.marks.push_back(Mark { at_s: 1_764_039_111, text: "5 %".to_owned(), bad: false });
    trend
}

fn page(status: &Value, may_act: bool) -> String {
    let status = Status::read(status);
    let service = &status.services[0];
    let reader = reader(may_act);
    let around = Around { reader: &reader, note: None, events: &[], trend: Some(trend()), now_ms: 1_764_039_180_000 };
    let view = View::of(service, service.release.as_ref(), true, around);
    let frame = Frame {
        title: view.title,
        place: "services",
        live: None,
        reader: Some(reader),
        has_bar: view.has_bar,
        has_flags: false,
        at: String::new(),
    };
    let html = super::part(&super::release::ServicePage {
        frame,
        name: service.service.clone(),
        crumb: None,
        parts: view.parts,
        zone: words::time_zone(),
    });
    html.replace('\u{a0}', " ")
}

fn check(html: &str, wanted: &[&str], unwanted: &[&str]) {
    for text in wanted {
        assert!(html.contains(text), "{text} is not in\n{html}");
    }
    for text in unwanted {
        assert!(!html.contains(text), "{text} is in\n{html}");
    }
    // What the policy forbids: style attributes, scripts in the page, anything from elsewhere.
    for text in [" style=", "<style", "<script>", "onclick=", "http://", "https://"] {
        assert!(!html.contains(text), "{text} is in\n{html}");
    }
}

#[test]
fn a_canary_that_is_not_settled() {
    let html = page(&canary(|_| ()), true);
    check(
        &html,
        &[
            "<title>5 % · not worse so far · checkout</title>",
            "Not worse so far. Held at 5 % until errors are settled.",
            "20 % in about 40 s, if it stays as it is.",
            "width=\"13.0%\"",
            "now, 1:09",
            "At least 1:00 in this step (passed), at most 30:00.",
            "2 of 3 metrics can advance; all must",
            "At most 2.0× stable so far; about 3,200 more requests settle it.",
            "Abort checkout 2.15.0?",
            "About 80 requests per second move to 2.14.0.",
            "Promote checkout 2.15.0 to 20 % now?",
            "name=\"expect\" value=\"148/stepping/1\"",
            "this skips evidence",
            "The split matches the weight.",
            "104,876",
        ],
        &["NaN", "-0.2"],
    );
}

#[test]
fn a_canary_that_somebody_paused() {
    let html = page(&canary(|it| it["release"]["paused"] = json!({ "who": "ana", "why": "looking at <b>" })), true);
    check(
        &html,
        &["Paused by ana: “looking at &lt;b&gt;”. A regression is still rolled back.", "Nothing advances. It stays at 5 %."],
        &["<b>”"],
    );
}

#[test]
fn a_canary_that_was_rolled_back() {
    let html = page(
        &canary(|it| {
            it["release"]["state"] = json!("ended");
            it["release"]["ending"] =
                json!({ "outcome": "rolled_back", "reason": "errors at least 1.8× stable: 9 of 1,400 requests, against 20 of 27,622" });
            it["release"]["analysis"]["verdict"] = json!("regressed");
            it["release"]["analysis"]["metrics"][0]["state"] = json!("worse");
            it["release"]["analysis"]["metrics"][0]["worse"] = json!(1.0);
            it["release"]["analysis"]["metrics"][0]["better"] = json!(-4.0);
        }),
        true,
    );
    check(
        &html,
        &[
            "Rolled back: errors at least 1.8× stable: 9 of 1,400 requests, against 20 of 27,622.",
            "<code>2.14.0</code>, healthy, 2 of 2 targets, all clients.",
            "The evidence when it ended",
            "x=\"0.0%\" y=\"4\" width=\"50.0%\"",
            "Retry checkout 2.15.0?",
            "this version was rejected",
            "not reached",
        ],
        &["confirm-abort"],
    );
}

#[test]
fn a_canary_without_any_analysis() {
    let bare = canary(|it| {
        for field in ["analysis", "versions", "steps", "step", "weight", "step_age_ms"] {
            it["release"][field] = Value::Null;
        }
    });
    check(&page(&bare, true), &["Nothing is compared.", "Abort checkout 2.15.0?"], &["Is it worse?"]);
}

#[test]
fn whoever_may_only_look_is_told_so() {
    let html = page(&canary(|_| ()), false);
    check(
        &html,
        &["You may look, not act: this token has the scope read.", "aria-disabled=\"true\" title=\"this token has the scope read\""],
        &["<dialog"],
    );
}
