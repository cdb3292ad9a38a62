//! A lock-free counter with a maximum, and the permits for requests in flight that use it.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

/// A counter of the units that are still available.
#[derive(Debug)]
pub struct Quota(AtomicUsize);

impl Quota {
    /// A quota of this many units.
    pub fn new(all: usize) -> Self {
        Self(AtomicUsize::new(all))
    }

    /// Takes this many units; none, and `false`, when fewer are available.
    pub(super) fn take(&self, count: usize) -> bool {
        self.0.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(count)).is_ok()
    }

    pub(super) fn give_back(&self, count: usize) {
        self.0.fetch_add(count, Relaxed);
    }
}

/// The limit of complete requests that one source may have in flight, within the limit of all sources.
#[derive(Debug, Clone)]
pub struct InFlight {
    all: Arc<Quota>,
    share: Arc<Quota>,
}

impl InFlight {
    /// The limit of one source: at most `share` of `all`.
    pub fn new(all: Arc<Quota>, share: usize) -> Self {
        Self { all, share: Arc::new(Quota::new(share)) }
    }

    /// Counts a request until the permit is dropped; `None` when a limit is reached.
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

/// Counts a request in flight until it is dropped.
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
