//! Delivers by HTTP requests to an app, over connections that are kept and reused.
//!
//! Hyper's client connection is polled by the task that waits for the answer: there is no other task, and no hand-over
//! between tasks. An idle connection is checked before it is reused; should the upstream close it at that moment, the
//! request is sent once more on a new one.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::task::Poll;
use std::time::Duration;
use std::time::Instant;

use bytes::Bytes;
use bytes::BytesMut;
use http::HeaderValue;
use http::Request;
use http::Response;
use http::Uri;
use http::header;
use http_body_util::BodyExt as _;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::Answer;
use super::Attempt;
use super::Failure;
use super::driver::Driver;
use super::headers;
use super::tls::Stream;
use super::tls::Tls;
use crate::base::query::Names;
use crate::message::Message;

/// What an answer is granted beyond its time: a gateway that was stopped for a while sees that the time is up before it
/// sees the answer that came meanwhile, and would send the event again.
const GRACE: Duration = Duration::from_millis(20);
/// How soon after a request was sent an idle connection ends that the other side was closing: later, it may have taken the message.
const CLOSING: Duration = Duration::from_secs(1);
/// How long an idle connection is kept: less than what common servers wait (Node.js: 5 s).
const MAX_IDLE: Duration = Duration::from_secs(4);
/// Longest a connection may take to be made: long enough for a lost first packet, which is sent again after a second.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(2500);
/// Most connections that are kept while idle.
const MAX_KEPT: usize = 1024;

/// Of which requests the query is appended to the address that their event is delivered to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Forward {
    /// Of no request.
    #[default]
    Never,
    /// Of verified ones: the query is signed.
    Verified,
    /// Of all, whoever may have written the query.
    Always,
}

/// Where an app is, and what of the queries of requests it is sent.
#[derive(Debug, Clone)]
pub struct Address {
    host: String,
    port: u16,
    path: Uri,
    /// The parameters of its own query, which no sender can give another value.
    own: Names,
    forward: Forward,
    authority: HeaderValue,
    tls: Option<Tls>,
}

impl Address {
    /// Host and port: what is up or down as a whole, and has one circuit breaker.
    pub fn endpoint(&self) -> (String, u16) {
        (self.host.clone(), self.port)
    }

    /// Reads an `http` or `https` URL.
    ///
    /// # Errors
    /// What is wrong with it and what would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        // Credentials are not repeated.
        let shown = if text.contains('@') { "this".to_owned() } else { format!("{text:?}") };
        let wrong = || format!("{shown} is not a URL such as \"http://127.0.0.1:3000/webhooks\"");
        let uri: Uri = text.parse().map_err(|_bad| wrong())?;
        let authority = uri.authority().ok_or_else(wrong)?;
        if authority.as_str().contains('@') {
            return Err("has credentials, which are not sent; remove them".to_owned());
        }
        let (secure, default_port) = match uri.scheme_str() {
            Some("http") => (false, 80),
            Some("https") => (true, 443),
            _ => return Err(wrong()),
        };
        let host = authority.host();
        let port = match authority.port_u16() {
            Some(port) => port,
            None if authority.as_str() == host => default_port,
            None => return Err(format!("{shown} has no port from 0 to 65535 after its host")),
        };
        let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        Ok(Self {
            host: host.trim_matches(['[', ']']).to_owned(),
            port,
            path: path.parse().map_err(|_bad| wrong())?,
            own: uri.query().map(Names::of_query).unwrap_or_default(),
            forward: Forward::default(),
            authority: HeaderValue::from_str(authority.as_str()).map_err(|_bad| wrong())?,
            tls: if secure { Some(Tls::new(host)?) } else { None },
        })
    }

    /// The same with the queries of these requests.
    #[must_use]
    pub fn forwarding(mut self, forward: Forward) -> Self {
        self.forward = forward;
        self
    }

    /// Path and query for a message.
    fn path_for(&self, message: &Message) -> Result<Uri, Failure> {
        let target = match self.forward {
            Forward::Always => Some(&message.target),
            Forward::Verified => Some(&message.target).filter(|_| message.verified),
            Forward::Never => None,
        };
        let query = target.and_then(|target| target.split_once('?')).map(|(_, query)| self.own.left_out_of(query));
        let Some(query) = query.filter(|query| !query.is_empty()) else { return Ok(self.path.clone()) };
        let joint = match self.path.query() {
            None => "?",
            Some(own) if own.is_empty() || own.ends_with('&') => "",
            Some(_) => "&",
        };
        let address = format!("{}{joint}{query}", self.path).parse();
        address.map_err(|_long| Failure::Unsendable("its address is too long with the query".to_owned()))
    }
}

/// The app of one source, with the connections of one runtime.
#[derive(Debug)]
pub struct Http {
    address: Address,
    timeout: Duration,
    max_answer: usize,
    idle: Mutex<Vec<Idle>>,
}

#[derive(Debug)]
struct Idle {
    connection: Connection,
    since: Instant,
}

/// A connection with its driver.
#[derive(Debug)]
struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    driver: Driver<Wire>,
}

/// What moves the bytes of a connection.
type Wire = http1::Connection<TokioIo<Stream>, Full<Bytes>>;

/// A request to an upstream.
type Outgoing = Request<Full<Bytes>>;

/// How an exchange on one connection failed.
enum Fault {
    /// Nothing was sent.
    Unsent,
    /// It was sent, and not one byte came back.
    Unanswered(hyper::Error),
    /// The answer broke off.
    BrokenOff(hyper::Error),
}

impl Http {
    /// Delivers to `address`. One delivery may take `timeout`; an answer is read up to `max_answer` bytes.
    pub fn new(address: Address, timeout: Duration, max_answer: usize) -> Self {
        Self { address, timeout, max_answer, idle: Mutex::default() }
    }

    /// Delivers a message and waits for the answer.
    ///
    /// # Errors
    /// [`Failure`], which tells whether the upstream may have taken the message all the same.
    pub async fn deliver(&self, message: &Message, attempt: &Attempt<'_>) -> Result<Answer, Failure> {
        self.send(|| self.request(message, attempt)).await
    }

    /// Sends a request, which may have to be made twice.
    async fn send(&self, request: impl Fn() -> Result<Outgoing, Failure>) -> Result<Answer, Failure> {
        let mut sent = false;
        let answered = {
            let mut exchange = pin!(self.exchange(request, &mut sent));
            match tokio::time::timeout(self.timeout, exchange.as_mut()).await {
                Ok(answered) => Ok(answered),
                Err(_elapsed) => tokio::time::timeout(GRACE, exchange).await,
            }
        };
        match answered {
            Ok(Ok(answer)) if answer.status.is_success() => Ok(answer),
            Ok(Ok(answer)) => Err(Failure::Answered(answer)),
            Ok(Err(failure)) => Err(failure),
            Err(_elapsed) if sent => Err(Failure::TimedOut),
            Err(_elapsed) => Err(Failure::ConnectTimedOut),
        }
    }

    async fn exchange(
        &self,
        request: impl Fn() -> Result<Outgoing, Failure>,
        sent: &mut bool,
    ) -> Result<Answer, Failure> {
        let mut unanswered = false;
        while let Some(connection) = self.take_idle() {
            let request = request()?;
            *sent = true;
            let begun = Instant::now();
            match self.attempt(connection, request).await {
                Ok(answer) => return Ok(answer),
                // It was closed while it lay idle: the next one may be open.
                Err(Fault::Unsent) => {}
                // It was closed as the request went out. Sending again is what the provider would do next.
                Err(Fault::Unanswered(_)) if begun.elapsed() < CLOSING => {
                    unanswered = true;
                    break;
                }
                Err(Fault::Unanswered(error) | Fault::BrokenOff(error)) => {
                    return Err(Failure::Broken(error.to_string()));
                }
            }
        }
        let request = request()?;
        // Rare and large: exchanges on connections that are there carry no room for it.
        let fresh = Box::pin(self.connect()).await;
        // It may have taken the message before.
        let fresh = fresh.map_err(|failure| if unanswered { Failure::Broken(failure.to_string()) } else { failure })?;
        *sent = true;
        self.attempt(fresh, request).await.map_err(|fault| match fault {
            Fault::Unsent => Failure::Unreachable("the connection was closed at once".to_owned()),
            Fault::Unanswered(error) | Fault::BrokenOff(error) => Failure::Broken(error.to_string()),
        })
    }

    async fn attempt(&self, mut connection: Connection, request: Outgoing) -> Result<Answer, Fault> {
        let response = connection.send(request).await?;
        let answer = connection.read(response, self.max_answer).await.map_err(Fault::BrokenOff)?;
        if answer.is_whole && connection.is_reusable().await {
            self.keep(connection);
        }
        Ok(answer)
    }

    fn request(&self, message: &Message, attempt: &Attempt<'_>) -> Result<Outgoing, Failure> {
        let mut request = Request::new(Full::new(message.body.clone()));
        *request.method_mut() = message.method.clone();
        *request.uri_mut() = self.address.path_for(message)?;
        *request.headers_mut() = headers::of_attempt(message, attempt, &self.address.authority);
        Ok(request)
    }

    async fn connect(&self) -> Result<Connection, Failure> {
        let unreachable = |error: &dyn std::error::Error| Failure::Unreachable(error.to_string());
        let open = async {
            let stream = TcpStream::connect((self.address.host.as_str(), self.address.port)).await?;
            stream.set_nodelay(true)?;
            match &self.address.tls {
                Some(tls) => tls.connect(stream).await,
                None => Ok(Stream::Left(stream)),
            }
        };
        let stream = tokio::time::timeout(CONNECT_TIMEOUT, open)
            .await
            .map_err(|_elapsed| Failure::ConnectTimedOut)?
            .map_err(|error| unreachable(&error))?;
        let (sender, driver) =
            http1::Builder::new().handshake(TokioIo::new(stream)).await.map_err(|error| unreachable(&error))?;
        Ok(Connection { sender, driver: Driver::new(driver) })
    }

    /// The connection that was used last, which is the one most likely to be open.
    fn take_idle(&self) -> Option<Connection> {
        let mut idle = self.idle();
        let newest = idle.pop()?;
        if newest.since.elapsed() < MAX_IDLE {
            return Some(newest.connection);
        }
        // All others are older still.
        idle.clear();
        None
    }

    fn keep(&self, connection: Connection) {
        let mut idle = self.idle();
        if idle.len() >= MAX_KEPT {
            return;
        }
        idle.push(Idle { connection, since: Instant::now() });
    }

    /// Closes the connections that have lain idle for too long.
    pub(super) fn sweep(&self, now: Instant) {
        let mut idle = self.idle();
        // The oldest stand first.
        let old = idle.partition_point(|kept| now.saturating_duration_since(kept.since) >= MAX_IDLE);
        drop(idle.drain(..old));
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connection {
    async fn send(&mut self, request: Outgoing) -> Result<Response<Incoming>, Fault> {
        let Self { sender, driver } = self;
        // Sees whether the other end has closed it, and makes it ready.
        if driver.drive(pin!(sender.ready())).await.is_err() {
            return Err(Fault::Unsent);
        }
        driver.drive(pin!(sender.try_send_request(request))).await.map_err(|mut error| match error.take_message() {
            Some(_request) => Fault::Unsent,
            None => match error.into_error() {
                // What came is no answer.
                error if error.is_parse() => Fault::BrokenOff(error),
                error => Fault::Unanswered(error),
            },
        })
    }

    /// Reads an answer; of a body over `max` bytes only the beginning, and the rest is still to come.
    async fn read(&mut self, response: Response<Incoming>, max: usize) -> Result<Answer, hyper::Error> {
        let (mut head, mut body) = response.into_parts();
        let content_type = head.headers.remove(header::CONTENT_TYPE);
        let retry_after = if head.status.is_success() { None } else { head.headers.remove(header::RETRY_AFTER) };
        let mut is_whole = true;
        let mut first = Bytes::new();
        let mut whole = BytesMut::new();
        while let Some(frame) = self.driver.drive(pin!(body.frame())).await {
            let Ok(data) = frame?.into_data() else { continue };
            if first.len() + whole.len() + data.len() > max {
                is_whole = false;
                break;
            }
            if first.is_empty() && whole.is_empty() {
                first = data;
            } else {
                whole.extend_from_slice(&std::mem::take(&mut first));
                whole.extend_from_slice(&data);
            }
        }
        let body = if whole.is_empty() { first } else { whole.freeze() };
        Ok(Answer { status: head.status, content_type, retry_after, body, is_whole })
    }

    /// Whether another request can follow. The driver finishes with the last answer first, unless it has done so already.
    async fn is_reusable(&mut self) -> bool {
        poll_fn(|cx| {
            if !self.sender.is_ready() {
                self.driver.poll(cx.waker());
            }
            Poll::Ready(self.driver.is_open() && self.sender.is_ready())
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_urls_with_a_host() {
        let target = Address::parse("http://[::1]:3000/hook?x=1").expect("a target");
        assert_eq!((target.host.as_str(), target.port, target.path.to_string().as_str()), ("::1", 3000, "/hook?x=1"));
        assert_eq!(Address::parse("http://app").expect("a target").port, 80);
        for bad in ["", "127.0.0.1:3000", "/hook", "ftp://app/x", "http://", "http://a:b@app/", "http://app:99999/"] {
            assert!(Address::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_query_is_joined_to_the_address_and_does_not_take_the_place_of_its_own() {
        let address = |url: &str, target: &str| {
            let message = Message { target: target.into(), ..Message::example() };
            let target = Address::parse(url).expect("a target").forwarding(Forward::Always);
            target.path_for(&message).map(|address| address.to_string())
        };
        for (url, target, expected) in [
            ("http://app/hook", "/in?a=1&b=%2f+&c", "/hook?a=1&b=%2f+&c"),
            ("http://app", "/in?a", "/?a"),
            ("http://app/hook?x=1", "/in?a=?&b", "/hook?x=1&a=?&b"),
            ("http://app/hook?x=1", "/in?X=2&a=1&x", "/hook?x=1&a=1"),
            ("http://app/hook?x=1", "/in?x=2", "/hook?x=1"),
            ("http://app/hook?", "/in?a=1", "/hook?a=1"),
            ("http://app/hook?x&", "/in?a=1", "/hook?x&a=1"),
            ("http://app/hook?x=1", "/in?", "/hook?x=1"),
            ("http://app/hook", "/in", "/hook"),
        ] {
            assert_eq!(address(url, target).expect(url), expected, "{url} {target}");
        }
        let room = usize::from(u16::MAX) - 1 - "/hook?".len();
        assert!(address("http://app/hook", &format!("/in?{}", "a".repeat(room))).is_ok());
        let long = address("http://app/hook", &format!("/in?{}", "a".repeat(room + 1)));
        assert_eq!(
            long.expect_err("too long").to_string(),
            "the message cannot be sent there: its address is too long with the query"
        );
    }
}
