//! What the server hears of evaluations that happen in-process.

use std::time::Duration;

use changeover_flags::{Context, Flags, Options, ReportError};
use serde_json::json;
use testbed::wait::until;

use crate::house::{House, PATIENCE};

fn in_an_experiment() -> String {
    let flag = |metadata| json!({"state": "ENABLED", "variants": {"on": true, "off": false}, "defaultVariant": "on", "metadata": metadata});
    json!({"flags": {"tried": flag(json!({"exposures": true})), "settled": flag(json!({}))}}).to_string()
}

#[tokio::test]
async fn exposures_and_outcomes_arrive() {
    let house = House::with(&in_an_experiment());
    let flags = Flags::connect_async(house.options()).await.expect("good options");
    let (ann, bob) = (Context::of("ann").with("requestId", "r-1"), Context::of("bob"));
    for _ in 0..100 {
        assert!(flags.is_enabled("tried", &ann) && flags.is_enabled("tried", &bob) && flags.is_enabled("settled", &bob));
    }
    assert!(flags.is_enabled("tried", &Context::new()), "nobody in particular is not counted");
    flags.track("checkout", &ann, Some(12.5));
    flags.succeeded("payment", &ann);
    flags.failed("payment", &bob);
    flags.flush().await.expect("taken");

    let heard = house.ears.exposures.lock().expect("no panic").clone();
    let mut told: Vec<_> =
        heard.iter().map(|it| (it.flag.as_str(), it.variant.as_str(), it.targeting_key.as_str(), it.request_id.as_deref())).collect();
    told.sort();
    assert_eq!(told, [("tried", "on", "ann", Some("r-1")), ("tried", "on", "bob", None)]);
    assert!(heard.iter().all(|it| it.at_ms.is_some()));
    let outcomes = house.ears.outcomes.lock().expect("no panic").clone();
    let told: Vec<_> = outcomes.iter().map(|it| (it.metric.as_str(), it.targeting_key.as_deref(), it.value, it.failed)).collect();
    assert_eq!(
        told,
        [
            ("checkout", Some("ann"), Some(12.5), None),
            ("payment", Some("ann"), None, Some(false)),
            ("payment", Some("bob"), None, Some(true)),
        ]
    );
    assert_eq!((flags.reported().sent, flags.reported().dropped, flags.reported().waiting), (5, 0, 0));
}

#[test]
fn without_being_told_to_it_reports_within_a_second_or_so() {
    let house = House::with(&in_an_experiment());
    let flags = house.flags();
    flags.is_enabled("tried", "ann");
    until(PATIENCE, "the exposure", || house.ears.exposures.lock().expect("no panic").len() == 1);
}

#[test]
fn letting_go_of_the_flags_sends_what_is_left() {
    let house = House::with(&in_an_experiment());
    let flags = house.flags();
    flags.track("checkout", "ann", None);
    drop(flags);
    until(PATIENCE, "the outcome", || house.ears.outcomes.lock().expect("no panic").iter().any(|it| it.value == Some(1.0)));
}

#[tokio::test]
async fn reports_wait_while_the_server_is_down() {
    let mut house = House::with(&in_an_experiment());
    let flags = Flags::connect_async(house.options()).await.expect("good options");
    house.kill();
    flags.is_enabled("tried", "ann");
    let down = flags.flush().await;
    assert!(matches!(down, Err(ReportError::Unreachable { .. })), "{down:?}");
    let reported = flags.reported();
    assert_eq!((reported.waiting, reported.dropped, reported.error), (1, 0, down.err()));
    house.open();
    flags.flush().await.expect("taken");
    assert_eq!(house.ears.exposures.lock().expect("no panic").len(), 1);
}

#[tokio::test]
async fn nothing_is_reported_when_nothing_shall_be() {
    let house = House::with(&in_an_experiment());
    let flags = Flags::connect_async(house.options().no_reports()).await.expect("good options");
    assert!(flags.is_enabled("tried", "ann"));
    flags.track("checkout", "ann", None);
    assert_eq!(flags.flush().await, Err(ReportError::Off));
    assert!(house.ears.exposures.lock().expect("no panic").is_empty());
}

#[tokio::test]
async fn remote_flags_report_outcomes_too() {
    let house = House::with(&in_an_experiment());
    let flags = Flags::remote(Options::new(house.url()).evaluation_timeout(Duration::from_secs(5))).expect("good options");
    flags.track("checkout", "ann", Some(3.0));
    flags.flush().await.expect("taken");
    assert_eq!(house.ears.outcomes.lock().expect("no panic").len(), 1);
}
