//! Reads `[admin]`: the address, tokens and limits of the admin port.

use std::net::SocketAddr;
use std::time::Duration;

use super::address;
use super::files::Files;
use super::lint::MIN_SECRET_LEN;
use super::lint::stray_warning;
use super::section::Section;
use super::section::count;
use super::section::duration;
use crate::base::secret::Secret;
use crate::base::secret::SecretRef;
use crate::base::secret::stray_end;

/// `[admin]`.
#[derive(Debug)]
pub struct Admin {
    /// The address of health probes, metrics, draining and the API.
    pub listen: SocketAddr,
    /// The bearer tokens for the API, and for draining from another machine, any of which will do; without one, both
    /// are refused.
    pub tokens: Vec<Secret>,
    /// Most open connections. One more displaces the one that has waited for a request for longest.
    pub max_connections: usize,
    /// The limit from the beginning of a connection, and then of each request, to the end of the request's headers.
    pub header_timeout: Duration,
    /// How long a drain lasts after it was last asked for, unless the gateway is stopped.
    pub max_drain: Duration,
}

impl Admin {
    pub(super) fn read(mut section: Section<'_>) -> Option<Self> {
        let listen = section.required("listen", address);
        let files = section.files();
        let tokens = section.list("token", |text| token(text, files));
        let max_connections = section.required("max_connections", count(1, 10_000));
        let header_timeout = section.required("header_timeout", duration);
        let max_drain = section.required("max_drain", duration);
        if tokens.iter().any(|token| token.expose().len() < MIN_SECRET_LEN) {
            section.warning(
                "token",
                format!(
                    "has less than {MIN_SECRET_LEN} bytes, which can be guessed by whoever reaches the port; choose a longer one"
                ),
            );
        }
        let mut texts = tokens.iter().filter_map(|token| std::str::from_utf8(token.expose()).ok());
        if let Some(stray) = texts.find_map(stray_end) {
            section.warning("token", stray_warning(stray));
        }
        section.finish();
        Some(Self {
            listen: listen?,
            tokens,
            max_connections: max_connections?,
            header_timeout: header_timeout?,
            max_drain: max_drain?,
        })
    }
}

fn token(text: &str, files: &Files) -> Result<Secret, String> {
    let token = SecretRef::parse(text)?.load_with(|path| files.read_secret(path))?;
    if !token.expose().iter().all(u8::is_ascii_graphic) {
        return Err(
            "has characters that no header can carry; use ASCII letters, digits and signs without spaces".to_owned()
        );
    }
    Ok(token)
}
