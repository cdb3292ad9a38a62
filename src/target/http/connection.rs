//! One connection to an app: hyper's client connection, polled by the task that waits for the answer.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use bytes::BytesMut;
use http::Request;
use http::Response;
use http::header;
use http_body_util::BodyExt as _;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::address::Address;
use crate::target::Answer;
use crate::target::Failure;
use crate::target::driver::Driver;
use crate::target::tls::Stream;

/// The limit for connecting, TLS included: long enough to lose the first packet, which TCP sends again after 1 s.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(2500);

/// A connection with its driver.
#[derive(Debug)]
pub(super) struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    driver: Driver<Wire>,
}

impl Connection {
    /// Connects to an address.
    pub(super) async fn open(address: &Address) -> Result<Self, Failure> {
        let unreachable = |error: &dyn std::error::Error| Failure::Unreachable(error.to_string());
        let open = async {
            let stream = TcpStream::connect((address.host.as_str(), address.port)).await?;
            stream.set_nodelay(true)?;
            match &address.tls {
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
        Ok(Self { sender, driver: Driver::new(driver) })
    }

    /// Sends a request, and waits for the head of the answer.
    pub(super) async fn send(&mut self, request: Outgoing) -> Result<Response<Incoming>, Fault> {
        let Self { sender, driver } = self;
        // Notices that the other end has closed the connection.
        if driver.drive(pin!(sender.ready())).await.is_err() {
            return Err(Fault::Unsent);
        }
        driver.drive(pin!(sender.try_send_request(request))).await.map_err(|mut error| match error.take_message() {
            Some(_request) => Fault::Unsent,
            None => match error.into_error() {
                // Bytes came that are no HTTP response.
                error if error.is_parse() => Fault::BrokenOff(error),
                error => Fault::Unanswered(error),
            },
        })
    }

    /// Reads an answer. Of a body over `max` bytes it reads the beginning only; the connection cannot be reused then.
    pub(super) async fn read(&mut self, response: Response<Incoming>, max: usize) -> Result<Answer, hyper::Error> {
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

    /// Whether another request can follow. Polls the driver once if needed, so that it finishes the last answer.
    pub(super) async fn is_reusable(&mut self) -> bool {
        poll_fn(|cx| {
            if !self.sender.is_ready() {
                self.driver.poll(cx.waker());
            }
            Poll::Ready(self.driver.is_open() && self.sender.is_ready())
        })
        .await
    }
}

/// Hyper's connection future.
type Wire = http1::Connection<TokioIo<Stream>, Full<Bytes>>;

/// A request to an upstream.
pub(super) type Outgoing = Request<Full<Bytes>>;

/// How an exchange on one connection failed.
pub(super) enum Fault {
    /// Nothing was sent.
    Unsent,
    /// The request was sent, and no byte of an answer came.
    Unanswered(hyper::Error),
    /// The answer was incomplete or invalid.
    BrokenOff(hyper::Error),
}
