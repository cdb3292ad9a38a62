//! The metrics of key sets by source: their age, and the number of refreshes.

use std::sync::Arc;

use prometheus::GaugeVec;
use prometheus::IntCounterVec;
use prometheus::Opts;
use prometheus::core::Collector;
use prometheus::core::Desc;
use prometheus::proto::MetricFamily;

use super::Jwks;

/// `doorward_jwks_age_seconds` and `doorward_jwks_refreshes_total`. The values are read from the key sets at each
/// scrape.
#[derive(Debug)]
pub struct JwksMetrics {
    key_sets: Vec<(String, Arc<Jwks>)>,
    age: GaugeVec,
    refreshes: IntCounterVec,
}

impl JwksMetrics {
    /// The metrics of these key sets, each with the name of its source.
    ///
    /// # Errors
    /// Only when a name is not valid, which is a bug.
    pub fn new(key_sets: impl IntoIterator<Item = (String, Arc<Jwks>)>) -> prometheus::Result<Self> {
        let age = Opts::new("doorward_jwks_age_seconds", "Time since the keys in use were fetched.");
        let refreshes = Opts::new("doorward_jwks_refreshes_total", "Fetches of keys by outcome.");
        Ok(Self {
            key_sets: key_sets.into_iter().collect(),
            age: GaugeVec::new(age, &["source"])?,
            refreshes: IntCounterVec::new(refreshes, &["source", "outcome"])?,
        })
    }
}

impl Collector for JwksMetrics {
    fn desc(&self) -> Vec<&Desc> {
        self.age.desc().into_iter().chain(self.refreshes.desc()).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        for (source, jwks) in &self.key_sets {
            if let Some(age) = jwks.age() {
                self.age.with_label_values(&[source]).set(age.as_secs_f64());
            }
            let (succeeded, failed) = jwks.refreshes();
            for (outcome, total) in [("success", succeeded), ("failure", failed)] {
                let counter = self.refreshes.with_label_values(&[source.as_str(), outcome]);
                counter.inc_by(total.saturating_sub(counter.get()));
            }
        }
        self.age.collect().into_iter().chain(self.refreshes.collect()).collect()
    }
}
