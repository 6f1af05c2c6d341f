//! The recorder keeps what came over the wire and answers by its script.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use testbed::recorder::{Recorder, Step};
use testbed::wait;

const DEADLINE: Duration = Duration::from_secs(10);

#[test]
fn keeps_the_bytes_of_each_connection_and_answers_in_turn() {
    let script = vec![Step::await_head(), Step::answer("one"), Step::await_head(), Step::answer("two"), Step::Close];
    let recorder = Recorder::start(script).expect("a recorder");
    let mut first = TcpStream::connect(recorder.address()).expect("a connection");
    first.write_all(b"GET / HTTP/1.1\r\n\r\n\0\xffrest\r\n\r\n").expect("written");
    let mut answer = String::new();
    first.read_to_string(&mut answer).expect("read to its end");
    assert_eq!(answer, "onetwo");

    let mut second = TcpStream::connect(recorder.address()).expect("a connection");
    second.write_all(b"odd").expect("written");
    drop(second);
    let expected = vec![b"GET / HTTP/1.1\r\n\r\n\0\xffrest\r\n\r\n".to_vec(), b"odd".to_vec()];
    wait::until(DEADLINE, "both are kept", || recorder.connections() == expected);
}

#[test]
fn resets_when_told_to() {
    let recorder = Recorder::start(vec![Step::AwaitBytes(3), Step::Reset]).expect("a recorder");
    let mut stream = TcpStream::connect(recorder.address()).expect("a connection");
    stream.write_all(b"abc").expect("written");
    let error = stream.read(&mut [0]).expect_err("a reset");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}
