//! A house whose API and page are open over TCP, asked as a program or a browser would.

use std::io::{Read, Write};
use std::net::TcpStream;

use testbed::wait;

use super::{DEADLINE, House};

/// A house whose API listens on `port`, and its tokens: one to act, one to look.
pub struct Open {
    pub house: House,
    pub port: u16,
    pub act: String,
    pub read: String,
}

pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    /// A field of the head, by its name in lower case.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    #[track_caller]
    pub fn is(&self, status: u16, text: &str) {
        assert_eq!(self.status, status, "{}\n{}", self.head, self.body);
        assert!(self.body.contains(text), "{text:?} is not in\n{}", self.body);
    }
}

impl Open {
    pub fn start(port: u16, ports: &str, strategy: &str, more: &str) -> Self {
        let house = House::start(ports, &format!("{strategy}api: {{ listen: '127.0.0.1:{port}'{more} }}\n"));
        let token = |scope: &str, name: &str| house.good(&["token", "--scope", scope, "--name", name]).trim().to_owned();
        let (act, read) = (token("act", "ana"), token("read", "board"));
        let open = Self { house, port, act, read };
        wait::until(DEADLINE, "the API listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        open
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).expect("it listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
        stream
    }

    /// `fields` may say another `host`.
    pub fn ask(&self, method: &str, path: &str, fields: &[&str], body: &str) -> Answer {
        let mut stream = self.connect();
        let host = format!("host: 127.0.0.1:{}", self.port);
        let host = if fields.iter().any(|field| field.starts_with("host:")) { String::new() } else { format!("{host}\r\n") };
        let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
        let length = body.len();
        write!(stream, "{method} {path} HTTP/1.1\r\n{host}{fields}connection: close\r\ncontent-length: {length}\r\n\r\n{body}")
            .expect("sent");
        let mut text = String::new();
        // What it refuses it need not read to the end.
        let _ = stream.read_to_string(&mut text);
        let (head, body) = text.split_once("\r\n\r\n").expect("an answer");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        Answer { status, head: head.to_owned(), body: body.to_owned() }
    }

    pub fn get(&self, path: &str, fields: &[&str]) -> Answer {
        self.ask("GET", path, fields, "")
    }

    pub fn bearer(&self) -> String {
        format!("authorization: Bearer {}", self.act)
    }

    /// The field with the session's cookie.
    pub fn sign_in(&self, token: &str) -> String {
        let answer = self.form("/login", &[], &format!("token={token}"));
        assert_eq!(answer.status, 303, "{}", answer.body);
        let cookie = answer.field("set-cookie").expect("a cookie").split(';').next().expect("its value").to_owned();
        format!("cookie: {cookie}")
    }

    /// As a browser sends a form of the page.
    pub fn form(&self, path: &str, fields: &[&str], body: &str) -> Answer {
        let origin = format!("origin: http://127.0.0.1:{}", self.port);
        let kind = "content-type: application/x-www-form-urlencoded";
        self.ask("POST", path, &[&[kind, &origin, "sec-fetch-site: same-origin"], fields].concat(), body)
    }
}
