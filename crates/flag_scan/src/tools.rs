//! What every file is looked at with.

use crate::calls::Calls;
use crate::needles::Needles;
use crate::{Known, Options};

pub(crate) struct Tools<'a> {
    pub(crate) known: &'a [Known],
    /// Of each key, how many words it has.
    pub(crate) words: Vec<usize>,
    pub(crate) calls: Calls,
    pub(crate) needles: Needles,
    pub(crate) options: &'a Options,
}
