//! Delivers to an app by HTTP/1.1, over connections that are kept alive and reused.
//!
//! Hyper's client connection is polled by the task that waits for the answer, so there is no hand-over between tasks.
//! An idle connection is checked before it is reused; when the upstream closes it at that moment, the request is sent
//! once more on a new one.

pub(super) mod address;
mod connection;
mod idle_pool;

use std::pin::pin;
use std::time::Duration;
use std::time::Instant;

use http::Request;
use http_body_util::Full;

use self::address::Address;
use self::connection::Connection;
use self::connection::Fault;
use self::connection::Outgoing;
use self::idle_pool::IdlePool;
use super::Answer;
use super::Attempt;
use super::Failure;
use super::headers;
use crate::message::Message;

/// Extra time after the timeout. A process that was suspended notices the timeout before the answer that came
/// meanwhile, and would send the event again.
const GRACE: Duration = Duration::from_millis(20);
/// When a reused connection ends without an answer within this time after the request was sent, the other side was
/// closing it, and the request is sent again. Later than that, the app may have processed the request.
const CLOSE_RACE: Duration = Duration::from_secs(1);

/// The app of one source, with the connections of one runtime.
#[derive(Debug)]
pub struct Http {
    address: Address,
    timeout: Duration,
    max_answer: usize,
    idle: IdlePool,
}

impl Http {
    /// Delivers to `address`. One delivery may take `timeout`; an answer is read up to `max_answer` bytes.
    pub fn new(address: Address, timeout: Duration, max_answer: usize) -> Self {
        Self { address, timeout, max_answer, idle: IdlePool::default() }
    }

    /// Delivers a message and waits for the answer.
    ///
    /// # Errors
    /// [`Failure`], which tells whether the upstream may have taken the message all the same.
    pub async fn deliver(&self, message: &Message, attempt: &Attempt<'_>) -> Result<Answer, Failure> {
        self.send(|| self.request(message, attempt)).await
    }

    /// Sends a request within the timeout; `request` may be called more than once.
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
        while let Some(connection) = self.idle.take() {
            let request = request()?;
            *sent = true;
            let begun = Instant::now();
            match self.attempt(connection, request).await {
                Ok(answer) => return Ok(answer),
                // It was closed while idle: the next one may be open.
                Err(Fault::Unsent) => {}
                // It was closed as the request was sent. The provider would send the event again too.
                Err(Fault::Unanswered(_)) if begun.elapsed() < CLOSE_RACE => {
                    unanswered = true;
                    break;
                }
                Err(Fault::Unanswered(error) | Fault::BrokenOff(error)) => {
                    return Err(Failure::Broken(error.to_string()));
                }
            }
        }
        let request = request()?;
        // Boxed, because this future is rare and large.
        let fresh = Box::pin(Connection::open(&self.address)).await;
        // The app may have taken the message from the connection that closed.
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
            self.idle.put(connection);
        }
        Ok(answer)
    }

    fn request(&self, message: &Message, attempt: &Attempt<'_>) -> Result<Outgoing, Failure> {
        let mut request = Request::new(Full::new(message.body.clone()));
        *request.method_mut() = message.method.clone();
        *request.uri_mut() = self.address.path_for(message)?;
        *request.headers_mut() = headers::for_attempt(message, attempt, &self.address.authority);
        Ok(request)
    }

    /// Closes the connections that have been idle for too long.
    pub(super) fn sweep(&self, now: Instant) {
        self.idle.sweep(now);
    }
}
