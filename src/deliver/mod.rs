//! Hands messages on: to an upstream that answers, or to a queue or stream that keeps them.

mod driver;
mod headers;
mod redis_stream;
mod tls;
mod upstream;

use bytes::Bytes;
use http::HeaderValue;
use http::StatusCode;

pub use headers::headers_of;
pub use redis_stream::RedisStream;
pub use upstream::Forward;
pub use upstream::Target;
pub use upstream::Upstream;

use crate::message::Credentials;
use crate::store::Backlog;

/// How one source hands its messages on.
#[derive(Debug)]
pub enum Delivery {
    /// By a request to the app, whose answer is the provider's.
    Upstream(Box<Upstream>),
    /// By putting it on this one of the store's queues, from which it is delivered.
    Queue(Backlog, usize),
    /// By an entry on a Redis stream.
    RedisStream(RedisStream),
}

/// One attempt to deliver a message.
#[derive(Debug, Clone, Copy)]
pub struct Attempt<'a> {
    /// Which one, from 1.
    pub number: u32,
    /// Whether the store was asked if the message came before.
    pub deduplicated: bool,
    /// Those of the request, as long as it waits for an answer.
    pub credentials: Option<&'a Credentials>,
}

/// What an upstream answered.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// The type of its body.
    pub content_type: Option<HeaderValue>,
    /// When it asks to be tried again, unless it took the event.
    pub retry_after: Option<HeaderValue>,
    /// Its body, or the beginning of it.
    pub body: Bytes,
    /// Whether that is the whole of it.
    pub is_whole: bool,
}

/// The event did not get through.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Undelivered {
    /// No connection could be made.
    #[error("the upstream cannot be reached: {0}")]
    Unreachable(String),
    /// There was no connection in time, so nothing was sent.
    #[error("the upstream did not accept a connection in time")]
    ConnectTimedOut,
    /// The request was sent and no answer came in time.
    #[error("the upstream did not answer in time")]
    TimedOut,
    /// The request was sent and the connection ended before the answer did.
    #[error("the upstream broke off: {0}")]
    Broken(String),
    /// The upstream answered with something else than 2xx.
    #[error("the upstream answered {}", .0.status)]
    Answered(Answer),
}

impl Undelivered {
    /// Whether the upstream may have taken the event all the same.
    pub fn is_ambiguous(&self) -> bool {
        match self {
            Self::TimedOut | Self::Broken(_) => true,
            Self::Unreachable(_) | Self::ConnectTimedOut | Self::Answered(_) => false,
        }
    }
}
