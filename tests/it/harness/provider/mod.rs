//! Providers: requests to a source, signed as they sign them, and the servers from which a source fetches keys.

pub mod any_profile;
pub mod delivery;
pub mod github;
pub mod issuer;
pub mod offergrid;
pub mod signing;
pub mod sns;

/// The secret of the sources in these tests.
pub const SECRET: &str = "It's a Secret to Everybody";
