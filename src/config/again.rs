//! Reads the configuration again while a gateway runs with it. (`impl Settings` here, because `mod.rs` would be too
//! long.)

use std::sync::Arc;

use super::Inputs;
use super::Settings;
use super::files::Files;
use super::section::Section;
use crate::base::problem::Problems;
use crate::source::Source;

/// The tables whose keys take effect at the start only, except for [`APPLIED`].
pub(super) const FIXED: [&str; 4] = ["server", "admin", "store", "log"];
/// Keys of these tables that take effect when they are read again.
const APPLIED: [&str; 8] = [
    "server.max_body",
    "server.body_timeout",
    "server.max_decompressions",
    "server.max_share",
    "server.trusted_proxies",
    "server.max_rate_addresses",
    "admin.token",
    "admin.max_drain",
];

/// The settings that a gateway was started with, and those of its sources at present.
#[derive(Debug, Clone, Copy)]
pub(super) struct Running<'r> {
    pub(super) started: &'r Settings,
    pub(super) current: &'r Settings,
}

/// How sources differ from those of before, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Difference {
    /// They were not there.
    pub added: Vec<String>,
    /// They are configured otherwise, or a secret or their profile is another one.
    pub changed: Vec<String>,
    /// They are not there any more.
    pub removed: Vec<String>,
}

impl Settings {
    /// Reads everything again, for a gateway that was started with `self` and has the sources of `current`. What
    /// takes effect at a start only is as in `self` for the new sources. Sources that are configured as before are the
    /// same. Also returns what was read, whatever came of it.
    pub fn load_again(&self, current: &Self) -> (Inputs, Result<Self, Problems>) {
        let files = Files::again(&current.inputs);
        let running = Running { started: self, current };
        let loaded = Self::load_with(&self.path, Some(running), &files);
        let inputs = files.into_inputs();
        (inputs.clone(), loaded.map(|settings| Self { inputs, ..settings }))
    }

    /// What the settings were read from.
    pub fn inputs(&self) -> &Inputs {
        &self.inputs
    }

    /// The keys that are set otherwise in `newer`, and take effect at the next start only.
    pub fn restart_needed(&self, newer: &Self) -> Vec<String> {
        let keys = self.fixed.keys().chain(newer.fixed.keys().filter(|key| !self.fixed.contains_key(*key)));
        let differs = |key: &&String| self.fixed.get(*key) != newer.fixed.get(*key);
        keys.filter(differs).filter(|key| !APPLIED.contains(&key.as_str())).cloned().collect()
    }

    /// How the sources of `newer` differ from these.
    pub fn difference(&self, newer: &Self) -> Difference {
        let named = |settings: &Self, name: &str| {
            settings.sources.iter().find(|source| source.name.as_str() == name).map(Arc::clone)
        };
        let mut difference = Difference::default();
        for source in &newer.sources {
            let name = source.name.as_str();
            match named(self, name) {
                None => difference.added.push(name.to_owned()),
                Some(before) if !Arc::ptr_eq(&before, source) => difference.changed.push(name.to_owned()),
                Some(_same) => {}
            }
        }
        let is_gone = |source: &&Arc<Source>| named(newer, source.name.as_str()).is_none();
        difference.removed =
            self.sources.iter().filter(is_gone).map(|source| source.name.as_str().to_owned()).collect();
        difference
    }
}

impl Section<'_> {
    /// The keys that take effect at the start only, with what they are set to.
    pub(super) fn fixed(&self) -> super::Fingerprints {
        FIXED.iter().flat_map(|table| self.fingerprints(table)).collect()
    }
}
