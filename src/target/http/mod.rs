//! Delivers by HTTP/1.1 requests to an app, over connections that are kept and reused.
//!
//! A connection is polled by the task that waits for the answer: there is no other task, and no hand-over between
//! tasks. An idle connection is checked before it is reused; should the upstream close it at that moment, the request is
//! sent once more on a new one.

pub(super) mod address;
pub(super) mod answer;
mod chunks;
mod connection;
mod deadline;
mod idle_pool;
pub(super) mod malformed;
mod request;

use std::time::Duration;
use std::time::Instant;

use self::address::Address;
use self::connection::Connection;
use self::connection::Fault;
use self::deadline::Deadline;
use self::deadline::Elapsed;
use self::deadline::Timer;
use self::idle_pool::IdlePool;
use self::request::Request;
use super::Answer;
use super::Attempt;
use super::Failure;
use crate::message::Message;

/// How soon after a request was sent an idle connection ends that the other side was closing: later, it may have taken
/// the message.
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
        let answer = self.send(&Request::new(&self.address, message, attempt)?).await?;
        if answer.status.is_success() { Ok(answer) } else { Err(Failure::Answered(answer)) }
    }

    /// Sends a request, which may have to be done twice.
    async fn send(&self, request: &Request<'_>) -> Result<Answer, Failure> {
        let begun = Instant::now();
        let mut deadline = Deadline::after(begun, self.timeout);
        let mut unanswered = false;
        while let Some(connection) = self.idle.take(begun) {
            match self.exchange(connection, request, &mut deadline).await {
                Ok(answer) => return Ok(answer),
                // It was closed while idle: the next one may be open.
                Err(Fault::Unsent) => {}
                // It was closed as the request was sent. The provider would send the event again too.
                Err(Fault::Unanswered(_)) if begun.elapsed() < CLOSE_RACE => {
                    unanswered = true;
                    break;
                }
                Err(fault) => return Err(fault.into()),
            }
        }
        // Rare and large: exchanges on connections that are there carry no room for it.
        let fresh = Box::pin(deadline.limit(&mut Timer::default(), Connection::open(&self.address))).await;
        let fresh = match fresh {
            Ok(Ok(fresh)) => fresh,
            // It may have taken the message before.
            Ok(Err(failure)) if unanswered => return Err(Failure::Broken(failure.to_string())),
            Err(Elapsed) if unanswered => return Err(Failure::TimedOut),
            Ok(Err(failure)) => return Err(failure),
            Err(Elapsed) => return Err(Failure::ConnectTimedOut),
        };
        // A process that was stopped sees a connection before it sees that the time is up.
        if begun.elapsed() >= self.timeout {
            return Err(if unanswered { Failure::TimedOut } else { Failure::ConnectTimedOut });
        }
        match self.exchange(fresh, request, &mut deadline).await {
            Err(Fault::Unsent) if unanswered => Err(Failure::Broken("the connection was closed at once".to_owned())),
            exchanged => Ok(exchanged?),
        }
    }

    /// Sends a request on one connection, and keeps that where it can.
    async fn exchange(
        &self,
        mut connection: Connection,
        request: &Request<'_>,
        deadline: &mut Deadline,
    ) -> Result<Answer, Fault> {
        let parsed = connection.exchange(request, self.max_answer, deadline).await?;
        if parsed.is_reusable {
            self.idle.put(connection);
        }
        Ok(parsed.answer)
    }

    /// Closes the connections that have been idle for too long.
    pub(super) fn sweep(&self, now: Instant) {
        self.idle.sweep(now);
    }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Unsent => Self::Unreachable("the connection was closed at once".to_owned()),
            Fault::Unanswered(error) | Fault::BrokenOff(error) => Self::Broken(error),
            Fault::TimedOut => Self::TimedOut,
        }
    }
}
