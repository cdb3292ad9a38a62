//! How long keys are used and what fetching them may cost, each limit from both sides.

use std::sync::Arc;
use std::time::Duration;

use doorward::http::fetch::Address;
use doorward::profile::Algorithm;
use doorward::verify::Failure;
use doorward::verify::Jwks;
use doorward::verify::JwksLimits;
use tokio::runtime::Runtime;

use crate::harness::provider::issuer::Issuer;
use crate::harness::upstream::Reply;
use crate::harness::wait_until;

const LONG: Duration = Duration::from_hours(1);
const SHORT: Duration = Duration::from_millis(20);

/// The keys of an issuer, as a source has them.
struct Kept {
    jwks: Arc<Jwks>,
    issuer: Issuer,
    runtime: Runtime,
}

/// An issuer may say anything, and everything is as large as it need be for none of it to matter.
fn limits() -> JwksLimits {
    JwksLimits { fresh: LONG, fresh_within: (Duration::ZERO, LONG), per_minute: 1000, ..JwksLimits::default() }
}

impl Kept {
    /// With the answer of the issuer.
    fn with(limits: JwksLimits, headers: &str) -> Self {
        let set = Issuer::fixture_keys();
        let issuer = Issuer::publishing(&set);
        let body = set.to_string();
        issuer.reply(Reply::Raw(
            format!("HTTP/1.1 200 OK\r\n{headers}content-length: {}\r\n\r\n{body}", body.len()).into_bytes(),
        ));
        let url = Address::parse(&issuer.url()).expect("an address");
        let jwks = Arc::new(Jwks::new(url, Algorithm::Rs256, limits));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let running = Arc::clone(&jwks);
        drop(runtime.spawn(async move { running.run().await }));
        Self { jwks, issuer, runtime }
    }

    fn keys(&self) -> Result<(), Failure> {
        self.runtime.block_on(self.jwks.keys()).map(drop)
    }

    fn refreshed(&self) -> Result<(), Failure> {
        self.runtime.block_on(self.jwks.refreshed()).map(drop)
    }

    /// Lets what goes on in the background go on until this is so.
    #[track_caller]
    fn wait_until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        wait_until(what, || {
            self.runtime.block_on(async { tokio::time::sleep(Duration::from_millis(1)).await });
            condition(self)
        });
    }

    fn failed(&self) -> u64 {
        self.jwks.refreshes().1
    }
}

#[test]
fn keys_whose_age_is_over_are_used_while_no_newer_ones_can_be_had() {
    // Whatever the issuer says, even more than the most that it may.
    for spec in ["", "cache-control: max-age=86400\r\n", "cache-control: max-age=31536000\r\n"] {
        let kept = Kept::with(JwksLimits { fresh: SHORT, fresh_within: (SHORT, SHORT), stale: LONG, ..limits() }, spec);
        assert_eq!(kept.keys(), Ok(()));
        kept.issuer.reply(Reply::Status(500, ""));
        kept.wait_until("a fetch to fail", |kept| kept.failed() > 0);
        kept.wait_until("the age to be over", |kept| kept.jwks.age().is_some_and(|age| age > SHORT));
        assert_eq!(kept.keys(), Ok(()), "{spec}");
    }
}

#[test]
fn keys_are_used_no_longer_than_they_may_be() {
    let kept = Kept::with(JwksLimits { fresh: SHORT, stale: SHORT, ..limits() }, "");
    assert_eq!(kept.keys(), Ok(()));
    kept.issuer.reply(Reply::Status(500, ""));
    kept.wait_until("them to be too old", |kept| kept.keys() == Err(Failure::KeysUnavailable));
}

#[test]
fn keys_are_fetched_again_before_their_age_is_over() {
    let kept = Kept::with(JwksLimits { fresh: SHORT, ..limits() }, "");
    kept.wait_until("some fetches", |kept| kept.issuer.fetches() > 3);
    let kept = Kept::with(limits(), "");
    for _ in 0..20 {
        assert_eq!(kept.keys(), Ok(()));
    }
    assert_eq!(kept.issuer.fetches(), 1);
}

#[test]
fn the_issuer_says_how_long_its_keys_are_fresh_within_bounds() {
    let kept = Kept::with(limits(), "cache-control: max-age=0\r\n");
    kept.wait_until("some fetches", |kept| kept.issuer.fetches() > 3);
    let kept = Kept::with(JwksLimits { fresh_within: (LONG, LONG), ..limits() }, "cache-control: max-age=0\r\n");
    assert_eq!(kept.keys(), Ok(()));
    kept.wait_until("a moment", |kept| kept.jwks.age().is_some_and(|age| age > SHORT));
    assert_eq!(kept.issuer.fetches(), 1);
}

#[test]
fn unknown_keys_cause_one_fetch_in_each_cooldown() {
    for (cooldown, fetches) in [(LONG, 2), (Duration::ZERO, 11)] {
        let kept = Kept::with(JwksLimits { cooldown, ..limits() }, "");
        assert_eq!(kept.keys(), Ok(()));
        for _ in 0..10 {
            assert_eq!(kept.refreshed(), Ok(()));
        }
        assert_eq!(kept.issuer.fetches(), fetches, "{cooldown:?}");
    }
}

#[test]
fn as_many_fetches_a_minute_as_may_be() {
    let limits = JwksLimits { cooldown: Duration::ZERO, per_minute: 3, patience: SHORT, ..limits() };
    let kept = Kept::with(limits, "");
    kept.wait_until("the first keys", |kept| kept.keys().is_ok());
    for fetches in [2, 3] {
        kept.wait_until("one more fetch", |kept| kept.refreshed().is_ok());
        assert!(kept.issuer.fetches() >= fetches);
    }
    kept.wait_until("no more", |kept| kept.refreshed() == Err(Failure::KeysUnavailable));
    assert_eq!((kept.issuer.fetches(), kept.keys()), (3, Ok(())));
}

#[test]
fn a_request_waits_for_keys_as_long_as_it_may() {
    let kept = Kept::with(JwksLimits { patience: SHORT, cooldown: Duration::ZERO, ..limits() }, "");
    kept.wait_until("the first keys", |kept| kept.keys().is_ok());
    kept.issuer.reply(Reply::Hold);
    assert_eq!(kept.refreshed(), Err(Failure::KeysUnavailable));
    assert_eq!(kept.keys(), Ok(()));
}

#[test]
fn as_many_requests_wait_for_keys_as_may() {
    let kept = Kept::with(JwksLimits { max_waiters: 0, ..limits() }, "");
    assert_eq!(kept.keys(), Err(Failure::KeysUnavailable), "it does not wait");
    kept.wait_until("the keys", |kept| kept.keys() == Ok(()));
    assert_eq!(Kept::with(JwksLimits { max_waiters: 1, ..limits() }, "").keys(), Ok(()));
}
