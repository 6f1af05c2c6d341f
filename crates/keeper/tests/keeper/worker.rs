//! A worker that obeys: it passes on what the test sends to `control.sock`, logs what it hears, and answers each
//! connection with its pid.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::ExitCode;

use keeper::{FromKeeper, PROTOCOL, Survivor, ToKeeper, WorkerSide, handover};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

pub(crate) fn run(state_dir: &Path) -> ExitCode {
    let own_pid = i32::try_from(std::process::id()).expect("a pid");
    let control_path = state_dir.join("control.sock");
    let _ = std::fs::remove_file(&control_path);
    let control = UnixDatagram::bind(&control_path).expect("control");
    let door = handover::listen(state_dir).expect("handover");
    let mut log = OpenOptions::new().append(true).create(true).open(state_dir.join("log")).expect("log");
    let mut channel = Some(WorkerSide::from_env().expect("a channel"));
    let hello = ToKeeper::Hello { protocol: PROTOCOL, pid: own_pid };
    channel.as_ref().expect("it is there").send(&hello, &[]).expect("hello");
    channel.as_ref().expect("it is there").send(&ToKeeper::Ready, &[]).expect("ready");
    let mut listeners: BTreeMap<SocketAddr, TcpListener> = BTreeMap::new();
    let mut survivors: Vec<Survivor> = Vec::new();
    loop {
        let mut list: Vec<_> = [control.as_fd(), door.as_fd()]
            .into_iter()
            .chain(channel.iter().map(AsFd::as_fd))
            .chain(listeners.values().map(AsFd::as_fd))
            .map(|descriptor| PollFd::new(descriptor, PollFlags::POLLIN))
            .collect();
        poll(&mut list, PollTimeout::NONE).expect("poll");
        let ready: Vec<bool> = list.iter().map(|entry| entry.any().unwrap_or(false)).collect();
        drop(list);

        for socket in listeners.values() {
            if let Ok((mut stream, _)) = socket.accept() {
                let _ = write!(stream, "{own_pid}");
            }
        }
        if ready[1] {
            let next = door.accept().expect("the next keeper");
            let boot_id = keeper::process_identity(own_pid).expect("we live").boot_id;
            let children = survivors.clone();
            let orphan =
                ToKeeper::Orphan { protocol: PROTOCOL, pid: own_pid, boot_id, listeners: listeners.keys().copied().collect(), children };
            let sockets: Vec<_> = listeners.values().map(AsFd::as_fd).collect();
            next.send(&orphan, &sockets).expect("handed over");
            channel = Some(next);
            continue;
        }
        if ready[0] {
            let mut bytes = vec![0; 65536];
            let length = control.recv(&mut bytes).expect("an order");
            let order: ToKeeper = serde_json::from_slice(&bytes[..length]).expect("an order");
            channel.as_ref().expect("a keeper").send(&order, &[]).expect("passed on");
            if matches!(order, ToKeeper::Leave { .. }) {
                return ExitCode::SUCCESS;
            }
        }
        let heard = match channel.as_ref().map(WorkerSide::try_recv) {
            Some(Ok(None)) => {
                channel = None;
                continue;
            }
            Some(Ok(Some(heard))) => heard,
            _ => continue,
        };
        let (message, sockets) = heard;
        let addresses = match &message {
            FromKeeper::Welcome { listeners, .. } => listeners.clone(),
            FromKeeper::Listening { address, .. } => vec![*address],
            FromKeeper::Spawned { id, pid, start_time, .. } => {
                survivors.push(Survivor { id: id.clone(), pid: *pid, start_time: *start_time });
                Vec::new()
            }
            _ => Vec::new(),
        };
        for (address, socket) in addresses.into_iter().zip(sockets) {
            listeners.insert(address, socket.into());
        }
        let line = serde_json::to_string(&(own_pid, &message)).expect("a line");
        log.write_all(format!("{line}\n").as_bytes()).expect("logged");
    }
}
