//! Parses the answer of an upstream (RFC 9112) from the bytes that a connection received, and does no I/O itself.

use std::mem::MaybeUninit;

use bytes::Buf as _;
use bytes::Bytes;
use bytes::BytesMut;
use http::HeaderValue;
use http::Method;
use http::StatusCode;

use super::chunks::Chunks;
use super::malformed::Malformed;
use crate::target::Answer;

/// Most bytes of everything but the body: the head, the interim (1xx) answers before it, the extensions of chunks and
/// the trailers together.
pub const MAX_HEAD: usize = 64 * 1024;
/// Most headers of one head, and most interim answers.
const MAX_HEADERS: usize = 100;

/// Up to this size a body is copied, so that it does not keep the buffer of its connection.
const COPIED: usize = 16 * 1024;

/// Parses one answer.
#[derive(Debug)]
pub struct AnswerParser {
    /// Bytes of the body that are read.
    max: usize,
    /// Whether the request was a `HEAD`, whose answer has no body.
    is_head: bool,
    /// What is left of [`MAX_HEAD`].
    budget: usize,
    /// What is left of interim answers.
    interim: usize,
    /// Bytes of half a head that were parsed already.
    scanned: usize,
    /// The head, once it is complete.
    head: Option<Head>,
}

/// An answer, and what its connection is worth.
#[derive(Debug)]
pub struct Parsed {
    /// The answer.
    pub answer: Answer,
    /// Whether the connection can take another request: the answer ended where it said, nothing follows it, and the
    /// other side does not close.
    pub is_reusable: bool,
}

impl AnswerParser {
    /// Parses the answer to a request of this method; of its body, `max` bytes are read.
    pub fn new(method: &Method, max: usize) -> Self {
        let is_head = *method == Method::HEAD;
        Self { max, is_head, budget: MAX_HEAD, interim: MAX_HEADERS, scanned: 0, head: None }
    }

    /// Goes on with what was received, and takes what it is done with from the front of `buffer`. `None` when more has
    /// to be received. It is not called again after an answer or an error.
    ///
    /// # Errors
    /// [`Malformed`] when these bytes can never be an answer.
    pub fn parse(&mut self, buffer: &mut BytesMut) -> Result<Option<Parsed>, Malformed> {
        let head = match self.head.take() {
            Some(head) => Some(head),
            None => self.head(buffer)?,
        };
        let Some(mut head) = head else { return Ok(None) };
        let body = match &mut head.framing {
            Framing::Length(length) => {
                let read = usize::try_from(*length).unwrap_or(usize::MAX).min(self.max);
                (buffer.len() >= read).then(|| (take(buffer, read), u64::try_from(read) == Ok(*length)))
            }
            Framing::Chunked(chunks) => {
                let is_whole = chunks.decode(buffer, self.max, &mut self.budget)?;
                is_whole.map(|is_whole| (chunks.take_body(), is_whole))
            }
            Framing::UntilClose => (buffer.len() > self.max).then(|| (take(buffer, self.max), false)),
        };
        match body {
            Some((body, is_whole)) => Ok(Some(head.with(body, is_whole, buffer.is_empty()))),
            None => {
                self.head = Some(head);
                Ok(None)
            }
        }
    }

    /// The other side has closed the connection in due form, and [`parse`](Self::parse) has had all that came.
    ///
    /// # Errors
    /// [`Malformed::Cut`] when the end of the answer is missing.
    pub fn end(&mut self, buffer: &mut BytesMut) -> Result<Parsed, Malformed> {
        match self.head.take() {
            Some(head) if matches!(head.framing, Framing::UntilClose) => {
                let length = buffer.len();
                Ok(head.with(take(buffer, length), true, true))
            }
            _ => Err(Malformed::Cut),
        }
    }

    /// Parses heads until there is one of a final answer.
    fn head(&mut self, buffer: &mut BytesMut) -> Result<Option<Head>, Malformed> {
        loop {
            match buffer.first() {
                None => return Ok(None),
                Some(b'H') => {}
                Some(_) => return Err(Malformed::NoAnswer),
            }
            // One that comes byte by byte is not parsed again with each of them.
            let parsed =
                if self.scanned == 0 || ends_head(buffer, self.scanned) { self.one_head(buffer)? } else { None };
            let Some((head, length)) = parsed else {
                self.scanned = buffer.len();
                return if self.scanned < self.budget { Ok(None) } else { Err(Malformed::TooLong) };
            };
            self.scanned = 0;
            self.budget = self.budget.checked_sub(length).ok_or(Malformed::TooLong)?;
            buffer.advance(length);
            if head.is_some() {
                return Ok(head);
            }
            self.interim = self.interim.checked_sub(1).ok_or(Malformed::TooLong)?;
        }
    }

    /// The head at the front, with its length; none of an interim answer. Nothing when it is not complete.
    fn one_head(&self, buffer: &[u8]) -> Result<Option<(Option<Head>, usize)>, Malformed> {
        let mut headers = [const { MaybeUninit::uninit() }; MAX_HEADERS];
        let mut response = httparse::Response::new(&mut []);
        let parser = httparse::ParserConfig::default();
        match parser.parse_response_with_uninit_headers(&mut response, buffer, &mut headers)? {
            httparse::Status::Partial => Ok(None),
            httparse::Status::Complete(length) => match response.code {
                Some(101) => Err(Malformed::Upgrade),
                Some(100..200) => Ok(Some((None, length))),
                _ => Ok(Some((Some(Head::new(&response, self.is_head)?), length))),
            },
        }
    }
}

/// The head of a final answer, as far as it matters.
#[derive(Debug)]
struct Head {
    status: StatusCode,
    content_type: Option<HeaderValue>,
    retry_after: Option<HeaderValue>,
    /// Whether the other side keeps the connection open.
    keeps_open: bool,
    framing: Framing,
}

/// Where the body ends (RFC 9112 section 6.3).
#[derive(Debug)]
enum Framing {
    Length(u64),
    Chunked(Chunks),
    UntilClose,
}

impl Head {
    fn new(response: &httparse::Response<'_, '_>, is_head: bool) -> Result<Self, Malformed> {
        let status = response.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or(Malformed::Status)?;
        let is_current = response.version == Some(1);
        let (mut content_type, mut retry_after) = (None, None);
        let (mut length, mut is_chunked, mut malformed) = (None, false, None);
        let (mut closes, mut keeps_open) = (false, is_current);
        for header in response.headers.iter() {
            let (is, value) = (|name: &str| header.name.eq_ignore_ascii_case(name), header.value);
            if is("content-length") {
                match content_length(value, length) {
                    Ok(told) => length = Some(told),
                    Err(error) => malformed = Some(error),
                }
            } else if is("content-type") && content_type.is_none() {
                content_type = HeaderValue::from_bytes(value).ok();
            } else if is("connection") {
                closes |= elements(value).any(|element| element.eq_ignore_ascii_case(b"close"));
                keeps_open |= elements(value).any(|element| element.eq_ignore_ascii_case(b"keep-alive"));
            } else if is("transfer-encoding") {
                if is_chunked || !is_current || !value.eq_ignore_ascii_case(b"chunked") {
                    malformed = Some(Malformed::Coding);
                }
                is_chunked = true;
            } else if is("retry-after") && retry_after.is_none() && !status.is_success() {
                retry_after = HeaderValue::from_bytes(value).ok();
            }
        }
        let has_body = !is_head && status != StatusCode::NO_CONTENT && status != StatusCode::NOT_MODIFIED;
        // Chunks go before a length. An answer with both may be an attempt to split it: the connection is not used again.
        closes |= malformed.is_some() || (is_chunked && length.is_some());
        let framing = match (malformed, length) {
            _ if !has_body => Framing::Length(0),
            (Some(malformed), _) => return Err(malformed),
            (None, _) if is_chunked => Framing::Chunked(Chunks::default()),
            (None, Some(length)) => Framing::Length(length),
            (None, None) => Framing::UntilClose,
        };
        Ok(Self { status, content_type, retry_after, keeps_open: keeps_open && !closes, framing })
    }

    /// The answer with this body.
    fn with(self, body: Bytes, is_whole: bool, is_last: bool) -> Parsed {
        let is_framed = !matches!(self.framing, Framing::UntilClose);
        let Self { status, content_type, retry_after, keeps_open, .. } = self;
        let answer = Answer { status, content_type, retry_after, body, is_whole };
        Parsed { answer, is_reusable: keeps_open && is_whole && is_framed && is_last }
    }
}

/// The elements of a list.
fn elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

/// The one length that this value and those `before` say.
fn content_length(value: &[u8], before: Option<u64>) -> Result<u64, Malformed> {
    let number = |element: &[u8]| {
        let digits = Some(element).filter(|element| !element.is_empty())?.iter();
        digits.copied().try_fold(0_u64, |number, digit| {
            let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
            number.checked_mul(10)?.checked_add(digit)
        })
    };
    let mut length = before;
    for element in elements(value) {
        let said = number(element).ok_or(Malformed::Length)?;
        if *length.get_or_insert(said) != said {
            return Err(Malformed::Length);
        }
    }
    length.ok_or(Malformed::Length)
}

/// Whether an empty line ends behind the first `scanned` bytes.
fn ends_head(buffer: &[u8], scanned: usize) -> bool {
    let new = buffer.get(scanned.saturating_sub(3)..).unwrap_or_default();
    let mut ends = new.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    ends.any(|(at, _)| new.get(at + 1..).is_some_and(|rest| rest.starts_with(b"\n") || rest.starts_with(b"\r\n")))
}

/// Takes bytes from the front.
fn take(buffer: &mut BytesMut, length: usize) -> Bytes {
    if length > COPIED {
        return buffer.split_to(length).freeze();
    }
    let taken = Bytes::copy_from_slice(buffer.get(..length).unwrap_or_default());
    buffer.advance(taken.len());
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 40_000;

    /// What became of bytes: status, type, body, whether it is whole, and whether its connection is reusable.
    type Outcome = Result<(u16, Option<Vec<u8>>, Bytes, bool, bool), Malformed>;

    /// Parses what is received in these parts, after which the other side closes.
    fn received(parts: &[&[u8]]) -> Outcome {
        let (mut parser, mut buffer) = (AnswerParser::new(&Method::POST, MAX), BytesMut::new());
        let mut parts = parts.iter();
        let parsed = loop {
            let Some(part) = parts.next() else { break parser.end(&mut buffer)? };
            buffer.extend_from_slice(part);
            if let Some(parsed) = parser.parse(&mut buffer)? {
                break parsed;
            }
        };
        let Parsed { answer, is_reusable } = parsed;
        let content_type = answer.content_type.map(|value| value.as_bytes().to_vec());
        let is_reusable = is_reusable && parts.all(|part| part.is_empty());
        Ok((answer.status.as_u16(), content_type, answer.body, answer.is_whole, is_reusable))
    }

    fn answer(head: &str, rest: &[u8]) -> Vec<u8> {
        let head = format!("HTTP/1.1 200 OK\r\n{head}\r\n");
        [head.as_bytes(), rest].concat()
    }

    fn body(text: &str) -> Outcome {
        received(&[text.as_bytes()])
    }

    /// Answers whose end can be told, each with nothing behind it.
    fn framed() -> Vec<Vec<u8>> {
        let hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 \r\n\r\n".as_slice();
        let chunked = b"5;a=1;b=\"x;y\"\r\nhello\r\n00A \r\n, world...\r\n0;z\r\nX-Late: 1\r\nY:\r\n\r\n".as_slice();
        let long = vec![b'x'; COPIED + 1];
        vec![
            answer("Content-Length: 5\r\nContent-Type: text/plain\r\n", b"hello"),
            answer("content-length: 0\r\n", b""),
            answer("Content-Length: 3, 3\r\nContent-Length: 3\r\nConnection: x, Close\r\n", b"abc"),
            answer("Transfer-Encoding: Chunked\r\n", chunked),
            [hints, &answer("Content-Length: 5\r\n", b"hello")].concat(),
            b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(),
            b"HTTP/1.0 500 No\nConnection: keep-alive\nContent-Length: 2\nRetry-After: 1\n\nno".to_vec(),
            answer(&format!("Content-Length: {}\r\n", long.len()), &long),
        ]
    }

    #[test]
    fn an_answer_is_the_same_wherever_it_is_cut() {
        let malformed: [&[u8]; 5] = [
            b"220 mail.example ESMTP\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Type: a\rb\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloX\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        ];
        let mut all = framed();
        all.extend(framed().into_iter().map(|answer| [answer.as_slice(), b"HTTP/1.1 200 OK\r\n\r\n"].concat()));
        all.extend([answer("", b"until the end"), answer("", &vec![b'x'; MAX + 1])]);
        all.extend(malformed.map(<[u8]>::to_vec));
        for bytes in all {
            let (whole, step) = (received(&[&bytes]).ok(), 1 + bytes.len() / 2000);
            for cut in (0..=bytes.len()).step_by(step) {
                let (front, back) = bytes.split_at(cut);
                assert_eq!(received(&[front, back]).ok(), whole, "{} at {cut}", bytes.escape_ascii());
            }
            let each: Vec<_> = bytes.chunks(step).collect();
            assert_eq!(received(&each).ok(), whole, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn an_answer_that_is_cut_off_is_none() {
        for bytes in framed() {
            let whole = received(&[&bytes]).expect("an answer");
            assert!(whole.3, "{}", bytes.escape_ascii());
            for length in 0..bytes.len() {
                let cut = received(&[&bytes[..length]]);
                assert_eq!(cut, Err(Malformed::Cut), "{length} of {}", bytes.escape_ascii());
            }
        }
    }

    #[test]
    fn a_connection_is_reused_unless_its_answer_says_otherwise() {
        for (head, kept) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", true),
            ("HTTP/1.1 500 No\r\nConnection: x-hop\r\nContent-Length: 0\r\n\r\n", true),
            ("HTTP/1.1 200 OK\r\nConnection: keep-alive, CLOSE\r\nContent-Length: 0\r\n\r\n", false),
            ("HTTP/1.1 200 OK\r\nConnection: close\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n", false),
            ("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", false),
            ("HTTP/1.0 200 OK\r\nConnection: a,Keep-Alive\r\nContent-Length: 0\r\n\r\n", true),
            ("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\n", false),
            ("HTTP/1.1 200 OK\r\n\r\nall", false),
            ("HTTP/1.1 204 No\r\nContent-Length: 3\r\n\r\nabc", false),
            ("HTTP/1.1 304 Same\r\nContent-Length: 3\r\n\r\n", true),
            ("HTTP/1.1 204 No\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n", false),
            ("HTTP/1.1 204 No\r\nContent-Length:\r\n\r\n", false),
        ] {
            assert_eq!(body(head).expect(head).4, kept, "{head}");
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_no_answer() {
        let head = |headers: &str| body(&format!("HTTP/1.1 200 OK\r\n{headers}\r\n0\r\n\r\n"));
        for length in ["5, 6", "", "5,", "+5", "-1", "0x5", "5 5", "18446744073709551616"] {
            assert_eq!(head(&format!("Content-Length: {length}\r\n")), Err(Malformed::Length), "{length}");
        }
        for both in
            ["Content-Length: 5\r\nTransfer-Encoding: chunked", "Transfer-Encoding: chunked\r\nContent-Length: 5"]
        {
            let bytes = format!("HTTP/1.1 200 OK\r\n{both}\r\n\r\n1\r\na\r\n0\r\n\r\n");
            let (.., text, is_whole, is_reusable) = body(&bytes).expect("chunks go before a length");
            assert_eq!((&*text, is_whole, is_reusable), (b"a".as_slice(), true, false), "{both}");
        }
        for coding in
            ["gzip", "gzip, chunked", "chunked, chunked", "chunked\r\nTransfer-Encoding: chunked", "", "identity"]
        {
            assert_eq!(head(&format!("Transfer-Encoding: {coding}\r\n")), Err(Malformed::Coding), "{coding}");
        }
        assert_eq!(body("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), Err(Malformed::Coding));
        for header in ["A: b\rC: d", "A: b\r\n c", "A : b", "A: \0", " A: b", ": b", "A"] {
            assert!(matches!(head(&format!("{header}\r\n")), Err(Malformed::Head(_))), "{header:?}");
        }
        for line in
            ["HTTP/2 200 OK", "HTTP/1.2 200 OK", "HTTP/1.1 20 OK", "HTTP/1.1  200", "HTTP/1.1 099 X", "HTTP/1.1 +99 X"]
        {
            assert!(body(&format!("{line}\r\n\r\n")).is_err(), "{line}");
        }
        assert_eq!(body("\r\nHTTP/1.1 200 OK\r\n\r\n"), Err(Malformed::NoAnswer));
        assert_eq!(body("HTTP/1.1 101 Switching Protocols\r\n\r\n"), Err(Malformed::Upgrade));
        for chunks in [
            "x\r\n",
            "\r\n",
            "5\na",
            "1\r\nabc",
            "1;a\rb\r\n",
            "-1\r\n",
            "10000000000000000\r\n",
            "1 2\r\n",
            "0\r\na\n\r\n",
        ] {
            let bytes = answer("Transfer-Encoding: chunked\r\n", chunks.as_bytes());
            assert_eq!(received(&[&bytes]), Err(Malformed::Chunk), "{chunks:?}");
        }
    }

    #[test]
    fn the_body_is_read_up_to_the_limit() {
        let chunk = |data: &str| format!("{:x}\r\n{data}\r\n", data.len());
        for (length, read, is_whole) in [(MAX, MAX, true), (MAX + 1, MAX, false), (3 * MAX, MAX, false)] {
            let data = "x".repeat(length);
            let (front, back) = data.split_at(length / 2);
            let halves = chunk(front) + &chunk(back);
            for (kind, bytes) in [
                ("length", answer(&format!("Content-Length: {length}\r\n"), data.as_bytes())),
                ("chunk", answer("Transfer-Encoding: chunked\r\n", (chunk(&data) + "0\r\n\r\n").as_bytes())),
                ("chunks", answer("Transfer-Encoding: chunked\r\n", (halves + "0\r\n\r\n").as_bytes())),
                ("end", answer("", data.as_bytes())),
            ] {
                let (_, _, body, whole, is_reusable) = received(&[&bytes]).expect(kind);
                assert_eq!((body.len(), whole), (read, is_whole), "{kind} {length}");
                assert_eq!(is_reusable, is_whole && kind != "end", "{kind} {length}");
            }
        }
    }

    #[test]
    fn what_stands_beside_the_body_is_read_up_to_the_limit() {
        let filled = |before: &str, after: &str, length: usize| {
            let fill = "x".repeat(length - before.len() - after.len());
            received(&[format!("{before}{fill}{after}").as_bytes()])
        };
        let interim = "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(MAX_HEADERS);
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        for (before, after, dropped) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX: ".to_owned(), "\r\n\r\n", 0),
            (format!("{interim}HTTP/1.1 204 No\r\nX: "), "\r\n\r\n", 0),
            (format!("{chunked}0;"), "\r\n\r\n", 5),
            (format!("{chunked}1;\r\na\r\n0\r\nX: "), "\r\n\r\n", 13),
        ] {
            assert!(filled(&before, after, MAX_HEAD + dropped).is_ok(), "{before}");
            assert_eq!(filled(&before, after, MAX_HEAD + dropped + 1), Err(Malformed::TooLong), "{before}");
        }
        for (before, after) in
            [("HTTP/1.1 200 OK\r\nX: ", ""), (&format!("{chunked}0;"), ""), (&format!("{chunked}0\r\nX"), "")]
        {
            assert_eq!(filled(before, after, MAX_HEAD + 100), Err(Malformed::TooLong), "{before}");
        }
        let headers = |count| body(&format!("HTTP/1.1 204 No\r\n{}\r\n", "X: 1\r\n".repeat(count)));
        assert!(headers(MAX_HEADERS).is_ok());
        assert_eq!(headers(MAX_HEADERS + 1), Err(Malformed::Head(httparse::Error::TooManyHeaders)));
        let interim = |count| body(&("HTTP/1.1 100 Continue\r\n\r\n".repeat(count) + "HTTP/1.1 204 No\r\n\r\n"));
        assert!(interim(MAX_HEADERS).is_ok());
        assert_eq!(interim(MAX_HEADERS + 1), Err(Malformed::TooLong));
    }

    #[test]
    fn an_answer_to_head_has_no_body() {
        let mut parser = AnswerParser::new(&Method::HEAD, MAX);
        let mut buffer = BytesMut::from("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n");
        let parsed = parser.parse(&mut buffer).expect("an answer").expect("its end");
        assert!(parsed.is_reusable && parsed.answer.is_whole && parsed.answer.body.is_empty());
    }

    #[test]
    fn a_small_body_does_not_keep_the_buffer() {
        for (length, is_kept) in [(COPIED, true), (COPIED + 1, false)] {
            let bytes = answer(&format!("Content-Length: {length}\r\n"), &vec![b'x'; length]);
            let mut buffer = BytesMut::from(bytes.as_slice());
            let parsed = AnswerParser::new(&Method::POST, MAX).parse(&mut buffer).expect("an answer").expect("its end");
            assert_eq!((parsed.answer.body.len(), buffer.try_reclaim(bytes.len())), (length, is_kept));
        }
    }

    #[test]
    fn only_refusals_say_when_to_come_again() {
        for (status, is_said) in [(200, false), (429, true), (503, true)] {
            let bytes = format!("HTTP/1.1 {status} X\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n");
            let mut parser = AnswerParser::new(&Method::POST, MAX);
            let parsed = parser.parse(&mut BytesMut::from(bytes.as_str())).expect("an answer").expect("its end");
            assert_eq!(parsed.answer.retry_after.is_some(), is_said, "{status}");
        }
    }
}
