//! The queue of certificate addresses to fetch, and which address is evicted when it is full.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::net::IpAddr;

use tokio::sync::oneshot;
use tokio::sync::watch;

use crate::http::fetch::Address;

/// The number of refused or evicted addresses that are remembered.
const MAX_REFUSED: usize = 1 << 15;

/// The network that one client is likely to control: a /24 of IPv4, a /48 of IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Network(IpAddr);

impl Network {
    pub(super) fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V4(v4) => IpAddr::V4((v4.to_bits() & (u32::MAX << 8)).into()),
            IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & (u128::MAX << 80)).into()),
        })
    }
}

/// Addresses that are being fetched, or wait for it.
#[derive(Default)]
pub(super) struct Queue {
    entries: HashMap<Address, Pending>,
    last_number: u64,
    refused: RefusedAddresses,
}

/// An address that is being fetched, or waits for it.
pub(super) struct Pending {
    /// The network of the first request that named it.
    pub(super) network: Option<Network>,
    /// Whether it renews a proven certificate. Such entries do not count as queued, and are never evicted.
    pub(super) proven: bool,
    /// Whether it was refused or evicted before.
    pub(super) seen_before: bool,
    /// Closed when the fetch has ended.
    pub(super) done: watch::Receiver<()>,
    /// Increases with each entry.
    pub(super) number: u64,
    /// Aborts the fetch when the entry is removed.
    pub(super) _entered: oneshot::Sender<()>,
}

/// Fingerprints of addresses that were refused or evicted, in a direct-mapped table: a later one overwrites an earlier
/// one with the same index.
#[derive(Default)]
struct RefusedAddresses {
    hasher: RandomState,
    seen: Vec<u64>,
}

impl Queue {
    /// The channel that is closed when the fetch of a pending address has ended.
    pub(super) fn done(&self, address: &Address) -> Option<watch::Receiver<()>> {
        self.entries.get(address).map(|entry| entry.done.clone())
    }

    /// The number of the next entry.
    pub(super) fn next(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    pub(super) fn insert(&mut self, address: &Address, entry: Pending) {
        self.entries.insert(address.clone(), entry);
    }

    /// Removes the entry with this number.
    pub(super) fn remove(&mut self, address: &Address, number: u64) {
        if self.entries.get(address).is_some_and(|entry| entry.number == number) {
            self.entries.remove(address);
        }
    }

    /// Makes room for one more address, unless there are `max` already and none can be evicted. Returns whether the
    /// address was refused or evicted before; `None` when it is refused now.
    ///
    /// If the queue is full, the newest address of the network with the most addresses is evicted, if that network
    /// would still have more than this one. Otherwise, an address that was seen before evicts one of the same network
    /// that was not: genuine requests are sent again with the same address, made-up addresses hardly ever.
    pub(super) fn make_room(&mut self, address: &Address, network: Option<Network>, max: usize) -> Option<bool> {
        let mut counts: HashMap<Option<Network>, usize> = HashMap::new();
        for entry in self.entries.values().filter(|entry| !entry.proven) {
            *counts.entry(entry.network).or_default() += 1;
        }
        let waiting = counts.values().sum::<usize>();
        if waiting < max {
            return Some(false);
        }
        let seen_before = self.refused.contains(address);
        let own = counts.get(&network).copied().unwrap_or_default();
        let largest = counts.into_iter().max_by_key(|(_, count)| *count).filter(|(_, count)| *count > own + 1);
        let evicted = match largest {
            Some((largest, _)) => self.newest(|entry| entry.network == largest),
            None if seen_before => self.newest(|entry| entry.network == network && !entry.seen_before),
            None => None,
        };
        let Some(evicted) = evicted else {
            self.refused.remember(address);
            return None;
        };
        self.entries.remove(&evicted);
        self.refused.remember(&evicted);
        Some(seen_before)
    }

    /// The newest queued entry that meets the predicate.
    fn newest(&self, predicate: impl Fn(&Pending) -> bool) -> Option<Address> {
        let queued = self.entries.iter().filter(|(_, entry)| !entry.proven && predicate(entry));
        queued.max_by_key(|(_, entry)| entry.number).map(|(address, _)| address.clone())
    }
}

impl RefusedAddresses {
    fn contains(&self, address: &Address) -> bool {
        let fingerprint = self.hasher.hash_one(address);
        self.seen.get(Self::index(fingerprint)) == Some(&fingerprint)
    }

    fn remember(&mut self, address: &Address) {
        // Allocated on first use, because most sources never need it.
        self.seen.resize(MAX_REFUSED, 0);
        let fingerprint = self.hasher.hash_one(address);
        if let Some(slot) = self.seen.get_mut(Self::index(fingerprint)) {
            *slot = fingerprint;
        }
    }

    fn index(fingerprint: u64) -> usize {
        usize::try_from(fingerprint).unwrap_or_default() % MAX_REFUSED
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_what_one_sender_is_likely_to_have() {
        let network = |text: &str| Network::of(text.parse().expect("an address"));
        assert_eq!(network("192.0.2.1"), network("192.0.2.254"));
        assert_eq!(network("192.0.2.1"), network("::ffff:192.0.2.9"));
        assert_ne!(network("192.0.2.1"), network("192.0.3.1"));
        assert_eq!(network("2001:db8:1:2::1"), network("2001:db8:1:ffff::2"));
        assert_ne!(network("2001:db8:1::1"), network("2001:db8:2::1"));
    }
}
