//! Asks for three users; once, or with `watch` every second. Evaluated in this process; the flags are kept fresh in the background.

use std::thread::sleep;
use std::time::Duration;

use changeover_flags::{Context, Flags, Options, OptionsError};

fn main() -> Result<(), OptionsError> {
    // 127.0.0.1:8015, unless FLAGD_HOST and FLAGD_SYNC_PORT say otherwise.
    let flags = Flags::connect(Options::from_env())?;
    let users = ["user-1", "user-2", "user-3"].map(Context::of);
    let watch = std::env::args().any(|argument| argument == "watch");
    loop {
        let answers = users.each_ref().map(|user| flags.is_enabled("new-scoring-algorithm", user));
        println!("rust: user-1 {}, user-2 {}, user-3 {}", answers[0], answers[1], answers[2]);
        if !watch {
            return Ok(());
        }
        sleep(Duration::from_secs(1));
    }
}
