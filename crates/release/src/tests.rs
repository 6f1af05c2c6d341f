//! The clockwork under random events: what must hold after each.

use model::{Analysis, Canary, Gate, GateKind, Promotion, ReleaseId, ServiceName, Step, VersionName};
use proptest::prelude::*;

use crate::*;

fn version(name: &str) -> VersionName {
    VersionName::new(name).expect("a valid name")
}

fn settings(gates: usize, promotion: Promotion, watch_ms: u64) -> Settings {
    let strategy = model::Strategy {
        promotion,
        gates: (0..gates).map(gate).collect(),
        watch_ms,
        watch_errors_max: 100,
        watch_requests_min: 50,
        drain_ms: 30_000,
        standby_ms: 600_000,
        frozen_ms: 0,
        canary: None,
    };
    Settings::deploy(&strategy, 30_000)
}

fn gate(n: usize) -> Gate {
    Gate { name: format!("gate-{n}"), kind: GateKind::Command { command: vec!["true".into()] }, timeout_ms: 1_000 }
}

/// Steps of 1 %, 5 % and 100 %, with so many gates before each.
fn canary(gates: [usize; 3]) -> Settings {
    let step = |(weight, gates): (u16, usize)| Step {
        weight,
        dwell_ms: 60_000,
        max_ms: 1_800_000,
        gates: (0..gates).map(|n| gate(10 + n)).collect(),
        targets: None,
    };
    let steps = [100, 500, 10_000].into_iter().zip(gates).map(step).collect();
    let analysis = Analysis::None { reason: "a test".into() };
    Settings {
        canary: Some(Canary { steps, analysis, sticky: None, sticky_window_ms: 0, mirror: None, baseline: false, keep_ms: 1_000 }),
        ..settings(0, Promotion::Auto, 0)
    }
}

/// A release of v2 that is at its first step.
fn judging(settings: Settings) -> Service {
    let begun = serving("v1").deploy(deploy("v2", settings), 1).expect("idle");
    let healthy = Event::TargetsBecameHealthy;
    drive(&begun, &[healthy.clone(), healthy, Event::SnapshotAcknowledged])
}

fn weight(service: &Service) -> u16 {
    service.release.as_ref().expect("released").weight()
}

#[test]
fn a_canary_climbs_its_steps() {
    let mut service = serving("v1").deploy(deploy("v2", canary([0, 1, 0])), 1).expect("idle");
    let healthy = Event::TargetsBecameHealthy;
    let passed = |step| Event::Advanced { step, full: false };
    let mut walked = vec![(service.release.as_ref().expect("begun").state.name(), weight(&service))];
    for event in [
        healthy.clone(),
        healthy.clone(),
        Event::SnapshotAcknowledged,
        passed(0),
        Event::GatePassed { gate: 0 },
        healthy.clone(),
        Event::SnapshotAcknowledged,
        passed(1),
        healthy,
        Event::SnapshotAcknowledged,
        drained(),
    ] {
        service = service.apply(&event, 2).expect("a legal event");
        walked.push((service.release.as_ref().expect("released").state.name(), weight(&service)));
        assert_eq!(service.serving(), Some(&version(if weight(&service) == 10_000 { "v2" } else { "v1" })));
    }
    let expected = [
        ("starting", 0),
        ("preparing", 0),
        ("raising", 100),
        ("judging", 100),
        ("step_gating", 100),
        ("preparing", 100),
        ("raising", 500),
        ("judging", 500),
        ("preparing", 500),
        ("switching", 10_000),
        ("draining", 10_000),
        ("ended", 10_000),
    ];
    assert_eq!(walked, expected);
}

#[test]
fn a_full_promotion_keeps_its_weight_until_the_targets_are_there() {
    let full = drive(&judging(canary([0, 0, 1])), &[Event::Advanced { step: 0, full: true }]);
    assert_eq!((full.release.as_ref().map(|it| it.state.name()), weight(&full)), (Some("step_gating"), 100));
    let ready = drive(&full, &[Event::GatePassed { gate: 0 }]);
    assert_eq!(weight(&ready), 100);
    assert_eq!(weight(&drive(&ready, &[Event::TargetsBecameHealthy])), 10_000);
    // Of the step that somebody looked at, no other.
    assert!(judging(canary([0, 0, 0])).apply(&Event::Advanced { step: 1, full: false }, 2).is_err());
}

#[test]
fn a_regressed_canary_is_kept_for_a_while() {
    let back = drive(&judging(canary([0, 0, 0])), &[Event::Regressed { reason: "errors".into() }]);
    assert_eq!((weight(&back), back.serving()), (0, Some(&version("v1"))));
    let ended = drive(&back, &[Event::SnapshotAcknowledged, drained()]);
    assert_eq!(ended.kept, Some(Standby::hot(version("v2"), 1_001)));
    assert!(ended.must_run().contains(&version("v2")) && ended.rejected.contains(&version("v2")));
    let next = ended.deploy(deploy("v3", canary([0, 0, 0])), 2).expect("idle");
    assert!(!next.must_run().contains(&version("v2")), "the next release needs the room");
    // Before it had traffic there is nothing to take back.
    let begun = serving("v1").deploy(deploy("v2", canary([1, 0, 0])), 1).expect("idle");
    let gated = drive(&begun, &[Event::TargetsBecameHealthy, Event::GateFailed { gate: 0, reason: "smoke".into() }]);
    assert!(matches!(&gated.release.as_ref().expect("begun").state, State::Retiring { ending } if ending.outcome == Outcome::Failed));
}

#[test]
fn a_paused_canary_is_held_and_the_first_word_stands() {
    let paused = judging(canary([0, 0, 0])).pause("ana", Some("look".into()), 5).expect("it runs");
    let again = paused.pause("ben", None, 9).expect("idempotent");
    assert_eq!(again.release.as_ref().and_then(|it| it.paused.as_ref()).map(|it| it.who.as_str()), Some("ana"));
    let (on, held_ms) = again.unpause(105).expect("paused");
    assert_eq!((held_ms, on.unpause(106).err()), (100, Some(Refusal::NotPaused)));
    let blue = serving("v1").deploy(deploy("v2", settings(0, Promotion::Auto, 0)), 1).expect("idle");
    assert_eq!(blue.pause("ana", None, 2).err(), Some(Refusal::NoSteps));
}

fn deploy(name: &str, settings: Settings) -> Deploy {
    let id = ReleaseId::new(&format!("release-{name}")).expect("a valid id");
    Deploy { id, version: version(name), addresses: Vec::new(), settings, who: "ana".into(), message: None, began_at_ms: 0 }
}

/// A service on which `name` serves, confirmed.
fn serving(name: &str) -> Service {
    let service = Service::new(ServiceName::new("web").expect("a valid name"));
    drive(
        &service.deploy(deploy(name, settings(0, Promotion::Auto, 0)), 0).expect("idle"),
        &[Event::TargetsBecameHealthy, Event::SnapshotAcknowledged],
    )
}

fn drive(service: &Service, events: &[Event]) -> Service {
    events.iter().fold(service.clone(), |service, event| service.apply(event, 1).expect("a legal event"))
}

fn drained() -> Event {
    Event::Drained { cut: 0 }
}

fn taken_back() -> Event {
    Event::TakenBack { outcome: Outcome::Aborted, reason: "ana".into() }
}

#[test]
fn a_release_walks_from_start_to_promoted() {
    let begun = serving("v1").deploy(deploy("v2", settings(1, Promotion::Manual, 60_000)), 5).expect("idle");
    let names = |service: &Service| service.release.as_ref().map(|release| release.state.name()).expect("released");
    let mut service = begun;
    let mut walked = vec![names(&service)];
    for event in [
        Event::TargetsBecameHealthy,
        Event::GatePassed { gate: 0 },
        Event::Promoted,
        Event::SnapshotAcknowledged,
        drained(),
        Event::WatchPassed,
    ] {
        service = service.apply(&event, 7).expect("a legal event");
        walked.push(names(&service));
    }
    assert_eq!(walked, ["starting", "gating", "awaiting_promotion", "switching", "draining", "watching", "ended"]);
    assert_eq!(service.active, Some(version("v2")));
    assert_eq!(service.standby, Some(Standby::hot(version("v1"), 7 + 600_000)));
}

#[test]
fn a_rollback_that_is_asked_for_twice_goes_on() {
    let promoted = [Event::TargetsBecameHealthy, Event::SnapshotAcknowledged, drained()];
    let two = drive(&serving("v1").deploy(deploy("v2", settings(0, Promotion::Auto, 0)), 1).expect("idle"), &promoted);
    let back = two.roll_back(deploy("v1", settings(0, Promotion::Auto, 0)), true, 2);
    let draining = drive(&back, &[Event::SnapshotAcknowledged]);
    for going in [&back, &draining] {
        assert_eq!(going.plan_rollback(None, false), Err(Refusal::OnItsWay { to: version("v1") }));
        let superseded = going.supersede(deploy("v3", settings(0, Promotion::Auto, 0)), 3).expect("it waits");
        assert_eq!(superseded.serving(), Some(&version("v1")), "v2 was rejected");
    }
    let ended = drive(&draining, &[drained()]);
    assert_eq!((ended.active.as_ref(), ended.rejected.contains(&version("v2"))), (Some(&version("v1")), true));
    // Chosen by name, and promoted: rejected no more.
    let forward = ended.roll_back(deploy("v2", settings(0, Promotion::Auto, 0)), true, 4);
    let forward = drive(&forward, &[Event::SnapshotAcknowledged, drained()]);
    assert!(!forward.rejected.contains(&version("v2")) && forward.rejected.contains(&version("v1")));
}

#[test]
fn an_irreversible_migration_stands_between_versions_for_good() {
    let promoted = [Event::TargetsBecameHealthy, Event::SnapshotAcknowledged, drained()];
    let mut two = serving("v1").deploy(deploy("v2", settings(0, Promotion::Auto, 0)), 1).expect("idle");
    two.release.as_mut().expect("begun").irreversible = Some("db".into());
    let two = drive(&two, &promoted);
    let refused = Err(Refusal::Irreversible { gate: "db".into() });
    assert_eq!(two.plan_rollback(None, false), refused);
    // Also when another release has failed, or was promoted, since.
    let failing = two.deploy(deploy("v3", settings(0, Promotion::Auto, 0)), 2).expect("idle");
    let failed = drive(&failing, &[Event::StartFailed { reason: "it".into() }, drained()]);
    assert_eq!(failed.plan_rollback(None, false), refused);
    let four = drive(&failed.deploy(deploy("v4", settings(0, Promotion::Auto, 0)), 3).expect("idle"), &promoted);
    assert_eq!(four.plan_rollback(None, false), Ok(Rollback::Begin { to: version("v2"), hot: true }));
    assert_eq!(four.plan_rollback(Some(&version("v1")), false), refused);
    assert_eq!(four.plan_rollback(Some(&version("v1")), true), Ok(Rollback::Begin { to: version("v1"), hot: false }));
}

#[test]
fn a_second_rollback_never_returns_to_the_rejected_version() {
    let promoted = [Event::TargetsBecameHealthy, Event::SnapshotAcknowledged, drained()];
    let two = drive(&serving("v1").deploy(deploy("v2", settings(0, Promotion::Auto, 0)), 1).expect("idle"), &promoted);
    let three = drive(&two.deploy(deploy("v3", settings(0, Promotion::Auto, 0)), 1).expect("idle"), &promoted);
    assert_eq!(three.plan_rollback(None, false), Ok(Rollback::Begin { to: version("v2"), hot: true }));
    let back = three.roll_back(deploy("v2", settings(0, Promotion::Auto, 0)), true, 2);
    assert_eq!(back.serving(), Some(&version("v2")), "a hot rollback serves at once");
    let back = drive(&back, &[Event::SnapshotAcknowledged, drained()]);
    assert_eq!(back.plan_rollback(None, false), Ok(Rollback::Begin { to: version("v1"), hot: false }));
    let back = back.roll_back(deploy("v1", settings(0, Promotion::Auto, 0)), false, 3);
    let back = drive(&back, &promoted);
    assert_eq!(back.plan_rollback(None, false), Err(Refusal::NothingToReturnTo));
}

#[test]
fn a_standby_is_hot_then_frozen_then_gone_and_thaws_for_a_release() {
    let promoted = [Event::TargetsBecameHealthy, Event::SnapshotAcknowledged, drained()];
    let staged = |hot: u64, frozen: u64| Settings { standby_ms: hot, frozen_ms: frozen, ..settings(0, Promotion::Auto, 0) };
    let two = drive(&serving("v1").deploy(deploy("v2", staged(100, 1_000)), 1).expect("idle"), &promoted);
    let until = two.standby.as_ref().expect("v1").until;
    assert_eq!((two.standing(&version("v1")), two.frozen(), two.standby_over(until - 1)), (Standing::Hot, None, None));
    let frozen = two.standby_over(until).expect("over");
    assert_eq!((frozen.standing(&version("v1")), frozen.frozen()), (Standing::Frozen, Some(&version("v1"))));
    assert_eq!(frozen.must_run(), [version("v2"), version("v1")], "its process stays");
    assert_eq!(frozen.plan_rollback(None, false), Ok(Rollback::Begin { to: version("v1"), hot: false }), "health-gated");
    // Another release does not need it; a rollback does, and how long it took is kept apart from a start.
    let three = frozen.deploy(deploy("v3", staged(0, 0)), 2).expect("idle");
    assert_eq!(three.frozen(), Some(&version("v1")));
    let back = frozen.roll_back(deploy("v1", staged(0, 500)), false, 5_000);
    assert_eq!((back.frozen(), back.serving()), (None, Some(&version("v2"))));
    let back = back.apply(&Event::TargetsBecameHealthy, 5_040).expect("legal");
    assert_eq!((back.thaw_ms.get(&version("v1")), back.start_ms.get(&version("v1"))), (Some(&40), frozen.start_ms.get(&version("v1"))));
    let back = drive(&back, &promoted[1..]);
    assert_eq!((back.frozen(), back.standing(&version("v2"))), (Some(&version("v2")), Standing::Frozen), "frozen at once");
    let gone = frozen.standby_over(until + 1_000).expect("over");
    assert_eq!((gone.standby.as_ref(), gone.standing(&version("v1"))), (None, Standing::Stopped));
}

#[test]
fn an_irreversible_release_refuses_unless_forced() {
    let mut service = serving("v1").deploy(deploy("v2", settings(0, Promotion::Auto, 9)), 1).expect("idle");
    service.release.as_mut().expect("begun").irreversible = Some("db".into());
    assert_eq!(service.plan_rollback(None, false), Err(Refusal::Irreversible { gate: "db".into() }));
    assert!(service.plan_rollback(None, true).is_ok());
}

#[test]
fn a_watch_does_not_return_to_a_version_that_a_migration_ruled_out() {
    let mut service = drive(
        &serving("v1").deploy(deploy("v2", settings(0, Promotion::Auto, 9)), 1).expect("idle"),
        &[Event::TargetsBecameHealthy, Event::SnapshotAcknowledged],
    );
    service.release.as_mut().expect("begun").irreversible = Some("db".into());
    assert!(service.apply(&Event::WatchFailed { reason: "errors".into() }, 2).is_err());
    assert!(service.apply(&taken_back(), 2).is_ok(), "a person who forces it may");
}

#[test]
fn a_superseded_release_gives_back_before_the_other_begins() {
    let watching = drive(
        &serving("v1").deploy(deploy("v2", settings(0, Promotion::Auto, 9)), 1).expect("idle"),
        &[Event::TargetsBecameHealthy, Event::SnapshotAcknowledged, drained()],
    );
    let next = watching.supersede(deploy("v3", settings(0, Promotion::Auto, 0)), 2).expect("reversible");
    assert_eq!(next.serving(), Some(&version("v1")), "traffic goes to stable first");
    assert!(next.must_run().contains(&version("v2")), "the superseded candidate runs until it is drained");
    assert_eq!(next.begin_queued(3), None, "not before the other has ended");
    let ended = drive(&next, &[Event::SnapshotAcknowledged, drained()]);
    assert!(ended.rejected.contains(&version("v2")));
    let begun = ended.begin_queued(4).expect("queued");
    let release = begun.running_release().expect("begun");
    assert_eq!((release.number, &release.candidate, &begun.queued), (3, &version("v3"), &None));
}

#[test]
fn a_rollback_drops_what_is_queued() {
    let starting = serving("v1").deploy(deploy("v2", settings(0, Promotion::Auto, 0)), 1).expect("idle");
    let queued = starting.queue(deploy("v3", settings(0, Promotion::Auto, 0))).expect("nothing queued");
    assert!(matches!(queued.queue(deploy("v4", settings(0, Promotion::Auto, 0))), Err(Refusal::Queued { number: 3, .. })));
    assert_eq!(queued.apply(&taken_back(), 2).expect("legal").queued, None);
}

#[test]
fn a_retry_does_not_migrate_again() {
    let mut settings = settings(2, Promotion::Auto, 0);
    settings.gates[0].kind = GateKind::Migrate { command: vec!["true".into()], irreversible: false };
    let failed = drive(
        &serving("v1").deploy(deploy("v2", settings.clone()), 1).expect("idle"),
        &[Event::TargetsBecameHealthy, Event::GatePassed { gate: 0 }, Event::GateFailed { gate: 1, reason: "smoke".into() }, drained()],
    );
    let again = failed.retry(deploy("v2", settings), 2).expect("it failed").release.expect("begun");
    assert_eq!((again.number, again.migrated.contains("gate-0")), (3, true));
    assert_eq!(serving("v1").to_retry().err(), Some(Refusal::NothingToRetry));
}

#[test]
fn the_list_of_transitions_is_complete() {
    let ending = Ending { outcome: Outcome::Failed, reason: "x".into() };
    let states = [
        State::Starting,
        State::Gating { gate: 0 },
        State::AwaitingPromotion,
        State::StepGating { step: 0, gate: 0, weight: 0 },
        State::Preparing { step: 0, weight: 0 },
        State::Raising { step: 0 },
        State::Judging { step: 0 },
        State::Switching,
        State::Draining,
        State::Watching,
        State::Returning { ending: ending.clone() },
        State::Retiring { ending: ending.clone() },
        State::Ended { ending },
    ];
    let events = [
        Event::TargetsBecameHealthy,
        Event::StartFailed { reason: "x".into() },
        Event::GatePassed { gate: 0 },
        Event::GateFailed { gate: 0, reason: "x".into() },
        Event::Promoted,
        Event::SnapshotAcknowledged,
        drained(),
        Event::WatchPassed,
        Event::WatchFailed { reason: "x".into() },
        Event::Advanced { step: 0, full: false },
        Event::Regressed { reason: "x".into() },
        Event::Withdrawn { reason: "x".into() },
        taken_back(),
    ];
    let begun = serving("v1").deploy(deploy("v2", canary([1, 0, 0])), 1).expect("idle").release.expect("begun");
    let mut found = vec![("none", "deploy"), ("none", "rollback")];
    for state in &states {
        for event in &events {
            let release = Release { state: state.clone(), ..begun.clone() };
            if step(&release, event, 2).is_ok() {
                found.push((state.name(), event.name()));
            }
        }
    }
    let mut listed = TRANSITIONS.to_vec();
    found.sort();
    listed.sort();
    assert_eq!(found, listed);
}

#[test]
fn a_stopped_service_runs_nothing() {
    let service = Service { stopped: true, ..serving("v1") };
    assert!(service.must_run().is_empty());
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        Just(Event::TargetsBecameHealthy),
        Just(Event::StartFailed { reason: "exit 1".into() }),
        (0..3usize).prop_map(|gate| Event::GatePassed { gate }),
        (0..3usize).prop_map(|gate| Event::GateFailed { gate, reason: "exit 1".into() }),
        Just(Event::Promoted),
        Just(Event::SnapshotAcknowledged),
        Just(drained()),
        Just(Event::WatchPassed),
        Just(Event::WatchFailed { reason: "errors".into() }),
        (0..3usize, any::<bool>()).prop_map(|(step, full)| Event::Advanced { step, full }),
        Just(Event::Regressed { reason: "errors".into() }),
        Just(Event::Withdrawn { reason: "split".into() }),
        Just(taken_back()),
    ]
}

proptest! {
    #[test]
    fn invariants_hold_after_every_event(
        events in proptest::collection::vec(any_event(), 0..60),
        gates in 0..3usize,
        manual in any::<bool>(),
        watch_ms in 0..2u64,
        first in any::<bool>(),
        stepped in any::<bool>(),
    ) {
        let promotion = if manual { Promotion::Manual } else { Promotion::Auto };
        let idle = if first { Service::new(ServiceName::new("web").unwrap()) } else { serving("v1") };
        let plain = settings(gates, promotion, watch_ms);
        let settings = if stepped { Settings { canary: canary([gates, 0, 1]).canary, ..plain } } else { plain };
        let mut service = idle.deploy(deploy("v2", settings), 0).unwrap();
        for (now, event) in events.iter().enumerate() {
            let before = service.clone();
            let Ok(next) = service.apply(event, now as u64) else { continue };
            let release = next.release.as_ref().unwrap();
            let state = &release.state;
            // Someone always serves, and it is one of the two.
            prop_assert!(first || next.serving().is_some());
            // Whoever serves must run.
            prop_assert!(next.serving().is_none_or(|serving| next.must_run().contains(serving)));
            // A candidate that was taken back never serves again in this release.
            if matches!(before.release.as_ref().unwrap().state, State::Returning { .. } | State::Retiring { .. }) {
                prop_assert!(!state.serves_candidate());
            }
            // Within its steps a canary's weight only grows, and no step is left out unless a person said so.
            let was = before.release.as_ref().unwrap();
            if state.step().is_some() {
                prop_assert!(release.weight() >= was.weight());
                let full = matches!(event, Event::Advanced { full: true, .. });
                prop_assert!(full || state.step() <= was.state.step().map_or(Some(0), |step| Some(step + 1)));
            }
            // Ended is absorbing.
            let had_ended = matches!(before.release.as_ref().unwrap().state, State::Ended { .. });
            prop_assert!(!had_ended);
            // No gate is skipped.
            if let (State::Gating { gate: was }, State::Gating { gate: is }) = (&before.release.as_ref().unwrap().state, state) {
                prop_assert_eq!(was + 1, *is);
            }
            // What is persisted comes back the same.
            let text = serde_json::to_string(&next).unwrap();
            let read: Service = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(&read, &next);
            service = next;
        }
    }
}
