//! What was typed.

pub(crate) mod flags;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// Replace a running service without losing a request, and take it back at once.
#[derive(Parser)]
#[command(name = "changeover", version, arg_required_else_help = true)]
pub(crate) struct Args {
    /// The configuration file
    #[arg(long, global = true, default_value = "changeover.yaml", env = "CHANGEOVER_FILE")]
    file: PathBuf,
    /// Where state, logs and the API socket are [default: `.changeover` beside the file]
    #[arg(long, global = true, env = "CHANGEOVER_STATE_DIR")]
    state_dir: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// Where the file and the state are; absolute.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) file: PathBuf,
    pub(crate) state_dir: PathBuf,
}

impl Place {
    pub(crate) fn socket(&self) -> PathBuf {
        self.state_dir.join("api.sock")
    }
}

impl Args {
    pub(crate) fn place(&self) -> Place {
        let absolute = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
        let file = absolute(&self.file);
        let beside = || file.parent().map(|folder| folder.join(".changeover")).unwrap_or_default();
        let state_dir = self.state_dir.as_ref().map_or_else(beside, absolute);
        Place { file, state_dir }
    }
}

#[derive(clap::Args)]
pub(crate) struct Upgrade {
    /// The new binary [default: the file that the running one was started from]
    #[arg(long)]
    pub(crate) binary: Option<PathBuf>,
    /// How long the old worker may finish downloads, uploads and tunnels before they are cut
    #[arg(long, default_value = "10m", value_name = "DURATION")]
    pub(crate) drain: jiff::SignedDuration,
}

#[derive(Subcommand)]
pub(crate) enum Verb {
    /// Watch a small service being replaced under load, on this machine, within a minute
    Demo(Demo),
    #[command(hide = true)]
    DemoService(DemoService),
    /// Write a commented changeover.yaml
    Init,
    /// Read changeover.yaml and say what is wrong with it
    Check,
    /// Print the JSON Schema of changeover.yaml
    Schema,
    /// Run: listen, route, keep versions running
    Up,
    #[command(hide = true)]
    Worker,
    /// Say what `apply` would do
    Plan,
    /// Make the running changeover follow the file, without losing a request
    Apply,
    /// End the running changeover and the versions it started
    Down {
        /// Leave the versions running; the next `up` adopts them
        #[arg(long)]
        keep_versions: bool,
    },
    /// Replace changeover itself while it runs: the new binary is checked beside the old one, which stays when it is no good
    Upgrade(Upgrade),
    /// Release a version: start, check, switch, drain, watch
    Deploy(Deploy),
    /// Let a release that waits for a person go on; a canary to its next step
    Promote(Promote),
    /// Hold a canary at its step; what regresses is still taken back
    Pause {
        service: String,
        /// Why
        #[arg(long, short)]
        message: Option<String>,
    },
    /// End the running release: stable serves again
    Abort {
        service: String,
        /// Why
        #[arg(long, short)]
        message: Option<String>,
        /// Also when a migration cannot be undone
        #[arg(long)]
        force: bool,
    },
    /// Try the last release once more; migrations that passed do not run again
    Retry { service: String },
    /// Go back to the previous good version, at once
    Rollback(Rollback),
    /// Let requests wait (at most so long, then 504)
    Hold {
        service: String,
        /// Serve again
        #[arg(long)]
        off: bool,
        #[arg(long, default_value = "30s")]
        wait: String,
    },
    /// Answer 503 with a page
    Maintenance {
        service: String,
        /// Serve again
        #[arg(long)]
        off: bool,
        /// A file with the page
        #[arg(long)]
        page: Option<PathBuf>,
    },
    /// Stop all processes of a service
    Stop { service: String },
    /// Start a stopped service
    Start { service: String },
    /// Replace the processes of the serving version by new ones
    Restart { service: String },
    /// End what was deployed and forget it; the history stays
    Remove { service: String },
    /// Let a paused canary go on; without a service: drive releases again, after the worker crashed several times in a row
    Resume { service: Option<String> },
    /// What is going on
    Status {
        /// One service, and the evidence of its release
        service: Option<String>,
        /// Again every second
        #[arg(long, short)]
        watch: bool,
        #[arg(long)]
        json: bool,
    },
    /// Feature flags: make, switch, roll out, compare, and clear away
    Flags {
        #[command(subcommand)]
        what: flags::Flags,
    },
    /// What the judge saw
    Analysis {
        #[command(subcommand)]
        what: Analysis,
    },
    /// Releases: who, why, when, outcome
    History {
        service: Option<String>,
        #[arg(long)]
        json: bool,
    },
    /// Processor and memory that versions used, by release, and what another standby would have
    Cost {
        service: Option<String>,
        #[arg(long)]
        json: bool,
    },
    /// Certificates that listeners show, and until when
    Certificates {
        /// Ask the authority for this name at once, after a try that failed
        #[arg(long, value_name = "NAME")]
        retry: Option<String>,
        #[arg(long)]
        json: bool,
    },
    /// What happened
    Events(Events),
    /// A version's output
    Logs(Logs),
    /// Make a token for the page and the API over TCP
    Token(Token),
    /// Counts in Prometheus' text format
    Metrics,
    /// Try the judge of canaries on your own numbers
    Judge {
        #[command(subcommand)]
        what: Judge,
    },
    /// Print a completion script for a shell
    Completions { shell: clap_complete::Shell },
}

#[derive(clap::Args)]
pub(crate) struct Demo {
    /// switch: blue/green, rollback, a version that fails its gate; canary: a good version climbs, a bad one is taken back
    #[arg(value_enum, default_value_t = DemoOf::Switch)]
    pub(crate) what: DemoOf,
    /// Leave it running at the end
    #[arg(long)]
    pub(crate) keep: bool,
}

#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DemoOf {
    Switch,
    Canary,
}

#[derive(clap::Args)]
pub(crate) struct DemoService {
    pub(crate) version: String,
    pub(crate) port: u16,
    #[arg(long)]
    pub(crate) unhealthy: bool,
    #[arg(long)]
    pub(crate) record: Option<PathBuf>,
    #[arg(long)]
    pub(crate) behaviour: Option<PathBuf>,
}

#[derive(clap::Args)]
pub(crate) struct Deploy {
    pub(crate) service: String,
    /// The version's name, such as v2, 2026-11-23.4 or a git hash
    #[arg(long, short)]
    pub(crate) version: String,
    /// For `runtime: static`: where it runs
    #[arg(long = "address")]
    pub(crate) addresses: Vec<SocketAddr>,
    /// Why
    #[arg(long, short)]
    pub(crate) message: Option<String>,
    /// Take the running release back first, then begin
    #[arg(long)]
    pub(crate) supersede: bool,
    /// Begin when the running release has ended
    #[arg(long, conflicts_with = "supersede")]
    pub(crate) queue: bool,
    /// Say what would happen, and how long it would take with the traffic of now
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Subcommand)]
pub(crate) enum Analysis {
    /// Every metric, look, number and reason of a release
    Show {
        /// Such as 43, or web/43
        release: String,
        #[arg(long)]
        json: bool,
    },
}

#[derive(clap::Args)]
pub(crate) struct Promote {
    pub(crate) service: String,
    /// To everybody, without the steps in between
    #[arg(long)]
    pub(crate) full: bool,
    /// Only if it is at this step, counted from 1
    #[arg(long)]
    pub(crate) step: Option<usize>,
    /// Why
    #[arg(long, short)]
    pub(crate) message: Option<String>,
}

#[derive(clap::Args)]
pub(crate) struct Rollback {
    pub(crate) service: String,
    /// A version further back
    #[arg(long)]
    pub(crate) to: Option<String>,
    /// Also when a migration cannot be undone
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(clap::Args)]
pub(crate) struct Events {
    pub(crate) service: Option<String>,
    /// Only those after this number
    #[arg(long, default_value_t = 0)]
    pub(crate) since: u64,
    /// Go on as they happen
    #[arg(long, short)]
    pub(crate) follow: bool,
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(clap::Args)]
pub(crate) struct Token {
    /// What it allows: `read` (look), `act`; of flags `evaluate`, `sync`, `write`, alone or with `:ENVIRONMENT`
    #[arg(long, default_value = "act")]
    pub(crate) scope: String,
    /// Who acts with it, for the history [default: your user name]
    #[arg(long)]
    pub(crate) name: Option<String>,
}

#[derive(clap::Args)]
pub(crate) struct Logs {
    pub(crate) service: String,
    #[arg(long)]
    pub(crate) version: Option<String>,
    /// Go on as it is written
    #[arg(long, short)]
    pub(crate) follow: bool,
}

#[derive(Subcommand)]
pub(crate) enum Judge {
    /// Say what it would do: how often an equal version is rolled back, how soon a bad one, how long a good one takes
    Simulate(Simulate),
    /// Compute a file of reference vectors, and say where a number differs
    Check {
        #[arg(value_name = "FILE")]
        vectors: PathBuf,
    },
}

#[derive(clap::Args)]
pub(crate) struct Simulate {
    /// Requests a second, both versions together
    #[arg(long, default_value_t = 1_000.0)]
    pub(crate) rps: f64,
    /// Share of requests that fail today
    #[arg(long, value_parser = share, default_value = "0.1%")]
    pub(crate) errors: f64,
    /// Share of the candidate's requests that fail [default: as today]
    #[arg(long, value_parser = share)]
    pub(crate) candidate_errors: Option<f64>,
    /// Every answer of the candidate takes so many times as long
    #[arg(long, default_value_t = 1.0)]
    pub(crate) latency_factor: f64,
    /// Share of the candidate's requests that are never answered
    #[arg(long, value_parser = share, default_value = "0%")]
    pub(crate) hangs: f64,
    /// The candidate's share of all requests, step by step; 100% follows
    #[arg(long, value_parser = weight, value_delimiter = ',', default_value = "1%,5%,20%")]
    pub(crate) steps: Vec<u16>,
    /// A step is given up after so long
    #[arg(long, default_value = "30m")]
    pub(crate) max_step: jiff::SignedDuration,
    /// So much of all traffic may fail additionally at the next step: more budget, shorter steps
    #[arg(long, value_parser = share, default_value = "0.1%")]
    pub(crate) budget: f64,
    /// How many releases to play
    #[arg(long, default_value_t = 200)]
    pub(crate) runs: u32,
    /// The same seed gives the same releases
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    #[arg(long)]
    pub(crate) json: bool,
}

/// `0.1%` as 0.001.
fn share(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').map(str::trim_end).and_then(|number| number.parse::<f64>().ok());
    number.filter(|percent| (0.0..=100.0).contains(percent)).map(|percent| percent / 100.0).ok_or("a share such as 0.1% or 5%".to_owned())
}

/// `5%` as 500 of 10,000.
fn weight(text: &str) -> Result<u16, String> {
    let parts = share(text)? * 10_000.0;
    let whole = parts.round();
    let is_step = (parts - whole).abs() < 1e-6 && (1.0..10_000.0).contains(&whole);
    if is_step { Ok(whole as u16) } else { Err("a step is at least 0.01%, below 100%, and a whole number of 0.01%".to_owned()) }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn no_two_options_share_a_name() {
        super::Args::command().debug_assert();
    }

    #[test]
    fn shares_are_written_with_a_percent_sign() {
        assert_eq!(super::share("0.5%"), Ok(0.005));
        assert_eq!(super::share("5 %"), Ok(0.05));
        assert_eq!((super::weight("5%"), super::weight("0.01%")), (Ok(500), Ok(1)));
        for wrong in ["0.5", "-1%", "101%", "NaN%", "%", ""] {
            assert!(super::share(wrong).is_err(), "{wrong}");
        }
        for wrong in ["0%", "100%", "0.001%", "0.015%"] {
            assert!(super::weight(wrong).is_err(), "{wrong}");
        }
    }
}
