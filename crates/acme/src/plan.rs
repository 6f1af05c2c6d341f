//! When an authority is asked: pure decisions. Times are seconds since 1970 unless a unit says otherwise.
//!
//! **Invariant**: the same name in the same life is due at the same moment, whoever asks and how often.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

/// A certificate with a shorter life than this is renewed at half of it, others at two thirds: what is left then is time for
/// whoever must repair something.
const SHORT_LIFE_S: i64 = 10 * 24 * 3600;
/// Names renew up to this part of a life earlier, each by its own share: not all of a house at once.
const SPREAD: f64 = 0.05;
/// What an authority suggests counts only up to here: the last sixth of a life is for trying again.
const SUGGESTED_UP_TO: f64 = 5.0 / 6.0;

/// After a certificate came, the next one is not asked for within a third of its life, or this, whichever is less: where a clock is
/// wrong by months, each new one would be due at once …
const APART_MAX_S: i64 = 24 * 3600;
/// … and this counts where the authority was in a hurry, and still is.
const HURRIES_APART_MAX_S: i64 = 6 * 3600;

/// Let's Encrypt allows five failed proofs an hour for a name: tries at 0, 1, 5 and 21 minutes, at 1½ hours, and then every 3.
const REFUSED_FIRST_S: u64 = 60;
const REFUSED_FACTOR: u64 = 4;
const REFUSED_MAX_S: u64 = 3 * 3600;
/// An authority that does not answer is not burdened by whoever asks seldom.
const UNREACHABLE_FIRST_S: u64 = 30;
const UNREACHABLE_FACTOR: u64 = 2;
const UNREACHABLE_MAX_S: u64 = 3600;
/// Both ways; and only later than what an authority said itself.
const JITTER: f64 = 0.2;
/// Let's Encrypt's longest limits count a week.
const RETRY_AFTER_MAX_S: u64 = 8 * 24 * 3600;

/// How often an authority is asked when to renew (RFC 9773 §4.3): as it says, within bounds.
const LOOK_MIN_S: u64 = 60;
const LOOK_MAX_S: u64 = 24 * 3600;
/// After a question that brought nothing.
pub(crate) const LOOK_AGAIN_S: u64 = 6 * 3600;

/// When a certificate is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Life {
    pub(crate) not_before_s: i64,
    pub(crate) not_after_s: i64,
}

/// When an authority wants it to be renewed (RFC 9773 §4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Window {
    pub(crate) start_s: i64,
    pub(crate) end_s: i64,
}

/// Why a try brought nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The authority could not be asked, or could not answer.
    Unreachable,
    /// It said no, or did not see that the name is ours.
    Refused,
}

/// When the certificate of this name is to be renewed. `came_s`: when it came, by the clock of this machine. `hurried`: the
/// authority wanted it to be renewed before it was time.
pub(crate) fn renewal_s(life: Life, came_s: i64, hurried: bool, window: Option<Window>, name: &str) -> i64 {
    let span_s = (life.not_after_s - life.not_before_s).max(0);
    let at = |part: f64| life.not_before_s + (span_s as f64 * part) as i64;
    let Some(window) = window else {
        let part = if span_s < SHORT_LIFE_S { 0.5 } else { 2.0 / 3.0 };
        return at(part - SPREAD * share(name.as_bytes())).max(came_s + APART_MAX_S.min(span_s / 3));
    };
    // Any moment of it, each as likely as another (RFC 9773 §4.2); in the past when an authority is in a hurry.
    let seed = format!("{name} {} {}", window.start_s, window.end_s);
    let chosen = window.start_s + ((window.end_s - window.start_s).max(0) as f64 * share(seed.as_bytes())) as i64;
    let chosen = chosen.min(at(SUGGESTED_UP_TO));
    if hurried { chosen.max(came_s + HURRIES_APART_MAX_S.min(span_s / 3)) } else { chosen }
}

/// From 0 to below 1; the same for ever.
fn share(of: &[u8]) -> f64 {
    (xxh3_64(of) >> 11) as f64 / (1u64 << 53) as f64
}

/// How long to wait after so many tries in a row that brought nothing; none before the first. `chance`: from 0 to 1.
pub(crate) fn pause_s(failures: u32, fault: Fault, retry_after_s: Option<u64>, chance: f64) -> u64 {
    if failures == 0 {
        return 0;
    }
    let (first, factor, max) = match fault {
        Fault::Unreachable => (UNREACHABLE_FIRST_S, UNREACHABLE_FACTOR, UNREACHABLE_MAX_S),
        Fault::Refused => (REFUSED_FIRST_S, REFUSED_FACTOR, REFUSED_MAX_S),
    };
    let pause = first.saturating_mul(factor.saturating_pow(failures - 1)).min(max) as f64;
    let own = pause * (1.0 - JITTER + 2.0 * JITTER * chance);
    let asked = retry_after_s.map_or(0.0, |asked| asked.min(RETRY_AFTER_MAX_S) as f64 * (1.0 + JITTER * chance));
    own.max(asked).round() as u64
}

/// When to ask for a window again.
pub(crate) fn look_pause_s(asked_s: u64) -> u64 {
    asked_s.clamp(LOOK_MIN_S, LOOK_MAX_S)
}

/// Tries for a name since one succeeded. Kept before an authority is asked, so that neither a crash nor a restart makes it
/// be asked more often.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tries {
    /// Of whom and how; tries of another question do not count.
    pub(crate) question: String,
    /// In a row.
    pub(crate) failures: u32,
    /// Begun, and never ended: the worker did before.
    pub(crate) open: u32,
    pub(crate) last_s: i64,
    pub(crate) not_before_s: i64,
    /// Of the last one, in words.
    pub(crate) problem: String,
}

impl Tries {
    /// One begins. When it is never ended, the next may begin at once if it was the first.
    pub(crate) fn begin(&mut self, question: &str, now_s: i64, chance: f64) {
        if self.question != question {
            *self = Self { question: question.to_owned(), ..Self::default() };
        }
        self.open += 1;
        self.last_s = now_s;
        let counted = (self.failures + self.open).saturating_sub(1);
        self.not_before_s = now_s + pause_s(counted, Fault::Refused, None, chance) as i64;
    }

    /// It brought nothing. Returns for how long to wait.
    pub(crate) fn fail(&mut self, now_s: i64, fault: Fault, retry_after_s: Option<u64>, problem: String, chance: f64) -> u64 {
        self.failures = self.failures.saturating_add(1);
        (self.open, self.last_s, self.problem) = (0, now_s, problem);
        let pause_s = pause_s(self.failures, fault, retry_after_s, chance);
        self.not_before_s = now_s + pause_s as i64;
        pause_s
    }

    /// The first moment of the next one.
    fn allowed_s(&self, question: &str, now_s: i64) -> i64 {
        // A clock that was set back must not make us wait for as long as it went.
        let is_of_the_past = self.last_s <= now_s;
        if self.question == question && is_of_the_past { self.not_before_s } else { i64::MIN }
    }
}

/// When a certificate is asked for: at `renewal_s`, or at once without one; not before its tries allow it.
pub(crate) fn due_s(renewal_s: Option<i64>, tries: Option<&Tries>, question: &str, now_s: i64) -> i64 {
    let allowed = tries.map_or(i64::MIN, |tries| tries.allowed_s(question, now_s));
    renewal_s.unwrap_or(i64::MIN).max(allowed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY_S: i64 = 24 * 3600;

    #[test]
    fn renewal_is_at_two_thirds_of_a_life_and_a_little_earlier() {
        let check = |days: i64, from: f64, to: f64| {
            let life = Life { not_before_s: 1_000_000, not_after_s: 1_000_000 + days * DAY_S };
            let parts: Vec<f64> = (0..1_000)
                .map(|number| {
                    let at = renewal_s(life, 0, false, None, &format!("{number}.example"));
                    (at - life.not_before_s) as f64 / (days * DAY_S) as f64
                })
                .collect();
            assert!(parts.iter().all(|part| (from..=to).contains(part)), "{days}");
            let (low, high) = (parts.iter().copied().fold(1.0, f64::min), parts.iter().copied().fold(0.0, f64::max));
            assert!(low < from + 0.005 && high > to - 0.005, "spread over all of it: {low} to {high}");
            let again = || renewal_s(life, 0, false, None, "a.example");
            assert_eq!(again(), again());
        };
        check(90, 2.0 / 3.0 - 0.0501, 2.0 / 3.0);
        check(45, 2.0 / 3.0 - 0.0501, 2.0 / 3.0);
        check(6, 0.4499, 0.5);
    }

    #[test]
    fn a_clock_that_is_wrong_does_not_make_it_due_again_at_once() {
        let life = Life { not_before_s: 0, not_after_s: 90 * DAY_S };
        assert_eq!(renewal_s(life, 85 * DAY_S, false, None, "a.example"), 86 * DAY_S);
        let short = Life { not_before_s: 0, not_after_s: 12 };
        assert_eq!(renewal_s(short, 11, false, None, "a.example"), 15);
        let window = Some(Window { start_s: 0, end_s: 1 });
        assert_eq!(renewal_s(short, 11, true, window, "a.example"), 15);
    }

    #[test]
    fn an_authority_may_say_when() {
        let life = Life { not_before_s: 0, not_after_s: 90 * DAY_S };
        let window = |from: i64, to: i64| Some(Window { start_s: from * DAY_S, end_s: to * DAY_S });
        let at = |window| renewal_s(life, 0, false, window, "a.example");
        assert!((58 * DAY_S..62 * DAY_S).contains(&at(window(58, 62))));
        assert!(at(window(-3, -2)) < 0, "it was revoked: at once");
        assert_eq!(at(window(100, 200)), 75 * DAY_S, "never so late that nothing could be repaired");
        assert_eq!(at(window(60, 50)), 60 * DAY_S, "its end before its start");
        assert_ne!(at(window(0, 60)), renewal_s(life, 0, false, window(0, 60), "b.example"));
        let in_a_hurry = |came_s: i64| renewal_s(life, came_s, true, window(-3, -2), "a.example");
        assert_eq!(in_a_hurry(1_000), 1_000 + 6 * 3_600, "an authority that is always in a hurry does not keep us busy");
    }

    #[test]
    fn pauses_grow_and_an_authority_may_make_them_longer() {
        let check = |failures: u32, fault: Fault, retry_after_s: Option<u64>, expected: [u64; 2]| {
            let pauses = [0.0, 1.0].map(|chance| pause_s(failures, fault, retry_after_s, chance));
            assert_eq!(pauses, expected, "{failures} {fault:?} {retry_after_s:?}");
        };
        check(0, Fault::Refused, Some(9), [0, 0]);
        check(1, Fault::Refused, None, [48, 72]);
        check(2, Fault::Refused, None, [192, 288]);
        check(3, Fault::Refused, None, [768, 1_152]);
        check(4, Fault::Refused, None, [3_072, 4_608]);
        check(6, Fault::Refused, None, [8_640, 12_960]);
        check(u32::MAX, Fault::Refused, None, [8_640, 12_960]);
        check(1, Fault::Unreachable, None, [24, 36]);
        check(u32::MAX, Fault::Unreachable, None, [2_880, 4_320]);
        check(1, Fault::Refused, Some(3_600), [3_600, 4_320]);
        check(1, Fault::Refused, Some(10), [48, 72]);
        check(1, Fault::Refused, Some(u64::MAX), [RETRY_AFTER_MAX_S, 829_440]);
    }

    #[test]
    fn five_failed_proofs_an_hour_are_never_reached() {
        let (mut tries, mut now_s, mut in_an_hour) = (Tries::default(), 0, 0);
        while now_s < 3_600 {
            tries.begin("q", now_s, 0.0);
            tries.fail(now_s, Fault::Refused, None, String::new(), 0.0);
            in_an_hour += 1;
            now_s = due_s(None, Some(&tries), "q", now_s);
        }
        assert!(in_an_hour < 5, "{in_an_hour}");
    }

    #[test]
    fn a_try_that_was_cut_off_begins_again_at_once_and_then_less_often() {
        let mut tries = Tries::default();
        assert_eq!(due_s(None, None, "q", 100), i64::MIN);
        tries.begin("q", 100, 0.5);
        assert_eq!(due_s(None, Some(&tries), "q", 101), 100);
        tries.begin("q", 101, 0.5);
        assert_eq!(due_s(None, Some(&tries), "q", 102), 161);
        tries.begin("q", 161, 0.5);
        assert_eq!(due_s(None, Some(&tries), "q", 162), 401);
        tries.fail(401, Fault::Unreachable, None, "gone".to_owned(), 0.5);
        assert_eq!((tries.failures, tries.open), (1, 0));
        assert_eq!(due_s(None, Some(&tries), "q", 402), 431);
        assert_eq!(due_s(None, Some(&tries), "another authority", 402), i64::MIN);
        assert_eq!(due_s(Some(9_000), Some(&tries), "q", 402), 9_000);
        assert_eq!(due_s(None, Some(&tries), "q", 10), i64::MIN, "the clock was set back");
        tries.begin("another authority", 402, 0.5);
        assert_eq!((tries.failures, tries.open, tries.not_before_s), (0, 1, 402));
    }

    proptest! {
        #[test]
        fn it_is_renewed_within_its_life(start in -1_000_000_000i64..4_000_000_000, life in 1i64..400_000_000, name in "[a-z.]{0,20}",
                                         from in any::<i32>(), to in any::<i32>()) {
            let life = Life { not_before_s: start, not_after_s: start + life };
            let own = renewal_s(life, start, false, None, &name);
            prop_assert!(own >= start && own < life.not_after_s);
            let window = Window { start_s: from.into(), end_s: to.into() };
            prop_assert!(renewal_s(life, start, false, Some(window), &name) <= life.not_after_s);
            prop_assert!((start..=life.not_after_s).contains(&renewal_s(life, start, true, Some(window), &name)));
        }

        #[test]
        fn a_pause_is_never_shorter_than_what_was_asked_for(failures in 1u32.., asked in 0u64..RETRY_AFTER_MAX_S, chance in 0.0f64..1.0) {
            for fault in [Fault::Refused, Fault::Unreachable] {
                let pause = pause_s(failures, fault, Some(asked), chance);
                prop_assert!(pause >= asked && pause >= 24);
                prop_assert!(pause <= 10 * 24 * 3600);
            }
        }
    }
}
