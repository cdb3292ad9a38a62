//! Sources with keys of our own, and the way of a request through them.

use std::collections::HashMap;
use std::io::BufRead as _;
use std::io::BufReader;
use std::io::Write as _;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::LazyLock;
use std::sync::Mutex;

use base64::Engine as _;
use bytes::Bytes;
use doorward::base::secret::Secret;
use doorward::base::time::Moment;
use doorward::config::default_ttl;
use doorward::extract::params;
use doorward::extract::params::Params;
use doorward::gateway::decide;
use doorward::gateway::decide::Verdict;
use doorward::http::body;
use doorward::http::body::Limits;
use doorward::http::inbound::Inbound;
use doorward::profile::KeyEncoding;
use doorward::profile::Profile;
use doorward::profile::Scheme;
use doorward::profile::SignatureAlgorithm;
use doorward::sign::Id;
use doorward::sign::Kind;
use doorward::sign::Order;
use doorward::sign::PrivateKey;
use doorward::sign::Public;
use doorward::source::refusal::Refusal;
use doorward::verify::KeySets;
use doorward::verify::compile::ReplayPolicy;
use doorward::verify::compile::RequestVerifier;
use doorward::verify::handshake::Answer;
use doorward::verify::identity::Event;
use http::HeaderMap;
use http::Method;
use http::Uri;

/// A source with secrets that nobody else knows.
#[derive(Debug)]
pub struct Provider {
    /// Its profile.
    pub profile: Profile,
    params: Params,
    secrets: Vec<Secret>,
    key: Option<&'static PrivateKey>,
    certificate: Option<String>,
    verifier: RequestVerifier,
    limits: Limits,
}

/// What became of a request that was not refused.
#[derive(Debug)]
pub enum Taken {
    /// A probe that anybody may send was answered.
    Probe(Answer),
    /// A probe that was proven was answered.
    Handshake(Answer),
    /// An event.
    Event(Event),
}

impl Provider {
    /// Makes keys for all schemes of the profile.
    pub fn new(profile: Profile) -> Result<Self, String> {
        let given = profile.params.iter().filter_map(|(name, param)| match name.as_str() {
            "url" => Some((name.as_str(), "https://hooks.example/in".to_owned())),
            "certificate_hosts" => Some((name.as_str(), SERVER.address.to_string())),
            _ => param.default.is_none().then(|| (name.as_str(), format!("some-{name}"))),
        });
        let params = params::complete(&profile, &given.collect::<Vec<_>>()).map_err(|wrong| format!("{wrong:?}"))?;
        let kind = profile.schemes().find_map(Kind::of);
        let key = kind.map(key);
        let (mut texts, mut certificate) = (Vec::new(), None);
        for scheme in profile.schemes().filter(|scheme| Kind::of(scheme).is_none()) {
            texts.extend(scheme.key(profile.fetches_keys()).map(|form| {
                let text = match form.encoding {
                    Some(KeyEncoding::Base64) => base64::engine::general_purpose::STANDARD.encode(SECRET),
                    Some(KeyEncoding::Hex) => const_hex::encode(SECRET),
                    Some(KeyEncoding::Text | KeyEncoding::Spki) | None => SECRET.to_owned(),
                };
                form.prefix.first().cloned().unwrap_or_default() + &text
            }));
        }
        match key.map(|key| key.public(&profile)).transpose()? {
            Some(Public::Secret(text)) => texts.push(text),
            Some(Public::Certificate(pem)) => certificate = Some(SERVER.publish(&profile, pem)),
            Some(Public::KeySet(_)) | None => {}
        }
        let secrets = texts.into_iter().map(Secret::new).collect::<Result<Vec<_>, _>>()?;
        let replays = ReplayPolicy::new(default_ttl()?, None, &[]);
        let verifier = RequestVerifier::new(&profile, &secrets, &params, replays, &mut KeySets::new());
        let verifier = verifier.map_err(|misfits| format!("{misfits:?}"))?;
        let max_body = profile.limits.max_body.map_or(1 << 20, |size| size.as_u64().try_into().unwrap_or(usize::MAX));
        let limits = Limits { max_body, max_decompressions: usize::MAX, ..Limits::none() };
        Ok(Self { profile, params, secrets, key, certificate, verifier, limits })
    }

    /// Whether looking at a request may ask other machines for something.
    pub fn asks_others(&self) -> bool {
        let certificate = |scheme: &Scheme| matches!(scheme, Scheme::Signature(spec) if matches!(spec.algorithm, SignatureAlgorithm::Certificate(..)));
        self.profile.fetches_keys()
            || self.profile.schemes().any(certificate)
            || self.profile.handshakes.iter().any(|spec| spec.visit.is_some())
    }

    /// Makes a request as the provider would.
    pub fn sign(
        &self,
        body: Option<&Bytes>,
        query: Option<&str>,
        (id, kind, at): (Id<'_>, Option<&str>, Moment),
    ) -> Result<Parts, String> {
        let certificate_url = self.certificate.as_deref();
        let (profile, params, secrets, key) = (&self.profile, &self.params, &self.secrets, self.key);
        let order = Order { profile, params, secrets, key, body, query, id, kind, at, certificate_url };
        let made = doorward::sign::request(&order)?;
        let target = made.query.map_or_else(|| "/".to_owned(), |query| format!("/?{query}"));
        let target = target.parse().map_err(|error: http::uri::InvalidUri| error.to_string())?;
        Ok(Parts { method: made.method, target, headers: made.headers, body: made.body })
    }

    /// The steps of the gateway from the head of a request to its event.
    pub fn receive(&self, parts: Parts, now: Moment) -> Result<Taken, Refusal> {
        super::wait(self.decide(parts, now))
    }

    async fn decide(&self, parts: Parts, now: Moment) -> Result<Taken, Refusal> {
        let Parts { method, target, headers, body } = parts;
        decide::check_method(&self.verifier, &method)?;
        body::check_head(&headers, &self.verifier.single_headers, &self.limits)?;
        if body.len() > self.limits.max_body {
            return Err(Refusal::Unreadable(body::Unreadable::TooLarge));
        }
        let inbound = Inbound::recorded(method, target, headers, body, now);
        let decision = decide::decide(&self.verifier, "fuzz", &self.limits, inbound, || now).await;
        match decision.verdict.map_err(|rejection| rejection.refusal)? {
            Verdict::Event(event) => Ok(Taken::Event(event)),
            Verdict::Handshake(answer) if decision.proof.is_some() => Ok(Taken::Handshake(answer)),
            Verdict::Handshake(answer) => Ok(Taken::Probe(answer)),
        }
    }
}

/// A request in parts.
#[derive(Debug, Clone)]
pub struct Parts {
    /// The method.
    pub method: Method,
    /// Path and query.
    pub target: Uri,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

const SECRET: &str = "user:nobody else knows this";

/// One key of each kind, made once: for RSA that takes long.
fn key(kind: Kind) -> &'static PrivateKey {
    const KINDS: [Kind; 4] = [Kind::Ed25519, Kind::P256, Kind::P384, Kind::Rsa];
    static KEYS: [LazyLock<PrivateKey>; 4] = [
        LazyLock::new(|| PrivateKey::generate(KINDS[0]).expect("a key")),
        LazyLock::new(|| PrivateKey::generate(KINDS[1]).expect("a key")),
        LazyLock::new(|| PrivateKey::generate(KINDS[2]).expect("a key")),
        LazyLock::new(|| PrivateKey::generate(KINDS[3]).expect("a key")),
    ];
    &KEYS[KINDS.iter().position(|known| *known == kind).expect("a kind")]
}

static SERVER: LazyLock<Server> = LazyLock::new(Server::start);

/// Has the certificates that requests name.
struct Server {
    address: SocketAddr,
    files: Arc<Mutex<HashMap<String, String>>>,
}

impl Server {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let files = Arc::<Mutex<HashMap<String, String>>>::default();
        let known = Arc::clone(&files);
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut line = String::new();
                let _read = BufReader::new(&stream).read_line(&mut line);
                let path = line.split(' ').nth(1).unwrap_or_default();
                let answer = match known.lock().expect("not poisoned").get(path) {
                    Some(text) => format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len()),
                    None => "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_owned(),
                };
                let _written = stream.write_all(answer.as_bytes());
            }
        });
        Self { address, files }
    }

    fn publish(&self, profile: &Profile, pem: String) -> String {
        let path = profile.schemes().find_map(|scheme| match scheme {
            Scheme::Signature(spec) => match &spec.algorithm {
                SignatureAlgorithm::Certificate(_, spec) => spec.path.clone(),
                _ => None,
            },
            _ => None,
        });
        let name = const_hex::encode(&profile.title);
        let path = path.unwrap_or_else(|| "/*.pem".to_owned()).replace('*', &name);
        self.files.lock().expect("not poisoned").insert(path.clone(), pem);
        format!("http://{}{path}", self.address)
    }
}
