//! One file per command.

pub(crate) mod analysis;
pub(crate) mod apply;
pub(crate) mod certificates;
pub(crate) mod check;
pub(crate) mod cost;
pub(crate) mod demo;
pub(crate) mod deploy;
pub(crate) mod events;
pub(crate) mod flags;
pub(crate) mod history;
pub(crate) mod init;
pub(crate) mod judge;
pub(crate) mod logs;
pub(crate) mod rollback;
pub(crate) mod simple;
pub(crate) mod status;
pub(crate) mod token;
pub(crate) mod up;
pub(crate) mod upgrade;
