//! Secrets, and references to where they are read from: an environment variable, a file, or (for local trials) the
//! configuration itself. A [`Secret`] is never printed, and wiped from memory when it is dropped.

use std::fmt;
use std::io;
use std::path::Path;
use std::path::PathBuf;

use zeroize::Zeroizing;

use crate::base::escape;

/// Bytes that only authenticators may see: never printed, wiped when dropped, not comparable.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes the bytes as the secret. An empty secret is refused: anybody can guess it.
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

/// Describes the character at an end of a secret that probably came from a shell, an editor or a file of variables:
/// white space, a quotation mark, a hidden character. `None` when there is none.
pub fn stray_end(text: &str) -> Option<&'static str> {
    let describe = |end: char| match end {
        '\n' | '\r' => Some("a line break"),
        '"' | '\'' | '`' | '\u{201c}'..='\u{201e}' | '\u{2018}'..='\u{201a}' => Some("a quotation mark"),
        end if end.is_whitespace() => Some("white space"),
        end if escape::is_hidden(end) => Some("a character that is not seen"),
        _ => None,
    };
    [text.chars().next_back(), text.chars().next()].into_iter().flatten().find_map(describe)
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Where a secret is read from, as written in the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretRef {
    /// `env:NAME`: an environment variable.
    Env(String),
    /// `file:PATH`: a file; one final line break is dropped.
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

    /// The name of the secret in logs and answers: the reference as written, or `plain#2`, which does not repeat the
    /// text. `number` is its position in the list of secrets, from 1.
    pub fn label(&self, number: usize) -> String {
        match self {
            Self::Env(name) => format!("env:{name}"),
            Self::File(path) => format!("file:{}", path.display()),
            Self::Plain(_) => format!("plain#{number}"),
        }
    }

    /// Reads the secret.
    ///
    /// # Errors
    /// A message for the operator when the variable or file is missing, unreadable or empty.
    pub fn load(&self) -> Result<Secret, String> {
        self.load_with(|path| std::fs::read(path))
    }

    /// Reads the secret, with `read` where it is in a file.
    ///
    /// # Errors
    /// As for [`Self::load`].
    #[expect(clippy::disallowed_methods, reason = "secrets enter by the environment")]
    pub fn load_with(&self, read: impl Fn(&Path) -> io::Result<Vec<u8>>) -> Result<Secret, String> {
        match self {
            Self::Env(name) => match std::env::var_os(name) {
                Some(value) => Secret::new(value.into_encoded_bytes())
                    .map_err(|message| format!("environment variable {name} {message}")),
                None => Err(format!("environment variable {name} is not set")),
            },
            Self::File(path) => {
                let mut bytes = read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
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
    fn what_hardly_belongs_to_a_text_is_seen() {
        for (text, stray) in [
            ("hush\n", "a line break"),
            ("hush\r", "a line break"),
            ("\"hush\"", "a quotation mark"),
            ("\u{201c}hush", "a quotation mark"),
            ("hush ", "white space"),
            ("\thush", "white space"),
            ("hush\u{a0}", "white space"),
            ("\u{feff}hush", "a character that is not seen"),
            ("hush\0", "a character that is not seen"),
        ] {
            assert_eq!(stray_end(text), Some(stray), "{text:?}");
        }
        for text in ["", "hush", "It's a \"Secret\" to", "whsec_MfKQ9r8GKYqrTwjU==", "p\u{e4}ss"] {
            assert_eq!(stray_end(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_label_does_not_repeat_a_plain_text() {
        let label = |text: &str| SecretRef::parse(text).expect("a form").label(2);
        assert_eq!(label("env:STRIPE_SECRET"), "env:STRIPE_SECRET");
        assert_eq!(label("file:/run/secrets/a"), "file:/run/secrets/a");
        assert_eq!(label("plain:hush"), "plain#2");
    }

    #[test]
    fn empty_secrets_are_refused() {
        assert!(SecretRef::parse("plain:").expect("a form").load().is_err());
        assert!(SecretRef::parse("env:DOORWARD_TEST_NO_SUCH_VARIABLE").expect("a form").load().is_err());
    }
}
