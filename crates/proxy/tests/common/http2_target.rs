//! Targets that speak HTTP/2, each on a thread of its own, and a client that sees resets and trailers.

use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use h2::Reason;
use h2::RecvStream;
use h2::server::{Connection, SendResponse};
use http::{HeaderMap, Request, Response};
use model::{Protocol, ServiceRouting};
use tokio::net::TcpStream;

use super::{DEADLINE, House, routing, service, version};

pub type Http2Connection = Connection<TcpStream, Bytes>;

#[derive(Clone)]
pub struct Http2Target {
    pub address: SocketAddr,
    connections: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
}

impl Http2Target {
    /// `act` gets each request, with its number from 1 on.
    pub fn new<F, Act>(act: F) -> Self
    where
        F: Fn(usize, Request<RecvStream>, SendResponse<Bytes>) -> Act + Send + Sync + 'static,
        Act: Future<Output = ()> + Send + 'static,
    {
        Self::with(200, act)
    }

    /// That allows so many streams at once.
    pub fn with<F, Act>(streams_max: u32, act: F) -> Self
    where
        F: Fn(usize, Request<RecvStream>, SendResponse<Bytes>) -> Act + Send + Sync + 'static,
        Act: Future<Output = ()> + Send + 'static,
    {
        let requests = Arc::<AtomicUsize>::default();
        let (counts, act) = (requests.clone(), Arc::new(act));
        let serve = move |_, mut connection: Http2Connection| {
            let (counts, act) = (counts.clone(), act.clone());
            async move {
                while let Some(Ok((request, respond))) = connection.accept().await {
                    let number = counts.fetch_add(1, Ordering::SeqCst) + 1;
                    tokio::spawn(act(number, request, respond));
                }
            }
        };
        Self { requests, ..Self::of_connections(streams_max, serve) }
    }

    /// `serve` gets each connection, with its number from 1 on.
    pub fn of_connections<F, Serve>(streams_max: u32, serve: F) -> Self
    where
        F: Fn(usize, Http2Connection) -> Serve + Send + Sync + 'static,
        Serve: Future<Output = ()> + Send + 'static,
    {
        let socket = TcpListener::bind("127.0.0.1:0").expect("bind");
        socket.set_nonblocking(true).expect("not blocking");
        let (address, connections) = (socket.local_addr().expect("address"), Arc::<AtomicUsize>::default());
        let counts = connections.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(socket).expect("listener");
                let serve = Arc::new(serve);
                while let Ok((stream, _)) = listener.accept().await {
                    let (number, serve) = (counts.fetch_add(1, Ordering::SeqCst) + 1, serve.clone());
                    stream.set_nodelay(true).expect("nodelay");
                    tokio::spawn(async move {
                        let mut builder = h2::server::Builder::new();
                        builder.max_concurrent_streams(streams_max);
                        if let Ok(connection) = builder.handshake(stream).await {
                            serve(number, connection).await;
                        }
                    });
                }
            });
        });
        Self { address, connections, requests: Arc::default() }
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

/// Everything up to its end.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Whole {
    pub data: Vec<u8>,
    pub trailers: Option<HeaderMap>,
}

pub async fn read(mut body: RecvStream) -> Result<Whole, h2::Error> {
    let mut whole = Whole::default();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        whole.data.extend(data);
    }
    whole.trailers = body.trailers().await?;
    Ok(whole)
}

/// Sends all of it, as fast as it is taken.
pub async fn write(stream: &mut h2::SendStream<Bytes>, mut data: Bytes, is_last: bool) -> Result<(), h2::Error> {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let capacity = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await.ok_or(h2::Error::from(h2::Reason::CANCEL))??;
        let part = data.split_to(capacity.min(data.len()));
        stream.send_data(part, is_last && data.is_empty())?;
    }
    Ok(())
}

/// Reads the request and says what it was: method, path, authority, scheme, and the body.
pub async fn echo(request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    let (head, body) = request.into_parts();
    let Ok(whole) = read(body).await else { return };
    let authority = head.uri.authority().map_or("", |authority| authority.as_str());
    let text = format!(
        "{} {} {authority} {} {}",
        head.method,
        head.uri.path(),
        head.uri.scheme_str().unwrap_or(""),
        String::from_utf8_lossy(&whole.data)
    );
    say(&mut respond, &[], &text);
}

pub fn say(respond: &mut SendResponse<Bytes>, fields: &[(&str, &str)], text: &str) {
    let mut stream = respond.send_response(response(fields), text.is_empty()).expect("open");
    if !text.is_empty() {
        stream.send_data(text.to_owned().into(), true).expect("open");
    }
}

pub fn response(fields: &[(&str, &str)]) -> Response<()> {
    let mut response = Response::new(());
    for (name, value) in fields {
        response.headers_mut().append(http::HeaderName::try_from(*name).expect("name"), value.parse().expect("value"));
    }
    response
}

pub fn map(fields: &[(&str, &str)]) -> HeaderMap {
    response(fields).into_parts().0.headers
}

/// One request over a connection of its own; `Err`: the stream was reset.
pub async fn ask(address: SocketAddr, request: Request<Bytes>) -> Result<Response<Whole>, h2::Error> {
    let asked = async {
        let stream = TcpStream::connect(address).await.expect("connect");
        let (mut send, connection) = h2::client::handshake(stream).await?;
        tokio::spawn(connection);
        let (head, body) = request.into_parts();
        let is_empty = body.is_empty();
        let (answer, mut stream) = send.send_request(Request::from_parts(head, ()), is_empty)?;
        let write = async {
            if !is_empty {
                let _ = write(&mut stream, body, true).await;
            }
        };
        let ((), answer) = tokio::join!(write, answer);
        let (head, body) = answer?.into_parts();
        Ok(Response::from_parts(head, read(body).await?))
    };
    tokio::time::timeout(DEADLINE, asked).await.expect("in time")
}

pub fn get(path: &str) -> Request<Bytes> {
    Request::get(format!("http://a.example{path}")).body(Bytes::new()).expect("request")
}

/// A call of gRPC.
pub fn call(fields: &[(&str, &str)], body: &'static str) -> Request<Bytes> {
    let mut request =
        Request::post("http://a.example/test.Service/Call").header("content-type", "application/grpc").header("te", "trailers");
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(Bytes::from_static(body.as_bytes())).expect("request")
}

pub fn speaking(targets: &[SocketAddr]) -> ServiceRouting {
    ServiceRouting { protocol: Protocol::Http2, ..routing(&[("v1", 10_000)], &[("v1", targets)]) }
}

pub fn serving(target: &Http2Target) -> House {
    let house = House::new(1);
    house.install(speaking(&[target.address]));
    house
}

pub fn asked(house: &House, request: Request<Bytes>) -> Result<Response<Whole>, Reason> {
    house.runtime.block_on(ask(house.address, request)).map_err(|error| error.reason().expect("a reset"))
}

pub fn text(answer: &Response<Whole>) -> String {
    String::from_utf8_lossy(&answer.body().data).into_owned()
}

pub fn field<'a>(answer: &'a Response<Whole>, name: &str) -> &'a str {
    answer.headers().get(name).map_or("", |value| value.to_str().expect("text"))
}

pub fn bad(house: &House) -> (u64, u64) {
    let counts = house.proxy.counts(&service(), &version("v1"));
    (counts.requests, counts.bad)
}
