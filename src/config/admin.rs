//! Reads `[admin]`: the address, token and limits of the admin port.

use std::net::SocketAddr;
use std::time::Duration;

use super::address;
use super::lint::SHORT;
use super::lint::stray_words;
use super::section::Section;
use super::section::count;
use super::section::duration;
use crate::base::secret::Secret;
use crate::base::secret::SecretRef;
use crate::base::secret::stray_end;

/// `[admin]`.
#[derive(Debug)]
pub struct Admin {
    /// Where probes, metrics, the drain switch and the API are.
    pub listen: SocketAddr,
    /// Who knows it may use the API, and drain from elsewhere; nobody may when there is none.
    pub token: Option<Secret>,
    /// Connections open at one time; one more takes the place of the one that has waited longest.
    pub max_connections: usize,
    /// From the beginning of a connection, and then of each request, to the end of its headers.
    pub header_timeout: Duration,
    /// How long the gateway is out of service after it was last asked to drain, unless it is stopped.
    pub max_drain: Duration,
}

impl Admin {
    pub(super) fn understand(mut section: Section<'_>) -> Option<Self> {
        let listen = section.want("listen", address);
        let token = section.want("token", token);
        let max_connections = section.want("max_connections", count(1, 10_000));
        let header_timeout = section.want("header_timeout", duration);
        let max_drain = section.want("max_drain", duration);
        if token.iter().flatten().any(|token| token.expose().len() < SHORT) {
            section.warning(
                "token",
                format!(
                    "has less than {SHORT} bytes, which can be guessed by whoever reaches the port; choose a longer one"
                ),
            );
        }
        let text = token.iter().flatten().find_map(|token| std::str::from_utf8(token.expose()).ok());
        if let Some(stray) = text.and_then(stray_end) {
            section.warning("token", stray_words(stray));
        }
        section.finish();
        Some(Self {
            listen: listen?,
            token: token?,
            max_connections: max_connections?,
            header_timeout: header_timeout?,
            max_drain: max_drain?,
        })
    }
}

fn token(text: &str) -> Result<Option<Secret>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let token = SecretRef::parse(text)?.load()?;
    if !token.expose().iter().all(u8::is_ascii_graphic) {
        return Err(
            "has characters that no header can carry; use ASCII letters, digits and signs without spaces".to_owned()
        );
    }
    Ok(Some(token))
}
