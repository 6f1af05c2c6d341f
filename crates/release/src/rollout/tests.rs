//! The rollout's clockwork under random events: what must hold after each.

use proptest::prelude::*;

use super::*;

fn plan(steps: &[Weight]) -> Plan {
    Plan {
        steps: Steps::new(steps.to_vec()).expect("steps that rise"),
        criteria: Criteria::new(vec!["errors".into()]).expect("a criterion"),
        every_s: 600,
        max_step_s: 1_800,
    }
}

fn judged(step: usize, action: Action) -> Event {
    Event::Judged { step, action, reason: "errors".into() }
}

fn after(rollout: &Rollout, events: &[(Event, u64)]) -> Rollout {
    events.iter().fold(rollout.clone(), |rollout, (event, now)| step(&rollout, event, *now).expect("a legal event").rollout)
}

/// At its first step since second 100.
fn begun() -> Rollout {
    after(&Rollout::new(plan(&[100, 500, 2_000, 10_000])), &[(Event::Started, 99), (Event::Acknowledged { epoch: 1 }, 100)])
}

#[test]
fn a_rollout_climbs_its_steps_and_no_faster_than_it_may() {
    let early = after(&begun(), &[(judged(0, Action::Advance), 699)]);
    assert_eq!((early.weight(), early.step()), (100, Some(0)), "600 s are the least");
    assert_eq!(after(&begun(), &[(judged(0, Action::Hold), 5_000)]).weight(), 100, "time alone raises nothing");
    let next = step(&early, &judged(0, Action::Advance), 700).expect("legal");
    assert_eq!(next.effects[0], Effect::SetWeight { weight: 500, step: 1, epoch: 2 });
    assert_eq!((next.rollout.before(), next.rollout.next_weight()), (100, 2_000));
    // An acknowledgement of the step before, and a look at it, say nothing of this one.
    let late = after(&next.rollout, &[(Event::Acknowledged { epoch: 1 }, 701), (judged(0, Action::Advance), 9_000)]);
    assert_eq!(late.state, State::Raising { step: 1 });
    let last = [
        (Event::Acknowledged { epoch: 2 }, 702),
        (Event::EpochDue, 1_002),
        (judged(0, Action::Advance), 9_000),
        (judged(1, Action::Advance), 9_000),
        (Event::Acknowledged { epoch: 4 }, 9_001),
        (judged(2, Action::Advance), 9_601),
    ];
    let ended = after(&late, &last);
    assert_eq!((ended.weight(), ended.is_ended()), (10_000, true));
    assert!(step(&ended, &judged(2, Action::Rollback), 9_602).is_err());
}

#[test]
fn what_regresses_is_taken_back_also_when_it_is_paused() {
    let pause = (Event::Paused { who: "ana".into(), why: None }, 200);
    let paused = after(&begun(), &[pause.clone(), (judged(0, Action::Advance), 5_000)]);
    assert_eq!((paused.weight(), paused.paused.as_ref().map(|it| it.since_s)), (100, Some(200)));
    let resumed = after(&paused, &[(Event::Resumed { who: "ana".into() }, 5_001), (judged(0, Action::Advance), 5_002)]);
    assert_eq!((resumed.weight(), resumed.paused), (500, None));
    let back = step(&paused, &judged(0, Action::Rollback), 5_001).expect("legal");
    assert_eq!(back.effects[0], Effect::SetWeight { weight: 0, step: 0, epoch: 1 });
    assert_eq!(back.effects[1], Effect::Report { text: "taken back, from 1 %: errors".into() });
    assert!(matches!(back.rollout.state, State::Ended { outcome: Outcome::RolledBack, .. }));
    let outcome = |event| after(&begun(), &[(event, 200)]).state;
    assert!(matches!(outcome(judged(0, Action::Withdraw)), State::Ended { outcome: Outcome::Withdrawn, .. }));
    assert!(matches!(outcome(Event::OffByHand { who: "ana".into() }), State::Ended { outcome: Outcome::Aborted, .. }));
}

#[test]
fn a_person_may_let_it_go_on_from_the_step_that_they_looked_at() {
    let by_hand = |step, full| Event::AdvancedByHand { step, full, who: "ana".into() };
    assert_eq!(after(&begun(), &[(by_hand(0, false), 101)]).weight(), 500);
    assert_eq!(after(&begun(), &[(by_hand(0, true), 101)]).weight(), 10_000);
    assert_eq!(
        step(&begun(), &by_hand(1, false), 101).map_err(|illegal| illegal.to_string()),
        Err("a rollout that is judging cannot be advanced_by_hand".into())
    );
}

#[test]
fn a_plan_that_cannot_be_judged_does_not_exist() {
    let steps = |weights: &[Weight]| Steps::new(weights.to_vec()).map(|_| ());
    assert_eq!(steps(&[]), Err(InvalidPlan::NoSteps));
    assert_eq!(steps(&[10_000]), Err(InvalidPlan::NoSteps));
    assert_eq!(steps(&[500, 100]), Err(InvalidPlan::NotRising([500, 100])));
    assert_eq!(steps(&[0, 100]), Err(InvalidPlan::OutOfRange(0)));
    assert_eq!(Criteria::new(Vec::new()), Err(InvalidPlan::NoCriteria));
    assert_eq!(Criteria::new(vec!["a".into(), "a".into()]), Err(InvalidPlan::CriterionTwice("a".into())));
    let read = |criteria: &str| {
        serde_json::from_str::<Plan>(&format!(r#"{{"steps":[100,10000],"criteria":{criteria},"every_s":1,"max_step_s":9}}"#))
    };
    assert!(read(r#"["errors"]"#).is_ok());
    assert!(read("[]").is_err_and(|error| error.to_string().contains("name at least one metric")));
}

#[test]
fn it_is_plain_data_and_after_a_crash_its_weight_is_set_again() {
    let rollout = after(&begun(), &[(Event::EpochDue, 500)]);
    let text = serde_json::to_string(&rollout).expect("plain data");
    assert_eq!(serde_json::from_str::<Rollout>(&text).expect("its own text"), rollout);
    assert_eq!(rollout.effects(), [Effect::SetWeight { weight: 100, step: 0, epoch: 2 }]);
}

fn events() -> impl Strategy<Value = Event> {
    let action = prop_oneof![
        5 => Just(Action::Advance),
        5 => Just(Action::Hold),
        1 => Just(Action::Rollback),
        1 => Just(Action::Ask),
        1 => Just(Action::Withdraw)
    ];
    prop_oneof![
        1 => Just(Event::Started),
        4 => (0_u32..8).prop_map(|epoch| Event::Acknowledged { epoch }),
        1 => Just(Event::EpochDue),
        8 => (0_usize..4, action).prop_map(|(step, action)| judged(step, action)),
        1 => (0_usize..4, any::<bool>()).prop_map(|(step, full)| Event::AdvancedByHand { step, full, who: "ana".into() }),
        1 => Just(Event::Paused { who: "ana".into(), why: None }),
        1 => Just(Event::Resumed { who: "ana".into() }),
        1 => Just(Event::Aborted { reason: "no".into() }),
        1 => Just(Event::OffByHand { who: "ana".into() }),
    ]
}

proptest! {
    #[test]
    fn the_weight_only_rises_or_goes_to_0_for_good(
        events in proptest::collection::vec((events(), 0_u64..1_000), 1..60),
        steps in proptest::collection::btree_set(1_u16..10_000, 1..5),
    ) {
        let mut rollout = after(&Rollout::new(plan(&steps.into_iter().collect::<Vec<_>>())), &[(Event::Started, 0)]);
        let (mut now, mut told) = (0, rollout.weight());
        for (event, seconds) in events {
            now += seconds;
            let Ok(next) = step(&rollout, &event, now) else { continue };
            let (before, after) = (rollout.weight(), next.rollout.weight());
            prop_assert!(after >= before || after == 0 && next.rollout.is_ended(), "{event:?}: {before} to {after}");
            prop_assert!(!rollout.is_ended(), "what has ended stays");
            if after > before {
                let may = matches!(event, Event::Judged { action: Action::Advance, .. } | Event::AdvancedByHand { .. });
                prop_assert!(may, "{event:?} raises nothing");
            }
            for effect in &next.effects {
                if let Effect::SetWeight { weight, .. } = effect {
                    told = *weight;
                }
            }
            prop_assert_eq!(told, after, "whoever evaluates is told of every change");
            prop_assert!(next.rollout.epoch >= rollout.epoch);
            rollout = next.rollout;
        }
    }
}
