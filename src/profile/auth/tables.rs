//! The TOML tables of `[auth]`, with one scheme or a list of schemes, and their conversion to [`Auth`].

use serde::Deserialize;
use serde::de::Deserializer;

use super::Auth;
use super::Basic;
use super::Certificate;
use super::Combination;
use super::EcdsaFormat;
use super::Jwt;
use super::KeyForm;
use super::Member;
use super::Scheme;
use super::Signature;
use super::SignatureAlgorithm;
use super::Token;
use crate::profile::condition::Condition;
use crate::profile::deserialize;
use crate::profile::deserialize::deserialize_as;
use crate::profile::hash::Hash;
use crate::profile::location::SignatureLocation;
use crate::profile::location::location_table;
use crate::profile::template::Template;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AuthTable {
    hmac: Option<HmacTable>,
    ed25519: Option<Ed25519Table>,
    ecdsa: Option<EcdsaTable>,
    rsa: Option<RsaTable>,
    token: Option<Token>,
    basic: Option<Basic>,
    jwt: Option<Jwt>,
    first: Option<Vec<Member>>,
    all: Option<Vec<Member>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MemberTable {
    hmac: Option<HmacTable>,
    ed25519: Option<Ed25519Table>,
    ecdsa: Option<EcdsaTable>,
    rsa: Option<RsaTable>,
    token: Option<Token>,
    basic: Option<Basic>,
    jwt: Option<Jwt>,
    #[serde(default)]
    when: Vec<Condition>,
    #[serde(default)]
    check: Vec<Condition>,
    #[serde(default)]
    optional: bool,
}

/// Declares the type of a TOML table with the keys of all signatures and the given other keys.
macro_rules! signature_table {
    ($name:ident, $expecting:literal, { $($(#[$attribute:meta])* $field:ident: $type:ty,)* }) => {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields, expecting = $expecting)]
        struct $name {
            $($(#[$attribute])* $field: $type,)*
            #[serde(default)]
            key: KeyForm,
            signature: SignatureLocation,
            signed: Template,
            #[serde(default)]
            or_signed: Vec<Template>,
            ambiguous: Option<String>,
        }

        impl $name {
            fn scheme(self, algorithm: SignatureAlgorithm) -> Scheme {
                let signed = std::iter::once(self.signed).chain(self.or_signed).collect();
                let (key, location, ambiguous) = (self.key, self.signature, self.ambiguous);
                Scheme::Signature(Box::new(Signature { algorithm, key, location, signed, ambiguous, unambiguous: false }))
            }
        }
    };
}

signature_table!(HmacTable, "the table [auth.hmac]", {
    #[serde(default)]
    hash: Hash,
});
signature_table!(Ed25519Table, "the table [auth.ed25519]", {});
signature_table!(EcdsaTable, "the table [auth.ecdsa]", {
    #[serde(default)]
    format: EcdsaFormat,
});
signature_table!(RsaTable, "the table [auth.rsa]", {
    #[serde(default)]
    hash: Hash,
    certificate: Option<Certificate>,
});

impl RsaTable {
    fn algorithm(&mut self) -> SignatureAlgorithm {
        match self.certificate.take() {
            Some(certificate) => SignatureAlgorithm::Certificate(self.hash, certificate),
            None => SignatureAlgorithm::Rsa(self.hash),
        }
    }
}

/// The tables of schemes, for messages.
const KINDS: &str = "hmac, ed25519, ecdsa, rsa, token, basic or jwt";

/// The schemes in an [`AuthTable`] or a [`MemberTable`].
macro_rules! schemes_in {
    ($table:expr) => {{
        let table = $table;
        let mut schemes = Vec::new();
        schemes.extend(table.hmac.map(|hmac| {
            let hash = hmac.hash;
            hmac.scheme(SignatureAlgorithm::Hmac(hash))
        }));
        schemes.extend(table.ed25519.map(|ed25519| ed25519.scheme(SignatureAlgorithm::Ed25519)));
        schemes.extend(table.ecdsa.map(|ecdsa| {
            let format = ecdsa.format;
            ecdsa.scheme(SignatureAlgorithm::Ecdsa(format))
        }));
        schemes.extend(table.rsa.map(|mut rsa| {
            let algorithm = rsa.algorithm();
            rsa.scheme(algorithm)
        }));
        schemes.extend(table.token.map(Scheme::Token));
        schemes.extend(table.basic.map(Scheme::Basic));
        schemes.extend(table.jwt.map(|jwt| Scheme::Jwt(Box::new(jwt))));
        schemes
    }};
}

deserialize_as!(Auth, AuthTable, "the table [auth.hmac], or another of its kind");
deserialize_as!(Member, MemberTable, "a table with a scheme, such as [auth.first.hmac]");

impl TryFrom<AuthTable> for Auth {
    type Error = String;

    fn try_from(mut table: AuthTable) -> Result<Self, String> {
        let combined = match (table.first.take(), table.all.take()) {
            (Some(members), None) => Some((Combination::First, members)),
            (None, Some(members)) => Some((Combination::All, members)),
            (None, None) => None,
            (Some(_), Some(_)) => return Err("has both first and all; a profile has one of them".to_owned()),
        };
        let mut schemes = schemes_in!(table);
        match (combined, schemes.len()) {
            (Some((_, members)), 0) if members.is_empty() => {
                Err(format!("has a list without schemes; each member is one of {KINDS}"))
            }
            (Some((Combination::All, members)), 0) if members.iter().any(|member| !member.when.is_empty()) => {
                Err("says when a member of all applies, but each always has to hold; write check = [ … ] for what has \
                      to hold besides, or [[auth.first]]"
                    .to_owned())
            }
            (Some((combination, members)), 0) => Ok(Self { combination, members }),
            (None, 1) => {
                let scheme = schemes.pop().ok_or("names no scheme")?;
                let member = Member { when: Vec::new(), check: Vec::new(), optional: false, scheme };
                Ok(Self { combination: Combination::All, members: vec![member] })
            }
            (None, 0) => Err(format!("names no scheme; write [auth.hmac], or another of {KINDS}")),
            _ => Err("names several schemes; write [[auth.first]] when one of them is enough, or [[auth.all]] when all have \
                      to hold"
                .to_owned()),
        }
    }
}

impl TryFrom<MemberTable> for Member {
    type Error = String;

    fn try_from(mut table: MemberTable) -> Result<Self, String> {
        let (when, check) = (std::mem::take(&mut table.when), std::mem::take(&mut table.check));
        let optional = table.optional;
        let mut schemes = schemes_in!(table);
        match (schemes.pop(), schemes.is_empty()) {
            (Some(scheme), true) => Ok(Self { when, check, optional, scheme }),
            (Some(_), false) => Err(format!("has several schemes; each member is one of {KINDS}")),
            (None, _) => Err(format!("names no scheme; each member is one of {KINDS}")),
        }
    }
}

location_table!(CertificateTable {
    hosts: Option<String>,
    path: Option<String>,
    #[serde(default, deserialize_with = "subjects")]
    subject: Vec<String>,
});

deserialize_as!(
    Certificate,
    CertificateTable,
    "a place with hosts, such as { header = \"X-Cert-Url\", hosts = \"certificates.example.com\" }"
);

fn subjects<'de, D: Deserializer<'de>>(input: D) -> Result<Vec<String>, D::Error> {
    deserialize::texts(input, "a common name such as \"sns.amazonaws.com\", or a list of them", |text| {
        let several = text.split_ascii_whitespace().collect::<Vec<_>>();
        match several.as_slice() {
            [one] if *one == text => Ok(text.to_owned()),
            [] => Err("is empty, and no certificate has it; leave subject out when any name will do".to_owned()),
            _ => Err(format!("has white space, which no such name has; write subject = {several:?}")),
        }
    })
}

impl TryFrom<CertificateTable> for Certificate {
    type Error = String;

    fn try_from(mut table: CertificateTable) -> Result<Self, String> {
        let from = table.location().plain()?;
        let hosts = table.hosts.ok_or("says no hosts; write hosts = \"certificates.example.com\"")?;
        if let Some(path) = table.path.as_ref().filter(|path| !path.starts_with('/')) {
            return Err(format!("has the path {path:?}, which begins with no /; write path = \"/certificates/*\""));
        }
        Ok(Self { from, hosts, path: table.path, subject: table.subject })
    }
}
