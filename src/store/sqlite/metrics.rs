//! The metric of damaged files that were set aside.

use std::sync::Weak;

use prometheus::IntGauge;
use prometheus::core::Collector;
use prometheus::core::Desc;
use prometheus::proto::MetricFamily;

use super::Sqlite;

/// `doorward_store_quarantined`, counted at each scrape.
#[derive(Debug)]
pub(in crate::store) struct Quarantined {
    sqlite: Weak<Sqlite>,
    files: IntGauge,
}

impl Quarantined {
    /// Of this file, for as long as it is open.
    pub(in crate::store) fn new(sqlite: Weak<Sqlite>) -> prometheus::Result<Self> {
        let help = "Damaged files that were set aside and wait to be recovered.";
        Ok(Self { sqlite, files: IntGauge::new("doorward_store_quarantined", help)? })
    }
}

impl Collector for Quarantined {
    fn desc(&self) -> Vec<&Desc> {
        self.files.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let files = self.sqlite.upgrade().map_or(0, |sqlite| sqlite.quarantined());
        self.files.set(i64::try_from(files).unwrap_or(i64::MAX));
        self.files.collect()
    }
}
