//! SIGTERM without a library: the handler only sets a flag.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

const SIGTERM: i32 = 15;

static ASKED: AtomicBool = AtomicBool::new(false);

unsafe extern "C" {
    /// signal(2), of the C library that the standard library links anyway.
    fn signal(number: i32, handler: extern "C" fn(i32)) -> usize;
}

extern "C" fn asked(_: i32) {
    ASKED.store(true, Ordering::SeqCst);
}

pub fn on_sigterm() {
    // SAFETY: storing into an atomic is allowed in a signal handler.
    unsafe { signal(SIGTERM, asked) };
}

pub fn wait() {
    while !ASKED.load(Ordering::SeqCst) {
        thread::sleep(Duration::from_millis(20));
    }
}
