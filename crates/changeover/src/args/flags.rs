//! What was typed after `changeover flags`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

#[derive(Subcommand)]
pub(crate) enum Flags {
    /// Serve flags, and nothing else: no service needed
    Serve(Serve),
    /// All flags: who answers for them, what each environment answers
    List {
        #[arg(long)]
        json: bool,
    },
    /// Everything about one flag
    Show {
        key: String,
        #[arg(long)]
        json: bool,
    },
    /// What somebody gets, without counting it
    Eval(Eval),
    /// Make a flag; it is off everywhere
    Create(Create),
    /// Change who answers for a flag, what it is for, or when it ends
    Describe(Describe),
    /// Switch it on
    On(Switched),
    /// Switch it off, at once, for everybody
    Off(Switched),
    /// Change its rules, and what it answers when none decides
    Target(Target),
    /// Answer only while another flag answers as said
    Require(Require),
    /// Need another flag no more
    Unrequire {
        key: String,
        /// The flag that it needs
        flag: String,
        #[command(flatten)]
        said: Said,
    },
    /// Give a variant to more and more users, each step judged; what is worse is taken back by itself
    Rollout(Rollout),
    /// Compare variants: users by shares, goals, intervals that hold whenever you look
    Experiment(Experiment),
    /// Nobody new gets the variant that is rolled out; what gets worse is still taken back
    Pause(Switched),
    /// Let a rollout go on
    Resume(Switched),
    /// End a rollout or an experiment
    End {
        key: String,
        /// Everybody gets this variant [default: what there was before]
        #[arg(long)]
        keep: Option<String>,
        #[command(flatten)]
        said: Said,
    },
    /// What is known of a rollout or an experiment
    Report {
        key: String,
        #[arg(long, short)]
        environment: Option<String>,
        /// Again every second
        #[arg(long, short)]
        watch: bool,
        #[arg(long)]
        json: bool,
    },
    /// Switch at a time; survives restarts, a missed time is caught up with once
    Schedule(Schedule),
    /// What the clock will switch
    Schedules {
        #[arg(long)]
        json: bool,
    },
    /// Forget a schedule
    Unschedule { schedule: u64 },
    /// What was changed: who, when, why
    History {
        key: Option<String>,
        /// So many at most
        #[arg(long, default_value_t = 50)]
        limit: usize,
        #[arg(long)]
        json: bool,
    },
    /// Make a flag what it was before a change
    Revert {
        /// Its number, from the history
        change: u64,
        /// Also when it was changed since
        #[arg(long)]
        force: bool,
        #[arg(long, short)]
        message: Option<String>,
    },
    /// Changes that wait for a second person
    Proposals {
        #[arg(long)]
        json: bool,
    },
    /// Agree to somebody else's proposal
    Approve { proposal: u64 },
    /// Refuse a proposal
    Reject { proposal: u64 },
    /// Which flags have outlived their use, with the evidence
    Debt {
        #[arg(long)]
        json: bool,
    },
    /// Where a checkout speaks of which flag; never changes code
    Scan(Scan),
    /// For CI: fail on unknown keys, archived keys and too much debt
    Check(Check),
    /// Put a flag away: who still asks gets the code's default, and is counted
    Archive {
        key: String,
        /// Although code names it, or somebody asked lately
        #[arg(long)]
        force: bool,
        #[arg(long, short)]
        message: Option<String>,
    },
    /// Take an archived flag back
    Restore {
        key: String,
        #[arg(long, short)]
        message: Option<String>,
    },
    /// How users are dealt into shares: v2 as flagd's server and JavaScript do, v3 as newer Python and Rust do
    Bucketing {
        to: Bucketing,
        /// Also while a rollout or an experiment runs
        #[arg(long)]
        rebucket: bool,
        #[command(flatten)]
        said: Said,
    },
    /// The set of an environment as it is served, in flagd's format
    Export {
        #[arg(long, short)]
        environment: Option<String>,
    },
}

#[derive(Args)]
pub(crate) struct Serve {
    /// Files in flagd's format (JSON or YAML), watched
    pub(crate) files: Vec<PathBuf>,
    /// Everything on one port, such as 127.0.0.1:8013 [default: flagd's ports on 127.0.0.1]
    #[arg(long)]
    pub(crate) listen: Option<SocketAddr>,
    /// What the environment is called
    #[arg(long, short, default_value = "production")]
    pub(crate) environment: String,
}

/// Where, and why.
#[derive(Args)]
pub(crate) struct Said {
    /// Needed where there are several
    #[arg(long, short)]
    pub(crate) environment: Option<String>,
    /// Why; kept in the history
    #[arg(long, short)]
    pub(crate) message: Option<String>,
}

#[derive(Args)]
pub(crate) struct Switched {
    pub(crate) key: String,
    #[command(flatten)]
    pub(crate) said: Said,
}

#[derive(Args)]
pub(crate) struct Eval {
    pub(crate) key: String,
    /// The targeting key
    #[arg(long, short)]
    pub(crate) user: Option<String>,
    /// More of the context: a name and a value, as JSON or as text
    #[arg(long = "with", value_name = "NAME=VALUE")]
    pub(crate) values: Vec<String>,
    #[arg(long, short)]
    pub(crate) environment: Option<String>,
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
pub(crate) struct Create {
    pub(crate) key: String,
    /// Who takes it out again
    #[arg(long)]
    pub(crate) owner: Option<String>,
    /// What it is for
    #[arg(long)]
    pub(crate) description: Option<String>,
    /// A name and a value, as JSON or as text [default: on=true, off=false]
    #[arg(long = "variant", value_name = "NAME=VALUE")]
    pub(crate) variants: Vec<String>,
    /// Answered when it is on
    #[arg(long, value_name = "VARIANT")]
    pub(crate) on: Option<String>,
    /// Answered when it is off [default: the variant that is false; else the code's default]
    #[arg(long, value_name = "VARIANT")]
    pub(crate) off: Option<String>,
    #[command(flatten)]
    pub(crate) life: Life,
    /// Why; kept in the history
    #[arg(long, short)]
    pub(crate) message: Option<String>,
}

#[derive(Args)]
#[group(multiple = false)]
pub(crate) struct Life {
    /// When it has outlived its use [default: 30d]
    #[arg(long, value_name = "DURATION")]
    pub(crate) expires: Option<String>,
    /// It has no end, because …
    #[arg(long, value_name = "REASON")]
    pub(crate) permanent: Option<String>,
    /// It is there to be switched off in need
    #[arg(long)]
    pub(crate) kill_switch: bool,
}

#[derive(Args)]
pub(crate) struct Describe {
    pub(crate) key: String,
    #[arg(long)]
    pub(crate) owner: Option<String>,
    #[arg(long)]
    pub(crate) description: Option<String>,
    #[command(flatten)]
    pub(crate) life: Life,
    /// Why; kept in the history
    #[arg(long, short)]
    pub(crate) message: Option<String>,
}

#[derive(Args)]
pub(crate) struct Target {
    pub(crate) key: String,
    /// JsonLogic that names a variant or null: the text, or the path of a file
    #[arg(long, conflicts_with = "no_rule")]
    pub(crate) rule: Option<String>,
    /// Everybody gets the same
    #[arg(long)]
    pub(crate) no_rule: bool,
    /// Whom no rule decides for gets this variant
    #[arg(long, value_name = "VARIANT")]
    pub(crate) serve: Option<String>,
    #[command(flatten)]
    pub(crate) said: Said,
}

#[derive(Args)]
pub(crate) struct Require {
    pub(crate) key: String,
    /// The flag that it needs
    pub(crate) flag: String,
    /// What that one must answer; more than once: one of these
    #[arg(long = "variant", required = true)]
    pub(crate) variants: Vec<String>,
    /// Answered otherwise [default: as when it is off]
    #[arg(long, value_name = "VARIANT")]
    pub(crate) unmet: Option<String>,
    #[command(flatten)]
    pub(crate) said: Said,
}

#[derive(Args)]
pub(crate) struct Rollout {
    pub(crate) key: String,
    /// Shares of users in percent, rising
    #[arg(long, value_delimiter = ',', default_value = "1,5,20,100")]
    pub(crate) steps: Vec<String>,
    /// The least time of a step; only a healthy verdict goes on
    #[arg(long, default_value = "10m")]
    pub(crate) every: String,
    /// What is rolled out [default: what it answers when it is on]
    #[arg(long)]
    pub(crate) variant: Option<String>,
    /// Judge by the requests that carried the evaluation, as this proxy saw them end
    #[arg(long)]
    pub(crate) requests: bool,
    /// Judge by an outcome that clients report as failed or not
    #[arg(long = "outcome", value_name = "NAME")]
    pub(crate) outcomes: Vec<String>,
    #[command(flatten)]
    pub(crate) said: Said,
}

#[derive(Args)]
pub(crate) struct Experiment {
    pub(crate) key: String,
    /// Variants and their shares of users in percent, which sum to 100
    #[arg(long, value_delimiter = ',', required = true, value_name = "VARIANT=PERCENT")]
    pub(crate) shares: Vec<String>,
    /// What clients report: NAME is done or not, NAME:mean a number per user; `:lower` when less is better
    #[arg(long = "goal", required = true, value_name = "NAME[:mean][:lower]")]
    pub(crate) goals: Vec<String>,
    /// What the others are compared with [default: what is answered when it is off, else the last one]
    #[arg(long)]
    pub(crate) control: Option<String>,
    /// So long after its first exposure a user's outcomes count
    #[arg(long, default_value = "1h")]
    pub(crate) window: String,
    #[command(flatten)]
    pub(crate) said: Said,
}

#[derive(Args)]
pub(crate) struct Schedule {
    pub(crate) key: String,
    pub(crate) switch: Switch,
    /// Such as 2026-12-01T09:00Z
    #[arg(long, required_unless_present = "after", conflicts_with = "after")]
    pub(crate) at: Option<String>,
    /// Such as 2h
    #[arg(long = "in", value_name = "DURATION", id = "after")]
    pub(crate) after: Option<String>,
    #[command(flatten)]
    pub(crate) said: Said,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Switch {
    On,
    Off,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Bucketing {
    V2,
    V3,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Text,
    Json,
    Sarif,
}

/// Which flags there are: those that are served here, or those of files.
#[derive(Args)]
pub(crate) struct Which {
    /// The checkout
    #[arg(default_value = ".")]
    pub(crate) folder: PathBuf,
    /// Flags of these files instead of the running changeover's
    #[arg(long = "flags", value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// More names of calls that ask for a flag, such as `feature`
    #[arg(long = "call", value_name = "NAME")]
    pub(crate) calls: Vec<String>,
    #[arg(long, default_value = "text")]
    pub(crate) format: Format,
}

#[derive(Args)]
pub(crate) struct Scan {
    #[command(flatten)]
    pub(crate) which: Which,
    /// Only this flag, with the value to keep and the places in the order that is safe
    #[arg(long)]
    pub(crate) key: Option<String>,
    /// Remember the places, for `flags debt` and `flags archive`
    #[arg(long)]
    pub(crate) record: bool,
}

#[derive(Args)]
pub(crate) struct Check {
    #[command(flatten)]
    pub(crate) which: Which,
    /// So many expired flags may there be
    #[arg(long, default_value_t = 0, value_name = "NUMBER")]
    pub(crate) max_expired: usize,
    /// So many flags may be ready to remove
    #[arg(long, value_name = "NUMBER")]
    pub(crate) max_ready: Option<usize>,
}
