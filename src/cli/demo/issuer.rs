//! A token issuer for the demo, with a key for genuine tokens, which it publishes as a JWK set, and a key for forged
//! ones.

use std::net::SocketAddr;

use bytes::Bytes;

use super::app;
use crate::base::supervisor::Background;
use crate::profile::Profile;
use crate::sign::Kind;
use crate::sign::PrivateKey;
use crate::sign::Public;

/// The `aud` of its tokens.
pub(super) const AUDIENCE: &str = "demo";

pub(super) struct Issuer {
    address: SocketAddr,
    pub(super) genuine: PrivateKey,
    pub(super) forged: PrivateKey,
    _server: Background,
}

impl Issuer {
    /// Generates the keys, and publishes one for tokens of this profile.
    pub(super) async fn start(profile: &Profile) -> Result<Self, String> {
        let (genuine, forged) = (PrivateKey::generate(Kind::Rsa)?, PrivateKey::generate(Kind::Rsa)?);
        let Public::KeySet(set) = genuine.public(profile)? else {
            return Err("the demo shows tokens whose keys are fetched".to_owned());
        };
        let set = Bytes::from(set);
        let (address, server) = app::serve(move |_request| set.clone()).await?;
        Ok(Self { _server: server, address, genuine, forged })
    }

    /// The `iss` of its tokens, under which it publishes its keys.
    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}
