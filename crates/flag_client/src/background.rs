//! Where work goes on while the program does its own.
//!
//! **Invariant**: a thread of ours ends when its work does, and nobody waits for it. Not here: the work.

use std::thread;

use tokio::runtime::{Builder, Handle};

use crate::options::OptionsError;

const THREAD_NAME: &str = "changeover-flags";

/// On the given runtime, or on a thread with one of its own.
pub(crate) fn run(runtime: Option<&Handle>, work: impl Future<Output = ()> + Send + 'static) -> Result<(), OptionsError> {
    if let Some(runtime) = runtime {
        runtime.spawn(work);
        return Ok(());
    }
    let runtime = Builder::new_current_thread().enable_all().build().map_err(OptionsError::Thread)?;
    let thread = thread::Builder::new().name(THREAD_NAME.to_owned());
    thread.spawn(move || runtime.block_on(work)).map_err(OptionsError::Thread)?;
    Ok(())
}
