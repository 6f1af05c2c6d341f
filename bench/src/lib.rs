//! What the benchmarks share: the contenders side by side, a cheap target, a cheap load, and numbers.
//!
//! **Invariant**: all load stays on 127.0.0.0/8, bounded in count and time; only processes that were started here are ended.

mod configs;
pub mod contender;
pub mod flag_service;
pub mod flooder;
pub mod hammer;
pub mod numbers;
pub mod process;
mod secure;
pub mod target;

/// Runs this process in another role when it was started for that; to be called first.
pub fn play_role() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let played = match arguments.first().map(String::as_str) {
        Some("role-target") => target::play(&arguments[1..]),
        Some("role-hammer") => hammer::play(&arguments[1..]),
        Some("role-shake") => hammer::play_shake(&arguments[1..]),
        Some("role-idle") => hammer::play_idle(&arguments[1..]),
        Some("role-flooder") => flooder::play(&arguments[1..]),
        Some("role-sink") => flooder::play_sink(&arguments[1..]),
        Some("role-honest") => flooder::play_honest(&arguments[1..]),
        Some("role-service") => target::play_service(&arguments[1..]),
        Some("role-flags") => flag_service::play(&arguments[1..]),
        Some("role-yardstick") => flag_service::play_yardstick(&arguments[1..]),
        _ => return,
    };
    if let Err(error) = played {
        eprintln!("error: {error:#}");
        std::process::exit(1);
    }
    std::process::exit(0);
}
