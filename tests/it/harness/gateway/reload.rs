//! Gateways whose configuration changes while they run.

use std::fs;
use std::path::Path;
use std::time::Duration;

use doorward::base::limits::Limits;
use doorward::base::limits::Reload;
use serde_json::Value;

use crate::harness::gateway::Gateway;
use crate::harness::gateway::complete;
use crate::harness::http::Answer;
use crate::harness::wait_until;

/// Limits with which a gateway in the process of the test looks at its files often.
pub fn quick_looks() -> Limits {
    Limits { reload: Reload { look_every: Duration::from_millis(20), ..Reload::default() }, ..Limits::default() }
}

/// Writes a file, and puts it in the place of another one as a whole.
pub fn exchange_file(path: &Path, content: &str) {
    let beside = path.with_extension("new");
    fs::write(&beside, content).expect("written");
    fs::rename(beside, path).expect("renamed");
}

impl Gateway {
    /// Gives it another configuration, which it does not use before it has read it.
    #[track_caller]
    pub fn configure(&self, sections: &str) {
        exchange_file(&self.folder().join("doorward.toml"), &complete(sections));
    }

    /// Has it read its configuration again.
    #[track_caller]
    pub fn ask_to_reload(&self) -> Answer {
        self.api_with("POST", "/api/v1/reload", "", "")
    }

    /// Gives it another configuration, which it has to use from now on. What it says of it.
    #[track_caller]
    pub fn reconfigure(&self, sections: &str) -> Value {
        self.configure(sections);
        let answer = self.ask_to_reload();
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }

    /// What it says of its configuration.
    #[track_caller]
    pub fn generation(&self) -> Value {
        self.api_with("GET", "/api/v1/generation", "", "").json()
    }

    /// How many configurations it has read again that had this outcome.
    pub fn reloads(&self, outcome: &str) -> f64 {
        self.metric(&format!("doorward_config_reloads_total{{outcome=\"{outcome}\"}}"))
    }

    /// Waits until it has read its configuration this many times with this outcome.
    #[track_caller]
    pub fn wait_for_reloads(&self, outcome: &str, count: f64) {
        wait_until(&format!("{count} reloads with {outcome}"), || self.reloads(outcome) >= count);
    }
}
