//! The metrics of key sets by source: their age, and the number of refreshes.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use prometheus::GaugeVec;
use prometheus::IntCounterVec;
use prometheus::Opts;
use prometheus::core::Collector;
use prometheus::core::Desc;
use prometheus::proto::MetricFamily;

use super::Jwks;

/// `doorward_jwks_age_seconds` and `doorward_jwks_refreshes_total`. The values are read from the key sets at each
/// scrape. Clones are the same.
#[derive(Debug, Clone)]
pub struct JwksMetrics {
    key_sets: Arc<Mutex<Vec<Counted>>>,
    age: GaugeVec,
    refreshes: IntCounterVec,
}

/// The key set of a source.
#[derive(Debug)]
struct Counted {
    source: String,
    jwks: Arc<Jwks>,
    /// What key sets of this source had counted before this one: successes and failures.
    before: (u64, u64),
}

impl JwksMetrics {
    /// The metrics of no key sets yet.
    ///
    /// # Errors
    /// Only when a name is not valid, which is a bug.
    pub fn new() -> prometheus::Result<Self> {
        let age = Opts::new("doorward_jwks_age_seconds", "Time since the keys in use were fetched.");
        let refreshes = Opts::new("doorward_jwks_refreshes_total", "Fetches of keys by outcome.");
        Ok(Self {
            key_sets: Arc::default(),
            age: GaugeVec::new(age, &["source"])?,
            refreshes: IntCounterVec::new(refreshes, &["source", "outcome"])?,
        })
    }

    /// Shows these key sets, each with the name of its source, and no others any more.
    pub fn set(&self, key_sets: impl IntoIterator<Item = (String, Arc<Jwks>)>) {
        let mut counted = self.lock();
        self.count(&counted);
        let mut before = std::mem::take(&mut *counted);
        for (source, jwks) in key_sets {
            match before.iter().position(|known| known.source == source && Arc::ptr_eq(&known.jwks, &jwks)) {
                Some(at) => counted.push(before.swap_remove(at)),
                None => {
                    let total = |outcome| self.refreshes.with_label_values(&[source.as_str(), outcome]).get();
                    let before = (total("success"), total("failure"));
                    counted.push(Counted { source, jwks, before });
                }
            }
        }
    }

    fn count(&self, key_sets: &[Counted]) {
        for Counted { source, jwks, before } in key_sets {
            let (succeeded, failed) = jwks.refreshes();
            for (outcome, total) in [("success", before.0 + succeeded), ("failure", before.1 + failed)] {
                let counter = self.refreshes.with_label_values(&[source.as_str(), outcome]);
                counter.inc_by(total.saturating_sub(counter.get()));
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Counted>> {
        self.key_sets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Collector for JwksMetrics {
    fn desc(&self) -> Vec<&Desc> {
        self.age.desc().into_iter().chain(self.refreshes.desc()).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let key_sets = self.lock();
        self.count(&key_sets);
        self.age.reset();
        for Counted { source, jwks, .. } in &*key_sets {
            if let Some(age) = jwks.age() {
                self.age.with_label_values(&[source]).set(age.as_secs_f64());
            }
        }
        self.age.collect().into_iter().chain(self.refreshes.collect()).collect()
    }
}
