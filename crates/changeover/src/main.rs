//! The front door: one file per command, and the wiring of the rooms.

mod args;
mod client;
mod commands;
mod exit;
mod worker;

use std::process::ExitCode;

/// Gives back to the system what idle connections no longer need; the C library's kept most of it (bench/README.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

use clap::Parser;

use args::{Args, Verb};
use exit::Exit;

fn main() -> ExitCode {
    // What the keeper starts before a version's command; it must not touch the arguments that follow.
    if std::env::args_os().nth(1).is_some_and(|first| first == "child") {
        keeper::child_main(std::env::args_os().skip(2));
    }
    if let Some(ended) = commands::up::resumed() {
        return ended;
    }
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage.into() } else { Exit::Done.into() };
        }
    };
    let place = args.place();
    let done = match args.verb {
        Verb::Demo(demo) => commands::demo::run(&demo),
        Verb::DemoService(service) => commands::demo::service(service),
        Verb::Init => commands::init::run(&place),
        Verb::Check => commands::check::run(&place),
        Verb::Schema => commands::check::schema(),
        Verb::Up => commands::up::run(&place),
        Verb::Worker => worker::run(&place),
        Verb::Plan => commands::apply::plan(&place),
        Verb::Apply => commands::apply::apply(&place),
        Verb::Down { keep_versions } => commands::simple::down(&place, keep_versions),
        Verb::Upgrade(upgrade) => commands::upgrade::run(&place, &upgrade),
        Verb::Deploy(deploy) => commands::deploy::run(&place, &deploy),
        Verb::Promote(promote) => commands::simple::promote(&place, &promote),
        Verb::Pause { service, message } => commands::simple::pause(&place, &service, message),
        Verb::Retry { service } => commands::simple::retry(&place, &service),
        Verb::Abort { service, message, force } => commands::simple::abort(&place, &service, message, force),
        Verb::Rollback(rollback) => commands::rollback::run(&place, &rollback),
        Verb::Hold { service, off, wait } => commands::simple::hold(&place, &service, off, &wait),
        Verb::Maintenance { service, off, page } => commands::simple::maintenance(&place, &service, off, page.as_deref()),
        Verb::Stop { service } => commands::simple::verb(&place, &service, "stop"),
        Verb::Start { service } => commands::simple::verb(&place, &service, "start"),
        Verb::Restart { service } => commands::simple::verb(&place, &service, "restart"),
        Verb::Remove { service } => commands::simple::verb(&place, &service, "remove"),
        Verb::Resume { service } => commands::simple::resume(&place, service.as_deref()),
        Verb::Status { service, watch, json } => commands::status::run(&place, service.as_deref(), watch, json),
        Verb::Flags { what } => commands::flags::run(&place, what),
        Verb::Analysis { what: args::Analysis::Show { release, json } } => commands::analysis::show(&place, &release, json),
        Verb::History { service, json } => commands::history::run(&place, service.as_deref(), json),
        Verb::Cost { service, json } => commands::cost::run(&place, service.as_deref(), json),
        Verb::Certificates { retry, json } => commands::certificates::run(&place, retry.as_deref(), json),
        Verb::Events(events) => commands::events::run(&place, &events),
        Verb::Logs(logs) => commands::logs::run(&place, &logs),
        Verb::Token(token) => commands::token::run(&place, &token),
        Verb::Metrics => commands::simple::metrics(&place),
        Verb::Judge { what: args::Judge::Simulate(simulate) } => commands::judge::simulate(&simulate),
        Verb::Judge { what: args::Judge::Check { vectors } } => commands::judge::check(&vectors),
        Verb::Completions { shell } => {
            clap_complete::generate(shell, &mut <Args as clap::CommandFactory>::command(), "changeover", &mut std::io::stdout());
            Ok(Exit::Done)
        }
    };
    match done {
        Ok(exit) => exit.into(),
        Err(error) => {
            anstream::eprintln!("error: {error:#}");
            exit::of(&error).into()
        }
    }
}
