//! Targets that speak TLS: who is trusted, who we are to them, and what their end means.

mod common;
#[path = "common/secure.rs"]
mod secure;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use common::{GET, House, Target, body, eventually, reason, routing, status};
use model::{Authorities, ClientAuth, TargetTls};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use secure::certificates::{Authority, Made, config, door, entry, settings};
use tls::Keyring;

type Session = StreamOwned<ServerConnection, TcpStream>;

/// A target behind TLS: heads it got, and the name that it was asked for.
#[derive(Clone)]
struct Secured {
    address: SocketAddr,
    heads: Arc<Mutex<String>>,
    asked_for: Arc<Mutex<Vec<Option<String>>>>,
    handshakes: Arc<AtomicUsize>,
}

impl Secured {
    fn new(config: Arc<ServerConfig>, act: impl Fn(&mut Session) -> bool + Send + Sync + 'static) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = socket.local_addr().expect("address");
        let target = Self { address, heads: Arc::default(), asked_for: Arc::default(), handshakes: Arc::default() };
        let (own, act) = (target.clone(), Arc::new(act));
        std::thread::spawn(move || {
            for stream in socket.incoming().flatten() {
                let (own, act, config) = (own.clone(), act.clone(), config.clone());
                std::thread::spawn(move || own.converse(stream, config, &*act));
            }
        });
        target
    }

    fn converse(&self, mut socket: TcpStream, config: Arc<ServerConfig>, act: &dyn Fn(&mut Session) -> bool) {
        let mut session = ServerConnection::new(config).expect("server");
        while session.is_handshaking() {
            if session.complete_io(&mut socket).is_err() {
                return;
            }
        }
        self.handshakes.fetch_add(1, Ordering::SeqCst);
        self.asked_for.lock().expect("lock").push(session.server_name().map(str::to_owned));
        let mut stream = StreamOwned::new(session, socket);
        let mut head = Vec::new();
        loop {
            let mut chunk = [0; 4096];
            match stream.read(&mut chunk) {
                Ok(read @ 1..) => head.extend(&chunk[..read]),
                _ => return,
            }
            if head.ends_with(b"\r\n\r\n") {
                self.heads.lock().expect("lock").push_str(&String::from_utf8_lossy(&head));
                head.clear();
                if !act(&mut stream) {
                    return;
                }
            }
        }
    }

    fn handshakes(&self) -> usize {
        self.handshakes.load(Ordering::SeqCst)
    }
}

fn ok(stream: &mut Session) -> bool {
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").is_ok()
}

/// What a test has of both sides.
struct Both {
    house: House,
    authority: Authority,
    folder: tempfile::TempDir,
}

impl Both {
    fn new() -> Self {
        let (authority, folder) = (Authority::new("ca"), tempfile::tempdir().expect("folder"));
        std::fs::write(folder.path().join("ca.pem"), &authority.pem).expect("written");
        Self { house: House::new(1), authority, folder }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn server(&self, made: &Made, client_auth: Option<ClientAuth>) -> Arc<ServerConfig> {
        let mut settings = settings(vec![entry(&made.write(self.folder.path(), "target"), &[])]);
        settings.client_auth = client_auth;
        config(&door(&Keyring::start().expect("thread"), &settings)).expect("open")
    }

    fn trusting(&self, name: Option<&str>) -> TargetTls {
        TargetTls { ca: Authorities::File(self.file("ca.pem")), name: name.map(str::to_owned), identity: None }
    }

    fn install(&self, address: SocketAddr, tls: Option<TargetTls>) {
        let mut routing = routing(&[("v1", 10_000)], &[("v1", &[address])]);
        routing.target_tls = tls;
        self.house.install(routing);
    }
}

#[test]
fn a_target_is_spoken_to_when_its_certificate_names_it() {
    let both = Both::new();
    let target = Secured::new(both.server(&both.authority.certificate(&["app.internal"]), None), ok);
    both.install(target.address, Some(both.trusting(Some("app.internal"))));
    let mut client = both.house.client();
    for _ in 0..3 {
        client.send(GET);
        assert_eq!(body(&client.answer()), "ok");
    }
    assert_eq!(target.handshakes(), 1, "the line is used again");
    assert_eq!(target.asked_for.lock().expect("lock").as_slice(), [Some("app.internal".to_owned())]);
    assert!(target.heads.lock().expect("lock").contains("x-forwarded-proto: http\r\n"), "of the client's side");
    // Other settings: a line that was made under the ones before is not used any more.
    both.install(target.address, Some(both.trusting(Some("other.internal"))));
    client.send(GET);
    let answer = client.answer();
    assert_eq!((status(&answer), reason(&answer)), (502, "connect_failed"));
    assert!(both.house.proxy.counts(&common::service(), &common::version("v1")).bad == 1);
    both.install(target.address, Some(both.trusting(Some("app.internal"))));
    client.send(GET);
    assert_eq!(body(&client.answer()), "ok");
    // In clear it is not spoken to either.
    both.install(target.address, None);
    client.send(GET);
    assert_ne!(status(&client.answer()), 200);
}

#[test]
fn without_a_name_the_address_is_what_the_certificate_must_say() {
    let both = Both::new();
    let key = rcgen::KeyPair::generate().expect("key");
    let made = both.authority.with(&["app.internal"], key, |params| {
        params.subject_alt_names.push(rcgen::SanType::IpAddress([127, 0, 0, 1].into()));
    });
    let named = Secured::new(both.server(&made, None), ok);
    both.install(named.address, Some(both.trusting(None)));
    assert_eq!(body(&both.house.ask(GET)), "ok");
    assert_eq!(named.asked_for.lock().expect("lock").as_slice(), [None]);
    let unnamed = Secured::new(both.server(&both.authority.certificate(&["app.internal"]), None), ok);
    both.install(unnamed.address, Some(both.trusting(None)));
    assert_eq!(status(&both.house.ask(GET)), 502);
}

#[test]
fn nobody_else_is_trusted_and_a_target_in_clear_is_no_target() {
    let both = Both::new();
    let stranger = Secured::new(both.server(&Authority::new("stranger").certificate(&["app.internal"]), None), ok);
    both.install(stranger.address, Some(both.trusting(Some("app.internal"))));
    assert_eq!(reason(&both.house.ask(GET)), "connect_failed");
    let clear = Target::saying("in clear");
    both.install(clear.address, Some(both.trusting(Some("app.internal"))));
    assert_eq!(reason(&both.house.ask(GET)), "connect_failed");
    assert_eq!(clear.requests(), 0);
}

#[test]
fn authorities_are_read_again() {
    let both = Both::new();
    let target = Secured::new(both.server(&both.authority.certificate(&["app.internal"]), None), ok);
    std::fs::remove_file(both.file("ca.pem")).expect("removed");
    both.install(target.address, Some(both.trusting(Some("app.internal"))));
    assert_eq!(reason(&both.house.ask(GET)), "connect_failed");
    let news = both.house.proxy.keyring().news();
    assert!(news.iter().any(|news| news.kind == "certificate_failed" && news.text.contains("ca.pem is not there")), "{news:?}");
    std::fs::write(both.file("ca.pem"), &both.authority.pem).expect("written");
    eventually("it is trusted", || status(&both.house.ask(GET)) == 200);
}

#[test]
fn we_show_who_we_are_to_a_target_that_asks() {
    let both = Both::new();
    let people = Authority::new("people");
    std::fs::write(both.file("people.pem"), &people.pem).expect("written");
    let auth = ClientAuth { ca: both.file("people.pem"), required: true };
    let target = Secured::new(both.server(&both.authority.certificate(&["app.internal"]), Some(auth)), ok);
    let mut tls = both.trusting(Some("app.internal"));
    both.install(target.address, Some(tls.clone()));
    assert_ne!(status(&both.house.ask(GET)), 200);
    tls.identity = Some(people.certificate(&["changeover.internal"]).write(both.folder.path(), "us"));
    both.install(target.address, Some(tls));
    assert_eq!(status(&both.house.ask(GET)), 200);
}

#[test]
fn an_answer_that_ends_with_the_connection_is_whole_only_when_its_end_is_announced() {
    let both = Both::new();
    let server = both.server(&both.authority.certificate(&["app.internal"]), None);
    for announced in [true, false] {
        let target = Secured::new(server.clone(), move |stream| {
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nall of it").expect("written");
            if announced {
                stream.conn.send_close_notify();
            }
            stream.flush().expect("flushed");
            false
        });
        both.install(target.address, Some(both.trusting(Some("app.internal"))));
        let mut client = both.house.client();
        client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        let text = client.rest();
        assert!(text.contains("all of it"), "{text}");
        assert_eq!(text.ends_with("0\r\n\r\n"), announced, "{text}");
    }
}

#[test]
fn a_target_that_does_not_shake_hands_is_given_up() {
    let both = Both::new();
    // Accepts, and says nothing.
    let socket = TcpListener::bind("127.0.0.1:0").expect("bind");
    both.install(socket.local_addr().expect("address"), Some(both.trusting(Some("app.internal"))));
    let answer = both.house.ask(GET);
    assert_eq!((status(&answer), reason(&answer)), (502, "connect_failed"));
}

/// Says what it was asked, over HTTP/2 that was negotiated.
fn http2_over_tls(config: Arc<ServerConfig>) -> SocketAddr {
    let socket = TcpListener::bind("127.0.0.1:0").expect("bind");
    socket.set_nonblocking(true).expect("not blocking");
    let address = socket.local_addr().expect("address");
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(socket).expect("listener");
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = tokio_rustls::TlsAcceptor::from(config.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
                    while let Some(Ok((request, respond))) = connection.accept().await {
                        tokio::spawn(common::http2_target::echo(request, respond));
                    }
                });
            }
        });
    });
    address
}

#[test]
fn http2_is_negotiated_with_targets_that_speak_it_and_no_other_is_taken_for_one() {
    let both = Both::new();
    let install = |address: SocketAddr| {
        let mut routing = routing(&[("v1", 10_000)], &[("v1", &[address])]);
        (routing.protocol, routing.target_tls) = (model::Protocol::Http2, Some(both.trusting(Some("app.internal"))));
        both.house.install(routing);
    };
    let made = both.authority.certificate(&["app.internal"]);
    let with = |protocols: &[&[u8]]| {
        let mut config = (*both.server(&made, None)).clone();
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        Arc::new(config)
    };
    install(http2_over_tls(with(&[b"h2", b"http/1.1"])));
    let answer = both.house.ask(GET);
    assert!(body(&answer).contains("GET / a https "), "{answer}");
    let line = "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi";
    assert!(body(&both.house.ask(line)).contains("POST /x a https hi"));
    for protocols in [&[][..], &[&b"http/1.1"[..]]] {
        let other = Secured::new(with(protocols), ok);
        install(other.address);
        assert_eq!(reason(&both.house.ask(GET)), "connect_failed", "{protocols:?}");
        assert_eq!(*other.heads.lock().expect("lock"), "", "it got no request");
    }
}
