//! The same questions, answered by the server.

use std::net::{Ipv4Addr, TcpListener};
use std::time::{Duration, Instant};

use changeover_flags::{Context, EvaluationError, Flags, Options, Reason, Remote};
use serde_json::json;

use crate::house::{EVERY_TYPE, House, PATIENCE, one_flag};

fn remote(house: &House) -> Remote {
    Flags::remote(Options::new(house.url()).evaluation_timeout(PATIENCE)).expect("good options")
}

#[tokio::test]
async fn every_type() {
    let house = House::with(EVERY_TYPE);
    let flags = remote(&house);
    let user = Context::of("user-1").with("country", "AT");
    assert!(flags.bool_value("a-bool", false, &user).await);
    assert_eq!(flags.string_value("a-string", "", &user).await, "red");
    assert_eq!(flags.int_value("an-int", 0, &user).await, 42);
    assert_eq!(flags.float_value("a-float", 0.0, &user).await, 10.0);
    assert_eq!(flags.object_value("an-object", json!({}), &user).await, json!({"seats": 3, "share": 0.5, "tags": ["a"]}));
    assert!(flags.is_enabled("by-country", &user).await && !flags.is_enabled("by-country", "user-1").await);
}

#[tokio::test]
async fn details_say_why() {
    let house = House::with(EVERY_TYPE);
    let flags = remote(&house);
    let user = Context::of("user-1").with("country", "AT");

    let plain = flags.details("a-string", String::new(), &user).await;
    assert_eq!((plain.value.as_str(), plain.variant.as_deref(), plain.reason), ("red", Some("r"), Reason::Static));
    assert_eq!(plain.metadata.get("team"), Some(&json!("web")));
    let chosen = flags.details("by-country", false, &user).await;
    assert_eq!((chosen.value, chosen.reason), (true, Reason::TargetingMatch));
    let on_the_server = Context::new().with("region", "us");
    assert!(flags.is_enabled("by-region", &on_the_server).await, "the server knows better where it is");
    let unknown = flags.details("unknown", true, &user).await;
    assert_eq!((unknown.value, unknown.error), (true, Some(EvaluationError::FlagNotFound("unknown".to_owned()))));
    let mismatch = flags.details("a-string", 5_i64, &user).await;
    assert_eq!((mismatch.value, mismatch.error.expect("an error").code()), (5, "TYPE_MISMATCH"));
    let disabled = flags.details("disabled", true, &user).await;
    assert_eq!((disabled.value, disabled.reason, disabled.variant, disabled.error), (true, Reason::Disabled, None, None));
    let undecided = flags.details("no-default", true, &user).await;
    assert_eq!((undecided.value, undecided.reason, undecided.variant, undecided.error), (true, Reason::Default, None, None));
    let nobody = flags.details("by-share", true, &Context::new()).await;
    assert_eq!((nobody.value, nobody.reason, nobody.error), (false, Reason::Default, None));
}

#[tokio::test]
async fn a_server_that_is_down_gives_the_default_and_is_found_again() {
    let mut house = House::empty();
    let flags = remote(&house);
    let down = flags.details("new-scoring-algorithm", true, "u").await;
    assert!(down.value && matches!(down.error, Some(EvaluationError::Unreachable(_))), "{down:?}");
    house.publish(&one_flag(true));
    house.open();
    let started = Instant::now();
    while !flags.is_enabled("new-scoring-algorithm", "u").await {
        assert!(started.elapsed() < PATIENCE, "found again");
    }
}

#[tokio::test]
async fn a_server_that_hangs_costs_the_timeout() {
    // Takes connections and says nothing.
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let url = format!("http://{}", silent.local_addr().expect("an address"));
    let flags = Flags::remote(Options::new(url).evaluation_timeout(Duration::from_millis(50))).expect("good options");
    let started = Instant::now();
    let late = flags.details("new-scoring-algorithm", true, "u").await;
    assert!(late.value && late.error == Some(EvaluationError::TimedOut), "{late:?}");
    assert!(started.elapsed() < PATIENCE);
}
