//! Why bytes are no answer.

/// Why bytes are no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// They do not begin like one.
    #[error("what came is no HTTP answer")]
    NoAnswer,
    /// The status line or a header is wrong, or there are too many headers.
    #[error("the answer's head is malformed: {0}")]
    Head(#[from] httparse::Error),
    /// Too many bytes beside the body, or too many interim answers.
    #[error("the answer has too much beside its body")]
    TooLong,
    /// The status is no number from 100 to 999.
    #[error("the answer's status is malformed")]
    Status,
    /// 101, which nobody asked for.
    #[error("the answer switches protocols")]
    Upgrade,
    /// `Content-Length` is no number, several, or stands beside `Transfer-Encoding`.
    #[error("the answer's Content-Length is malformed")]
    Length,
    /// `Transfer-Encoding` is something else than `chunked`, or in HTTP/1.0.
    #[error("the answer's Transfer-Encoding is not chunked")]
    Coding,
    /// The size or the end of a chunk, or a trailer.
    #[error("the answer's chunks are malformed")]
    Chunk,
    /// The connection was closed before the answer's end.
    #[error("the connection was closed before the answer's end")]
    Cut,
}
