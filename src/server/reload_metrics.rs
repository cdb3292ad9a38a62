//! The metrics of reloads.

use prometheus::IntCounter;
use prometheus::IntGauge;

use crate::base::metrics::Registry;
use crate::base::time::Moment;

/// The metrics of reloads.
#[derive(Debug)]
pub(super) struct ReloadMetrics {
    pub(super) success: IntCounter,
    pub(super) failure: IntCounter,
    pub(super) successful: IntGauge,
    last_success: IntGauge,
    pub(super) restart_needed: IntGauge,
}

impl ReloadMetrics {
    /// Registers them.
    ///
    /// # Errors
    /// Only when a name is taken, which is a bug.
    pub(super) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let help = "Configurations that were read again.";
        let reloads = registry.counters("config_reloads_total", help, &["outcome"])?;
        let successful = "Whether the configuration that was read last is in use.";
        let last_success = "When a configuration was last taken into use.";
        let restart = "Whether some of the configuration takes effect at the next start only.";
        let metrics = Self {
            success: reloads.with_label_values(&["success"]),
            failure: reloads.with_label_values(&["failure"]),
            successful: registry.gauge("config_last_reload_successful", successful)?,
            last_success: registry.gauge("config_last_reload_success_timestamp_seconds", last_success)?,
            restart_needed: registry.gauge("config_restart_needed", restart)?,
        };
        metrics.successful.set(1);
        Ok(metrics)
    }

    pub(super) fn succeeded_at(&self, moment: Moment) {
        self.last_success.set(moment.unix());
    }
}
