//! As much HTTP/1.1 as the benchmark needs: messages framed by Content-Length, on connections that stay open.

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;

const MAX_HEAD: usize = 16 * 1024;

/// Cuts a stream of bytes into messages. Keeps heads and skips bodies.
#[derive(Debug, Default)]
pub struct Reader {
    head: Vec<u8>,
    body_left: Option<usize>,
}

impl Reader {
    /// Takes what was read; calls `done` with the head of each message that is complete with its body.
    pub fn feed(&mut self, mut chunk: &[u8], mut done: impl FnMut(&[u8])) -> Result<()> {
        while !chunk.is_empty() || self.body_left == Some(0) {
            if let Some(left) = self.body_left {
                let taken = left.min(chunk.len());
                chunk = &chunk[taken..];
                self.body_left = Some(left - taken);
                if left == taken {
                    done(&self.head);
                    self.head.clear();
                    self.body_left = None;
                }
            } else {
                let before = self.head.len();
                self.head.extend_from_slice(&chunk[..chunk.len().min(MAX_HEAD)]);
                let Some(end) = self.head.windows(4).position(|four| four == b"\r\n\r\n") else {
                    if self.head.len() > MAX_HEAD {
                        bail!("the head of a message has more than {MAX_HEAD} bytes");
                    }
                    return Ok(());
                };
                self.head.truncate(end + 4);
                chunk = &chunk[end + 4 - before..];
                self.body_left = Some(content_length(&self.head)?);
            }
        }
        Ok(())
    }
}

fn content_length(head: &[u8]) -> Result<usize> {
    for line in head.split(|byte| *byte == b'\n') {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        if name.eq_ignore_ascii_case(b"content-length") {
            return std::str::from_utf8(value)?.trim().parse().context("Content-Length is not a number");
        }
        if name.eq_ignore_ascii_case(b"transfer-encoding") {
            bail!("a message is chunked; this program only reads messages with Content-Length");
        }
    }
    Ok(0)
}

/// The status of an answer, 0 when there is none.
pub fn status(head: &[u8]) -> u16 {
    head.get(9..12).and_then(|code| std::str::from_utf8(code).ok()).and_then(|code| code.parse().ok()).unwrap_or(0)
}

/// The first line of a message, for people.
pub fn first_line(head: &[u8]) -> String {
    String::from_utf8_lossy(head.split(|byte| *byte == b'\r').next().unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_out_whole_however_they_are_cut() {
        let stream =
            b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhelloHTTP/1.1 403 Forbidden\r\nContent-Length:0\r\n\r\n";
        for size in 1..=stream.len() {
            let (mut reader, mut seen) = (Reader::default(), Vec::new());
            for chunk in stream.chunks(size) {
                reader.feed(chunk, |head| seen.push(status(head))).expect("well-formed");
            }
            assert_eq!(seen, [200, 403], "cut into {size} bytes");
        }
    }
}
