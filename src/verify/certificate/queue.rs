//! The queue of certificate addresses to fetch, and which one is dropped when it is full.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::net::IpAddr;

use tokio::sync::oneshot;
use tokio::sync::watch;

use crate::http::fetch::Address;

/// How many addresses are remembered that there was no room for.
const TURNED_AWAY: usize = 1 << 15;

/// The addresses that one sender is likely to have: a /24 of IPv4, a /48 of IPv6.
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

/// Addresses that are being asked, or wait for it.
#[derive(Default)]
pub(super) struct Queue {
    entries: HashMap<Address, Pending>,
    begun: u64,
    turned_away: TurnedAway,
}

/// An address that is being asked, or waits for it.
pub(super) struct Pending {
    pub(super) network: Option<Network>,
    /// Whether it is outside of the queue, because a signature was right by its certificate.
    pub(super) proven: bool,
    /// Whether there was no room for it before.
    pub(super) again: bool,
    /// Closed when it is over.
    pub(super) over: watch::Receiver<()>,
    /// Grows from entry to entry.
    pub(super) number: u64,
    /// Ends the fetch when the entry is gone.
    pub(super) _entered: oneshot::Sender<()>,
}

/// Fingerprints of addresses, each at its own place, where a later one may take it.
#[derive(Default)]
struct TurnedAway {
    hasher: RandomState,
    seen: Vec<u64>,
}

impl Queue {
    /// What is closed when an address that waits was asked.
    pub(super) fn over(&self, address: &Address) -> Option<watch::Receiver<()>> {
        self.entries.get(address).map(|entry| entry.over.clone())
    }

    /// The number of the next entry.
    pub(super) fn next(&mut self) -> u64 {
        self.begun += 1;
        self.begun
    }

    pub(super) fn insert(&mut self, address: &Address, entry: Pending) {
        self.entries.insert(address.clone(), entry);
    }

    /// Takes out what was entered under this number.
    pub(super) fn remove(&mut self, address: &Address, number: u64) {
        if self.entries.get(address).is_some_and(|entry| entry.number == number) {
            self.entries.remove(address);
        }
    }

    /// Whether one more address may wait, and if so, whether there was no room for it before.
    ///
    /// When as many wait as may, the last one of the network with the most goes, if that has more than this one then
    /// has. Within one network, an address that comes again takes the place of one that came once: a genuine request is
    /// sent again with the same address, and whoever makes addresses up hardly ever comes back with one.
    pub(super) fn make_room(&mut self, address: &Address, network: Option<Network>, most: usize) -> Option<bool> {
        let mut counts: HashMap<Option<Network>, usize> = HashMap::new();
        for entry in self.entries.values().filter(|entry| !entry.proven) {
            *counts.entry(entry.network).or_default() += 1;
        }
        let waiting = counts.values().sum::<usize>();
        if waiting < most {
            return Some(false);
        }
        let again = self.turned_away.has(address);
        let mine = counts.get(&network).copied().unwrap_or_default();
        let heaviest = counts.into_iter().max_by_key(|(_, count)| *count).filter(|(_, count)| *count > mine + 1);
        let last = match heaviest {
            Some((heaviest, _)) => self.last(|entry| entry.network == heaviest),
            None if again => self.last(|entry| entry.network == network && !entry.again),
            None => None,
        };
        let Some(last) = last else {
            self.turned_away.remember(address);
            return None;
        };
        self.entries.remove(&last);
        self.turned_away.remember(&last);
        Some(again)
    }

    fn last(&self, such: impl Fn(&Pending) -> bool) -> Option<Address> {
        let queued = self.entries.iter().filter(|(_, entry)| !entry.proven && such(entry));
        queued.max_by_key(|(_, entry)| entry.number).map(|(address, _)| address.clone())
    }
}

impl TurnedAway {
    fn has(&self, address: &Address) -> bool {
        let fingerprint = self.hasher.hash_one(address);
        self.seen.get(Self::location(fingerprint)) == Some(&fingerprint)
    }

    fn remember(&mut self, address: &Address) {
        // Most sources never need it.
        self.seen.resize(TURNED_AWAY, 0);
        let fingerprint = self.hasher.hash_one(address);
        if let Some(location) = self.seen.get_mut(Self::location(fingerprint)) {
            *location = fingerprint;
        }
    }

    fn location(fingerprint: u64) -> usize {
        usize::try_from(fingerprint).unwrap_or_default() % TURNED_AWAY
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
