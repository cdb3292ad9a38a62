//! A request to a source, as bytes.

use std::io::Read as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::net::TcpStream;

use crate::harness::http::Answer;
use crate::harness::http::connect;
use crate::harness::http::exchange;
use crate::harness::http::receive;
use crate::harness::wait_for;

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

    /// Sends it on a connection of its own; all bytes that come back, up to the end of the connection.
    #[track_caller]
    pub fn send_for_bytes(&self, gateway: SocketAddr) -> String {
        let mut stream = self.clone().with("Connection", "close").begin(gateway);
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).expect("an answer");
        String::from_utf8(bytes).expect("text")
    }
}

/// A request with these headers.
pub fn request(method: &str, target: &str, headers: &[(&str, &str)], body: impl Into<Vec<u8>>) -> Delivery {
    Delivery {
        method: method.to_owned(),
        path: target.to_owned(),
        headers: headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        body: body.into(),
    }
}
