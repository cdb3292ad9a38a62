//! An issuer of tokens with a key of its own, which it publishes, and a forger's key, which it does not.

use std::net::SocketAddr;

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::encoding::Pkcs8V1Der;
use aws_lc_rs::rsa::KeyPair;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::KeyPair as _;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use jsonwebtoken::Algorithm;
use jsonwebtoken::EncodingKey;
use jsonwebtoken::Header;
use serde_json::json;

use super::app;
use crate::time::Moment;

/// For whom its tokens are.
pub(super) const AUDIENCE: &str = "demo";
const KID: &str = "demo-1";

pub(super) struct Issuer {
    address: SocketAddr,
    genuine: EncodingKey,
    forged: EncodingKey,
}

impl Issuer {
    pub(super) async fn start() -> Result<Self, String> {
        let (genuine, public) = key()?;
        let (forged, _unpublished) = key()?;
        let address = app::serve(move |_request| public.clone()).await?;
        Ok(Self { address, genuine, forged })
    }

    /// The `iss` of its tokens, under which it publishes its keys.
    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A token that is valid for an hour from `from` on.
    pub(super) fn token(&self, from: Moment) -> Result<String, String> {
        self.sign(&self.genuine, from)
    }

    /// The same, signed with a key that is not the issuer's, under the name of one that is.
    pub(super) fn forged_token(&self, from: Moment) -> Result<String, String> {
        self.sign(&self.forged, from)
    }

    fn sign(&self, key: &EncodingKey, from: Moment) -> Result<String, String> {
        let header = Header { kid: Some(KID.to_owned()), ..Header::new(Algorithm::RS256) };
        let claims = json!({ "iss": self.url(), "aud": AUDIENCE, "iat": from.unix(), "exp": from.unix() + 3600 });
        jsonwebtoken::encode(&header, &claims, key).map_err(|error| error.to_string())
    }
}

/// A new key, and the JWK set that publishes it.
fn key() -> Result<(EncodingKey, Bytes), String> {
    let pair = KeyPair::generate(KeySize::Rsa2048).map_err(|error| error.to_string())?;
    let private: Pkcs8V1Der<'_> = pair.as_der().map_err(|error| error.to_string())?;
    let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let public = pair.public_key();
    let set = json!({ "keys": [{
        "kty": "RSA",
        "use": "sig",
        "alg": "RS256",
        "kid": KID,
        "n": part(public.modulus().big_endian_without_leading_zero()),
        "e": part(public.exponent().big_endian_without_leading_zero()),
    }] });
    let pem = pem(private.as_ref());
    let private = EncodingKey::from_rsa_pem(pem.as_bytes()).map_err(|error| error.to_string())?;
    Ok((private, set.to_string().into()))
}

/// RFC 7468.
fn pem(der: &[u8]) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n")
}
