//! What a question costs through the Rust SDK, in-process, beside the same question to the set alone. 1,000 flags; one core.

use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use changeover_flags::{Context, Flags, Options};
use flags::{Bucketing, Set};
use serde_json::{Value, json};

const FLAGS: usize = 1_000;
const CALLS: u32 = 100_000;
/// The median and the least of so many rounds are told: on a shared machine the mean is somebody else's.
const ROUNDS: usize = 41;

fn main() -> anyhow::Result<()> {
    let text = set().to_string();
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("flags.json");
    std::fs::write(&path, &text)?;
    // No server: what is measured does not need one.
    let options = Options::new("http://127.0.0.1:1").bootstrap(&path).init_deadline(Duration::from_secs(5));
    let sdk = Flags::connect(options)?;
    let core = Set::from_json(&text, Bucketing::V2).ok().context("the set of this benchmark is good")?;
    let user = Context::of("user-1").with("country", "AT").with("version", "1.4.2").with("email", "jon@example.com");

    for key in ["static", "fractional", "rule", "tried"] {
        assert!(sdk.details(key, false, &user).error.is_none(), "{key}: {:?}", sdk.status());
        let through_sdk = nanoseconds(|| sdk.is_enabled(black_box(key), black_box(&user)));
        let alone = nanoseconds(|| core.evaluate(black_box(key), black_box(&user), 0).is_ok_and(|it| it.value.is_some()));
        println!("{key}: {through_sdk} through the SDK, {alone} in the set alone");
    }
    Ok(())
}

fn nanoseconds(mut call: impl FnMut() -> bool) -> String {
    let mut rounds: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let began = Instant::now();
            (0..CALLS).for_each(|_| _ = black_box(call()));
            began.elapsed()
        })
        .collect();
    rounds.sort_unstable();
    let each = |round: Duration| round.as_secs_f64() * 1e9 / f64::from(CALLS);
    format!("{:.0} ns (least {:.0})", each(rounds[ROUNDS / 2]), each(rounds[0]))
}

/// `tried` is in an experiment: its exposures are reported, once per user.
fn set() -> Value {
    let flag = |targeting: Value, metadata: Value| {
        json!({
            "state": "ENABLED", "variants": {"on": true, "off": false}, "defaultVariant": "on",
            "targeting": targeting, "metadata": metadata,
        })
    };
    let share = json!({"fractional": [["on", 10], ["off", 90]]});
    let rule = json!({"if": [{"and": [
        {"==": [{"var": "country"}, "AT"]},
        {"ends_with": [{"var": "email"}, "@example.com"]},
        {"in": [{"var": "country"}, ["AT", "DE", "CH"]]},
    ]}, "on", "off"]});
    let mut flags: serde_json::Map<String, Value> =
        (0..FLAGS - 4).map(|number| (format!("flag-{number}"), flag(json!({}), json!({})))).collect();
    flags.insert("static".to_owned(), flag(json!({}), json!({})));
    flags.insert("fractional".to_owned(), flag(share.clone(), json!({})));
    flags.insert("rule".to_owned(), flag(rule, json!({})));
    flags.insert("tried".to_owned(), flag(share, json!({"exposures": true})));
    json!({"flags": flags})
}
