//! What a check of a profile finds: an error or a warning about one of its keys.

use super::ConfigPath;

/// An error or a warning about a profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The key that it is about.
    pub config_path: ConfigPath,
    /// What is to be known of it. That of a warning goes on from the name of the key.
    pub message: String,
}

impl Finding {
    pub(super) fn new(config_path: ConfigPath, message: impl Into<String>) -> Self {
        Self { config_path, message: message.into() }
    }

    /// The message with the line of the key.
    pub(super) fn shown_in(&self, text: &str) -> String {
        self.config_path.pointed(text, &self.message)
    }
}

/// An error.
pub(super) fn wrong(config_path: &ConfigPath, message: impl Into<String>) -> Result<(), Finding> {
    Err(Finding::new(config_path.clone(), message))
}
