//! What the proxies deliver to: one thread, a fixed answer, and a count of what arrived.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::io::Read;
use std::io::Write;
use std::net::SocketAddr;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use mio::Events;
use mio::Interest;
use mio::Poll;
use mio::Token;
use mio::net::TcpListener;
use mio::net::TcpStream;
use nix::sys::socket::Backlog;

use crate::message::Reader;

const LISTENER: Token = Token(usize::MAX);

/// Answers every POST with 200, and every GET with the number of POSTs so far. Ends with the process.
pub fn serve(listen: SocketAddr) -> Result<()> {
    let mut poll = Poll::new()?;
    let mut listener = TcpListener::bind(listen).with_context(|| format!("cannot listen on {listen}"))?;
    // A proxy may open hundreds of connections at once. With the 128 of the line above the kernel drops some, and their
    // proxy is blamed for the second until it tries again. On Linux a second call only changes the number.
    nix::sys::socket::listen(&listener, Backlog::new(4096)?)?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut connections: HashMap<Token, (TcpStream, Reader)> = HashMap::new();
    let mut events = Events::with_capacity(1024);
    let mut buffer = vec![0; 256 * 1024];
    let (mut next, mut count) = (0, 0);
    loop {
        if let Err(error) = poll.poll(&mut events, None) {
            if error.kind() == ErrorKind::Interrupted {
                continue;
            }
            return Err(error).context("cannot wait for connections");
        }
        for event in &events {
            if event.token() == LISTENER {
                loop {
                    let (mut stream, _peer) = match listener.accept() {
                        Ok(accepted) => accepted,
                        Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                        Err(error) => return Err(error).context("cannot accept a connection"),
                    };
                    stream.set_nodelay(true)?;
                    poll.registry().register(&mut stream, Token(next), Interest::READABLE)?;
                    connections.insert(Token(next), (stream, Reader::default()));
                    next += 1;
                }
            } else if let Some((stream, reader)) = connections.get_mut(&event.token()) {
                match answer(stream, reader, &mut buffer, &mut count) {
                    Ok(true) => {}
                    Ok(false) => drop(connections.remove(&event.token())),
                    Err(error) => {
                        eprintln!("upstream: {error:#}");
                        connections.remove(&event.token());
                    }
                }
            }
        }
    }
}

/// Reads what there is and answers what is complete. False when the connection has ended.
fn answer(stream: &mut TcpStream, reader: &mut Reader, buffer: &mut [u8], count: &mut u64) -> Result<bool> {
    loop {
        let read = match stream.read(buffer) {
            Ok(0) => return Ok(false),
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(false),
            Err(error) => return Err(error).context("cannot read a request"),
        };
        let mut answers = Vec::new();
        reader.feed(&buffer[..read], |head| {
            let body = if head.starts_with(b"GET ") {
                count.to_string()
            } else {
                *count += 1;
                r#"{"received":true}"#.to_owned()
            };
            let length = body.len();
            answers.extend_from_slice(
                format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}")
                    .as_bytes(),
            );
        })?;
        // An answer is a hundred bytes and the proxy waits for it, so there is always room in the socket.
        if !answers.is_empty() && stream.write(&answers).context("cannot answer")? < answers.len() {
            bail!("the peer does not read its answers");
        }
        // Linux tells about a connection again as soon as more arrives, so a short read needs no second one.
        if read < buffer.len() {
            return Ok(true);
        }
    }
}
