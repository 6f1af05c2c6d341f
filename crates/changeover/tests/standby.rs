//! What remains of the version before: hot, frozen, stopped; with a real process, looked at in /proc.

mod house;

use house::{DEADLINE, House};
use testbed::wait;

/// As `ps` says it, and the ticks of the processor that it used; `None`: no such process.
fn seen(pid: i64) -> Option<(char, u64)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    Some((fields[0].chars().next()?, fields[11].parse::<u64>().ok()? + fields[12].parse::<u64>().ok()?))
}

fn is_stopped(pid: i64) -> bool {
    seen(pid).is_some_and(|(state, _)| state == 'T')
}

fn pid_of(house: &House, version: &str) -> i64 {
    let web = house.web();
    let mut targets = web["targets"].as_array().into_iter().flatten();
    let target = targets.find(|target| target["version"] == version && target["pid"].is_i64());
    target.unwrap_or_else(|| panic!("no target of {version}: {web}"))["pid"].as_i64().expect("a pid")
}

fn at_once(ports: &str) -> House {
    House::start(ports, "    strategy: { blue_green: { watch: 0s, drain: 10s, standby: { hot: 0s, frozen: 1h } } }\n")
}

#[test]
fn a_frozen_version_uses_no_processor_and_goes_on_for_a_rollback() {
    let house = at_once("30000-30009");
    house.good(&["deploy", "web", "--version", "v1"]);
    let load = house.load();
    let first = pid_of(&house, "v1");
    let told = house.good(&["deploy", "web", "--version", "v2"]);
    assert!(told.contains("v1 is then frozen for 60 min"), "{told}");
    wait::until(DEADLINE, "v1 is frozen", || is_stopped(first));
    let status = house.good(&["status"]);
    assert!(status.contains("→ v1 when it answers again (frozen, 59 min left)"), "{status}");
    let (_, before) = seen(first).expect("it lives");
    let served = house.web()["requests"].as_u64().expect("a count");
    wait::until(DEADLINE, "v2 has served for a while", || house.web()["requests"].as_u64() > Some(served + 500));
    assert_eq!(seen(first), Some(('T', before)), "not one tick");

    let told = house.good(&["rollback", "web"]);
    assert!(told.contains("it is frozen and goes on first; v2 serves meanwhile"), "{told}");
    assert_eq!((house.answers().as_str(), pid_of(&house, "v1")), ("v1", first), "the same process");
    assert!(!is_stopped(first));
    let second = pid_of(&house, "v2");
    wait::until(DEADLINE, "v2 is frozen", || is_stopped(second));
    let tally = load.stop();
    assert_eq!(tally.lost, 0, "{:?}", tally.last_errors);

    // What is not kept any longer ends in order, although it is frozen.
    house.good(&["deploy", "web", "--version", "v3"]);
    wait::until(DEADLINE, "v2 has ended", || seen(second).is_none());
    let log = house.good(&["events", "--json"]);
    assert!(log.contains("v2 stopped (signal 15)"), "by its signal, not killed: {log}");
    wait::until(DEADLINE, "v1 is frozen again", || is_stopped(first));
    house.good(&["rollback", "web", "--to", "v1"]);
    wait::until(DEADLINE, "v3 is frozen", || is_stopped(pid_of(&house, "v3")));
    house.good(&["deploy", "web", "--version", "v4"]);
    let status = house.good(&["status"]);
    assert!(status.contains("→ v1 in ") && status.contains(" (frozen, "), "it was measured: {status}");
}

#[test]
fn what_a_standby_costs_is_booked_and_what_another_would_have_is_said() {
    let house = House::start("30030-30039", "    strategy: { blue_green: { watch: 0s, drain: 10s, standby: { hot: 11s, frozen: 1h } } }\n");
    assert!(house.good(&["cost"]).contains("nothing is booked yet"));
    house.good(&["deploy", "web", "--version", "v1"]);
    let load = house.load();
    house.good(&["deploy", "web", "--version", "v2"]);
    let lines = || {
        let cost: serde_json::Value = serde_json::from_str(&house.good(&["cost", "web", "--json"])).expect("JSON");
        let releases = cost["services"][0]["releases"].as_array().cloned().unwrap_or_default();
        releases.into_iter().find(|release| release["release"] == 2).unwrap_or_default()
    };
    let of = |release: &serde_json::Value, version: &str, role: &str| {
        let mut lines = release["lines"].as_array().into_iter().flatten();
        lines.find(|line| line["version"] == version && line["as"] == role).map(|line| line["used"].clone())
    };
    let release = wait::until(2 * DEADLINE, "both stages are booked", || {
        let release = lines();
        let frozen = of(&release, "v1", "frozen")?;
        // The first look after it was frozen has something of the time before.
        (frozen["ms"].as_u64()? > 9_000 && of(&release, "v1", "hot").is_some()).then_some(release)
    });
    let serving = of(&release, "v2", "serving").expect("booked");
    assert!(serving["cpu_ms"].as_u64() > Some(50) && serving["mib_s"].as_f64() > Some(1.0), "{release}");
    let hot = of(&release, "v1", "hot").expect("booked");
    assert!(hot["mib_s"].as_f64() > Some(1.0), "{release}");
    let [before, after] = [release["standby"]["cpu_ms"].as_u64(), {
        wait::until(DEADLINE, "another look", || (lines()["standby"]["ms"].as_u64() > release["standby"]["ms"].as_u64()).then_some(()));
        lines()["standby"]["cpu_ms"].as_u64()
    }];
    assert_eq!(before, after, "frozen, it uses nothing");
    let told = house.good(&["cost"]);
    assert!(told.contains("web 2: the standby used ") && told.contains("; stopped nothing"), "{told}");
    drop(load);
    // An upgrade keeps what was booked.
    house.good(&["upgrade"]);
    assert!(lines()["standby"]["ms"].as_u64() >= release["standby"]["ms"].as_u64());
}

#[test]
fn a_worker_that_dies_and_an_upgrade_leave_it_frozen() {
    let house = at_once("30010-30019");
    house.good(&["deploy", "web", "--version", "v1"]);
    house.good(&["deploy", "web", "--version", "v2"]);
    let first = pid_of(&house, "v1");
    wait::until(DEADLINE, "v1 is frozen", || is_stopped(first));
    let (worker, (_, before)) = (house.worker_pid(), seen(first).expect("it lives"));
    house.kill_worker();
    wait::until(DEADLINE, "another worker", || house.workers().last().is_some_and(|newest| *newest != worker));
    house.until_up();
    house.good(&["upgrade"]);
    assert_eq!((seen(first), house.answers().as_str()), (Some(('T', before)), "v2"));
    house.good(&["rollback", "web"]);
    assert_eq!((house.answers().as_str(), pid_of(&house, "v1")), ("v1", first));
    let second = pid_of(&house, "v2");
    wait::until(DEADLINE, "v2 is frozen", || is_stopped(second));
    house.good(&["down"]);
    wait::until(DEADLINE, "all have ended", || [first, second].iter().all(|pid| seen(*pid).is_none()));
}

#[test]
fn one_that_is_killed_while_it_is_frozen_is_there_again_and_one_whose_time_is_over_is_not() {
    let stages = "    strategy: { blue_green: { watch: 0s, drain: 10s, standby: { hot: 1s, frozen: 5s } } }\n";
    let house = House::start("30020-30029", stages);
    house.good(&["deploy", "web", "--version", "v1"]);
    let told = house.good(&["deploy", "web", "--version", "v2"]);
    assert!(told.contains("v1 is kept hot for 1 s, then frozen for 5 s"), "{told}");
    let first = pid_of(&house, "v1");
    assert!(!is_stopped(first));
    wait::until(DEADLINE, "v1 is frozen", || is_stopped(first));
    house::kill_9(first as i32);
    let again = wait::until(DEADLINE, "another process of it is frozen", || {
        let web = house.try_web()?;
        let target = web["targets"].as_array()?.iter().find(|target| target["version"] == "v1" && target["frozen"] == true)?.clone();
        target["pid"].as_i64().filter(|pid| *pid != first && is_stopped(*pid))
    });
    wait::until(DEADLINE, "its time is over", || seen(again).is_none());
    let status = house.good(&["status"]);
    assert!(status.contains("(stopped: it starts first)"), "{status}");
    house.good(&["rollback", "web"]);
    assert_eq!(house.answers(), "v1");
}
