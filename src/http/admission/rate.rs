//! The rate limits of one source, by the generic cell rate algorithm (GCRA): one for its genuine requests together, and
//! one for all requests of each address. A limit is a single moment, so that there are no timers and no counters.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::net::IpAddr;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use super::Origin;

/// How many addresses share a lock. Of these, the one is forgotten for a new one that is nearest to its full burst.
const SET: usize = 8;

/// How many requests may come in the long run, and how many at once.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    /// From one request to the next when they come evenly.
    interval: Duration,
    /// How much earlier a request may come.
    tolerance: Duration,
}

impl Rate {
    /// `count` requests in a period, and `burst` at once; both are at least 1.
    pub fn new(count: u32, period: Duration, burst: u32) -> Self {
        let interval = period.checked_div(count).unwrap_or(period);
        Self { interval, tolerance: interval.saturating_mul(burst.saturating_sub(1)) }
    }

    /// How long a request must wait that is due at this moment.
    fn wait(self, due: Option<Instant>, now: Instant) -> Duration {
        let early = due.map(|due| due.saturating_duration_since(now)).unwrap_or_default();
        early.saturating_sub(self.tolerance)
    }

    /// Takes a request now, after which the next one is due an interval later. Otherwise, how long it must wait.
    fn take(self, due: &mut Option<Instant>, now: Instant) -> Result<(), Duration> {
        match self.wait(*due, now) {
            Duration::ZERO => {
                *due = due.map_or(now, |due| due.max(now)).checked_add(self.interval);
                Ok(())
            }
            wait => Err(wait),
        }
    }
}

/// More requests came than a rate allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RateExceeded {
    /// Than that of the source. There is room after this time.
    #[error("the source has had as many requests as its rate allows")]
    Source(Duration),
    /// Than that of the client's address. There is room after this time.
    #[error("the client's address has sent as many requests as rate_per_address allows")]
    Address(Duration),
}

impl RateExceeded {
    /// After which time there is room.
    pub fn wait(self) -> Duration {
        match self {
            Self::Source(wait) | Self::Address(wait) => wait,
        }
    }
}

/// The rate limits of one source.
#[derive(Debug, Default)]
pub struct Rates {
    source: Option<(Rate, Mutex<Option<Instant>>)>,
    addresses: Option<Addresses>,
}

impl Rates {
    /// The limit of the source and that of each address, of which at most `max_addresses` are remembered, rounded up to
    /// a multiple of 8.
    pub fn new(source: Option<Rate>, address: Option<Rate>, max_addresses: usize) -> Self {
        Self {
            source: source.map(|rate| (rate, Mutex::default())),
            addresses: address.map(|rate| Addresses::new(rate, max_addresses)),
        }
    }

    /// Lets a request in that is not read yet, and counts it for its address. It does not count for the source, so that
    /// forged ones do not use up its rate, but is refused while genuine ones have.
    ///
    /// # Errors
    /// [`RateExceeded`].
    pub fn admit(&self, address: Option<IpAddr>, now: Instant) -> Result<(), RateExceeded> {
        if let Some((rate, due)) = &self.source {
            let wait = rate.wait(*lock(due), now);
            if wait > Duration::ZERO {
                return Err(RateExceeded::Source(wait));
            }
        }
        self.addresses.as_ref().map_or(Ok(()), |addresses| addresses.take(address, now)).map_err(RateExceeded::Address)
    }

    /// Counts a request that is to be delivered.
    ///
    /// # Errors
    /// [`RateExceeded`] when others have used up the rate of the source since it was admitted.
    pub fn count(&self, now: impl FnOnce() -> Instant) -> Result<(), RateExceeded> {
        let Some((rate, due)) = &self.source else { return Ok(()) };
        rate.take(&mut lock(due), now()).map_err(RateExceeded::Source)
    }
}

/// When the next request of each address is due. Addresses that cannot be told count as one.
#[derive(Debug)]
struct Addresses {
    rate: Rate,
    /// Its seed is random, so that nobody can choose addresses that displace others.
    hasher: RandomState,
    sets: Box<[Mutex<Vec<Entry>>]>,
}

#[derive(Debug)]
struct Entry {
    origin: Option<Origin>,
    due: Option<Instant>,
}

impl Addresses {
    fn new(rate: Rate, max: usize) -> Self {
        let sets = (0..max.div_ceil(SET).max(1)).map(|_| Mutex::default()).collect();
        Self { rate, hasher: RandomState::new(), sets }
    }

    fn take(&self, address: Option<IpAddr>, now: Instant) -> Result<(), Duration> {
        let origin = address.map(Origin::of);
        let hash = usize::try_from(self.hasher.hash_one(origin) & u64::from(u32::MAX)).unwrap_or_default();
        let Some(set) = self.sets.get(hash % self.sets.len()) else { return Ok(()) };
        let mut set = lock(set);
        if let Some(known) = set.iter_mut().find(|entry| entry.origin == origin) {
            return self.rate.take(&mut known.due, now);
        }
        let mut new = Entry { origin, due: None };
        let taken = self.rate.take(&mut new.due, now);
        if set.len() < SET {
            set.push(new);
        } else if let Some(earliest) = set.iter_mut().min_by_key(|entry| entry.due) {
            *earliest = new;
        }
        taken
    }
}

fn lock<T>(state: &Mutex<T>) -> MutexGuard<'_, T> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn address(number: u32) -> IpAddr {
        IpAddr::from(number.to_be_bytes())
    }

    fn take(addresses: &Addresses, number: u32, now: Instant) -> Result<(), Duration> {
        addresses.take(Some(address(number)), now)
    }

    #[test]
    fn a_burst_is_taken_at_once_and_comes_back_at_the_rate() {
        let rates = Rates::new(Some(Rate::new(2, SECOND, 3)), None, 0);
        let began = Instant::now();
        let count = |after: u64| {
            let now = began + Duration::from_millis(after);
            let (first, second) = (rates.admit(None, now), rates.admit(None, now));
            let counted = rates.count(|| now);
            assert_eq!((first, second), (counted, counted), "to be let in takes nothing");
            counted.map_err(RateExceeded::wait)
        };
        assert_eq!([count(0), count(0), count(0)], [Ok(()); 3]);
        assert_eq!(count(0), Err(SECOND / 2));
        assert_eq!(count(499), Err(Duration::from_millis(1)));
        assert_eq!((count(500), count(500)), (Ok(()), Err(SECOND / 2)));
        // After however long a pause, a burst is all that there is.
        assert_eq!([count(9_000_000), count(9_000_000), count(9_000_000)], [Ok(()); 3]);
        assert_eq!(count(9_000_000), Err(SECOND / 2));
    }

    #[test]
    fn in_the_long_run_the_rate_holds_to_the_request() {
        for (rate, per) in [(7, SECOND), (100, Duration::from_mins(1)), (1_000_000, Duration::from_hours(1))] {
            let rates = Rates::new(Some(Rate::new(rate, per, 1)), None, 0);
            let (began, interval) = (Instant::now(), per / rate);
            // Four times as often as is allowed.
            let taken = (0..4000).filter(|at| rates.count(|| began + interval * *at / 4).is_ok());
            assert_eq!(taken.count(), 1000, "{rate} in {per:?}");
        }
    }

    #[test]
    fn the_clock_may_go_back_between_two_threads() {
        let rates = Rates::new(Some(Rate::new(1, SECOND, 2)), None, 0);
        let now = Instant::now() + SECOND;
        assert_eq!(rates.count(|| now), Ok(()));
        assert_eq!(rates.count(|| now - SECOND / 2), Err(RateExceeded::Source(SECOND / 2)));
        assert_eq!(rates.count(|| now), Ok(()));
    }

    #[test]
    fn addresses_have_a_rate_each_and_a_network_of_ipv6_counts_as_one() {
        let rates = Rates::new(None, Some(Rate::new(1, SECOND, 1)), 1000);
        let now = Instant::now();
        let admit = |text: &str| rates.admit(text.parse().ok(), now).is_ok();
        let refused = RateExceeded::Address(SECOND);
        assert!(admit("203.0.113.9") && admit("203.0.113.10") && admit("2001:db8:0:1::1") && admit("2001:db8:0:2::1"));
        assert!(!admit("203.0.113.9") && !admit("::ffff:203.0.113.9") && !admit("2001:db8:0:1:ffff::2"));
        assert!(admit("unknown") && !admit("hidden"), "those that cannot be told are one");
        assert_eq!(rates.admit(Some(address(0xcb00_7109)), now), Err(refused));
        assert_eq!(rates.admit(Some(address(0xcb00_7109)), now + SECOND), Ok(()));
    }

    #[test]
    fn however_many_addresses_come_the_table_stays_within_its_bound() {
        let (rate, now) = (Rate::new(1, SECOND, 1), Instant::now());
        let addresses = Addresses::new(rate, 64);
        let remembered = || addresses.sets.iter().map(|set| lock(set).len()).sum::<usize>();
        assert!((0..10_000).all(|number| take(&addresses, number, now).is_ok()), "a new one is always let in");
        assert_eq!(remembered(), 64);
        assert!(addresses.sets.iter().all(|set| lock(set).capacity() <= SET));
        // Within the bound, none is forgotten; beyond it, one is.
        let few = Addresses::new(rate, 8);
        assert!((0..8).all(|number| take(&few, number, now).is_ok()));
        assert!((0..8).all(|number| take(&few, number, now).is_err()));
        assert!(take(&few, 8, now).is_ok());
        let known: Vec<_> = lock(&few.sets[0]).iter().map(|entry| entry.origin).collect();
        assert_eq!((0..8).filter(|number| known.contains(&Some(Origin::of(address(*number))))).count(), 7);
    }

    #[test]
    fn who_sends_most_is_remembered_longest() {
        let addresses = Addresses::new(Rate::new(1, SECOND, 2), 8);
        let now = Instant::now();
        assert_eq!((take(&addresses, 0, now), take(&addresses, 0, now)), (Ok(()), Ok(())));
        assert!((1..1000).all(|number| take(&addresses, number, now).is_ok()));
        assert_eq!(take(&addresses, 0, now), Err(SECOND));
    }
}
