//! Just enough HTTP/1.1 to see what really goes over the wire.

use std::io;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write as _;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;

use crate::harness::PATIENCE;

/// A message: its first line, its headers in order, its body.
#[derive(Debug, Clone, Default)]
pub struct Message {
    pub start: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Message {
    /// Reads one message; `None` when the other end closes instead of sending one.
    pub fn read(reader: &mut BufReader<impl Read>) -> io::Result<Option<Self>> {
        let mut start = String::new();
        if reader.read_line(&mut start)? == 0 {
            return Ok(None);
        }
        let mut message = Self { start: start.trim_end().to_owned(), ..Self::default() };
        loop {
            let mut line = Vec::new();
            if reader.read_until(b'\n', &mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let line: String = line.trim_ascii_end().iter().copied().map(char::from).collect();
            let Some((name, value)) = line.split_once(':') else { break };
            message.headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        if let Some(length) = message.header("content-length") {
            message.body = vec![0; length.parse().expect("a length")];
            reader.read_exact(&mut message.body)?;
        } else if message.header("transfer-encoding").is_some() {
            message.body = read_chunks(reader)?;
        } else if message.start.starts_with("HTTP/") && !message.start.contains(" 204") {
            reader.read_to_end(&mut message.body)?;
        }
        Ok(Some(message))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }
}

fn read_chunks(reader: &mut BufReader<impl Read>) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let length = usize::from_str_radix(line.trim(), 16).map_err(io::Error::other)?;
        let mut chunk = vec![0; length + 2];
        reader.read_exact(&mut chunk)?;
        if length == 0 {
            return Ok(body);
        }
        body.extend_from_slice(&chunk[..length]);
    }
}

/// An answer of the gateway.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    /// Whether it is the refusal that makes a provider try again.
    pub fn asks_to_come_again(&self) -> bool {
        let seconds = self.header("retry-after").and_then(|seconds| seconds.parse::<u64>().ok());
        self.status == 503
            && seconds.is_some_and(|seconds| seconds >= 1)
            && self.header("content-type") == Some("application/problem+json")
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {}", self.text()))
    }
}

impl From<Message> for Answer {
    fn from(message: Message) -> Self {
        let status = message.start.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status line");
        Self { status, headers: message.headers, body: message.body }
    }
}

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

/// Sends bytes on a connection to the socket of this file, and reads the answer.
#[track_caller]
pub fn exchange_unix(path: &Path, request: &[u8]) -> Answer {
    let mut stream = UnixStream::connect(path).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    drop(stream.write_all(request));
    Message::read(&mut BufReader::new(stream)).expect("an answer").expect("an answer before the end").into()
}

/// Waits for the answer to what was sent.
#[track_caller]
pub fn receive(stream: &TcpStream) -> Answer {
    Message::read(&mut BufReader::new(stream)).expect("an answer").expect("an answer before the end").into()
}
