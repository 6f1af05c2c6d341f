//! A disk that is full, and one that hangs: a command fails and changes nothing; taking back works all the same, and stays.
//! Real filesystems, mounted by root; elsewhere these tests say that they were left out.

mod house;

use std::process::Stdio;
use std::time::{Duration, Instant};

use house::mounted::{Mounted, fill, left_out, run};
use house::{DEADLINE, House, QUICK};
use testbed::wait;

/// A disk that hangs until this is dropped: before the house, whose end needs the disk.
struct Frozen(String);

impl Frozen {
    fn new(disk: &Mounted) -> Self {
        assert!(run("fsfreeze", &["--freeze", disk.text()]));
        Self(disk.text().to_owned())
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        assert!(run("fsfreeze", &["--unfreeze", &self.0]));
    }
}

#[test]
fn on_a_full_disk_a_deploy_changes_nothing_and_a_rollback_works_and_stays() {
    let disk = Mounted::new();
    if !run("mount", &["-t", "tmpfs", "-o", "size=4m", "none", disk.text()]) {
        return left_out("mount a tmpfs");
    }
    let mut house = House::start_in(disk.path(), "24000-24099", QUICK);
    house.good(&["deploy", "web", "--version", "v1"]);
    house.good(&["deploy", "web", "--version", "v2"]);
    let filler = disk.path().join("filler");
    fill(&filler);
    let error = house.bad(&["deploy", "web", "--version", "v3"], 1);
    assert!(error.contains("nothing was changed"), "{error}");
    assert_eq!(house.answers(), "v2");
    let rolled = house.good(&["rollback", "web"]);
    assert!(rolled.contains("v2 → v1"), "{rolled}");
    assert_eq!(house.answers(), "v1");
    house.kill_all();
    house.start_again();
    wait::until(DEADLINE, "v1 serves after the restart", || house.try_answers().as_deref() == Some("v1"));
    std::fs::remove_file(&filler).expect("removed");
    wait::until(DEADLINE, "the release ends when there is room", || house.web()["release"]["ending"]["outcome"] == "promoted");
    assert_eq!(house.web()["serves"], "v1");
    house.good(&["deploy", "web", "--version", "v3"]);
    assert_eq!(house.answers(), "v3");
}

/// What a flag answers to everybody.
fn flag(house: &House) -> String {
    house.good(&["flags", "eval", "scoring", "-u", "ann"])
}

#[test]
fn on_a_full_disk_a_flag_is_switched_off_all_the_same_and_stays_off() {
    let disk = Mounted::new();
    if !run("mount", &["-t", "tmpfs", "-o", "size=4m", "none", disk.text()]) {
        return left_out("mount a tmpfs");
    }
    let mut house = House::start_in(disk.path(), "24200-24297", "flags:\n  listen: 127.0.0.1:24298\n");
    house.good(&["flags", "create", "scoring", "--owner", "ana"]);
    house.good(&["flags", "on", "scoring"]);
    let filler = disk.path().join("filler");
    fill(&filler);
    let error = house.bad(&["flags", "create", "other", "--owner", "ana"], 1);
    assert!(error.contains("nothing was changed"), "{error}");
    house.good(&["flags", "off", "scoring"]);
    assert!(flag(&house).contains("= false"));
    house.kill_all();
    house.start_again();
    wait::until(DEADLINE, "it answers", || house.run(&["flags", "list"]).status.success());
    assert!(flag(&house).contains("= false"), "it stays off");
    std::fs::remove_file(&filler).expect("removed");
    wait::until(DEADLINE, "it is kept when there is room", || {
        house.good(&["flags", "history", "scoring"]).contains("while the disk refused")
    });
    house.good(&["flags", "on", "scoring"]);
    house.kill_worker();
    wait::until(DEADLINE, "it answers", || house.run(&["flags", "list"]).status.success());
    assert!(flag(&house).contains("= true"), "what was said later counts");
}

#[test]
fn on_a_hanging_disk_a_deploy_changes_nothing_and_a_rollback_is_quick() {
    let disk = Mounted::new();
    let image = tempfile::NamedTempFile::new().expect("a file");
    image.as_file().set_len(64 * 1024 * 1024).expect("a size");
    let image = image.path().to_str().expect("text").to_owned();
    if !(run("mkfs.ext4", &["-q", "-F", &image]) && run("mount", &["-o", "loop", &image, disk.text()])) {
        return left_out("mount an ext4 image");
    }
    let house = House::start_in(disk.path(), "24100-24199", QUICK);
    house.good(&["deploy", "web", "--version", "v1"]);
    house.good(&["deploy", "web", "--version", "v2"]);
    let frozen = Frozen::new(&disk);
    let mut deploy = house.command(&["deploy", "web", "--version", "v3"]).stderr(Stdio::piped()).spawn().expect("deploy");
    let began = Instant::now();
    let rolled = house.good(&["rollback", "web"]);
    assert!(rolled.contains("v2 → v1"), "{rolled}");
    assert_eq!(house.answers(), "v1");
    // Generous against a loaded machine; it does not wait for the disk, which hangs for ever.
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    // 3 when the rollback came first.
    assert!(matches!(deploy.wait().expect("it ends").code(), Some(1 | 3)));
    drop(frozen);
    wait::until(DEADLINE, "the release ends when the disk answers", || house.web()["release"]["ending"]["outcome"] == "promoted");
    assert_eq!(house.web()["serves"], "v1");
}

#[test]
fn on_a_hanging_disk_a_flag_is_switched_off_at_once() {
    let disk = Mounted::new();
    let image = tempfile::NamedTempFile::new().expect("a file");
    image.as_file().set_len(64 * 1024 * 1024).expect("a size");
    let image = image.path().to_str().expect("text").to_owned();
    if !(run("mkfs.ext4", &["-q", "-F", &image]) && run("mount", &["-o", "loop", &image, disk.text()])) {
        return left_out("mount an ext4 image");
    }
    let house = House::start_in(disk.path(), "24300-24397", "flags:\n  listen: 127.0.0.1:24398\n");
    house.good(&["flags", "create", "scoring", "--owner", "ana"]);
    house.good(&["flags", "on", "scoring"]);
    let frozen = Frozen::new(&disk);
    let mut other = house.command(&["flags", "create", "other", "--owner", "ana"]).stderr(Stdio::null()).spawn().expect("it runs");
    let began = Instant::now();
    house.good(&["flags", "off", "scoring"]);
    assert!(flag(&house).contains("= false"));
    // Generous against a loaded machine; it does not wait for the disk, which hangs for ever.
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    drop(frozen);
    other.wait().expect("it ends");
    wait::until(DEADLINE, "it is kept when the disk answers", || house.good(&["flags", "history", "scoring"]).contains(" off "));
    assert!(flag(&house).contains("= false"));
}
