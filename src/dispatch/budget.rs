//! The memory budget that all dispatchers share: bytes of the messages that are taken off queues and not yet delivered.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::Semaphore;
use tokio::sync::TryAcquireError;

/// Bytes of one permit of the semaphore.
const UNIT: usize = 1024;

/// The bytes that all destinations together may have in memory. A destination that has none takes one delivery in any
/// case, which is not counted; see `room` in `take_loop`.
#[derive(Debug, Clone)]
pub struct Budget {
    units: Arc<Semaphore>,
    total: u32,
}

/// A reserved part of a budget, returned on drop.
#[derive(Debug, Default)]
pub(super) struct Reserved(Option<OwnedSemaphorePermit>);

impl Budget {
    /// A budget of so many bytes, rounded to KiB.
    pub fn new(bytes: usize) -> Self {
        let total = units(bytes).max(1);
        Self { units: Arc::new(Semaphore::new(usize::try_from(total).unwrap_or(Semaphore::MAX_PERMITS))), total }
    }

    /// Waits until `least` bytes are free (at most the whole budget), and reserves up to `most`. First come, first
    /// served.
    pub(super) async fn reserve(&self, least: usize, most: usize) -> Reserved {
        let least = units(least).clamp(1, self.total);
        let Ok(mut reserved) = Arc::clone(&self.units).acquire_many_owned(least).await else {
            return Reserved::default();
        };
        let free = u32::try_from(self.units.available_permits()).unwrap_or(u32::MAX);
        let more = units(most).saturating_sub(least).min(free);
        match Arc::clone(&self.units).try_acquire_many_owned(more) {
            Ok(more) => reserved.merge(more),
            // Another task reserved them first.
            Err(TryAcquireError::NoPermits | TryAcquireError::Closed) => {}
        }
        Reserved(Some(reserved))
    }
}

impl Reserved {
    /// The reserved bytes.
    pub(super) fn bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |reserved| reserved.num_permits().saturating_mul(UNIT))
    }

    /// Splits off this many bytes, rounded up to KiB; all that is reserved where that is less.
    pub(super) fn split(&mut self, bytes: usize) -> Self {
        let needed = usize::try_from(units(bytes)).unwrap_or(usize::MAX);
        Self(self.0.as_mut().and_then(|reserved| reserved.split(needed.min(reserved.num_permits()))))
    }
}

fn units(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::Context;
    use std::task::Waker;

    use super::*;

    fn ready(future: impl Future<Output = Reserved>) -> Option<Reserved> {
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            std::task::Poll::Ready(reserved) => Some(reserved),
            std::task::Poll::Pending => None,
        }
    }

    #[test]
    fn no_more_is_reserved_than_there_is_and_what_is_dropped_is_free_again() {
        let budget = Budget::new(10 * UNIT);
        let mut first = ready(budget.reserve(UNIT, 7 * UNIT)).expect("free");
        assert_eq!(first.bytes(), 7 * UNIT);
        let second = ready(budget.reserve(2 * UNIT, 7 * UNIT)).expect("the rest");
        assert_eq!(second.bytes(), 3 * UNIT, "as much as there is");
        assert!(ready(budget.reserve(1, 1)).is_none());
        let taken = first.split(2 * UNIT + 1);
        assert_eq!((taken.bytes(), first.bytes()), (3 * UNIT, 4 * UNIT), "in whole units");
        drop(first);
        assert!(ready(budget.reserve(5 * UNIT, 5 * UNIT)).is_none(), "four are free");
        assert_eq!(ready(budget.reserve(4 * UNIT, 5 * UNIT)).expect("free").bytes(), 4 * UNIT);
        drop((taken, second));
        assert_eq!(
            ready(budget.reserve(100 * UNIT, 100 * UNIT)).expect("free").bytes(),
            10 * UNIT,
            "all that there is"
        );
    }

    #[test]
    fn more_than_was_reserved_cannot_be_split_off() {
        let budget = Budget::new(3 * UNIT);
        let mut reserved = ready(budget.reserve(UNIT, 3 * UNIT)).expect("free");
        assert_eq!(reserved.split(5 * UNIT).bytes(), 3 * UNIT);
        assert_eq!((reserved.bytes(), reserved.split(UNIT).bytes()), (0, 0));
        assert_eq!(Reserved::default().split(UNIT).bytes(), 0);
    }
}
