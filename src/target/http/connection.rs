//! One connection to an app: writes a request, and reads the answer while it does.

use std::future::poll_fn;
use std::io;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::pin::pin;
use std::task::Context;
use std::task::Poll;
use std::task::ready;
use std::time::Duration;

use bytes::BytesMut;
use socket2::SockRef;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWrite as _;
use tokio::net::TcpStream;
use tokio::net::UnixStream;
use tokio::net::lookup_host;
use tokio::task::coop::unconstrained;

use super::address::Address;
use super::address::UpstreamSocket;
use super::answer::AnswerParser;
use super::answer::Parsed;
use super::deadline::Deadline;
use super::deadline::Elapsed;
use super::deadline::Timer;
use super::request::Request;
use crate::target::Failure;
use crate::target::tls::Plain;
use crate::target::tls::Stream;

/// The limit for connecting, TLS included: long enough to lose the first packet, which TCP sends again after 1 s.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(2500);
/// How long one address of a host may take before the next one is tried, too: as RFC 8305 section 8 recommends.
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
/// The pause while a Unix domain socket has a full queue; doubled each time, up to the second one.
const FULL_PAUSE: Duration = Duration::from_millis(5);
const MAX_FULL_PAUSE: Duration = Duration::from_millis(160);
/// A body up to this size is copied behind its head, so that both go out as one piece.
const COPIED: usize = 8 * 1024;
/// Room for what is received: most answers are smaller.
const READ: usize = 8 * 1024;
/// With less room than this there is more made.
const MIN_READ: usize = 2 * 1024;
/// A connection that lies idle keeps no buffer that is larger.
const MAX_KEPT: usize = 2 * READ;

/// A connection, to be used for one request after the other.
#[derive(Debug)]
pub(super) struct Connection {
    wire: Wire,
    timer: Timer,
}

/// How an exchange on one connection failed.
#[derive(Debug)]
pub(super) enum Fault {
    /// Nothing was sent.
    Unsent,
    /// It was sent, at least in part, and not one byte came back.
    Unanswered(String),
    /// The answer broke off, or is none.
    BrokenOff(String),
    /// The time was up.
    TimedOut,
}

impl Connection {
    /// Connects to an address.
    pub(super) async fn open(address: &Address) -> Result<Self, Failure> {
        let open = async {
            let (host, port) = match &address.socket {
                UpstreamSocket::Tcp(host, port) => (host.as_str(), *port),
                UpstreamSocket::Unix(path) => return Ok(Stream::Left(Plain::Right(connect_unix(path).await?))),
            };
            let stream = connect_tcp(&lookup_host((host, port)).await?.collect::<Vec<_>>()).await?;
            stream.set_nodelay(true)?;
            match &address.tls {
                Some(tls) => tls.connect(stream).await,
                None => Ok(Stream::Left(Plain::Left(stream))),
            }
        };
        let opened = tokio::time::timeout(CONNECT_TIMEOUT, open).await;
        let opened: io::Result<Stream> = opened.map_err(|_elapsed| Failure::ConnectTimedOut)?;
        let stream = opened.map_err(|error| Failure::Unreachable(error.to_string()))?;
        let wire = Wire { stream, received: BytesMut::new(), head: Vec::new(), is_used: false, is_large: false };
        Ok(Self { wire, timer: Timer::default() })
    }

    /// Sends a request, and reads the answer with `max` bytes of its body.
    pub(super) async fn exchange(
        &mut self,
        request: &Request<'_>,
        max: usize,
        deadline: &mut Deadline,
    ) -> Result<Parsed, Fault> {
        let Self { wire, timer } = self;
        let mut exchange = Exchange::new(wire, request, max);
        let answered = deadline.limit(timer, poll_fn(|cx| exchange.poll(cx))).await;
        let parsed = answered.unwrap_or_else(|Elapsed| Err(Fault::TimedOut))?;
        wire.rest();
        Ok(parsed)
    }
}

/// Connects to one of these addresses. Tries the next one when one has failed, or has not answered for a while; then the
/// first to answer is taken (RFC 8305 section 5).
async fn connect_tcp(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let Some((first, others)) = addresses.split_first() else {
        return Err(io::Error::new(io::ErrorKind::NotFound, "its host has no address"));
    };
    let mut first = pin!(TcpStream::connect(first));
    if others.is_empty() {
        return first.await;
    }
    let mut others = Box::pin(connect_tcp(others));
    match tokio::time::timeout(ATTEMPT_DELAY, &mut first).await {
        Ok(Ok(connected)) => Ok(connected),
        Ok(Err(_failed)) => others.await,
        Err(_elapsed) => tokio::select! {
            connected = &mut first => if connected.is_ok() { connected } else { others.await },
            connected = &mut others => if connected.is_ok() { connected } else { first.await },
        },
    }
}

/// Connects to a Unix domain socket. Waits while the queue of its listener is full, as TCP does by itself.
async fn connect_unix(path: &Path) -> io::Result<UnixStream> {
    let mut pause = FULL_PAUSE;
    loop {
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => tokio::time::sleep(pause).await,
            connected => return connected,
        }
        pause = MAX_FULL_PAUSE.min(pause * 2);
    }
}

/// The bytes of a connection.
#[derive(Debug)]
struct Wire {
    stream: Stream,
    /// What was received and belongs to no answer yet.
    received: BytesMut,
    /// The last request, without a body that is large.
    head: Vec<u8>,
    /// Whether it has had an exchange.
    is_used: bool,
    /// Whether `received` has grown.
    is_large: bool,
}

impl Wire {
    /// Receives more; `0` at the end.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.received.capacity() - self.received.len() < MIN_READ {
            self.received.reserve(READ);
            self.is_large |= self.received.capacity() > MAX_KEPT;
        }
        pin!(self.stream.read_buf(&mut self.received)).poll(cx)
    }

    /// Makes it ready to lie idle.
    fn rest(&mut self) {
        self.is_used = true;
        if std::mem::take(&mut self.is_large) {
            self.received = BytesMut::new();
        }
        if self.head.capacity() > MAX_KEPT {
            self.head = Vec::new();
        }
    }
}

/// A request that is being sent and its answer, which is read meanwhile: who answers early may not read on.
#[derive(Debug)]
struct Exchange<'a> {
    wire: &'a mut Wire,
    /// What follows `wire.head`.
    body: &'a [u8],
    /// How many bytes of both were sent.
    sent: usize,
    progress: Progress,
    parser: AnswerParser,
    /// Whether a byte was received.
    is_answered: bool,
}

/// How far a request is sent.
#[derive(Debug)]
enum Progress {
    /// Not one byte.
    Unsent,
    Sending,
    Sent,
    /// It cannot be sent to its end; an answer that has come counts all the same, unless it is a success.
    Failed(io::Error),
}

impl<'a> Exchange<'a> {
    fn new(wire: &'a mut Wire, request: &Request<'a>, max: usize) -> Self {
        wire.head.clear();
        request.write_head(&mut wire.head);
        let mut body = request.body().as_ref();
        if body.len() <= COPIED {
            wire.head.extend_from_slice(std::mem::take(&mut body));
        }
        let parser = AnswerParser::new(request.method(), max);
        Self { wire, body, sent: 0, progress: Progress::Unsent, parser, is_answered: false }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Parsed, Fault>> {
        if let Progress::Unsent = self.progress {
            if self.wire.is_used && self.is_spoilt(cx) {
                return Poll::Ready(Err(Fault::Unsent));
            }
            // What TLS was given may be on its way, whatever it returns.
            if let Stream::Right(_) = self.wire.stream {
                self.progress = Progress::Sending;
            }
        }
        if let Progress::Unsent | Progress::Sending = self.progress {
            let sent = self.poll_send(cx);
            match (sent, &self.progress) {
                (Poll::Ready(Ok(())), _) => self.progress = Progress::Sent,
                (Poll::Ready(Err(_closed)), Progress::Unsent) => return Poll::Ready(Err(Fault::Unsent)),
                (Poll::Ready(Err(error)), _) => self.progress = Progress::Failed(error),
                // There is no answer yet to what was not sent.
                (Poll::Pending, Progress::Unsent) => return Poll::Pending,
                (Poll::Pending, _) => {}
            }
        }
        self.poll_answer(cx)
    }

    /// Whether a connection that lay idle was closed, or received what nobody asked for.
    fn is_spoilt(&mut self, cx: &mut Context<'_>) -> bool {
        // Even when the task has used up its cooperative budget.
        let receive = poll_fn(|cx| self.wire.poll_receive(cx));
        if pin!(unconstrained(receive)).poll(cx).is_ready() {
            return true;
        }
        // That is what the runtime knew at its last turn. The kernel knows what has come since, and may have had much time
        // while a large event was verified.
        let socket = match &self.wire.stream {
            Stream::Left(Plain::Left(tcp)) => SockRef::from(tcp),
            Stream::Left(Plain::Right(unix)) => SockRef::from(unix),
            Stream::Right(tls) => SockRef::from(tls.get_ref().0),
        };
        let peeked = socket.peek(&mut [MaybeUninit::uninit()]);
        !peeked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Wire { stream, head, .. } = &mut *self.wire;
        let mut stream = Pin::new(stream);
        loop {
            let rest = head.get(self.sent..).unwrap_or_default();
            let body = self.body.get(self.sent.saturating_sub(head.len())..).unwrap_or_default();
            let sent = match (rest, body) {
                ([], []) => return stream.poll_flush(cx),
                (one, []) | ([], one) => ready!(stream.as_mut().poll_write(cx, one))?,
                (rest, body) => {
                    let both = [IoSlice::new(rest), IoSlice::new(body)];
                    ready!(stream.as_mut().poll_write_vectored(cx, &both))?
                }
            };
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += sent;
            self.progress = Progress::Sending;
        }
    }

    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Result<Parsed, Fault>> {
        loop {
            let parsed = match ready!(self.wire.poll_receive(cx)) {
                Err(error) => return Poll::Ready(Err(self.fault(&error))),
                Ok(0) => self.parser.end(&mut self.wire.received).map(Some),
                Ok(_) => {
                    self.is_answered = true;
                    self.parser.parse(&mut self.wire.received)
                }
            };
            match parsed {
                Ok(None) => {}
                Ok(Some(parsed)) => {
                    // Whoever refuses need not have read it all; whoever takes it does.
                    if let Progress::Failed(error) = &self.progress
                        && parsed.answer.status.is_success()
                    {
                        return Poll::Ready(Err(Fault::BrokenOff(error.to_string())));
                    }
                    let is_sent = matches!(self.progress, Progress::Sent);
                    return Poll::Ready(Ok(Parsed { is_reusable: parsed.is_reusable && is_sent, ..parsed }));
                }
                Err(malformed) => return Poll::Ready(Err(self.fault(&malformed))),
            }
        }
    }

    /// The fault when an exchange ends without an answer.
    fn fault(&self, error: &dyn std::error::Error) -> Fault {
        match &self.progress {
            _ if self.is_answered => Fault::BrokenOff(error.to_string()),
            Progress::Failed(error) => Fault::Unanswered(error.to_string()),
            Progress::Unsent | Progress::Sending | Progress::Sent => Fault::Unanswered(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use socket2::Domain;
    use socket2::Socket;
    use socket2::Type;

    use super::*;

    /// An address that does not answer: the queue of its listener is full.
    fn silent() -> (SocketAddr, Socket, Vec<Socket>) {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("bound");
        socket.listen(0).expect("listening");
        let address = socket.local_addr().expect("an address");
        // Those beyond the queue's length are never answered.
        let connecting = (0..4).map(|_| {
            let client = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
            client.set_nonblocking(true).expect("an option");
            drop(client.connect(&address));
            client
        });
        (address.as_socket().expect("an IP address"), socket, connecting.collect())
    }

    /// An address that refuses connections.
    fn refusing() -> SocketAddr {
        TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("an address")
    }

    #[tokio::test]
    async fn an_address_that_does_not_answer_is_passed_over() {
        let (silent, _listener, _connecting) = silent();
        let app = TcpListener::bind("127.0.0.1:0").expect("a port");
        let app = (app.local_addr().expect("an address"), app);
        for addresses in [
            vec![app.0],
            vec![app.0, silent],
            vec![silent, app.0],
            vec![silent, silent, refusing(), app.0, silent],
            vec![refusing(), app.0],
            vec![refusing(), refusing(), silent, app.0],
        ] {
            let connected = connect_tcp(&addresses).await.expect("the app is reached");
            assert_eq!(connected.peer_addr().expect("an address"), app.0, "{addresses:?}");
        }
        assert_eq!(connect_tcp(&[]).await.expect_err("no address").kind(), io::ErrorKind::NotFound);
        let refused = connect_tcp(&[refusing(), refusing()]).await.expect_err("nobody is there");
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        let addresses = [silent, refusing()];
        let tried = connect_tcp(&addresses);
        assert!(tokio::time::timeout(2 * ATTEMPT_DELAY, tried).await.is_err(), "the first may still answer");
    }
}
