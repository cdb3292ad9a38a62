//! Decodes a chunked body (RFC 9112 section 7.1); extensions and trailers are dropped.

use bytes::Buf as _;
use bytes::Bytes;
use bytes::BytesMut;

use super::malformed::Malformed;

/// Most hexadecimal digits of the size of a chunk.
const MAX_DIGITS: usize = 16;
/// Ends a line, and the data of a chunk.
const CRLF: &[u8] = b"\r\n";

/// A body of which the chunks are being read.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    step: Step,
    body: Vec<u8>,
    /// Bytes of half a line that were searched for its end already.
    scanned: usize,
}

/// What comes next.
#[derive(Debug, Default, Clone, Copy)]
enum Step {
    #[default]
    Size,
    /// So many bytes of a chunk.
    Data(u64),
    /// The end of a chunk's data.
    DataEnd,
    /// The trailers, up to an empty line.
    Trailers,
}

impl Chunks {
    /// Takes what came from the front of `buffer`, with at most `max` bytes of data, and at most `budget` of what is
    /// dropped. Whether it is the whole body; nothing when more has to come.
    ///
    /// # Errors
    /// [`Malformed`] when it can never be one.
    pub(super) fn decode(
        &mut self,
        buffer: &mut BytesMut,
        max: usize,
        budget: &mut usize,
    ) -> Result<Option<bool>, Malformed> {
        loop {
            let room = max.saturating_sub(self.body.len());
            match self.step {
                Step::Size => {
                    let Some(line) = self.line(buffer, *budget)? else { return Ok(None) };
                    let (size, digits) = line.get(buffer).and_then(size).ok_or(Malformed::Chunk)?;
                    spend(budget, line.length - digits)?;
                    buffer.advance(line.length + CRLF.len());
                    self.step = match size {
                        0 => Step::Trailers,
                        _ if room == 0 => return Ok(Some(false)),
                        size => Step::Data(size),
                    };
                }
                Step::Data(left) => {
                    let data = usize::try_from(left).unwrap_or(usize::MAX).min(room).min(buffer.len());
                    self.body.extend_from_slice(buffer.get(..data).unwrap_or_default());
                    buffer.advance(data);
                    let left = left - u64::try_from(data).unwrap_or(left);
                    self.step = if left == 0 { Step::DataEnd } else { Step::Data(left) };
                    if left > 0 {
                        return Ok((data == room).then_some(false));
                    }
                }
                Step::DataEnd => {
                    let Some(end) = buffer.get(..CRLF.len()) else { return Ok(None) };
                    if end != CRLF {
                        return Err(Malformed::Chunk);
                    }
                    buffer.advance(CRLF.len());
                    self.step = Step::Size;
                }
                Step::Trailers => {
                    let Some(line) = self.line(buffer, *budget)? else { return Ok(None) };
                    spend(budget, line.length)?;
                    buffer.advance(line.length + CRLF.len());
                    if line.length == 0 {
                        return Ok(Some(true));
                    }
                }
            }
        }
    }

    /// The data that was read.
    pub(super) fn take_body(&mut self) -> Bytes {
        std::mem::take(&mut self.body).into()
    }

    /// The line at the front; nothing when its end has not come.
    fn line(&mut self, buffer: &[u8], budget: usize) -> Result<Option<Line>, Malformed> {
        let new = buffer.get(self.scanned..).unwrap_or_default();
        let Some(at) = new.iter().position(|byte| *byte == b'\n') else {
            self.scanned = buffer.len();
            let is_too_long = self.scanned > budget + MAX_DIGITS + CRLF.len();
            return if is_too_long { Err(Malformed::TooLong) } else { Ok(None) };
        };
        let end = std::mem::take(&mut self.scanned) + at;
        // No end but this one, and a whole one.
        let returns = buffer.get(..end).unwrap_or_default().iter().position(|byte| *byte == b'\r');
        match returns {
            Some(length) if length + 1 == end => Ok(Some(Line { length })),
            _ => Err(Malformed::Chunk),
        }
    }
}

/// The line at the front of a buffer.
#[derive(Debug, Clone, Copy)]
struct Line {
    /// Without its end.
    length: usize,
}

impl Line {
    fn get(self, buffer: &[u8]) -> Option<&[u8]> {
        buffer.get(..self.length)
    }
}

/// The size of a chunk, and how many digits it is written with.
fn size(line: &[u8]) -> Option<(u64, usize)> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (number, rest) = line.split_at_checked(digits).filter(|_| digits <= MAX_DIGITS)?;
    let is_extension = matches!(rest.trim_ascii_start().first(), None | Some(b';'));
    let number = u64::from_str_radix(str::from_utf8(number).ok()?, 16).ok()?;
    is_extension.then_some((number, digits))
}

/// Counts bytes that are dropped.
fn spend(budget: &mut usize, bytes: usize) -> Result<(), Malformed> {
    *budget = budget.checked_sub(bytes).ok_or(Malformed::TooLong)?;
    Ok(())
}
