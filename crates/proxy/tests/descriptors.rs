//! When descriptors run out. One test: it changes the limit of its process.

mod common;

use std::io::{ErrorKind, Read};
use std::time::{Duration, Instant};

use common::{Client, DEADLINE, GET, House, Target, eventually, status};

/// Both ends of each connection are in this process: with half of it for clients, it never runs out here.
const LIMIT: u64 = 400;

fn limit(descriptors: u64) -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid place for the answer, and then a whole limit.
    unsafe {
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit), 0);
        let before = limit.rlim_cur;
        limit.rlim_cur = descriptors;
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit), 0);
        before
    }
}

fn cpu_time() -> Duration {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: `usage` is a valid place for the answer.
    let usage = unsafe {
        assert_eq!(libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()), 0);
        usage.assume_init()
    };
    let of = |time: libc::timeval| Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1_000);
    of(usage.ru_utime) + of(usage.ru_stime)
}

fn gauge(house: &House, name: &str) -> usize {
    let text = house.proxy.metrics();
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).expect("there").parse().expect("a number")
}

fn answers(client: &mut Client) {
    client.send(GET);
    assert_eq!(status(&client.answer()), 200);
}

#[test]
fn there_is_always_a_descriptor_for_a_line_and_accepting_never_spins() {
    let before = limit(LIMIT);
    let target = Target::saying("ok");
    let house = House::serving(&target);
    let max = gauge(&house, "changeover_connections_max");
    assert_eq!(max as u64, (LIMIT - LIMIT / 4) / 2);
    // More clients than may be. Each asks, so that nobody is taken for one that rests.
    let mut first: Vec<_> = (0..max).map(|_| house.client()).collect();
    first.iter_mut().for_each(answers);
    assert_eq!(gauge(&house, "changeover_connections"), max);
    let mut more: Vec<_> = (0..20).map(|_| house.client()).collect();
    for client in &mut more {
        client.send(GET);
    }
    let asked = Instant::now();
    for client in &mut more {
        assert_eq!(status(&client.answer()), 200, "those that rest make room");
    }
    assert!(asked.elapsed() < DEADLINE / 2, "{:?}", asked.elapsed());
    // One is accepted before it is seen that there is no more room.
    assert!(gauge(&house, "changeover_connections") <= max + 1);
    drop((first, more));
    eventually("all have left", || gauge(&house, "changeover_connections") == 0);

    // None is left at all, for whatever reason: the number of the next one is beyond the limit.
    let waiting = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("socket");
    limit(3);
    waiting.connect(&house.address.into()).expect("connected: it waits in the queue");
    let mut stream: std::net::TcpStream = waiting.into();
    stream.set_read_timeout(Some(Duration::from_millis(500))).expect("timeout");
    std::io::Write::write_all(&mut stream, GET.as_bytes()).expect("written");
    let spent = cpu_time();
    assert_eq!(stream.read(&mut [0; 1]).expect_err("nobody accepts").kind(), ErrorKind::WouldBlock);
    let spent = cpu_time() - spent;
    assert!(spent < Duration::from_millis(250), "{spent:?} of 500 ms: it spins");
    limit(before);
    stream.set_read_timeout(Some(DEADLINE)).expect("timeout");
    assert_eq!(stream.read(&mut [0; 1]).expect("accepted when there are some again"), 1);
}
