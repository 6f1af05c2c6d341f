//! Metrics of the user's own: a real Prometheus, commands and JSON documents; each way to give no number is a state of its own.

mod house;

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use house::{DEADLINE, House};
use serde_json::Value;
use testbed::{ports, wait};

/// Answers every request with a text that may change: an exposition for Prometheus, or a document.
struct Exposes {
    address: SocketAddr,
    text: Arc<Mutex<String>>,
}

impl Exposes {
    fn new(text: &str) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
        let exposes = Self { address: socket.local_addr().expect("bound"), text: Arc::new(Mutex::new(text.to_owned())) };
        let text = exposes.text.clone();
        std::thread::spawn(move || {
            for stream in socket.incoming().flatten() {
                let mut lines = BufReader::new(&stream).lines();
                while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
                let text = text.lock().expect("not poisoned").clone();
                let length = text.len();
                let head = format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
                let _ = (&stream).write_all((head + &text).as_bytes());
            }
        });
        exposes
    }

    fn say(&self, text: &str) {
        text.clone_into(&mut self.text.lock().expect("not poisoned"));
    }
}

/// Ended when dropped.
struct Prometheus {
    process: Child,
    url: String,
    _folder: tempfile::TempDir,
}

impl Prometheus {
    fn scraping(address: SocketAddr) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let config = format!(
            "global: {{ scrape_interval: 1s }}\nscrape_configs: [{{ job_name: it, static_configs: [{{ targets: ['{address}'] }}] }}]\n"
        );
        std::fs::write(folder.path().join("prometheus.yml"), config).expect("written");
        let port = ports::free().expect("a port");
        let process = Command::new("prometheus")
            .arg("--config.file=prometheus.yml")
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg("--storage.tsdb.path=data")
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("prometheus is installed");
        Self { process, url: format!("http://127.0.0.1:{port}"), _folder: folder }
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

const GAUGES: &str = "queue{version=\"v1\"} 10\nqueue{version=\"v2\"} 12\nqueue{version=\"v3\"} 12\nbroken{version=\"v1\"} NaN\nbroken{version=\"v2\"} NaN\n\
    shards{version=\"v1\",shard=\"a\"} 1\nshards{version=\"v1\",shard=\"b\"} 1\nshards{version=\"v2\",shard=\"a\"} 1\nshards{version=\"v2\",shard=\"b\"} 1\n";

/// What is known of a metric: state, sentence, value of the candidate.
fn known(house: &House, name: &str) -> (String, String, String) {
    let metrics = house.release()["analysis"]["metrics"].clone();
    let metric = metrics.as_array().into_iter().flatten().find(|metric| metric["name"] == name).cloned().unwrap_or_default();
    let text = |field: &str| metric[field].as_str().unwrap_or_default().to_owned();
    (text("state"), text("sentence"), text("candidate_text"))
}

#[test]
fn each_way_to_give_no_number_is_said_in_words() {
    let exposes = Exposes::new(GAUGES);
    let document = Exposes::new("{\"a\": {\"depth\": 7}}");
    let prometheus = Prometheus::scraping(exposes.address);
    // Accepts, and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let (url, silent, document) = (&prometheus.url, silent.local_addr().expect("bound"), document.address);
    let of = |name: &str, source: &str| format!("{{ name: {name}, {source}, tolerance: 5, interval: 1s, timeout: 1s, dry_run: true }}");
    let query = |name: &str, query: &str| of(name, &format!("prometheus: {{ url: '{url}', query: '{query}' }}"));
    let metrics = [
        query("good", "sum(queue{version=\"{version}\"})"),
        query("wrong", "sum(queue{version=\"{version}\""),
        query("missing", "nothing{version=\"{version}\"}"),
        query("nan", "sum(broken{version=\"{version}\"})"),
        query("many", "shards{version=\"{version}\"}"),
        of("slow", &format!("prometheus: {{ url: 'http://{silent}', query: 'x{{version=\"{{version}}\"}}' }}")),
        of("nobody", "prometheus: { url: 'http://127.0.0.1:1', query: 'x{version=\"{version}\"}' }"),
        of("command", "command: [sh, -c, 'echo first; test {version} = v1 && echo 3.5 || echo 4']"),
        of("fails", "command: [sh, -c, 'echo no {version} >&2; exit 3']"),
        of("words", "command: [sh, -c, 'echo {version} many']"),
        of("document", &format!("http: {{ url: 'http://{document}/{{version}}', pointer: /a/depth }}")),
        of("hole", &format!("http: {{ url: 'http://{document}/{{version}}', pointer: /a/width }}")),
    ];
    let strategy = format!(
        "    strategy: {{ canary: {{ steps: [50%], dwell: 1h, watch: 0s, analysis: {{ warm_up: 1s, timeout_bad: 1s, metrics: [\n      {}\n    ] }} }} }}\n",
        metrics.join(",\n      ")
    );
    let house = House::start("27790-27819", &strategy);
    house.good(&["deploy", "web", "--version", "v1"]);
    let mut deploying = house.command(&["deploy", "web", "--version", "v2"]).spawn().expect("it starts");
    let expected = [
        ("wrong", "v2: says: invalid parameter \"query\""),
        ("missing", "v2: the query finds no series"),
        ("nan", "v2: gives NaN, which is no number"),
        ("many", "v2: the query finds 2 series, where one is wanted: aggregate them"),
        ("slow", "v2: no answer within 1s"),
        ("nobody", "v2: cannot connect to 127.0.0.1:1"),
        ("fails", "v2: the command ended with exit status: 3: no v2"),
        ("words", "v2: the command's last line is no number: v2 many"),
        ("hole", "v2: the document has nothing at `/a/width`"),
    ];
    for (name, sentence) in expected {
        let mut seen = String::new();
        wait::until(DEADLINE, &format!("{name}: {sentence}"), || {
            seen = known(&house, name).1;
            seen.starts_with(sentence)
        });
    }
    for (name, value) in [("good", "12"), ("command", "4"), ("document", "7")] {
        wait::until(DEADLINE, &format!("{name} is {value}"), || {
            known(&house, name) == ("dry_run".to_owned(), "reports only".to_owned(), value.to_owned())
        });
    }
    house.good(&["abort", "web"]);
    assert_eq!(deploying.wait().expect("it ends").code(), Some(2));
}

#[test]
fn a_metric_that_is_silent_holds_and_a_limit_that_breaks_takes_back() {
    let exposes = Exposes::new("queue{version=\"v1\"} 10\n");
    let prometheus = Prometheus::scraping(exposes.address);
    let url = &prometheus.url;
    let strategy = format!(
        "    strategy: {{ canary: {{ steps: [50%], dwell: 2s, watch: 0s, drain: 5s, analysis: {{ tolerate: {{ slower: 900% }}, warm_up: 1s, timeout_bad: 1s, budget: 5%, \
         latency_budget: 20%, guards: [{{ queue: 40 }}], metrics: [{{ name: queue, tolerance: 5, interval: 1s, \
         prometheus: {{ url: '{url}', query: 'sum(queue{{version=\"{{version}}\"}})' }} }}] }} }} }}\n"
    );
    let house = House::start("27820-27849", &strategy);
    house.behaves("all", "latency_ms 20\nsigma 0.3\n");
    house.good(&["deploy", "web", "--version", "v1"]);
    let load = house.load();
    let mut deploying = house.command(&["deploy", "web", "--version", "v2"]).spawn().expect("it starts");
    wait::until(DEADLINE, "it holds for the metric", || house.release()["analysis"]["reason"] == "metric:queue");
    let said: Value = house.release()["analysis"].clone();
    let sentence = said["sentence"].as_str().unwrap_or_default();
    assert!(sentence.starts_with("all requests are fine, but queue gives nothing: v2: the query finds no series"), "{sentence}");
    // As soon as it speaks, the release goes on.
    exposes.say(GAUGES);
    assert!(deploying.wait().expect("it ends").success());
    let events = house.good(&["events", "web"]);
    assert!(events.contains("holds      all requests are fine, but queue gives nothing"), "{events}");
    exposes.say(&GAUGES.replace("queue{version=\"v3\"} 12", "queue{version=\"v3\"} 50"));
    let error = house.bad(&["deploy", "web", "--version", "v3"], 2);
    assert!(error.contains("queue of v3 breaks its limit of 40: 50"), "{error}");
    assert_eq!(load.stop().lost, 0);
}
