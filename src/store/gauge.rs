//! Prometheus gauges whose value is read at each scrape.

use prometheus::core::Atomic;
use prometheus::core::Collector;
use prometheus::core::Desc;
use prometheus::core::GenericGauge;
use prometheus::proto::MetricFamily;

/// A gauge and what it shows.
pub(super) struct Read<P: Atomic, F> {
    gauge: GenericGauge<P>,
    read: F,
}

impl<P: Atomic + 'static, F: Fn() -> Option<P::T> + Send + Sync + 'static> Read<P, F> {
    /// Shows what `read` returns, or the value before where that is nothing.
    ///
    /// # Errors
    /// Only when the name is not valid, which is a bug.
    pub(super) fn boxed(name: &str, help: &str, read: F) -> prometheus::Result<Box<dyn Collector>> {
        Ok(Box::new(Self { gauge: GenericGauge::new(name, help)?, read }))
    }
}

impl<P: Atomic, F: Fn() -> Option<P::T> + Send + Sync> Collector for Read<P, F> {
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
