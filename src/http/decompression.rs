//! Decompresses bodies of unverified requests. A worker decompresses one at a time, and serves other requests between
//! slices of it.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use bytes::BytesMut;
use tokio::sync::Semaphore;

use crate::http::admission::Reserved;
use crate::http::body::Limits;
use crate::http::body::Unreadable;
use crate::http::content_coding::Coding;
use crate::http::content_coding::Decoder;
use crate::http::content_coding::SLICE;

thread_local! {
    static DECOMPRESSIONS: Arc<Decompressions> = Arc::new(Decompressions { turn: Semaphore::new(1), count: AtomicUsize::new(0) });
}

/// The bodies that a worker decompresses.
#[derive(Debug)]
struct Decompressions {
    /// One permit: one body is decompressed at a time.
    turn: Semaphore,
    /// The number of bodies that are decompressed or wait for that.
    count: AtomicUsize,
}

/// A body that is decompressed or waits for that. Counted until this is dropped.
struct Counted(Arc<Decompressions>);

impl Counted {
    fn new(max: usize) -> Result<Self, Unreadable> {
        let counted = Self(DECOMPRESSIONS.with(Arc::clone));
        if counted.0.count.fetch_add(1, Relaxed) < max { Ok(counted) } else { Err(Unreadable::Overloaded) }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Relaxed);
    }
}

/// Decompresses a body. Adds the decompressed bytes to its reservation.
///
/// # Errors
/// [`Unreadable`] when the result is too large, the body is not valid in its coding, or too many bodies wait.
pub(super) async fn decompress(
    sent: &Bytes,
    coding: Coding,
    reserved: &mut Option<Reserved>,
    limits: &Limits,
) -> Result<Bytes, Unreadable> {
    let counted = Counted::new(limits.max_decompressions)?;
    // It cannot fail: the semaphore is never closed.
    let _turn = counted.0.turn.acquire().await.ok();
    let mut decoder = Decoder::new(coding, sent)?;
    let mut plain = BytesMut::new();
    let mut slice = vec![0; SLICE];
    while let Some(next) = decoder.next(&mut slice)? {
        let length = plain.len() + next.len();
        if length > limits.max_body {
            return Err(Unreadable::TooLarge);
        }
        if let Some(reserved) = reserved {
            reserved.grow(next.len())?;
        }
        plain.extend_from_slice(next);
        tokio::task::yield_now().await;
    }
    Ok(plain.freeze())
}
