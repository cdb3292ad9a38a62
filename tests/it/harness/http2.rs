//! Clients of HTTP/2: one that keeps to the rules, and one that sends whatever frames it is told to.

use std::io::Read as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use bytes::Bytes;
use h2::SendStream;
use h2::client::ResponseFuture;
use h2::client::SendRequest;
use http::Request;
use rustls::pki_types::ServerName;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio_rustls::TlsConnector;

use crate::harness::PATIENCE;
use crate::harness::authority::Authority;
use crate::harness::http::Answer;
use crate::harness::provider::delivery::Delivery;
use crate::harness::tls::TlsClient;
use crate::harness::tls::client_config;
use crate::harness::tls::connect_as;

/// A connection that keeps to the rules.
pub struct Http2 {
    runtime: Handle,
    requests: SendRequest<Bytes>,
    ended: oneshot::Receiver<Result<(), h2::Error>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// A request under way.
pub struct Exchange {
    runtime: Handle,
    response: ResponseFuture,
    pub body: SendStream<Bytes>,
}

impl Http2 {
    /// Connects to 127.0.0.1.
    #[track_caller]
    pub fn connect(address: SocketAddr, authority: &Authority) -> Self {
        Self::connect_with(address, client_config(authority, &[b"h2"], None))
    }

    #[track_caller]
    pub fn connect_with(address: SocketAddr, config: rustls::ClientConfig) -> Self {
        let (stop, stopped) = oneshot::channel::<()>();
        let (told, connected) = std::sync::mpsc::channel();
        let (end, ended) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let stream = tokio::net::TcpStream::connect(address).await.expect("a connection");
                stream.set_nodelay(true).expect("no delay");
                let name = ServerName::try_from("127.0.0.1").expect("a name");
                let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.expect("TLS");
                assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
                let (requests, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
                told.send((Handle::current(), requests)).expect("somebody waits");
                tokio::select! {
                    result = connection => drop(end.send(result)),
                    _stop = stopped => {}
                }
            });
        });
        let (runtime, requests) = connected.recv_timeout(PATIENCE).expect("it connects");
        Self { runtime, requests, ended, stop: Some(stop), thread: Some(thread) }
    }

    /// Begins a request to this authority.
    #[track_caller]
    pub fn begin_as(&mut self, authority: &str, delivery: &Delivery, whole: bool) -> Exchange {
        let mut request = Request::builder().method(delivery.method.as_str()).version(http::Version::HTTP_2);
        request = request.uri(format!("https://{authority}{}", delivery.path));
        for (name, value) in &delivery.headers {
            request = request.header(name.as_str(), value.as_str());
        }
        let request = request.body(()).expect("a request");
        let requests = self.requests.clone();
        let (response, mut body) = self.runtime.block_on(async move {
            let mut requests = tokio::time::timeout(PATIENCE, requests.ready()).await.expect("in time").expect("ready");
            requests.send_request(request, false).expect("sent")
        });
        // Whoever refuses early may stop reading; its answer counts.
        drop(body.send_data(Bytes::from(delivery.body.clone()), whole));
        Exchange { runtime: self.runtime.clone(), response, body }
    }

    #[track_caller]
    pub fn begin(&mut self, delivery: &Delivery) -> Exchange {
        self.begin_as("hooks.example", delivery, true)
    }

    #[track_caller]
    pub fn send(&mut self, delivery: &Delivery) -> Answer {
        self.begin(delivery).answer()
    }

    /// Waits until the connection ends.
    #[track_caller]
    pub fn wait_for_end(mut self) {
        let ended = &mut self.ended;
        let ended = self.runtime.block_on(async { tokio::time::timeout(PATIENCE, ended).await });
        // What the client itself still sends at its end may come too late.
        let _how = ended.expect("in time").expect("its end");
    }
}

impl Drop for Http2 {
    fn drop(&mut self) {
        drop(self.stop.take());
        drop(self.thread.take().map(JoinHandle::join));
    }
}

impl Exchange {
    #[track_caller]
    pub fn answer(self) -> Answer {
        self.result().expect("an answer")
    }

    #[track_caller]
    pub fn result(self) -> Result<Answer, h2::Error> {
        let Self { runtime, response, body } = self;
        let answered = async {
            let (head, mut received) = response.await?.into_parts();
            let mut bytes = Vec::new();
            while let Some(data) = received.data().await {
                let data = data?;
                received.flow_control().release_capacity(data.len())?;
                bytes.extend_from_slice(&data);
            }
            let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
            let headers = head.headers.iter().map(|(name, value)| (name.to_string(), text(value)));
            Ok(Answer { status: head.status.as_u16(), headers: headers.collect(), body: bytes })
        };
        let answer = runtime.block_on(async { tokio::time::timeout(PATIENCE, answered).await }).expect("in time");
        drop(body);
        answer
    }
}

/// A connection on which any frames are sent.
pub struct Frames(TlsClient);

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const CONTINUATION: u8 = 9;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// A frame that came: its type, stream and payload.
#[derive(Debug)]
pub struct Frame {
    pub kind: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frames {
    /// Connects and sends what begins a connection.
    pub fn connect(address: SocketAddr, authority: &Authority) -> Self {
        let mut frames = Self::connect_silent(address, authority);
        frames.0.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").expect("sent");
        frames.send(SETTINGS, 0, 0, &[]).expect("sent");
        frames
    }

    /// Connects and sends nothing but the handshake of TLS.
    pub fn connect_silent(address: SocketAddr, authority: &Authority) -> Self {
        let mut client = connect_as(address, "127.0.0.1", client_config(authority, &[b"h2"], None));
        client.conn.complete_io(&mut client.sock).expect("a handshake");
        Self(client)
    }

    pub fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> std::io::Result<()> {
        let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
        let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
        self.0.write_all(&[&head, payload].concat())
    }

    /// Begins a request to `/webhooks/github` with these further fields.
    pub fn request(&mut self, stream: u32, flags: u8, more: &[(&str, &str)]) -> std::io::Result<()> {
        let usual =
            [(":method", "POST"), (":scheme", "https"), (":authority", "hooks.example"), (":path", "/webhooks/github")];
        let fields: Vec<u8> = usual.iter().chain(more).flat_map(|(name, value)| field(name, value)).collect();
        self.send(HEADERS, flags, stream, &fields)
    }

    /// The next frame; `None` at the end of the connection.
    pub fn next(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).ok()?;
        let [a, b, c, kind, _flags, stream @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        self.0.read_exact(&mut payload).ok()?;
        Some(Frame { kind, stream: u32::from_be_bytes(stream), payload })
    }

    /// The next frame of this type; `None` at the end of the connection.
    pub fn next_of(&mut self, kind: u8) -> Option<Frame> {
        std::iter::from_fn(|| self.next()).find(|frame| frame.kind == kind)
    }
}

/// A header field of HPACK, as a literal that is not indexed.
pub fn field(name: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![0];
    for text in [name, value] {
        let length = text.len();
        if length < 127 {
            bytes.push(length as u8);
        } else {
            bytes.push(127);
            let mut rest = length - 127;
            while rest >= 128 {
                bytes.push((rest % 128 + 128) as u8);
                rest /= 128;
            }
            bytes.push(rest as u8);
        }
        bytes.extend(text.as_bytes());
    }
    bytes
}
