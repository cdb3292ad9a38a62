//! An issuer: it publishes a JWK set and signs tokens with the keys of `tests/fixtures/keys`.

use std::sync::Arc;
use std::sync::Mutex;

use jsonwebtoken::Algorithm;
use jsonwebtoken::EncodingKey;
use jsonwebtoken::Header;
use serde_json::Value;

use crate::harness::http::Message;
use crate::harness::recorded;
use crate::harness::upstream::Reply;
use crate::harness::upstream::Upstream;

/// The issuer, as a server.
pub struct Issuer {
    server: Upstream,
    reply: Arc<Mutex<Reply>>,
}

impl Issuer {
    /// Publishes this JWK set.
    pub fn publishing(set: &Value) -> Self {
        let reply = Arc::new(Mutex::new(json(set)));
        let replying = Arc::clone(&reply);
        Self { server: Upstream::with(move |_, _| replying.lock().unwrap().clone()), reply }
    }

    /// Publishes another one from now on.
    pub fn publish(&self, set: &Value) {
        *self.reply.lock().unwrap() = json(set);
    }

    /// Answers otherwise from now on.
    pub fn reply(&self, reply: Reply) {
        *self.reply.lock().unwrap() = reply;
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.server.address())
    }

    /// How often the keys were fetched.
    pub fn fetches(&self) -> usize {
        self.server.received().len()
    }

    /// What it was asked.
    pub fn asked(&self) -> Vec<Message> {
        self.server.received()
    }

    /// The key set of the recorded deliveries: `pps-2024-a` and `-b` verify tokens, `-enc` and `-wrap` must not.
    pub fn fixture_keys() -> Value {
        recorded::delivery("pitchpoint", "accepted-order-placed")["jwks"].clone()
    }

    /// A token with these claims, signed with the key in `tests/fixtures/keys/NAME.pem`.
    pub fn token(name: &str, kid: &str, claims: &Value) -> String {
        let path = format!("{}/tests/fixtures/keys/{name}.pem", env!("CARGO_MANIFEST_DIR"));
        let key = EncodingKey::from_rsa_pem(&std::fs::read(path).expect("a key")).expect("a key");
        let header = Header { kid: Some(kid.to_owned()), ..Header::new(Algorithm::RS256) };
        jsonwebtoken::encode(&header, claims, &key).expect("a token")
    }
}

fn json(set: &Value) -> Reply {
    let body = set.to_string();
    Reply::Raw(
        format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len())
            .into_bytes(),
    )
}
