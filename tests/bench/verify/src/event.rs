//! An event as a provider would send it, of the size that is asked for.

use std::fmt::Write as _;
use std::io::Read as _;
use std::io::Write as _;
use std::net::TcpListener;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::anyhow;
use bytes::Bytes;
use doorward::base::secret::Secret;
use doorward::base::time::Moment;
use doorward::extract::params;
use doorward::extract::params::Params;
use doorward::profile::Profile;
use doorward::sign;
use doorward::sign::Id;
use doorward::sign::Kind;
use doorward::sign::Order;
use doorward::sign::PrivateKey;
use doorward::sign::Public;
use doorward::sign::Request;

use crate::schemes::Key;
use crate::schemes::Scheme;
use crate::schemes::URL;

/// A signed request, and what its receiver knows.
pub struct Event {
    pub profile: Profile,
    pub params: Params,
    /// The secret, or the public half of the key; empty where that is fetched.
    pub secrets: Vec<Secret>,
    /// The same, fetched or not.
    pub key: String,
    pub request: Request,
    /// When it was sent, and when it is verified.
    pub at: Moment,
}

impl Event {
    /// An event with a body of this many bytes; where it is signed with an RSA key, with this one in PEM, or a new one.
    pub fn new(scheme: &Scheme, size: usize, rsa: Option<&str>) -> Result<Self> {
        let profile = format!("title = \"Bench\"\n{}\n[event]\nid = {}\n", scheme.profile, scheme.event_id);
        let profile = Profile::parse(&profile).map_err(|message| anyhow!("{}: {message}", scheme.id))?;
        let private = match (scheme.key, rsa) {
            (Key::Secret(_), _) => None,
            (Key::Private(Kind::Rsa), Some(pem)) => Some(PrivateKey::parse(pem).map_err(anyhow::Error::msg)?),
            (Key::Private(kind), _) => Some(PrivateKey::generate(kind).map_err(anyhow::Error::msg)?),
        };
        let public = private.as_ref().map(|key| key.public(&profile).map_err(anyhow::Error::msg)).transpose()?;
        let mut given = Vec::new();
        let mut certificate_url = None;
        if profile.params.contains_key("url") {
            given.push(("url", URL.to_owned()));
        }
        if let Some(Public::Certificate(pem)) = &public {
            let address = publish(pem.clone())?;
            certificate_url = Some(format!("http://{address}/bench.pem"));
            given.push(("certificate_hosts", address));
        }
        let params = params::complete(&profile, &given).map_err(|wrong| anyhow!("{}: {wrong:?}", scheme.id))?;
        let (key, fetched) = match (public, scheme.key) {
            (Some(Public::Secret(text)), _) => (text, false),
            (Some(Public::KeySet(text) | Public::Certificate(text)), _) => (text, true),
            (None, Key::Secret(text)) => (text.to_owned(), false),
            (None, Key::Private(_)) => (String::new(), false),
        };
        let secrets = if fetched { Vec::new() } else { vec![Secret::new(key.as_bytes()).map_err(anyhow::Error::msg)?] };
        let body = if scheme.form { form(size) } else { json(size) };
        let at = Moment::now();
        let order = Order {
            profile: &profile,
            params: &params,
            secrets: if private.is_none() { &secrets } else { &[] },
            key: private.as_ref(),
            body: Some(&body),
            query: None,
            id: Id::Fresh(1),
            kind: None,
            at,
            certificate_url: certificate_url.as_deref(),
        };
        let request = sign::request(&order).map_err(|message| anyhow!("{}: {message}", scheme.id))?;
        Ok(Self { profile, params, secrets, key, request, at })
    }

    /// The text of a header.
    pub fn header(&self, name: &str) -> Result<String> {
        let value = self.request.headers.get(name).with_context(|| format!("there is no {name}"))?;
        Ok(value.to_str()?.to_owned())
    }
}

/// An order with as many items as fit.
fn json(size: usize) -> Bytes {
    let mut body = r#"{"id":"evt_1QEzYzLkdIwHu7ix","type":"order.created","created":1735812000,"items":["#.to_owned();
    let end = r#"{"note":""}]}"#;
    for number in 1.. {
        let item = format!(
            r#"{{"sku":"sku_{number:06}","name":"High-Speed Internet","quantity":{},"price":49.95,"gift":false}},"#,
            number % 9 + 1
        );
        if body.len() + item.len() + end.len() > size {
            break;
        }
        body += &item;
    }
    let left = size.saturating_sub(body.len() + end.len());
    let _written = write!(body, r#"{{"note":"{}"}}]}}"#, "x".repeat(left));
    body.into()
}

/// A form with as many fields as fit, in an order that is not the alphabet's.
fn form(size: usize) -> Bytes {
    let mut body = "MessageStatus=delivered".to_owned();
    let end = "&Body=";
    for number in 1_u32.. {
        let name = number.wrapping_mul(2_654_435_761);
        let field = format!("&Field{name:08x}=%2B15005550006+to+%2B15558675310%2C+segment+{number:06}+of+the+message");
        if body.len() + field.len() + end.len() > size {
            break;
        }
        body += &field;
    }
    body += end;
    body += &"x".repeat(size.saturating_sub(body.len()));
    body.into()
}

/// Serves a certificate to whoever asks, until the process ends; the address.
fn publish(pem: String) -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?.to_string();
    #[expect(clippy::disallowed_methods, reason = "it serves until the benchmark ends")]
    let _until_the_end = std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut head = [0; 4096];
            let _asked = stream.read(&mut head);
            let _answered =
                write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{pem}", pem.len());
        }
    });
    Ok(address)
}
