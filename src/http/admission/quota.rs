//! A counter with a maximum that takes no lock, and the permits for requests in flight that use it.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

/// The number that is left of a maximum.
#[derive(Debug)]
pub struct Quota(AtomicUsize);

impl Quota {
    /// A quota of so many in all.
    pub fn new(all: usize) -> Self {
        Self(AtomicUsize::new(all))
    }

    /// Takes so many, or none when fewer are left.
    pub(super) fn take(&self, count: usize) -> bool {
        self.0.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(count)).is_ok()
    }

    pub(super) fn give_back(&self, count: usize) {
        self.0.fetch_add(count, Relaxed);
    }
}

/// Complete requests that one source may have in flight, as a share of those of all.
#[derive(Debug, Clone)]
pub struct InFlight {
    all: Arc<Quota>,
    share: Arc<Quota>,
}

impl InFlight {
    /// Takes from `all`, and at most so many.
    pub fn new(all: Arc<Quota>, share: usize) -> Self {
        Self { all, share: Arc::new(Quota::new(share)) }
    }

    /// Counts one more until the permit is dropped; `None` when there are as many as there may be.
    pub fn permit(&self) -> Option<Permit> {
        if !self.share.take(1) {
            return None;
        }
        if !self.all.take(1) {
            self.share.give_back(1);
            return None;
        }
        Some(Permit(self.clone()))
    }
}

/// A request in flight.
#[derive(Debug)]
pub struct Permit(InFlight);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.share.give_back(1);
        self.0.all.give_back(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_has_its_share_and_no_more_than_what_is_left_of_all() {
        let all = Arc::new(Quota::new(3));
        let [one, other] = [2, 2].map(|share| InFlight::new(Arc::clone(&all), share));
        let mut permits = vec![one.permit().expect("its first"), one.permit().expect("its second")];
        assert!(one.permit().is_none(), "its share is two");
        permits.push(other.permit().expect("what the first leaves"));
        assert!(other.permit().is_none(), "there are three in all");
        drop(permits.remove(0));
        let _other = other.permit().expect("what was given back");
        assert!(one.permit().is_none(), "there are three in all");
    }
}
