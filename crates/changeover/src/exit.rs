//! Exit codes, one closed list.

use std::process::ExitCode;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Done = 0,
    /// Nothing was changed.
    Failed = 1,
    /// Rolled back, aborted, superseded.
    NotPromoted = 2,
    /// It never began: something else was in the way.
    Conflict = 3,
    /// The command line or the configuration is wrong.
    Usage = 64,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

/// An error that knows its exit code and its hint.
#[derive(Debug)]
pub(crate) struct Problem {
    pub(crate) exit: Exit,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\n  hint: {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Problem {}

pub(crate) fn problem(exit: Exit, message: impl Into<String>, hint: Option<String>) -> anyhow::Error {
    anyhow::Error::new(Problem { exit, message: message.into(), hint })
}

pub(crate) fn of(error: &anyhow::Error) -> Exit {
    error.downcast_ref::<Problem>().map_or(Exit::Failed, |problem| problem.exit)
}

#[cfg(test)]
mod tests {
    use super::Exit;

    #[test]
    fn exit_codes_are_a_promise() {
        let codes = [Exit::Done, Exit::Failed, Exit::NotPromoted, Exit::Conflict, Exit::Usage].map(|exit| exit as u8);
        assert_eq!(codes, [0, 1, 2, 3, 64]);
    }
}
