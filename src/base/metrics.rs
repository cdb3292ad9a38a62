//! The registry of metrics, a collector for a total that is kept elsewhere, and a stopwatch. Each metric is declared in
//! the module that counts it, and its name begins with `doorward_`. Values of labels come only from the configuration
//! and from enums, so that their number is bounded.

use std::time::Duration;
use std::time::Instant;

use prometheus::GaugeVec;
use prometheus::Histogram;
use prometheus::HistogramOpts;
use prometheus::HistogramVec;
use prometheus::IntCounter;
use prometheus::IntCounterVec;
use prometheus::IntGauge;
use prometheus::IntGaugeVec;
use prometheus::Opts;
use prometheus::Result;
use prometheus::TextEncoder;
use prometheus::core::Collector;
use prometheus::core::Desc;
use prometheus::proto::MetricFamily;

/// Upper bounds of the buckets of durations, in seconds.
const SECONDS: &[f64] =
    &[0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// The metrics of one process. Methods prefix names with `doorward_`. They fail only when a name is not valid or is
/// already registered, which is a bug.
#[derive(Debug, Default)]
pub struct Registry(prometheus::Registry);

#[expect(clippy::missing_errors_doc, reason = "the type documents the errors of all methods")]
impl Registry {
    /// Adds a collector.
    pub fn add(&self, collector: Box<dyn Collector>) -> Result<()> {
        self.0.register(collector)
    }

    /// A counter.
    pub fn counter(&self, name: &str, help: &str) -> Result<IntCounter> {
        self.added(IntCounter::with_opts(options(name, help))?)
    }

    /// Counters by labels.
    pub fn counters(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec> {
        self.added(IntCounterVec::new(options(name, help), labels)?)
    }

    /// A gauge.
    pub fn gauge(&self, name: &str, help: &str) -> Result<IntGauge> {
        self.added(IntGauge::with_opts(options(name, help))?)
    }

    /// Gauges of whole numbers by labels.
    pub fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec> {
        self.added(IntGaugeVec::new(options(name, help), labels)?)
    }

    /// Gauges by labels.
    pub fn float_gauges(&self, name: &str, help: &str, labels: &[&str]) -> Result<GaugeVec> {
        self.added(GaugeVec::new(options(name, help), labels)?)
    }

    /// Histograms of durations in seconds, by labels.
    pub fn durations(&self, name: &str, help: &str, labels: &[&str]) -> Result<HistogramVec> {
        self.histograms(name, help, labels, SECONDS)
    }

    /// Histograms by labels; `bounds` are the upper bounds of their buckets.
    pub fn histograms(&self, name: &str, help: &str, labels: &[&str], bounds: &[f64]) -> Result<HistogramVec> {
        let options = HistogramOpts::from(options(name, help)).buckets(bounds.to_vec());
        self.added(HistogramVec::new(options, labels)?)
    }

    /// All metrics as Prometheus reads them (text format 0.0.4).
    pub fn text(&self) -> Result<String> {
        TextEncoder::new().encode_to_string(&self.0.gather())
    }

    fn added<C: Collector + Clone + 'static>(&self, collector: C) -> Result<C> {
        self.0.register(Box::new(collector.clone()))?;
        Ok(collector)
    }
}

fn options(name: &str, help: &str) -> Opts {
    Opts::new(format!("doorward_{name}"), help)
}

/// A counter named `doorward_` and `name`, whose total is read at each scrape. A total that falls is ignored.
///
/// # Errors
/// Only when the name is not valid, which is a bug.
pub fn total(name: &str, help: &str, read: fn() -> u64) -> Result<Box<dyn Collector>> {
    Ok(Box::new(Total { counter: IntCounter::with_opts(options(name, help))?, read }))
}

struct Total {
    counter: IntCounter,
    read: fn() -> u64,
}

impl Collector for Total {
    fn desc(&self) -> Vec<&Desc> {
        self.counter.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.counter.inc_by((self.read)().saturating_sub(self.counter.get()));
        self.counter.collect()
    }
}

/// Measures the consecutive parts of a request.
#[derive(Debug)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts the first part.
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Ends a part and starts the next one. Observes the duration of the part in seconds, and returns it.
    pub fn lap(&mut self, histogram: &Histogram) -> Duration {
        let now = Instant::now();
        let took = now.duration_since(std::mem::replace(&mut self.0, now));
        histogram.observe(took.as_secs_f64());
        took
    }
}
