//! Waiting for something to become true, without sleeping longer than needed.

use std::thread;
use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_millis(2);

/// What a condition may answer: `bool`, or `Option` when waiting yields a value.
pub trait Outcome {
    type Value;
    fn met(self) -> Option<Self::Value>;
}

impl Outcome for bool {
    type Value = ();
    fn met(self) -> Option<()> {
        self.then_some(())
    }
}

impl<T> Outcome for Option<T> {
    type Value = T;
    fn met(self) -> Option<T> {
        self
    }
}

/// Polls `condition` until it is met. Panics with `what` once `deadline` has passed.
#[track_caller]
pub fn until<C: Outcome>(deadline: Duration, what: &str, mut condition: impl FnMut() -> C) -> C::Value {
    let started = Instant::now();
    loop {
        if let Some(value) = condition().met() {
            return value;
        }
        assert!(started.elapsed() < deadline, "waited {deadline:?} in vain: {what}");
        thread::sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yields_the_value_of_an_option() {
        let mut polls = 0;
        let value = until(Duration::from_secs(5), "third poll", || {
            polls += 1;
            (polls == 3).then_some(polls)
        });
        assert_eq!(value, 3);
    }

    #[test]
    #[should_panic(expected = "the moon")]
    fn panics_with_what_it_waited_for() {
        until(Duration::from_millis(5), "the moon", || false);
    }
}
