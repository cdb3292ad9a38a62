//! A provider for any profile, with throw-away keys, and the source that knows the other halves of them.

use std::collections::BTreeMap;

use bytes::Bytes;
use doorward::base::secret::Secret;
use doorward::base::time::Moment;
use doorward::config::default_ttl;
use doorward::explain::Case;
use doorward::extract::params;
use doorward::extract::params::Params;
use doorward::profile::EcdsaFormat;
use doorward::profile::Hash;
use doorward::profile::KeyEncoding;
use doorward::profile::KeyForm;
use doorward::profile::Profile;
use doorward::profile::Scheme;
use doorward::profile::Signature;
use doorward::profile::SignatureAlgorithm;
use doorward::sign;
use doorward::sign::Id;
use doorward::sign::Kind;
use doorward::sign::Order;
use doorward::sign::PrivateKey;
use doorward::sign::Public;
use doorward::sign::Request;

use crate::harness::provider::issuer::Issuer;
use crate::harness::upstream::files::FileServer;

/// A provider, its keys, and what its source knows of them.
pub struct Provider {
    name: String,
    profile: Profile,
    /// What the provider signs with.
    secrets: Vec<String>,
    private: Option<PrivateKey>,
    /// What the source is told.
    known: Vec<String>,
    pub params: BTreeMap<String, String>,
    pub certificate_url: Option<String>,
    /// They publish what a source fetches, as long as this lives.
    _files: Option<FileServer>,
    _issuer: Option<Issuer>,
}

impl Provider {
    /// Keys for the first scheme of a shared secret, or else a private key.
    pub fn new(name: &str, profile: &Profile) -> Self {
        let form = profile.auth.members.iter().find(|member| Kind::of(&member.scheme).is_none());
        match form.map(|member| &member.scheme) {
            Some(scheme) => Self::with_secret(name, profile, &secret(scheme)),
            None => Self::with_private(name, profile),
        }
    }

    /// This shared secret.
    pub fn with_secret(name: &str, profile: &Profile, secret: &str) -> Self {
        Self::start(name, profile, vec![secret.to_owned()], None)
    }

    /// A private key of the first kind that the profile knows.
    pub fn with_private(name: &str, profile: &Profile) -> Self {
        let kind = profile.schemes().find_map(Kind::of).expect("an asymmetric scheme");
        Self::start(name, profile, Vec::new(), Some(PrivateKey::generate(kind).expect("a key")))
    }

    fn start(name: &str, profile: &Profile, secrets: Vec<String>, private: Option<PrivateKey>) -> Self {
        let usual = profile.params.iter().filter(|(_, param)| param.default.is_none());
        let value = |name: &str| match name {
            "url" => "https://hooks.example/webhooks".to_owned(),
            "issuer" => "https://issuer.example".to_owned(),
            name => format!("the-{name}"),
        };
        let mut provider = Self {
            name: name.to_owned(),
            profile: profile.clone(),
            known: secrets.clone(),
            secrets,
            private,
            params: usual.map(|(name, _)| (name.clone(), value(name))).collect(),
            certificate_url: None,
            _files: None,
            _issuer: None,
        };
        match provider.private.as_ref().map(|key| key.public(profile).expect("a public half")) {
            Some(Public::Secret(text)) => provider.known.push(text),
            Some(Public::KeySet(set)) => {
                let issuer = Issuer::publishing(&serde_json::from_str(&set).expect("a JWK set"));
                provider.params.insert("jwks_url".to_owned(), issuer.url());
                provider._issuer = Some(issuer);
            }
            Some(Public::Certificate(pem)) => {
                let path = certificate_path(profile);
                let files = FileServer::serving([(path.clone(), pem)].into_iter().collect());
                provider.params.insert("certificate_hosts".to_owned(), files.address());
                provider.certificate_url = Some(format!("http://{}{path}", files.address()));
                provider._files = Some(files);
            }
            None => {}
        }
        provider
    }

    /// Somebody who knows everything but the key.
    pub fn forger(&self) -> Self {
        let private = self.private.as_ref().map(|key| PrivateKey::generate(key.kind()).expect("a key"));
        let secrets = self.secrets.iter().map(|secret| other(secret)).collect();
        Self {
            name: self.name.clone(),
            profile: self.profile.clone(),
            known: Vec::new(),
            secrets,
            private,
            params: self.params.clone(),
            certificate_url: self.certificate_url.clone(),
            _files: None,
            _issuer: None,
        }
    }

    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// What the provider signs with, as text: the secret, or the private key in PEM.
    pub fn secret(&self) -> Option<&str> {
        self.secrets.first().map(String::as_str)
    }

    pub fn private_pem(&self) -> Option<String> {
        self.private.as_ref().map(PrivateKey::to_pem)
    }

    /// `[sources.NAME]` of a configuration, at `/webhooks/NAME`.
    pub fn source(&self, upstream: &str) -> String {
        let mut source = toml::Table::new();
        source.insert("profile".to_owned(), self.name.clone().into());
        source.insert("path".to_owned(), format!("/webhooks/{}", self.name).into());
        if !self.known.is_empty() {
            let secrets: Vec<_> = self.known.iter().map(|secret| format!("plain:{secret}")).collect();
            source.insert("secrets".to_owned(), secrets.into());
        }
        let params: toml::Table =
            self.params.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect();
        source.insert("params".to_owned(), params.into());
        source.insert("deliver".to_owned(), toml::toml!(upstream = { url = "" }).into());
        source["deliver"]["upstream"]["url"] = upstream.into();
        let sources: toml::Table = [(self.name.clone(), source.into())].into_iter().collect();
        let whole: toml::Table = [("sources".to_owned(), sources.into())].into_iter().collect();
        whole.to_string()
    }

    /// A request to be explained by what its source knows.
    pub fn case(&self, request: &Request, at: Moment) -> Case {
        let secrets = |texts: &[String]| {
            texts.iter().map(|text| Secret::new(text.as_bytes()).expect("a secret")).collect::<Vec<_>>()
        };
        let query = request.query.as_ref().map(|query| format!("?{query}")).unwrap_or_default();
        Case {
            profile: self.profile.clone(),
            secrets: secrets(&self.known),
            old_secrets: Vec::new(),
            ttl: default_ttl().expect("a default"),
            params: self.complete().expect("parameters"),
            method: request.method.clone(),
            target: format!("/{query}").parse().expect("a target"),
            headers: request.headers.clone(),
            body: request.body.clone(),
            at,
        }
    }

    pub fn complete(&self) -> Result<Params, String> {
        let given: Vec<_> = self.params.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
        params::complete(&self.profile, &given).map_err(|wrong| format!("{wrong:?}"))
    }

    /// The text that stands where the signature does, when the provider signs this; made by libraries and not by us.
    pub fn signature_of(&self, spec: &Signature, text: &[u8]) -> String {
        let hmac = |algorithm| {
            let secret = Secret::new(self.secrets[0].as_bytes()).expect("a secret");
            let key =
                aws_lc_rs::hmac::Key::new(algorithm, &doorward::verify::key_bytes(&spec.key, &secret).expect("a key"));
            aws_lc_rs::hmac::sign(&key, text).as_ref().to_vec()
        };
        let bytes = match &spec.algorithm {
            SignatureAlgorithm::Hmac(Hash::Sha256) => hmac(aws_lc_rs::hmac::HMAC_SHA256),
            SignatureAlgorithm::Hmac(Hash::Sha512) => hmac(aws_lc_rs::hmac::HMAC_SHA512),
            SignatureAlgorithm::Hmac(Hash::Sha1) => hmac(aws_lc_rs::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY),
            SignatureAlgorithm::Ed25519
            | SignatureAlgorithm::Ecdsa(EcdsaFormat::Der)
            | SignatureAlgorithm::Certificate(Hash::Sha256, _) => {
                let pair = rcgen::KeyPair::from_pem(&self.private_pem().expect("a private key")).expect("a key");
                rcgen::SigningKey::sign(&pair, text).expect("a signature")
            }
            SignatureAlgorithm::Ecdsa(EcdsaFormat::Raw)
            | SignatureAlgorithm::Rsa(_)
            | SignatureAlgorithm::Certificate(..) => {
                panic!("no shipped profile is signed like this")
            }
        };
        format!("{}{}", spec.location.prefix, spec.location.encoding.encode(&bytes))
    }

    /// What the provider would send.
    pub fn sign(&self, id: Id<'_>, body: Option<&Bytes>, at: Moment) -> Result<Request, String> {
        let params = self.complete()?;
        let secrets: Vec<_> = self.secrets.iter().map(|text| Secret::new(text.as_bytes()).expect("a secret")).collect();
        sign::request(&Order {
            profile: &self.profile,
            params: &params,
            secrets: &secrets,
            key: self.private.as_ref(),
            body,
            query: None,
            id,
            kind: None,
            at,
            certificate_url: self.certificate_url.as_deref(),
        })
    }
}

/// A secret that is a key for the scheme.
fn secret(scheme: &Scheme) -> String {
    let form = scheme.key(false).cloned().unwrap_or_default();
    let KeyForm { prefix, encoding, .. } = &form;
    let text = match (scheme, encoding) {
        (Scheme::Basic(_), _) => "user:pass-word-1",
        (_, Some(KeyEncoding::Hex)) => "00112233445566778899aabbccddeeff",
        (_, Some(KeyEncoding::Base64)) => "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
        _ => "throw-away-secret-1",
    };
    format!("{}{text}", prefix.first().map_or("", String::as_str))
}

/// The secret with one byte changed, in the same form.
fn other(secret: &str) -> String {
    let at = secret.rfind('1').expect("every secret has one");
    format!("{}2{}", &secret[..at], &secret[at + 1..])
}

/// A path that the profile takes certificates from.
fn certificate_path(profile: &Profile) -> String {
    let paths = profile.schemes().filter_map(|scheme| match scheme {
        Scheme::Signature(spec) => match &spec.algorithm {
            SignatureAlgorithm::Certificate(_, spec) => spec.path.clone(),
            SignatureAlgorithm::Hmac(_)
            | SignatureAlgorithm::Ed25519
            | SignatureAlgorithm::Ecdsa(_)
            | SignatureAlgorithm::Rsa(_) => None,
        },
        Scheme::Token(_) | Scheme::Basic(_) | Scheme::Jwt(_) => None,
    });
    paths.into_iter().next().map_or_else(|| "/doorward.pem".to_owned(), |path| path.replace('*', "doorward"))
}
