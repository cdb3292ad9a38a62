//! Registers all metrics of the process. The modules that count declare them.

use std::sync::Arc;

use prometheus::IntCounter;
use prometheus::IntGauge;

use super::reload_metrics::ReloadMetrics;
use crate::base::metrics::Registry;
use crate::base::supervisor::Supervisor;
use crate::dispatch;
use crate::gateway;
use crate::http::tls::Tls;
use crate::http::tls::TlsMetrics;
use crate::store::Store;
use crate::target::metrics::upstream_durations;
use crate::telemetry;
use crate::verify::JwksMetrics;

/// All metrics of the process.
#[derive(Debug)]
pub(super) struct Metrics {
    /// The registry that Prometheus reads.
    pub(super) registry: Registry,
    /// The metrics of requests.
    pub(super) gateway: Arc<gateway::Metrics>,
    /// The metrics of queued deliveries.
    pub(super) dispatch: dispatch::Metrics,
    /// The metrics of key sets.
    pub(super) key_sets: JwksMetrics,
    /// The metrics of reloads.
    pub(super) reload: ReloadMetrics,
    /// Sources that are left out because a secret is missing.
    pub(super) skipped: IntGauge,
    /// The metrics of TLS handshakes and certificates.
    pub(super) tls: TlsMetrics,
    /// Open connections.
    pub(super) open_connections: IntGauge,
    /// Connections that were closed because another one needed their slot.
    pub(super) displaced_connections: IntCounter,
}

impl Metrics {
    /// Registers the metrics of the process, of this store and of these listeners with TLS.
    ///
    /// # Errors
    /// Only when two metrics have one name, which is a bug.
    pub(super) fn new(supervisor: &Supervisor, store: &Store, tls: Vec<Arc<Tls>>) -> prometheus::Result<Self> {
        let registry = Registry::default();
        let version = registry.gauges("build_info", "The version that runs.", &["version"])?;
        version.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        registry.add(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        let collectors =
            supervisor.collectors()?.into_iter().chain(telemetry::collectors()?).chain(store.collectors()?);
        collectors.into_iter().try_for_each(|collector| registry.add(collector))?;
        let key_sets = JwksMetrics::new()?;
        registry.add(Box::new(key_sets.clone()))?;
        let tls = TlsMetrics::new(tls)?;
        registry.add(Box::new(tls.clone()))?;
        let upstream_duration = upstream_durations(&registry)?;
        Ok(Self {
            gateway: Arc::new(gateway::Metrics::new(&registry, upstream_duration.clone())?),
            dispatch: dispatch::Metrics::new(&registry, upstream_duration)?,
            key_sets,
            reload: ReloadMetrics::new(&registry)?,
            skipped: registry.gauge("sources_left_out", "Sources that are left out, since a secret is missing.")?,
            open_connections: registry.gauge("open_connections", "Connections of senders.")?,
            displaced_connections: registry.counter("displaced_connections_total", "Connections closed for others.")?,
            tls,
            registry,
        })
    }
}
