//! How long certificates are used and what fetching them may cost, each limit from both sides.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use doorward::base::time::Moment;
use doorward::extract::field::ExtractionPlan;
use doorward::extract::params;
use doorward::http::inbound::Inbound;
use doorward::profile::Profiles;
use doorward::profile::Scheme;
use doorward::verify::CertificateLimits;
use doorward::verify::Failure;
use doorward::verify::KeyMaterial;
use doorward::verify::KeySets;
use doorward::verify::Signature;
use http::HeaderMap;
use http::HeaderName;
use http::Method;
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::harness::recorded;
use crate::harness::upstream::Reply;
use crate::harness::upstream::Upstream;
use crate::harness::wait_until;

/// A server with a certificate at every address that is not to be held, as long as it works.
struct Host {
    server: Upstream,
    works: Arc<AtomicBool>,
}

/// What verifies a provider's signatures with certificates on that host.
struct Kept {
    signature: Signature,
    wants: ExtractionPlan,
    host: Host,
    runtime: Runtime,
    recorded: Value,
}

const LONG: Duration = Duration::from_hours(1);

/// Everything is as large as it need be for none of it to matter.
fn limits() -> CertificateLimits {
    CertificateLimits { pause: Duration::ZERO, patience: LONG, ..CertificateLimits::default() }
}

impl Kept {
    fn with(limits: CertificateLimits) -> Self {
        let recorded = recorded::delivery("paypal", "accepted-sale-completed");
        let pem =
            recorded["files"].as_object().and_then(|files| files.values().next()?.as_str()).expect("a certificate");
        let certificate = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{pem}", pem.len()).into_bytes();
        let works = Arc::new(AtomicBool::new(true));
        let working = Arc::clone(&works);
        let server = Upstream::with(move |_, request| {
            if request.start.contains("held") {
                Reply::Hold
            } else if !working.load(Ordering::SeqCst) {
                Reply::Status(500, "")
            } else if request.start.contains("missing") {
                Reply::Status(404, "")
            } else {
                Reply::Raw(certificate.clone())
            }
        });
        let profile = Profiles::shipped().get("paypal").expect("a profile").clone();
        let Some(Scheme::Signature(spec)) = profile.schemes().next() else { panic!("PayPal signs") };
        let webhook = recorded["params"]["webhook_id"].as_str().expect("an id").to_owned();
        let given = [("webhook_id", webhook), ("certificate_hosts", server.address().to_string())];
        let params = params::complete(&profile, &given).expect("parameters");
        let (mut wants, mut key_sets) = (ExtractionPlan::default(), KeySets::new());
        let mut material = KeyMaterial::new(&[], &params, std::iter::empty(), &mut wants, &mut key_sets);
        material.certificates = limits;
        let signature = Signature::new(spec, &mut material).expect("a scheme");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        Self { signature, wants, host: Host { server, works }, runtime, recorded }
    }

    /// What becomes of a genuine request that names this certificate.
    fn named(&self, name: &str) -> Result<(), Failure> {
        self.named_at(name, Moment::now())
    }

    fn named_at(&self, name: &str, now: Moment) -> Result<(), Failure> {
        self.verify(name, self.recorded["request"]["body"].as_str().expect("a body"), now)
    }

    /// What becomes of one that somebody has made up.
    fn made_up(&self, name: &str) -> Result<(), Failure> {
        self.verify(name, "{}", Moment::now())
    }

    fn verify(&self, name: &str, body: &str, now: Moment) -> Result<(), Failure> {
        let mut headers = HeaderMap::new();
        for pair in self.recorded["request"]["headers"].as_array().expect("headers") {
            let text = |at: usize| pair[at].as_str().expect("text");
            headers.insert(text(0).parse::<HeaderName>().expect("a name"), text(1).parse().expect("a value"));
        }
        let address = format!("http://{}/v1/notifications/certs/{name}", self.host.server.address());
        headers.insert("paypal-cert-url", address.parse().expect("a value"));
        let time = headers["paypal-transmission-time"].to_str().expect("text").to_owned();
        let body = Bytes::copy_from_slice(body.as_bytes());
        let inbound = Inbound::recorded(Method::POST, "/".parse().expect("a target"), headers, body, now);
        let values = self.wants.read(&inbound);
        self.runtime.block_on(self.signature.verify(&inbound, &values, Some(&time), now)).map(drop)
    }

    /// How often the host was asked, after what goes on in the background had a moment to go on.
    fn asked(&self) -> usize {
        self.runtime.block_on(async { tokio::time::sleep(Duration::from_millis(1)).await });
        self.host.server.received().len()
    }

    fn asked_for(&self, name: &str) -> usize {
        self.asked();
        let asked = self.host.server.received();
        asked.iter().filter(|request| request.start.contains(&format!("/certs/{name} "))).count()
    }

    fn works(&self, works: bool) {
        self.host.works.store(works, Ordering::SeqCst);
    }
}

const UNAVAILABLE: Result<(), Failure> = Err(Failure::KeysUnavailable);

#[test]
fn a_certificate_is_fetched_again_ahead_of_its_age_while_the_old_one_is_used() {
    let kept = Kept::with(CertificateLimits { fresh: Duration::ZERO, stale: LONG, ..limits() });
    assert_eq!(kept.named("a"), Ok(()));
    kept.works(false);
    for tries in 2..5 {
        wait_until("one more try", || kept.named("a") == Ok(()) && kept.asked() >= tries);
    }
}

#[test]
fn a_fresh_certificate_is_not_fetched_again() {
    let kept = Kept::with(limits());
    for _ in 0..20 {
        assert_eq!(kept.named("a"), Ok(()));
    }
    assert_eq!(kept.asked(), 1);
}

/// Its host may have another one by now; what has just been fetched is what there is.
#[test]
fn a_certificate_that_has_ended_is_fetched_again_before_it_is_refused() {
    let later = Moment::now().after(Duration::from_hours(100 * 365 * 24));
    for (pause, fetches) in [(Duration::ZERO, 2), (LONG, 1)] {
        let kept = Kept::with(CertificateLimits { pause, ..limits() });
        assert_eq!(kept.named("a"), Ok(()));
        assert_eq!(kept.named_at("a", later), Err(Failure::CertificateInvalid));
        assert_eq!(kept.asked(), fetches);
        assert_eq!(kept.named("a"), Ok(()), "it is not lost");
    }
}

#[test]
fn tries_to_fetch_one_again_are_a_pause_apart() {
    let kept = Kept::with(CertificateLimits { fresh: Duration::ZERO, stale: LONG, pause: LONG, ..limits() });
    for _ in 0..20 {
        assert_eq!(kept.named("a"), Ok(()));
    }
    assert_eq!(kept.asked(), 1);
}

#[test]
fn a_certificate_that_cannot_be_fetched_again_is_used_no_longer_than_it_may_be() {
    let stale = Duration::from_millis(50);
    let kept = Kept::with(CertificateLimits { fresh: Duration::ZERO, stale, ..limits() });
    assert_eq!(kept.named("a"), Ok(()));
    kept.works(false);
    wait_until("it to be too old", || kept.named("a") == UNAVAILABLE);
    kept.works(true);
    assert_eq!(kept.named("a"), Ok(()));
}

#[test]
fn what_requests_make_up_delays_nothing_that_a_signature_was_right_by() {
    let limits =
        CertificateLimits { fresh: Duration::ZERO, stale: LONG, patience: Duration::from_millis(20), ..limits() };
    let kept = Kept::with(CertificateLimits { max_queued: 1, at_once: 1, burst: 2, interval: LONG, ..limits });
    wait_until("a certificate", || kept.named("a").is_ok());
    // One that is there, but has signed nothing, has no place outside of the line.
    wait_until("another", || kept.made_up("other") == Err(Failure::SignatureMismatch));
    assert_eq!(kept.made_up("held"), UNAVAILABLE);
    assert_eq!(kept.named("b"), UNAVAILABLE, "the line is full");
    let others = |kept: &Kept| kept.asked_for("other");
    assert_eq!(others(&kept), 1);
    for tries in 2..5 {
        wait_until("one more try", || kept.named("a") == Ok(()) && kept.asked_for("a") >= tries);
        assert_eq!(kept.made_up("other"), Err(Failure::SignatureMismatch));
    }
    assert_eq!(others(&kept), 1);
}

#[test]
fn a_burst_of_fetches_is_made_at_once_and_no_more() {
    let limits = CertificateLimits { burst: 3, interval: LONG, patience: Duration::from_secs(5), ..limits() };
    let kept = Kept::with(limits);
    for name in ["a", "b", "c"] {
        assert_eq!(kept.named(name), Ok(()), "{name}");
    }
    let kept = Kept::with(CertificateLimits { patience: Duration::from_millis(50), burst: 1, ..limits });
    wait_until("the first", || kept.named("a").is_ok());
    assert_eq!(kept.named("b"), UNAVAILABLE);
    assert_eq!(kept.asked(), 1);
}

#[test]
fn the_next_fetch_comes_an_interval_after_the_burst() {
    let kept = Kept::with(CertificateLimits { burst: 1, interval: Duration::from_millis(20), ..limits() });
    for name in ["a", "b", "c", "d"] {
        assert_eq!(kept.named(name), Ok(()), "{name}");
    }
}

#[test]
fn an_address_without_a_certificate_is_asked_again_after_its_time() {
    for (negative_ttl, asked) in [(LONG, 1), (Duration::ZERO, 3)] {
        let kept = Kept::with(CertificateLimits { negative_ttl, ..limits() });
        for _ in 0..3 {
            assert_eq!(kept.named("missing"), UNAVAILABLE);
        }
        assert_eq!(kept.asked(), asked, "{negative_ttl:?}");
    }
}

#[test]
fn as_many_addresses_without_a_certificate_are_remembered_as_may_be() {
    for (max_negative, asked) in [(2, 2), (1, 3)] {
        let kept = Kept::with(CertificateLimits { max_negative, ..limits() });
        for name in ["missing-1", "missing-2", "missing-1"] {
            assert_eq!(kept.named(name), UNAVAILABLE);
        }
        assert_eq!(kept.asked(), asked, "{max_negative}");
    }
}

#[test]
fn as_many_certificates_are_kept_as_may_be() {
    // Of those that signed nothing as many as of the others, and those cannot push these out.
    for (most, asked) in [(2, 2), (1, 3)] {
        let kept = Kept::with(CertificateLimits { max_entries: most, ..limits() });
        for name in ["a", "b", "a"] {
            assert_eq!(kept.made_up(name), Err(Failure::SignatureMismatch));
        }
        assert_eq!(kept.asked(), asked, "{most}");
    }
    for (most, asked) in [(2, 3), (1, 4)] {
        let kept = Kept::with(CertificateLimits { max_entries: most, ..limits() });
        for name in ["a", "b", "c", "a"] {
            assert_eq!(kept.named(name), Ok(()));
        }
        assert_eq!(kept.asked(), asked, "{most}");
    }
}

#[test]
fn as_many_requests_wait_as_may_and_what_the_others_name_is_asked_all_the_same() {
    let kept = Kept::with(CertificateLimits { max_waiters: 0, ..limits() });
    assert_eq!(kept.named("a"), UNAVAILABLE, "it does not wait");
    wait_until("the certificate", || kept.asked() == 1 && kept.named("a") == Ok(()));
    assert_eq!(kept.asked(), 1);
    assert_eq!(Kept::with(CertificateLimits { max_waiters: 1, ..limits() }).named("a"), Ok(()));
}
