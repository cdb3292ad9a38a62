//! An error or a warning about one key of a profile.

use super::ConfigPath;

/// An error or a warning about a profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The key.
    pub config_path: ConfigPath,
    /// What is wrong. The message of a warning continues a sentence that begins with the name of the key.
    pub message: String,
}

impl Finding {
    pub(super) fn new(config_path: ConfigPath, message: impl Into<String>) -> Self {
        Self { config_path, message: message.into() }
    }

    /// The message with an excerpt of the file at the key.
    pub(super) fn with_excerpt(&self, text: &str) -> String {
        self.config_path.with_excerpt(text, &self.message)
    }
}

/// Fails with an error about this key.
pub(super) fn fail(config_path: &ConfigPath, message: impl Into<String>) -> Result<(), Finding> {
    Err(Finding::new(config_path.clone(), message))
}
