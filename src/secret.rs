//! Secrets and where they come from: the environment, a file, or (for local trials) the configuration itself.

use std::fmt;
use std::path::PathBuf;

use zeroize::Zeroizing;

/// Bytes that only authenticators may see: never printed, wiped when dropped, not comparable.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes the bytes as the secret; refuses empty ones, because everybody knows an empty key.
    ///
    /// # Errors
    /// A message for the operator when `bytes` is empty.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, String> {
        let bytes = Zeroizing::new(bytes.into());
        if bytes.is_empty() {
            return Err("is empty; an empty secret is one that everybody knows".to_owned());
        }
        Ok(Self(bytes))
    }

    /// The bytes, for the authenticator that computes with them.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Where a secret is to be read from, as written in the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretRef {
    /// `env:NAME`: an environment variable.
    Env(String),
    /// `file:PATH`: a file, of which one final line break is dropped.
    File(PathBuf),
    /// `plain:TEXT`: the text itself, for local trials.
    Plain(PlainText),
}

/// The text of a `plain:` secret; prints as its length only.
#[derive(Clone, PartialEq, Eq)]
pub struct PlainText(String);

impl fmt::Debug for PlainText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PlainText({} bytes)", self.0.len())
    }
}

impl SecretRef {
    /// Reads `env:NAME`, `file:PATH` or `plain:TEXT`.
    ///
    /// # Errors
    /// A message that names the three forms and does not repeat what was written, which may be the secret itself.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("env", name)) if !name.is_empty() => Ok(Self::Env(name.to_owned())),
            Some(("file", path)) if !path.is_empty() => Ok(Self::File(PathBuf::from(path))),
            Some(("plain", value)) => Ok(Self::Plain(PlainText(value.to_owned()))),
            _ => Err("is not a secret reference; write \"env:NAME\", \"file:/path\" or, for local trials, \
                      \"plain:TEXT\""
                .to_owned()),
        }
    }

    /// Fetches the secret.
    ///
    /// # Errors
    /// A message for the operator when the variable or file is missing, unreadable or empty.
    #[expect(clippy::disallowed_methods, reason = "secrets enter by the environment")]
    pub fn load(&self) -> Result<Secret, String> {
        match self {
            Self::Env(name) => match std::env::var_os(name) {
                Some(value) => Secret::new(value.into_encoded_bytes())
                    .map_err(|message| format!("environment variable {name} {message}")),
                None => Err(format!("environment variable {name} is not set")),
            },
            Self::File(path) => {
                let mut bytes =
                    std::fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
                if bytes.last() == Some(&b'\n') {
                    bytes.pop();
                    if bytes.last() == Some(&b'\r') {
                        bytes.pop();
                    }
                }
                Secret::new(bytes).map_err(|message| format!("{} {message}", path.display()))
            }
            Self::Plain(text) => {
                Secret::new(text.0.as_bytes()).map_err(|message| format!("the plain secret {message}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_prints_a_secret() {
        let secret = Secret::new("hush").expect("not empty");
        let written = SecretRef::parse("plain:hush").expect("a form");
        assert!(!format!("{secret:?}{written:?}").contains("hush"));
        assert!(!SecretRef::parse("hush-hush").expect_err("no form").contains("hush"));
    }

    #[test]
    fn empty_secrets_are_refused() {
        assert!(SecretRef::parse("plain:").expect("a form").load().is_err());
        assert!(SecretRef::parse("env:DOORWARD_TEST_NO_SUCH_VARIABLE").expect("a form").load().is_err());
    }
}
