//! Processes that are ended with their owner, and what they used.

use std::fs;
use std::process::{Child, Command, Stdio};

use anyhow::Context;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Asked to end, and waited for, when dropped.
pub struct Process {
    child: Child,
    end: Signal,
}

impl Process {
    /// On this core only, if one is given.
    pub fn start(mut command: Command, core: Option<usize>, end: Signal) -> anyhow::Result<Self> {
        if let Some(core) = core {
            use std::os::unix::process::CommandExt;
            // SAFETY: one system call on a set that lives on the stack.
            unsafe {
                command.pre_exec(move || {
                    let mut cores = CpuSet::new();
                    cores.set(core)?;
                    Ok(sched_setaffinity(Pid::from_raw(0), &cores)?)
                });
            }
        }
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command.stdin(Stdio::null()).spawn().with_context(|| format!("cannot start {name}"))?;
        Ok(Self { child, end })
    }

    /// One that lives as long as its standard input is open.
    pub fn start_with_input(mut command: Command) -> anyhow::Result<Self> {
        let child = command.stdin(Stdio::piped()).spawn()?;
        Ok(Self { child, end: Signal::SIGKILL })
    }

    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// It and all its descendants.
    pub fn family(&self) -> Vec<i32> {
        let mut all = vec![self.pid()];
        let mut next = 0;
        while let Some(pid) = all.get(next).copied() {
            for task in tasks(pid) {
                let children = fs::read_to_string(format!("/proc/{pid}/task/{task}/children")).unwrap_or_default();
                all.extend(children.split_whitespace().filter_map(|pid| pid.parse::<i32>().ok()));
            }
            next += 1;
        }
        all
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = kill(Pid::from_raw(self.pid()), self.end);
            let _ = self.child.wait();
        }
    }
}

fn tasks(pid: i32) -> Vec<i32> {
    let entries = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// The calling thread, and those that it starts from now on, run on this core only.
pub fn pin(core: usize) -> anyhow::Result<()> {
    let mut cores = CpuSet::new();
    cores.set(core)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &cores)?)
}

/// Nanoseconds on a processor so far, user and system, all threads (the first field of /proc/PID/task/TID/schedstat).
pub fn cpu_ns(pids: &[i32]) -> u64 {
    let of_task = |path: String| fs::read_to_string(path).ok()?.split_whitespace().next()?.parse::<u64>().ok();
    pids.iter().flat_map(|pid| tasks(*pid).into_iter().filter_map(move |task| of_task(format!("/proc/{pid}/task/{task}/schedstat")))).sum()
}

/// Bytes that only these processes have, and their share of what they have together (`Pss` of smaps_rollup).
pub fn memory_bytes(pids: &[i32]) -> u64 {
    let of = |pid: &i32| {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    pids.iter().filter_map(of).sum::<u64>() * 1024
}
