//! Targets: where messages are delivered to, an app by HTTP or a Redis stream. Every `match` over the kinds of targets
//! is in this file.

mod headers;
mod http;
pub mod metrics;
mod redis_stream;
mod tls;

use std::convert::Infallible;
use std::time::Duration;
use std::time::Instant;

use ::http::HeaderValue;
use ::http::StatusCode;
use bytes::Bytes;

pub use self::headers::headers_of;
pub use self::http::Http;
pub use self::http::address::Address;
pub use self::http::address::Forward;
pub use self::http::address::UpstreamSocket;
pub use self::http::answer::AnswerParser;
pub use self::http::answer::MAX_HEAD;
pub use self::http::answer::Parsed;
pub use self::http::malformed::Malformed;
pub use self::redis_stream::RedisStream;
pub use self::redis_stream::Stream;
use crate::message::Credentials;
use crate::message::Message;

/// The interval at which idle connections are checked.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// A target with the connections of one runtime; it connects when it is first used.
#[derive(Debug)]
pub enum Target {
    /// An app that takes requests.
    Http(Box<Http>),
    /// A stream in the Redis of the store.
    RedisStream(RedisStream),
}

/// One attempt to deliver a message.
#[derive(Debug, Clone, Copy)]
pub struct Attempt<'a> {
    /// The number of the attempt, from 1.
    pub number: u32,
    /// Whether the store confirmed that the message is no duplicate.
    pub deduplicated: bool,
    /// The credentials of the request, for an attempt during the request. They are never stored.
    pub credentials: Option<&'a Credentials>,
}

/// The acknowledgement of a target.
#[derive(Debug, Clone)]
pub enum Receipt {
    /// An app answered with a status of success.
    Answered(Answer),
    /// A broker stored the message, as durably as the settings ask.
    Stored,
}

/// What an app answered.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its `Content-Type`.
    pub content_type: Option<HeaderValue>,
    /// Its `Retry-After`, unless the status is a success.
    pub retry_after: Option<HeaderValue>,
    /// Its body, or the beginning of it.
    pub body: Bytes,
    /// Whether `body` is the whole body.
    pub is_whole: bool,
}

/// The message did not get through.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Failure {
    /// No connection could be made.
    #[error("the upstream cannot be reached: {0}")]
    Unreachable(String),
    /// A message like this can never be sent to this target; nothing was sent.
    #[error("the message cannot be sent there: {0}")]
    Unsendable(String),
    /// There was no connection in time, so nothing was sent.
    #[error("the upstream did not accept a connection in time")]
    ConnectTimedOut,
    /// The request was sent and no answer came in time.
    #[error("the upstream did not answer in time")]
    TimedOut,
    /// The request was sent and the connection ended before the answer did.
    #[error("the upstream broke off: {0}")]
    Broken(String),
    /// The app answered with something else than 2xx.
    #[error("the upstream answered {}", .0.status)]
    Answered(Answer),
    /// A broker did not confirm that it stored the message.
    #[error("{why}")]
    Unacknowledged {
        /// The cause, for people.
        why: String,
        /// Whether it may have stored the message all the same.
        ambiguous: bool,
    },
}

impl Target {
    /// Delivers a message, and waits for the acknowledgement.
    ///
    /// # Errors
    /// [`Failure`], which tells whether the target may have taken the message all the same.
    pub async fn deliver(&self, message: &Message, attempt: &Attempt<'_>) -> Result<Receipt, Failure> {
        match self {
            Self::Http(http) => http.deliver(message, attempt).await.map(Receipt::Answered),
            // Boxed, because this future is rare and large.
            Self::RedisStream(stream) => Box::pin(stream.publish(message)).await.map(|()| Receipt::Stored),
        }
    }

    /// Closes connections that have been idle for too long.
    pub fn sweep(&self, now: Instant) {
        match self {
            Self::Http(http) => http.sweep(now),
            Self::RedisStream(_) => {}
        }
    }
}

/// Has [`Target::sweep`] called for all targets at an interval; never returns.
pub async fn sweep(targets: impl Fn(Instant)) -> Infallible {
    loop {
        tokio::time::sleep(SWEEP_INTERVAL).await;
        targets(Instant::now());
    }
}

impl Receipt {
    /// The status of an answer.
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Answered(answer) => Some(answer.status),
            Self::Stored => None,
        }
    }
}

impl Failure {
    /// Whether the target may have taken the message all the same.
    pub fn is_ambiguous(&self) -> bool {
        match self {
            Self::TimedOut | Self::Broken(_) => true,
            Self::Unsendable(_) | Self::Unreachable(_) | Self::ConnectTimedOut | Self::Answered(_) => false,
            Self::Unacknowledged { ambiguous, .. } => *ambiguous,
        }
    }

    /// What the app answered, if it did.
    pub fn answer(&self) -> Option<&Answer> {
        match self {
            Self::Answered(answer) => Some(answer),
            Self::Unsendable(_)
            | Self::Unreachable(_)
            | Self::ConnectTimedOut
            | Self::TimedOut
            | Self::Broken(_)
            | Self::Unacknowledged { .. } => None,
        }
    }

    /// Whether the endpoint is down or overloaded, so that other messages would fail too.
    pub fn blames_endpoint(&self) -> bool {
        match self {
            Self::Answered(answer) => matches!(
                answer.status,
                StatusCode::TOO_MANY_REQUESTS
                    | StatusCode::BAD_GATEWAY
                    | StatusCode::SERVICE_UNAVAILABLE
                    | StatusCode::GATEWAY_TIMEOUT
            ),
            Self::Unsendable(_) => false,
            Self::Unreachable(_)
            | Self::ConnectTimedOut
            | Self::TimedOut
            | Self::Broken(_)
            | Self::Unacknowledged { .. } => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_blamed_for_what_another_message_would_meet_too() {
        let answered = |status: u16| {
            let status = StatusCode::from_u16(status).expect("a status");
            Failure::Answered(Answer {
                status,
                content_type: None,
                retry_after: None,
                body: Bytes::new(),
                is_whole: true,
            })
        };
        for status in [429, 502, 503, 504] {
            assert!(answered(status).blames_endpoint(), "{status}");
        }
        for status in [301, 400, 401, 404, 409, 422, 428, 430, 500, 501, 505, 507] {
            assert!(!answered(status).blames_endpoint(), "{status}");
        }
        let broker = Failure::Unacknowledged { why: String::new(), ambiguous: false };
        for failure in [Failure::ConnectTimedOut, Failure::TimedOut, Failure::Broken(String::new()), broker] {
            assert!(failure.blames_endpoint(), "{failure:?}");
        }
    }
}
