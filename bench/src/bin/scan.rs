//! How long a scan for 500 flags takes on a made-up checkout of about 1 GB, beside grep and ripgrep with the same texts.
//!
//! Cold: the page cache is asked to forget every file first (as far as the kernel follows). `--megabytes N`, `--runs N`.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, ensure};
use bench::numbers::{argument, median, table};
use flag_scan::{Known, Options, Report, Stage, scan};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::sys::resource::{UsageWho, getrusage};

const KEYS: usize = 500;
/// One file in so many asks for a flag; one in a hundred defines a constant, which others import.
const FILES_PER_CALL: usize = 8;
const FILES_PER_CONSTANT: usize = 100;
const FOLDER_FILES: usize = 40;

/// Lines as they are in such files: `W` is a word, `N` a name of two words, `#` a number.
const LANGUAGES: [(&str, &[&str]); 8] = [
    (
        "ts",
        &[
            "import { N, W } from \"./W\";",
            "export async function N(W: string, W: number): Promise<W> {",
            "  const N = await this.W.N(W, { W: #, W: \"W\" });",
            "  if (N === undefined || N.W > #) {",
            "    throw new Error(`W of W is not W: ${N}`);",
            "  }",
            "  // the W of a W is W until its W is W",
            "  return W.map((W) => W.N(\"W-W\"));",
            "}",
            "",
        ],
    ),
    (
        "py",
        &[
            "from W.W import N",
            "def N(self, W, W=None):",
            "    \"\"\"W the W of its W.\"\"\"",
            "    N = self.W.get(\"W\", #)",
            "    if N is None and W not in self.N:",
            "        raise ValueError(f\"no W for {N}\")",
            "    # W is W when W",
            "    return [W.W for W in N if W.N]",
            "",
        ],
    ),
    (
        "go",
        &[
            "func (W *W) N(ctx context.Context, W string) (*W, error) {",
            "\tN, err := W.N(ctx, \"W\", W)",
            "\tif err != nil {",
            "\t\treturn nil, fmt.Errorf(\"W W: %w\", err)",
            "\t}",
            "\t// N is the W of W",
            "\treturn &W{N: N, W: #}, nil",
            "}",
            "",
        ],
    ),
    (
        "java",
        &[
            "import W.W.N;",
            "    private final W N;",
            "    public Optional<W> N(String W, int W) {",
            "        if (this.N.isEmpty() || W > #) {",
            "            return Optional.empty();",
            "        }",
            "        /* W of the W */",
            "        return N.stream().filter(W -> W.N().equals(\"W\")).findFirst();",
            "    }",
            "",
        ],
    ),
    (
        "rs",
        &[
            "use crate::W::{N, W};",
            "    pub fn N(&self, W: &str) -> Result<W, Error> {",
            "        let N = self.W.iter().find(|W| W.N == \"W\").ok_or(Error::W)?;",
            "        match N.W() { W if W > # => Ok(W), _ => Err(Error::W) }",
            "    }",
            "    /// W the W of a W.",
            "",
        ],
    ),
    (
        "rb",
        &[
            "  def N(W, W: #)",
            "    N = W.N(W: \"W\")",
            "    return unless N.W?",
            "    # W of W",
            "    N.each { |W| W.N('W') }",
            "  end",
            "",
        ],
    ),
    (
        "cs",
        &[
            "    public W N { get; set; }",
            "    public async Task<W> N(string W)",
            "    {",
            "        var N = await W.N(\"W\", #);",
            "        return N ?? throw new W(\"W W\");",
            "    }",
            "",
        ],
    ),
    ("yaml", &["W:", "  N: W", "  - name: W-W", "    W: #", "    W: \"W W\"", "# W of W"]),
];
const WORDS: &str = "account action active address agent amount array balance base batch bucket buffer build cache call card cart change channel \
    check child class client code column commit config context copy count country create credit current customer data date debug default delete \
    delivery detail device discount document domain draft driver edge email enabled entity entry error event expected factory field file filter first \
    flow folder form format frame group handler header history host image index info input invoice item job key label language last layout length \
    level limit line link list local lock logger login manager map market message meta method mode model module month name network node note number \
    object offer offset option order origin owner package page parent parser part path payment period phone plan point policy pool port price \
    primary product profile project property provider query queue range rate reason record region release remote report request reset resource \
    response result role root route rule sample schema scope score search second section select sender server service session setting shape share \
    size source stage start state status step stock storage store stream string style summary table tag target task team template tenant text theme \
    thread time title token total trace track type unit update upload user value variant vendor version view watch week width window worker zone";

struct Checkout {
    words: Vec<&'static str>,
    keys: Vec<String>,
    random: fastrand::Rng,
}

impl Checkout {
    fn new() -> Self {
        let words: Vec<&str> = WORDS.split_whitespace().collect();
        let mut random = fastrand::Rng::with_seed(7);
        let mut keys: Vec<String> = Vec::new();
        while keys.len() < KEYS {
            let signs = ["-", "_", "."];
            let count = random.usize(2..5);
            let parts: Vec<&str> = (0..count).map(|_| words[random.usize(..words.len())]).collect();
            let key = parts.join(signs[random.usize(..signs.len())]);
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        Self { words, keys, random }
    }

    fn word(&mut self) -> &'static str {
        self.words[self.random.usize(..self.words.len())]
    }

    fn line(&mut self, pattern: &str, out: &mut String) {
        for (index, piece) in pattern.split_inclusive(['W', 'N', '#']).enumerate() {
            let (text, sign) = piece.split_at(piece.len() - 1);
            let after_letter = text.chars().last().is_some_and(char::is_alphanumeric);
            out.push_str(text);
            match sign {
                "W" if !after_letter => out.push_str(self.word()),
                "N" if !after_letter => {
                    let (one, other) = (self.word(), self.word());
                    let _ = write!(out, "{one}{}{}", other[..1].to_uppercase(), &other[1..]);
                }
                "#" if index > 0 => _ = write!(out, "{}", self.random.u32(..1_000)),
                _ => out.push_str(sign),
            }
        }
        out.push('\n');
    }

    /// A file of 2 to 40 kB; small ones are more frequent.
    fn file(&mut self, number: usize) -> (&'static str, String) {
        let (extension, lines) = LANGUAGES[number % LANGUAGES.len()];
        let length = 2_000 + (38_000.0 * self.random.f64().powi(2)) as usize;
        let mut text = String::with_capacity(length + 200);
        let key = self.keys[self.random.usize(..KEYS)].clone();
        if number.is_multiple_of(FILES_PER_CONSTANT) {
            let _ = match extension {
                "py" => writeln!(text, "FLAG_{number} = \"{key}\""),
                "java" => writeln!(text, "class Flags{number} {{\n    static final String FLAG_{number} = \"{key}\";\n}}"),
                _ => writeln!(text, "export const FLAG_{number} = \"{key}\";"),
            };
        }
        while text.len() < length / 2 {
            let line = lines[self.random.usize(..lines.len())];
            self.line(line, &mut text);
        }
        if number.is_multiple_of(FILES_PER_CALL) {
            let _ = match extension {
                "py" | "rb" => writeln!(text, "    client.get_boolean_value(\"{key}\", False)"),
                "yaml" => writeln!(text, "features:\n  {key}: true"),
                _ => writeln!(text, "  client.getBooleanValue(\"{key}\", false);"),
            };
        }
        while text.len() < length {
            let line = lines[self.random.usize(..lines.len())];
            self.line(line, &mut text);
        }
        (extension, text)
    }

    /// Writes files until there are so many bytes. Each is written by itself, so memory does not grow with the checkout.
    fn write(&mut self, root: &Path, bytes: u64) -> anyhow::Result<Vec<PathBuf>> {
        let (mut paths, mut written) = (Vec::new(), 0);
        while written < bytes {
            let number = paths.len();
            // By folders, so that every folder has all languages.
            let folder = root.join(format!("part{}/area{}", number / FOLDER_FILES / 50, number / FOLDER_FILES % 50));
            if number.is_multiple_of(FOLDER_FILES) {
                fs::create_dir_all(&folder)?;
            }
            let (extension, text) = self.file(number + number / LANGUAGES.len());
            let path = folder.join(format!("{}{number}.{extension}", self.word()));
            fs::write(&path, &text).with_context(|| path.display().to_string())?;
            written += text.len() as u64;
            paths.push(path);
        }
        Ok(paths)
    }
}

/// Asks the kernel to forget what it keeps of the files.
fn forget(paths: &[PathBuf]) -> anyhow::Result<()> {
    for path in paths {
        let file = File::open(path)?;
        file.sync_data()?;
        posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
    }
    Ok(())
}

/// Every key in every spelling, as `flag_scan` looks for them.
fn texts(keys: &[String]) -> String {
    let mut texts: Vec<String> = Vec::new();
    for key in keys {
        let words: Vec<&str> = key.split(['-', '_', '.']).collect();
        let capital = |word: &&str| format!("{}{}", word[..1].to_uppercase(), &word[1..]);
        let pascal: String = words.iter().map(capital).collect();
        texts.extend([words.join("-"), words.join("_"), words.join("."), words.join("_").to_uppercase()]);
        texts.extend([format!("{}{}", words[0], words[1..].iter().map(capital).collect::<String>()), pascal]);
    }
    texts.sort_unstable();
    texts.dedup();
    texts.join("\n")
}

fn processor_seconds(who: UsageWho) -> anyhow::Result<f64> {
    let used = getrusage(who)?;
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    Ok(seconds(used.user_time()) + seconds(used.system_time()))
}

/// Seconds of a program; nothing when it is not installed.
fn peer(program: &str, arguments: &[&str], patterns: &Path, root: &Path) -> anyhow::Result<Option<f64>> {
    let began = Instant::now();
    let mut command = Command::new(program);
    command.args(arguments).arg("-f").arg(patterns).arg(root).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let Ok(status) = command.env("LC_ALL", "C").status() else { return Ok(None) };
    ensure!(status.success(), "{program} found nothing");
    Ok(Some(began.elapsed().as_secs_f64()))
}

fn main() -> anyhow::Result<()> {
    let megabytes = argument("--megabytes", 1_000);
    let runs = argument("--runs", 3) as usize;
    let folder = tempfile::tempdir()?;
    let root = folder.path().join("checkout");
    let mut checkout = Checkout::new();
    let paths = checkout.write(&root, megabytes * 1_000_000)?;
    let patterns = folder.path().join("patterns");
    File::create(&patterns)?.write_all(texts(&checkout.keys).as_bytes())?;
    let known: Vec<Known> =
        checkout.keys.iter().map(|key| Known { key: key.clone(), stage: Stage::Active, expired: false, keep: None }).collect();
    let options = Options { threads: 2, ..Options::default() };
    let timed = || -> anyhow::Result<(f64, Report)> {
        let (began, spent) = (Instant::now(), processor_seconds(UsageWho::RUSAGE_SELF)?);
        let report = scan(&root, &known, &options)?;
        println!("{:.2} s, {:.2} s of processor time", began.elapsed().as_secs_f64(), processor_seconds(UsageWho::RUSAGE_SELF)? - spent);
        Ok((began.elapsed().as_secs_f64(), report))
    };

    forget(&paths)?;
    let (cold, report) = timed()?;
    let calls = paths.len().div_ceil(FILES_PER_CALL);
    ensure!(
        report.files == paths.len() && report.references.len() > calls / 2,
        "{} references in {} files",
        report.references.len(),
        report.files
    );
    let warm = (0..runs).map(|_| Ok(timed()?.0)).collect::<anyhow::Result<Vec<f64>>>()?;
    let peak = fs::read_to_string("/proc/self/status")?;
    let peak = peak.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("unknown").trim().to_owned();
    let gigabytes = report.bytes as f64 / 1e9;
    let ours = median(&warm) / gigabytes;
    let mut rows = vec![vec!["".to_owned(), "s per GB".to_owned(), "of ours".to_owned()]];
    rows.push(vec!["changeover, cold".to_owned(), format!("{:.2}", cold / gigabytes), format!("{:.2}", cold / gigabytes / ours)]);
    rows.push(vec!["changeover, warm".to_owned(), format!("{ours:.2}"), "1.00".to_owned()]);
    let mut peers = serde_json::Map::new();
    for (program, arguments) in [("rg", &["-F", "-j2", "--hidden", "--count-matches"][..]), ("grep", &["-rF", "-c"][..])] {
        let spent = (0..runs).map(|_| peer(program, arguments, &patterns, &root)).collect::<anyhow::Result<Option<Vec<f64>>>>()?;
        if let Some(spent) = spent.filter(|spent| !spent.is_empty()) {
            let per = median(&spent) / gigabytes;
            rows.push(vec![format!("{program} {}", arguments[0]), format!("{per:.2}"), format!("{:.2}", per / ours)]);
            peers.insert(program.to_owned(), serde_json::json!(per));
        }
    }
    println!(
        "{:.2} GB in {} files, {KEYS} flags, {} references, {} unknown; peak memory of this process {peak}",
        gigabytes,
        report.files,
        report.references.len(),
        report.unknown.len()
    );
    table(&rows);
    println!(
        "{}",
        serde_json::json!({ "gigabytes": gigabytes, "files": report.files, "references": report.references.len(), "cold": cold / gigabytes, "warm": ours, "peak": peak, "peers": peers })
    );
    Ok(())
}
