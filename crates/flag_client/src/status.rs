//! How fresh the flags are, in OpenFeature's words, and what happened on the way.
//!
//! **Invariant**: `Ready` means that the stream is up and the last set it brought is the one in use. `NotReady` ends once, when
//! starting is over. Not here: the sets themselves (`shared.rs`).

/// The states of a provider (OpenFeature, requirement 1.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum State {
    /// Starting: every flag has the code's default.
    #[default]
    NotReady,
    /// The values are the server's.
    Ready,
    /// There are values; the server may have newer ones.
    Stale,
    /// Starting took too long and there are no values: every flag has the code's default. It ends when the server answers.
    Error,
}

impl State {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotReady => "NOT_READY",
            Self::Ready => "READY",
            Self::Stale => "STALE",
            Self::Error => "ERROR",
        }
    }
}

/// The state, and why it is not `Ready`. Numbers count from the start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    pub state: State,
    /// For people: what went wrong last; nothing once the state is `Ready`.
    pub why: Option<String>,
    /// For people: what is wrong with the bootstrap file.
    pub bootstrap: Option<String>,
    /// Sets that came and were put to use, the bootstrap file included.
    pub accepted: u64,
    /// Sets that came and were not good; the one before stayed.
    pub refused: u64,
    /// Streams that ended, and attempts to open one that failed.
    pub lost: u64,
}

impl Status {
    pub(crate) fn accepted(&mut self, from_server: bool) {
        self.accepted += 1;
        if from_server {
            self.state = State::Ready;
            self.why = None;
        } else {
            self.state = State::Stale;
        }
    }

    pub(crate) fn refused(&mut self, why: String) {
        self.refused += 1;
        self.out_of_date(why);
    }

    pub(crate) fn lost(&mut self, why: String) {
        self.lost += 1;
        self.out_of_date(why);
    }

    /// The time to start has passed.
    pub(crate) fn started(&mut self) {
        if self.state == State::NotReady {
            self.state = State::Error;
            self.why.get_or_insert_with(|| "the server has not answered yet".to_owned());
        }
    }

    fn out_of_date(&mut self, why: String) {
        if self.state == State::Ready {
            self.state = State::Stale;
        }
        self.why = Some(why);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_goes_and_comes() {
        let mut status = Status::default();
        status.lost("refused".to_owned());
        assert_eq!(status.state, State::NotReady);
        status.started();
        assert_eq!((status.state, status.why.as_deref()), (State::Error, Some("refused")));
        status.accepted(true);
        assert_eq!((status.state, status.why.as_deref()), (State::Ready, None));
        status.lost("gone".to_owned());
        assert_eq!((status.state, status.why.as_deref()), (State::Stale, Some("gone")));
        status.accepted(true);
        status.refused("bad".to_owned());
        assert_eq!((status.state, status.refused, status.lost, status.accepted), (State::Stale, 1, 2, 2));
    }

    #[test]
    fn a_bootstrap_is_stale_until_the_server_speaks() {
        let mut status = Status::default();
        status.lost("refused".to_owned());
        status.accepted(false);
        status.started();
        assert_eq!((status.state, status.why.as_deref()), (State::Stale, Some("refused")));
    }
}
