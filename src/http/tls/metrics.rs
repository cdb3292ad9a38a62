//! The metrics of TLS: handshakes by outcome, and the ends of certificates by listener.

use std::sync::Arc;

use prometheus::IntCounterVec;
use prometheus::IntGaugeVec;
use prometheus::Opts;
use prometheus::core::Collector;
use prometheus::core::Desc;
use prometheus::proto::MetricFamily;

use super::Tls;

/// How a handshake ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The connection is encrypted.
    Completed,
    /// The two do not agree, or the client hung up.
    Failed,
    /// It took longer than `server.header_timeout`.
    TimedOut,
    /// Another connection needed its place.
    Displaced,
}

impl Outcome {
    const ALL: [Self; 4] = [Self::Completed, Self::Failed, Self::TimedOut, Self::Displaced];

    fn label(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::Displaced => "displaced",
        }
    }
}

/// `doorward_tls_handshakes_total` and `doorward_tls_certificate_expiry_timestamp_seconds`. The latter are read at each
/// scrape.
#[derive(Debug, Clone)]
pub struct TlsMetrics {
    listeners: Vec<Arc<Tls>>,
    handshakes: IntCounterVec,
    expiries: IntGaugeVec,
}

impl TlsMetrics {
    /// The metrics of these listeners.
    ///
    /// # Errors
    /// Only when a name is not valid, which is a bug.
    pub fn new(listeners: Vec<Arc<Tls>>) -> prometheus::Result<Self> {
        let handshakes = Opts::new("doorward_tls_handshakes_total", "TLS handshakes by outcome.");
        let expiries =
            Opts::new("doorward_tls_certificate_expiry_timestamp_seconds", "When the certificates of listeners end.");
        let metrics = Self {
            listeners,
            handshakes: IntCounterVec::new(handshakes, &["outcome"])?,
            expiries: IntGaugeVec::new(expiries, &["listener", "certificate"])?,
        };
        if !metrics.listeners.is_empty() {
            Outcome::ALL.iter().for_each(|outcome| drop(metrics.handshakes.with_label_values(&[outcome.label()])));
        }
        Ok(metrics)
    }

    /// Counts a handshake.
    pub fn count(&self, outcome: Outcome) {
        self.handshakes.with_label_values(&[outcome.label()]).inc();
    }
}

impl Collector for TlsMetrics {
    fn desc(&self) -> Vec<&Desc> {
        self.handshakes.desc().into_iter().chain(self.expiries.desc()).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        // Certificates that were replaced are not listed any more.
        self.expiries.reset();
        for tls in &self.listeners {
            for (file, end) in &tls.terms.load().expiries {
                self.expiries.with_label_values(&[tls.listener.as_str(), file]).set(end.unix());
            }
        }
        self.handshakes.collect().into_iter().chain(self.expiries.collect()).collect()
    }
}
