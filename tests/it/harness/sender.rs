//! Senders: requests as bytes, and events as providers sign them. The signatures are made here, with the hash crates
//! alone, and not by the code under test.

use std::io::BufReader;
use std::io::Write as _;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::time::SystemTime;

use hmac::KeyInit as _;
use hmac::Mac as _;

use super::Answer;
use super::PATIENCE;
use super::Upstream;
use super::http::Message;
use super::wait_for;

/// The secret of the sources in these tests.
pub const SECRET: &str = "It's a Secret to Everybody";

/// A connection that fails rather than wait for ever.
pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_nodelay(true).expect("no delay");
    stream
}

/// Sends bytes on a connection of their own and reads the answer.
#[track_caller]
pub fn exchange(address: SocketAddr, request: &[u8]) -> Answer {
    let mut stream = connect(address);
    // Whoever refuses early may stop reading; its answer counts.
    drop(stream.write_all(request));
    receive(&stream)
}

/// Waits for the answer to what was sent.
#[track_caller]
pub fn receive(stream: &TcpStream) -> Answer {
    Message::read(&mut BufReader::new(stream)).expect("an answer").expect("an answer before the end").into()
}

/// A request to a source.
#[derive(Debug, Clone)]
pub struct Delivery {
    pub method: String,
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Delivery {
    /// With one more header.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With a header set to another value.
    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(given, _)| !given.eq_ignore_ascii_case(name));
        self.with(name, value)
    }

    /// Without a header.
    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(given, _)| !given.eq_ignore_ascii_case(name));
        self
    }

    /// To another path.
    pub fn to(mut self, path: &str) -> Self {
        path.clone_into(&mut self.path);
        self
    }

    /// With its body in chunks of this many bytes.
    pub fn chunked(mut self, size: usize) -> Self {
        let mut body = Vec::new();
        for chunk in self.body.chunks(size) {
            body.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
            body.extend(chunk);
            body.extend(b"\r\n");
        }
        body.extend(b"0\r\n\r\n");
        self.body = body;
        self.with("Transfer-Encoding", "chunked")
    }

    /// The bytes on the wire; the connection is kept unless a header says otherwise.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = format!("{} {} HTTP/1.1\r\nHost: hooks.example\r\n", self.method, self.path).into_bytes();
        for (name, value) in &self.headers {
            bytes.extend(format!("{name}: ").into_bytes());
            bytes.extend(value.chars().map(|character| u8::try_from(character).expect("ISO 8859-1")));
            bytes.extend(b"\r\n");
        }
        let framed = self.headers.iter().any(|(name, _)| {
            name.eq_ignore_ascii_case("content-length") || name.eq_ignore_ascii_case("transfer-encoding")
        });
        if !framed {
            bytes.extend(format!("Content-Length: {}\r\n", self.body.len()).into_bytes());
        }
        bytes.extend(b"\r\n");
        bytes.extend(&self.body);
        bytes
    }

    /// Sends it on a connection of its own and leaves the answer for [`receive`].
    #[track_caller]
    pub fn begin(&self, gateway: SocketAddr) -> TcpStream {
        let mut stream = connect(gateway);
        stream.write_all(&self.bytes()).expect("sent");
        stream
    }

    /// Sends it on a connection of its own.
    #[track_caller]
    pub fn send(&self, gateway: SocketAddr) -> Answer {
        exchange(gateway, &self.clone().with("Connection", "close").bytes())
    }

    /// Sends it as a provider does: again as long as it is asked to.
    #[track_caller]
    pub fn send_until_taken(&self, gateway: SocketAddr) -> Answer {
        wait_for("the event to be taken", || {
            let answer = self.send(gateway);
            assert!(answer.status == 200 || answer.asks_to_come_again(), "{answer:?}");
            (answer.status == 200).then_some(answer)
        })
    }

    /// Sends it on a connection that is used again.
    #[track_caller]
    pub fn send_on(&self, stream: &TcpStream) -> Answer {
        let mut writer = stream;
        writer.write_all(&self.bytes()).expect("sent");
        receive(stream)
    }
}

/// GitHub, whose event id is a header that is not signed, and whose bodies are any bytes.
pub struct Github;

impl Github {
    /// A source with the shared secret that delivers to `upstream`.
    pub fn source(upstream: &str) -> String {
        Self::delivering(&format!("upstream = {{ url = \"{upstream}\" }}"))
    }

    /// A source with the shared secret that delivers so.
    pub fn delivering(so: &str) -> String {
        format!(
            "[sources.github]\nprofile = \"github\"\npath = \"/webhooks/github\"\nsecrets = [\"plain:{SECRET}\"]\n\
             deliver.{so}\n"
        )
    }

    /// A genuine delivery.
    pub fn delivery(id: &str, body: impl Into<Vec<u8>>) -> Delivery {
        let body = body.into();
        let signature = format!("sha256={}", hmac_hex(SECRET, &[&body]));
        Delivery {
            method: "POST".to_owned(),
            path: "/webhooks/github".to_owned(),
            headers: vec![
                ("Content-Type".to_owned(), "application/json".to_owned()),
                ("X-GitHub-Event".to_owned(), "push".to_owned()),
                ("X-GitHub-Delivery".to_owned(), id.to_owned()),
                ("X-Hub-Signature-256".to_owned(), signature),
            ],
            body,
        }
    }
}

/// A source of Offergrid with the shared secret that delivers to `upstream`.
pub fn offergrid_source(upstream: &str) -> String {
    format!(
        "[sources.offergrid]\nprofile = \"offergrid\"\npath = \"/webhooks/offergrid\"\nsecrets = [\"plain:{SECRET}\"]\n\
         deliver.upstream = {{ url = \"{upstream}\" }}\n"
    )
}

/// Asserts that a genuine event of a GitHub source gets through, as if nothing had happened before.
#[track_caller]
pub fn assert_serves(gateway: SocketAddr, upstream: &Upstream) {
    let id = format!("after-{}", upstream.received().len());
    let answer = Github::delivery(&id, format!("{{\"id\":\"{id}\"}}")).send(gateway);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(upstream.ids().last(), Some(&id));
}

/// A genuine delivery of Offergrid, which signs the time and has the id in its body.
pub fn offergrid(id: &str, sent: SystemTime) -> Delivery {
    offergrid_signed(format!(r#"{{"id":"{id}","event":"order.created","data":{{"n":1}}}}"#), sent)
}

/// Any body, signed as Offergrid does.
pub fn offergrid_signed(body: impl Into<Vec<u8>>, sent: SystemTime) -> Delivery {
    let body = body.into();
    let time = sent.duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs().to_string();
    let signature = hmac_hex(SECRET, &[time.as_bytes(), b".", &body]);
    Delivery {
        method: "POST".to_owned(),
        path: "/webhooks/offergrid".to_owned(),
        headers: vec![
            ("Content-Type".to_owned(), "application/json".to_owned()),
            ("X-Offergrid-Timestamp".to_owned(), time),
            ("X-Offergrid-Signature".to_owned(), signature),
        ],
        body,
    }
}

/// HMAC-SHA256 of the pieces, in hexadecimal.
pub fn hmac_hex(secret: &str, pieces: &[&[u8]]) -> String {
    let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(secret.as_bytes()).expect("a key");
    pieces.iter().for_each(|piece| mac.update(piece));
    const_hex::encode(mac.finalize().into_bytes())
}
