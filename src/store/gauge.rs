//! Prometheus gauges whose value is computed at each scrape.

use prometheus::core::Atomic;
use prometheus::core::Collector;
use prometheus::core::Desc;
use prometheus::core::GenericGauge;
use prometheus::proto::MetricFamily;

/// A gauge with the function that computes its value.
pub(super) struct ComputedGauge<P: Atomic, F> {
    gauge: GenericGauge<P>,
    read: F,
}

impl<P: Atomic + 'static, F: Fn() -> Option<P::T> + Send + Sync + 'static> ComputedGauge<P, F> {
    /// A gauge with the value that `read` returns, or the earlier one when that is `None`.
    ///
    /// # Errors
    /// Only when the name is not valid, which is a bug.
    pub(super) fn boxed(name: &str, help: &str, read: F) -> prometheus::Result<Box<dyn Collector>> {
        Ok(Box::new(Self { gauge: GenericGauge::new(name, help)?, read }))
    }
}

impl<P: Atomic, F: Fn() -> Option<P::T> + Send + Sync> Collector for ComputedGauge<P, F> {
    fn desc(&self) -> Vec<&Desc> {
        self.gauge.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        if let Some(value) = (self.read)() {
            self.gauge.set(value);
        }
        self.gauge.collect()
    }
}
