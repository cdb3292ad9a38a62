//! What somebody would write who knows one provider and one scheme: the primitives alone, with the same libraries.

use anyhow::Context as _;
use anyhow::Result;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::signature;
use aws_lc_rs::signature::ParsedPublicKey;
use aws_lc_rs::signature::VerificationAlgorithm;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hmac::Hmac;
use hmac::KeyInit;
use hmac::Mac;
use jsonwebtoken::Algorithm;
use jsonwebtoken::DecodingKey;
use jsonwebtoken::Validation;
use jsonwebtoken::jwk::JwkSet;
use serde::Deserialize;
use sha1::Sha1;
use sha2::Digest as _;
use sha2::Sha256;

use crate::event::Event;
use crate::schemes::URL;

/// Whether the event is genuine.
pub type Check = Box<dyn Fn() -> bool>;

/// What all of these need: the key, the signature as it was sent, and the body.
fn parts<M: KeyInit>(event: &Event) -> Result<(M, String, Bytes)> {
    let key = M::new_from_slice(event.key.as_bytes()).ok().context("no key")?;
    Ok((key, event.header("X-Signature")?, event.request.body.clone()))
}

fn is_hex<M: Mac>(mac: M, signature: &str) -> bool {
    let mut digest = [0; 64];
    let digest = &mut digest[..M::output_size()];
    const_hex::decode_to_slice(signature, digest).is_ok() && mac.verify_slice(digest).is_ok()
}

pub fn hmac_of_body<M: Mac + KeyInit + Clone + 'static>(event: &Event) -> Result<Check> {
    let (key, signature, body) = parts::<M>(event)?;
    Ok(Box::new(move || is_hex(key.clone().chain_update(&body), &signature)))
}

pub fn hmac_of_time_and_body(event: &Event) -> Result<Check> {
    let (key, header, body) = parts::<Hmac<Sha256>>(event)?;
    let now = event.at.unix();
    Ok(Box::new(move || {
        let item = |key: &str| header.split(',').find_map(|item| item.strip_prefix(key)).unwrap_or_default();
        let (time, signature) = (item("t="), item("v1="));
        let fresh = time.parse::<i64>().is_ok_and(|time| (now - time).abs() <= 300);
        fresh && is_hex(key.clone().chain_update(time).chain_update(".").chain_update(&body), signature)
    }))
}

/// The two fields that are wanted of a body.
#[derive(Deserialize)]
struct Fields<'b> {
    id: &'b str,
    #[serde(rename = "type")]
    kind: &'b str,
}

pub fn hmac_of_body_and_id(event: &Event) -> Result<Check> {
    let (key, signature, body) = parts::<Hmac<Sha256>>(event)?;
    Ok(Box::new(move || {
        is_hex(key.clone().chain_update(&body), &signature)
            && serde_json::from_slice::<Fields<'_>>(&body).is_ok_and(|fields| !fields.id.is_empty())
    }))
}

pub fn hmac_of_fields(event: &Event) -> Result<Check> {
    let (key, signature, body) = parts::<Hmac<Sha256>>(event)?;
    Ok(Box::new(move || {
        serde_json::from_slice::<Fields<'_>>(&body).is_ok_and(|Fields { id, kind }| {
            is_hex(key.clone().chain_update(id).chain_update(".").chain_update(kind), &signature)
        })
    }))
}

pub fn hmac_of_form(event: &Event) -> Result<Check> {
    let (key, signature, body) = parts::<Hmac<Sha1>>(event)?;
    Ok(Box::new(move || {
        let mut fields: Vec<_> = form_urlencoded::parse(&body).collect();
        fields.sort();
        let mut mac = key.clone().chain_update(URL);
        for (name, value) in &fields {
            mac.update(name.as_bytes());
            mac.update(value.as_bytes());
        }
        STANDARD.decode(&signature).is_ok_and(|digest| mac.verify_slice(&digest).is_ok())
    }))
}

pub fn token(event: &Event) -> Result<Check> {
    let (secret, sent) = (event.key.clone(), event.header("X-Token")?);
    Ok(Box::new(move || verify_slices_are_equal(sent.as_bytes(), secret.as_bytes()).is_ok()))
}

pub fn basic(event: &Event) -> Result<Check> {
    let (secret, header) = (event.key.clone(), event.header("Authorization")?);
    Ok(Box::new(move || {
        let sent = header.strip_prefix("Basic ").and_then(|text| STANDARD.decode(text).ok());
        sent.is_some_and(|sent| verify_slices_are_equal(&sent, secret.as_bytes()).is_ok())
    }))
}

/// The claims that are looked at.
#[derive(Deserialize)]
struct Claims {
    body_sha256: Option<String>,
}

/// The key, what is required of a token, and the token as it was sent.
fn token_parts(event: &Event) -> Result<(DecodingKey, Validation, String)> {
    let sent = event.header("Authorization")?;
    let token = sent.strip_prefix("Bearer ").context("no bearer token")?.to_owned();
    let algorithm = jsonwebtoken::decode_header(&token)?.alg;
    let key = match algorithm {
        Algorithm::HS256 => DecodingKey::from_secret(event.key.as_bytes()),
        _ => DecodingKey::from_jwk(serde_json::from_str::<JwkSet>(&event.key)?.keys.first().context("no key")?)?,
    };
    let mut validation = Validation::new(algorithm);
    validation.set_issuer(&["https://issuer.example"]);
    validation.set_audience(&["bench"]);
    Ok((key, validation, token))
}

pub fn jwt(event: &Event) -> Result<Check> {
    let (key, validation, token) = token_parts(event)?;
    Ok(Box::new(move || jsonwebtoken::decode::<Claims>(&token, &key, &validation).is_ok()))
}

pub fn jwt_of_body(event: &Event) -> Result<Check> {
    let (key, validation, token) = token_parts(event)?;
    let body = event.request.body.clone();
    Ok(Box::new(move || {
        let claims = jsonwebtoken::decode::<Claims>(&token, &key, &validation);
        let mut digest = [0; 32];
        claims.is_ok_and(|token| {
            token.claims.body_sha256.is_some_and(|text| const_hex::decode_to_slice(text, &mut digest).is_ok())
                && verify_slices_are_equal(&digest, &Sha256::digest(&body)).is_ok()
        })
    }))
}

pub fn ed25519(event: &Event) -> Result<Check> {
    let key = ParsedPublicKey::new(&signature::ED25519, const_hex::decode(&event.key)?)?;
    let (signature, body) = (event.header("X-Signature")?, event.request.body.clone());
    Ok(Box::new(move || const_hex::decode(&signature).is_ok_and(|signature| key.verify_sig(&body, &signature).is_ok())))
}

pub fn ecdsa_der(event: &Event) -> Result<Check> {
    public_key(event, &signature::ECDSA_P256_SHA256_ASN1)
}

pub fn ecdsa_raw(event: &Event) -> Result<Check> {
    public_key(event, &signature::ECDSA_P256_SHA256_FIXED)
}

pub fn rsa(event: &Event) -> Result<Check> {
    public_key(event, &signature::RSA_PKCS1_2048_8192_SHA256)
}

fn public_key(event: &Event, algorithm: &'static dyn VerificationAlgorithm) -> Result<Check> {
    let spki = if event.key.starts_with("-----BEGIN CERTIFICATE-----") {
        let (_, pem) = x509_parser::pem::parse_x509_pem(event.key.as_bytes())?;
        pem.parse_x509()?.public_key().raw.to_vec()
    } else {
        STANDARD.decode(&event.key)?
    };
    let key = ParsedPublicKey::new(algorithm, spki)?;
    let (signature, body) = (event.header("X-Signature")?, event.request.body.clone());
    Ok(Box::new(move || STANDARD.decode(&signature).is_ok_and(|signature| key.verify_sig(&body, &signature).is_ok())))
}
