//! The schemes that are measured: for each a profile, and what somebody would write who knows that one provider only.

use doorward::sign::Kind;
use hmac::Hmac;
use sha1::Sha1;
use sha2::Sha256;
use sha2::Sha512;

use crate::bare;
use crate::bare::Check;
use crate::event::Event;

/// The address of webhooks, where it is signed.
pub const URL: &str = "https://hooks.example/webhooks/bench";

/// One scheme as it is measured.
pub struct Scheme {
    /// Its name in the figures.
    pub id: &'static str,
    /// Its name in the table.
    pub title: &'static str,
    /// `[auth]`, `[timestamp]` and `[params]` of the profile.
    pub profile: &'static str,
    /// Where the event's id is.
    pub event_id: &'static str,
    pub key: Key,
    pub form: bool,
    /// Whether every request is the first that a new gateway sees, because one that it has seen is known.
    pub afresh: bool,
    /// The same with nothing but the primitive.
    pub bare: fn(&Event) -> anyhow::Result<Check>,
}

/// What the provider signs with.
#[derive(Clone, Copy)]
pub enum Key {
    Secret(&'static str),
    Private(Kind),
}

/// Where nothing else is to be read than what is verified: the digest is taken later, for all of them alike.
const DIGEST: &str = r#"{ digest = "body" }"#;
const JSON: &str = r#"{ json = "/id" }"#;
const SECRET: Key = Key::Secret("whsec_5WbX5kEWLlfzsGNjH64I8lOOqUB6e8FH");

const PLAIN: Scheme = Scheme {
    id: "",
    title: "",
    profile: "",
    event_id: DIGEST,
    key: SECRET,
    form: false,
    afresh: false,
    bare: |_| anyhow::bail!("there is nothing to compare with"),
};

pub const ALL: &[Scheme] = &[
    Scheme {
        id: "hmac-sha256",
        title: "HMAC-SHA256",
        profile: r#"
            [auth.hmac]
            signature = { header = "X-Signature", encoding = "hex" }
            signed    = "{body}"
        "#,
        bare: bare::hmac_of_body::<Hmac<Sha256>>,
        ..PLAIN
    },
    Scheme {
        id: "hmac-sha1",
        title: "HMAC-SHA1",
        profile: r#"
            [auth.hmac]
            hash      = "sha1"
            signature = { header = "X-Signature", encoding = "hex" }
            signed    = "{body}"
        "#,
        bare: bare::hmac_of_body::<Hmac<Sha1>>,
        ..PLAIN
    },
    Scheme {
        id: "hmac-sha512",
        title: "HMAC-SHA512",
        profile: r#"
            [auth.hmac]
            hash      = "sha512"
            signature = { header = "X-Signature", encoding = "hex" }
            signed    = "{body}"
        "#,
        bare: bare::hmac_of_body::<Hmac<Sha512>>,
        ..PLAIN
    },
    Scheme {
        id: "hmac-time",
        title: "HMAC-SHA256 of time and body (Stripe)",
        profile: r#"
            [auth.hmac]
            signature = { header = "X-Signature", item = "v1", encoding = "hex" }
            signed    = "{timestamp}.{body}"

            [timestamp]
            from      = { header = "X-Signature", item = "t" }
            format    = "unix"
            tolerance = "5m"
        "#,
        bare: bare::hmac_of_time_and_body,
        ..PLAIN
    },
    Scheme {
        id: "hmac-json-id",
        title: "HMAC-SHA256, and the event id read from JSON",
        profile: r#"
            [auth.hmac]
            signature = { header = "X-Signature", encoding = "hex" }
            signed    = "{body}"
        "#,
        event_id: JSON,
        bare: bare::hmac_of_body_and_id,
        ..PLAIN
    },
    Scheme {
        id: "hmac-form",
        title: "HMAC-SHA1 of a sorted form (Twilio)",
        profile: r#"
            [params.url]
            about = "the address"

            [auth.hmac]
            hash      = "sha1"
            signature = { header = "X-Signature", encoding = "base64" }
            signed    = "{url}{sorted_form}"
            ambiguous = "nobody signs with it but the benchmark"
        "#,
        form: true,
        bare: bare::hmac_of_form,
        ..PLAIN
    },
    Scheme {
        id: "hmac-fields",
        title: "HMAC-SHA256 of two JSON fields",
        profile: r#"
            [auth.hmac]
            signature = { header = "X-Signature", encoding = "hex" }
            signed    = "{json:/id}.{json:/type}"
            ambiguous = "nobody signs with it but the benchmark"
        "#,
        event_id: JSON,
        bare: bare::hmac_of_fields,
        ..PLAIN
    },
    Scheme {
        id: "token",
        title: "static token",
        profile: r#"
            [auth.token]
            from = { header = "X-Token" }
        "#,
        bare: bare::token,
        ..PLAIN
    },
    Scheme {
        id: "basic",
        title: "Basic",
        profile: "[auth.basic]",
        key: Key::Secret("user:5WbX5kEWLlfzsGNjH64I8lOOqUB6e8FH"),
        bare: bare::basic,
        ..PLAIN
    },
    Scheme {
        id: "jwt-rs256",
        title: "JWT, RS256",
        profile: r#"
            [auth.jwt]
            algorithm = "RS256"
            issuer    = "https://issuer.example"
            audience  = "bench"
        "#,
        key: Key::Private(Kind::Rsa),
        afresh: true,
        bare: bare::jwt,
        ..PLAIN
    },
    Scheme {
        id: "jwt-es256",
        title: "JWT, ES256",
        profile: r#"
            [auth.jwt]
            algorithm = "ES256"
            issuer    = "https://issuer.example"
            audience  = "bench"
        "#,
        key: Key::Private(Kind::P256),
        afresh: true,
        bare: bare::jwt,
        ..PLAIN
    },
    Scheme {
        id: "jwt-eddsa",
        title: "JWT, EdDSA",
        profile: r#"
            [auth.jwt]
            algorithm = "EdDSA"
            issuer    = "https://issuer.example"
            audience  = "bench"
        "#,
        key: Key::Private(Kind::Ed25519),
        afresh: true,
        bare: bare::jwt,
        ..PLAIN
    },
    Scheme {
        id: "jwt-hs256-body",
        title: "JWT, HS256, with the digest of the body",
        profile: r#"
            [auth.jwt]
            algorithm = "HS256"
            issuer    = "https://issuer.example"
            audience  = "bench"
            body      = { claim = "body_sha256", encoding = "hex" }
        "#,
        bare: bare::jwt_of_body,
        ..PLAIN
    },
    Scheme {
        id: "jwt-again",
        title: "JWT, RS256, seen before",
        profile: r#"
            [auth.jwt]
            algorithm = "RS256"
            issuer    = "https://issuer.example"
            audience  = "bench"
        "#,
        key: Key::Private(Kind::Rsa),
        bare: bare::jwt,
        ..PLAIN
    },
    Scheme {
        id: "ed25519",
        title: "Ed25519",
        profile: r#"
            [auth.ed25519]
            signature = { header = "X-Signature", encoding = "hex" }
            signed    = "{body}"
        "#,
        key: Key::Private(Kind::Ed25519),
        bare: bare::ed25519,
        ..PLAIN
    },
    Scheme {
        id: "ecdsa-der",
        title: "ECDSA P-256, DER",
        profile: r#"
            [auth.ecdsa]
            format    = "der"
            signature = { header = "X-Signature", encoding = "base64" }
            signed    = "{body}"
        "#,
        key: Key::Private(Kind::P256),
        bare: bare::ecdsa_der,
        ..PLAIN
    },
    Scheme {
        id: "ecdsa-raw",
        title: "ECDSA P-256, raw",
        profile: r#"
            [auth.ecdsa]
            format    = "raw"
            signature = { header = "X-Signature", encoding = "base64" }
            signed    = "{body}"
        "#,
        key: Key::Private(Kind::P256),
        bare: bare::ecdsa_raw,
        ..PLAIN
    },
    Scheme {
        id: "rsa",
        title: "RSA 2048",
        profile: r#"
            [auth.rsa]
            hash      = "sha256"
            signature = { header = "X-Signature", encoding = "base64" }
            signed    = "{body}"
        "#,
        key: Key::Private(Kind::Rsa),
        bare: bare::rsa,
        ..PLAIN
    },
    Scheme {
        id: "rsa-certificate",
        title: "RSA 2048, with a certificate that is kept",
        profile: r#"
            [params.certificate_hosts]
            about = "where the certificate is"

            [auth.rsa]
            hash        = "sha256"
            certificate = { header = "X-Certificate", hosts = "{certificate_hosts}", path = "/*.pem" }
            signature   = { header = "X-Signature", encoding = "base64" }
            signed      = "{body}"
        "#,
        key: Key::Private(Kind::Rsa),
        bare: bare::rsa,
        ..PLAIN
    },
];
