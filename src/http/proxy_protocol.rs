//! The header of the PROXY protocol, versions 1 and 2, with which a load balancer says whose connection it passes on.
//! <https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt>
//!
//! Only as many bytes are read as belong to the header, so that what follows is left to HTTP or TLS.

use std::io;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;

use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt as _;

/// The first bytes of version 2.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// The first bytes of version 1.
const PREFIX: &[u8; 6] = b"PROXY ";
/// The shortest header of version 1, `PROXY UNKNOWN` and its line break.
const SHORTEST_V1: usize = 15;
/// The longest one, with its line break.
const LONGEST_V1: usize = 107;
/// The bytes of version 2 up to its addresses.
const FIXED_V2: usize = 16;

/// Whom a connection is passed on for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forwarded {
    /// For a client at this address.
    Client(SocketAddr),
    /// For nobody: the load balancer asks for itself, such as whether the gateway is well.
    Itself,
    /// For a client whose address the load balancer does not know, or that has none.
    Unknown,
}

/// Why there is no header that can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// The connection begins with something else.
    #[error("it does not begin with a header of the PROXY protocol, which this listener requires")]
    Missing,
    /// It begins as a header does, and goes on in another way.
    #[error("its header of the PROXY protocol cannot be read")]
    Malformed,
    /// The header is longer than allowed.
    #[error("its header of the PROXY protocol is too long")]
    TooLong,
    /// The connection ended within the header.
    #[error("it ended within its header of the PROXY protocol")]
    Truncated,
}

/// How far the header has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Complete(Forwarded),
    /// At least so many bytes of it are still to come.
    Wanting(usize),
}

/// Reads the header, of at most `max` bytes. `None` when the connection ends before its first byte.
///
/// # Errors
/// [`Invalid`].
pub async fn read(stream: &mut (impl AsyncRead + Unpin), max: usize) -> Result<Option<Forwarded>, Invalid> {
    let mut header = Vec::with_capacity(LONGEST_V1);
    loop {
        let wanted = match progress(&header, max)? {
            Progress::Complete(forwarded) => return Ok(Some(forwarded)),
            Progress::Wanting(wanted) => wanted,
        };
        let before = header.len();
        header.resize(before + wanted, 0);
        let room = header.get_mut(before..).unwrap_or_default();
        match stream.read(room).await {
            Ok(0) if before == 0 => return Ok(None),
            Ok(0) => return Err(Invalid::Truncated),
            Ok(count) => header.truncate(before + count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => header.truncate(before),
            Err(_broken) => return Err(Invalid::Truncated),
        }
    }
}

/// What the bytes so far say. They never exceed the header.
fn progress(bytes: &[u8], max: usize) -> Result<Progress, Invalid> {
    let begins = |with: &[u8]| bytes.iter().zip(with).all(|(byte, expected)| byte == expected);
    if begins(SIGNATURE) {
        version_2(bytes, max)
    } else if begins(PREFIX) {
        version_1(bytes)
    } else {
        Err(Invalid::Missing)
    }
}

fn version_1(bytes: &[u8]) -> Result<Progress, Invalid> {
    let Some(line) = bytes.strip_suffix(b"\r\n") else {
        return match bytes.len() {
            length if length < SHORTEST_V1 => Ok(Progress::Wanting(SHORTEST_V1 - length)),
            LONGEST_V1.. => Err(Invalid::TooLong),
            _ if bytes.ends_with(b"\r") => Ok(Progress::Wanting(1)),
            length => Ok(Progress::Wanting(2.min(LONGEST_V1 - length))),
        };
    };
    // A line break within the line would let two parsers see two headers.
    if !line.iter().all(|byte| (b' '..=b'~').contains(byte)) {
        return Err(Invalid::Malformed);
    }
    let line = std::str::from_utf8(line).map_err(|_no_text| Invalid::Malformed)?;
    let mut words = line.split(' ').skip(1);
    let family = words.next();
    if family == Some("UNKNOWN") {
        return Ok(Progress::Complete(Forwarded::Unknown));
    }
    let mut next = || words.next().ok_or(Invalid::Malformed);
    let (source, destination, port, destination_port) = (next()?, next()?, next()?, next()?);
    let addresses = [source, destination].map(|text| match family {
        Some("TCP4") => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        Some("TCP6") => text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        _ => None,
    });
    let number =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u16>().ok()).flatten();
    match (addresses, number(port), number(destination_port), words.next()) {
        ([Some(source), Some(_)], Some(port), Some(_), None) => {
            Ok(Progress::Complete(Forwarded::Client(SocketAddr::new(source, port))))
        }
        _ => Err(Invalid::Malformed),
    }
}

fn version_2(bytes: &[u8], max: usize) -> Result<Progress, Invalid> {
    let Some((fixed, rest)) = bytes.split_first_chunk::<FIXED_V2>() else {
        // The signature of version 2 ends before the shortest header of version 1 does.
        return Ok(Progress::Wanting(if bytes.is_empty() { SIGNATURE.len() } else { FIXED_V2 - bytes.len() }));
    };
    let [.., command, family, high, low] = *fixed;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if FIXED_V2 + length > max {
        return Err(Invalid::TooLong);
    }
    if rest.len() < length {
        return Ok(Progress::Wanting(length - rest.len()));
    }
    let port = |bytes: &[u8; 2]| u16::from_be_bytes(*bytes);
    let forwarded = match (command, family) {
        (0x20, _) => Forwarded::Itself,
        (0x21, 0x11) => {
            let (source, rest) = rest.split_first_chunk::<4>().ok_or(Invalid::Malformed)?;
            let (_destination, rest) = rest.split_first_chunk::<4>().ok_or(Invalid::Malformed)?;
            let (source_port, rest) = rest.split_first_chunk::<2>().ok_or(Invalid::Malformed)?;
            let _destination_port = rest.first_chunk::<2>().ok_or(Invalid::Malformed)?;
            Forwarded::Client(SocketAddr::new(IpAddr::from(*source), port(source_port)))
        }
        (0x21, 0x21) => {
            let (source, rest) = rest.split_first_chunk::<16>().ok_or(Invalid::Malformed)?;
            let (_destination, rest) = rest.split_first_chunk::<16>().ok_or(Invalid::Malformed)?;
            let (source_port, rest) = rest.split_first_chunk::<2>().ok_or(Invalid::Malformed)?;
            let _destination_port = rest.first_chunk::<2>().ok_or(Invalid::Malformed)?;
            Forwarded::Client(SocketAddr::new(IpAddr::from(*source), port(source_port)))
        }
        // Of no family, or a Unix socket.
        (0x21, 0x00 | 0x31) => Forwarded::Unknown,
        _ => return Err(Invalid::Malformed),
    };
    Ok(Progress::Complete(forwarded))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 64;

    /// What is read of these bytes with something behind them, in pieces of `piece` bytes; and that nothing is read of
    /// what stands behind.
    fn read_of(bytes: &[u8], piece: usize) -> Result<Option<Forwarded>, Invalid> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let (mut reader, mut writer) = tokio::io::duplex(piece);
            let sent = [bytes, b"GET / HTTP/1.1"].concat();
            let write = async move {
                let _closed = tokio::io::AsyncWriteExt::write_all(&mut writer, &sent).await;
            };
            let read = async move {
                let forwarded = read(&mut reader, MAX).await;
                let mut rest = Vec::new();
                if forwarded.is_ok() {
                    reader.read_to_end(&mut rest).await.expect("the rest");
                    assert_eq!(rest, b"GET / HTTP/1.1");
                }
                forwarded
            };
            let (forwarded, ()) = tokio::join!(read, write);
            forwarded
        })
    }

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).expect("short").to_be_bytes();
        [SIGNATURE.as_slice(), &[command, family], &length, rest].concat()
    }

    fn client(address: &str) -> Forwarded {
        Forwarded::Client(address.parse().expect("an address"))
    }

    #[test]
    fn headers_are_read_in_any_pieces_and_not_beyond_their_end() {
        let v4 = [203, 0, 113, 9, 10, 0, 0, 1, 0x1f, 0x90, 0x01, 0xbb];
        let v6 = [&Ipv6Addr::LOCALHOST.octets()[..], &[0; 16], &[0x1f, 0x90, 0x01, 0xbb]].concat();
        let with_tlv = [&v4[..], &[4, 0, 2, 1, 2]].concat();
        let headers: Vec<(Vec<u8>, Forwarded)> = vec![
            (b"PROXY TCP4 203.0.113.9 10.0.0.1 8080 443\r\n".to_vec(), client("203.0.113.9:8080")),
            (b"PROXY TCP4 1.1.1.1 1.1.1.1 1 1\r\n".to_vec(), client("1.1.1.1:1")),
            (b"PROXY TCP6 2001:db8::1 ::1 8080 443\r\n".to_vec(), client("[2001:db8::1]:8080")),
            (b"PROXY TCP6 :: :: 1 1\r\n".to_vec(), client("[::]:1")),
            (b"PROXY UNKNOWN\r\n".to_vec(), Forwarded::Unknown),
            (b"PROXY UNKNOWN 203.0.113.9 10.0.0.1 8080 443\r\n".to_vec(), Forwarded::Unknown),
            (v2(0x21, 0x11, &v4), client("203.0.113.9:8080")),
            (v2(0x21, 0x11, &with_tlv), client("203.0.113.9:8080")),
            (v2(0x21, 0x21, &v6), client("[::1]:8080")),
            (v2(0x20, 0x00, &[]), Forwarded::Itself),
            (v2(0x20, 0x11, &v4), Forwarded::Itself),
            (v2(0x21, 0x00, &[]), Forwarded::Unknown),
            (v2(0x21, 0x00, &[0; MAX - FIXED_V2]), Forwarded::Unknown),
        ];
        for (bytes, expected) in headers {
            for piece in [1, 2, 3, 7, 13, 1000] {
                assert_eq!(read_of(&bytes, piece), Ok(Some(expected)), "{piece}: {}", bytes.escape_ascii());
            }
        }
    }

    #[test]
    fn what_is_no_header_is_refused() {
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(LONGEST_V1 - 15));
        let too_long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(LONGEST_V1 - 14));
        assert_eq!(long.len(), LONGEST_V1 + 1);
        let cases: Vec<(Vec<u8>, Invalid)> = vec![
            (b"POST /webhooks/github HTTP/1.1\r\n".to_vec(), Invalid::Missing),
            (b"PROXX TCP4".to_vec(), Invalid::Missing),
            (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(), Invalid::Missing),
            (b"\r\n\r\n\0\r\nQUIX\nxxxx".to_vec(), Invalid::Missing),
            (b"PROXY TCP4 203.0.113.9 10.0.0.1 8080\r\n".to_vec(), Invalid::Malformed),
            (b"PROXY TCP4 203.0.113.9 10.0.0.1 8080 443 1\r\n".to_vec(), Invalid::Malformed),
            (b"PROXY TCP4 203.0.113.9  10.0.0.1 8080 443\r\n".to_vec(), Invalid::Malformed),
            (b"PROXY TCP4 203.0.113.09 10.0.0.1 8080 443\r\n".to_vec(), Invalid::Malformed),
            (b"PROXY TCP4 203.0.113.9 10.0.0.1 +8080 443\r\n".to_vec(), Invalid::Malformed),
            (b"PROXY TCP4 203.0.113.9 10.0.0.1 8080 65536\r\n".to_vec(), Invalid::Malformed),
            (b"PROXY TCP4 ::1 ::1 8080 443\r\n".to_vec(), Invalid::Malformed),
            (b"PROXY TCP6 203.0.113.9 10.0.0.1 8080 443\r\n".to_vec(), Invalid::Malformed),
            (b"PROXY UDP4 203.0.113.9 10.0.0.1 8080 443\r\n".to_vec(), Invalid::Malformed),
            (b"PROXY  TCP4 203.0.113.9 10.0.0.1 8080 443\r\n".to_vec(), Invalid::Malformed),
            (b"PROXY UNKNOWN\nx\nx\r\n".to_vec(), Invalid::Malformed),
            (too_long.into_bytes(), Invalid::TooLong),
            (b"PROXY ".repeat(30), Invalid::TooLong),
            (v2(0x11, 0x11, &[0; 12]), Invalid::Malformed),
            (v2(0x22, 0x11, &[0; 12]), Invalid::Malformed),
            (v2(0x21, 0x12, &[0; 12]), Invalid::Malformed),
            (v2(0x21, 0x11, &[0; 11]), Invalid::Malformed),
            (v2(0x21, 0x21, &[0; 35]), Invalid::Malformed),
            (v2(0x21, 0x00, &[0; MAX - FIXED_V2 + 1]), Invalid::TooLong),
        ];
        for (bytes, expected) in cases {
            assert_eq!(read_of(&bytes, 1000), Err(expected), "{}", bytes.escape_ascii());
        }
    }
}
