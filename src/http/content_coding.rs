//! Decompresses bodies by their content coding, gzip or deflate (RFC 9110 section 8.4).
//!
//! `Content-Encoding` is not signed: an attacker can add it, remove it, or compress signed bytes again. So a body must
//! be unambiguous: one coding, one stream with a valid checksum, and no data after it. Text is not accepted as
//! compressed, and compressed bytes are not accepted as text.

use std::io::Read as _;

use flate2::bufread::GzDecoder;
use flate2::bufread::ZlibDecoder;
use http::HeaderMap;
use http::header;

/// The most bytes that are decompressed at a time, which takes some tens of microseconds.
pub const SLICE: usize = 16 * 1024;

/// The content coding of a compressed body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// `gzip` or `x-gzip` (RFC 1952).
    Gzip,
    /// `deflate`, in the zlib format (RFC 1950). Raw DEFLATE (RFC 1951) under this name is not accepted: it has neither
    /// a header nor a checksum.
    Deflate,
}

/// The body has another content coding, or several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the body has a content encoding besides gzip and deflate, or several")]
pub struct Unsupported;

/// The body is not valid in its content coding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Garbled {
    /// The bytes have another format, or are raw DEFLATE.
    #[error(
        "the body is not what its content encoding says: it does not begin as gzip does, or deflate in the form of zlib"
    )]
    WrongFormat,
    /// The stream is invalid or truncated, or its checksum is wrong.
    #[error("the body is not what its content encoding says: it is damaged, or cut short")]
    Corrupt,
    /// Data follows the end of the stream: another stream, or something else.
    #[error("the body is not what its content encoding says: something stands behind the end of what is compressed")]
    TrailingData,
}

impl Coding {
    /// The coding that the headers name; `None` for a body that is not compressed.
    ///
    /// # Errors
    /// [`Unsupported`] for another coding, or several.
    pub fn from_headers(headers: &HeaderMap) -> Result<Option<Self>, Unsupported> {
        let mut coding = None;
        for value in headers.get_all(header::CONTENT_ENCODING) {
            let is = |name: &str| value.as_bytes().eq_ignore_ascii_case(name.as_bytes());
            let next = match () {
                () if is("identity") => continue,
                () if is("gzip") || is("x-gzip") => Self::Gzip,
                () if is("deflate") => Self::Deflate,
                () => return Err(Unsupported),
            };
            if coding.replace(next).is_some() {
                return Err(Unsupported);
            }
        }
        Ok(coding)
    }

    /// Its name in the header.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
        }
    }

    /// Decompresses a body; `None` when the result has more than `max` bytes.
    ///
    /// # Errors
    /// [`Garbled`] unless the body is exactly one valid stream.
    pub fn decompress(self, sent: &[u8], max: usize) -> Result<Option<Vec<u8>>, Garbled> {
        let mut decoder = Decoder::new(self, sent)?;
        let mut plain = Vec::new();
        let mut slice = [0; SLICE];
        while let Some(next) = decoder.next(&mut slice)? {
            plain.extend_from_slice(next);
            if plain.len() > max {
                return Ok(None);
            }
        }
        Ok(Some(plain))
    }
}

/// Whether a body without a content coding looks compressed. Text never does.
pub fn looks_compressed(body: &[u8]) -> bool {
    match body {
        [0x1f, 0x8b, ..] => true,
        [first, second, ..] => is_zlib(*first, *second) && !is_text(body),
        _ => false,
    }
}

/// Whether bytes are UTF-8 text. Many short zlib streams would be, except for their zero bytes.
fn is_text(body: &[u8]) -> bool {
    std::str::from_utf8(body).is_ok() && !body.contains(&0)
}

/// Whether two bytes are a zlib header (RFC 1950 section 2.2) for DEFLATE without a dictionary.
fn is_zlib(first: u8, second: u8) -> bool {
    first & 0x8f == 0x08 && second & 0x20 == 0 && u16::from_be_bytes([first, second]).is_multiple_of(31)
}

/// Decompresses a body slice by slice.
#[derive(Debug)]
pub struct Decoder<'b>(Stream<'b>);

#[derive(Debug)]
enum Stream<'b> {
    /// An empty body, which is accepted as compressed.
    Empty,
    Gzip(Box<GzDecoder<&'b [u8]>>),
    Zlib(ZlibDecoder<&'b [u8]>),
}

impl<'b> Decoder<'b> {
    /// A decoder of a complete body.
    ///
    /// # Errors
    /// [`Garbled`] when the body does not begin like this coding, or could be read in another way too.
    pub fn new(coding: Coding, sent: &'b [u8]) -> Result<Self, Garbled> {
        let stream = match (coding, sent) {
            (_, []) => Stream::Empty,
            (Coding::Gzip, [0x1f, 0x8b, ..]) => Stream::Gzip(Box::new(GzDecoder::new(sent))),
            (Coding::Deflate, [0x1f, 0x8b, ..]) => return Err(Garbled::WrongFormat),
            (Coding::Deflate, _) if looks_compressed(sent) && !may_be_raw_deflate(sent) => {
                Stream::Zlib(ZlibDecoder::new(sent))
            }
            _ => return Err(Garbled::WrongFormat),
        };
        Ok(Self(stream))
    }

    /// Decompresses into `slice`, and returns the part of it that was filled; `None` at the end.
    ///
    /// # Errors
    /// [`Garbled`] when the stream is corrupt or truncated, or data follows it.
    pub fn next<'s>(&mut self, slice: &'s mut [u8]) -> Result<Option<&'s [u8]>, Garbled> {
        let read = match &mut self.0 {
            Stream::Empty => Ok(0),
            Stream::Gzip(decoder) => decoder.read(slice),
            Stream::Zlib(decoder) => decoder.read(slice),
        };
        match read {
            Ok(0) if self.is_at_end() => Ok(None),
            Ok(count @ 1..) => slice.get(..count).map(Some).ok_or(Garbled::Corrupt),
            Ok(_) => Err(Garbled::TrailingData),
            Err(_) => Err(Garbled::Corrupt),
        }
    }

    /// Whether no data follows the stream.
    fn is_at_end(&self) -> bool {
        match &self.0 {
            Stream::Empty => true,
            Stream::Gzip(decoder) => decoder.get_ref().is_empty(),
            Stream::Zlib(decoder) => decoder.get_ref().is_empty(),
        }
    }
}

/// Whether a zlib stream may also be raw DEFLATE, as which some applications read this coding: its header would be that
/// of a stored block, followed by the length and its complement (RFC 1951 section 3.2.4). One in 60,000 genuine bodies
/// is refused because of it.
fn may_be_raw_deflate(sent: &[u8]) -> bool {
    matches!(sent, [_, low, high, not_low, not_high, ..] if low ^ not_low == 0xff && high ^ not_high == 0xff)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::GzBuilder;
    use flate2::write::DeflateEncoder;
    use flate2::write::GzEncoder;
    use flate2::write::ZlibEncoder;
    use http::HeaderValue;

    use super::*;

    const TEXT: &[u8] = br#"{"type":"message.new","message":{"text":"hi hi hi hi hi hi"}}"#;

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text).expect("memory");
        encoder.finish().expect("memory")
    }

    fn zlib(text: &[u8], level: Compression) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), level);
        encoder.write_all(text).expect("memory");
        encoder.finish().expect("memory")
    }

    fn plain(coding: Coding, sent: &[u8]) -> Result<Vec<u8>, Garbled> {
        coding.decompress(sent, usize::MAX).map(Option::unwrap_or_default)
    }

    #[test]
    fn what_was_compressed_comes_out_again() {
        let noise: Vec<u8> =
            (0..300_000_u32).flat_map(|number| number.wrapping_mul(2_654_435_761).to_be_bytes()).collect();
        for text in [TEXT, b"", b"x", &noise, &vec![b' '; 1 << 20]] {
            assert!(plain(Coding::Gzip, &gzip(text)).as_deref() == Ok(text));
            for level in [Compression::none(), Compression::fast(), Compression::best()] {
                assert!(plain(Coding::Deflate, &zlib(text, level)).as_deref() == Ok(text));
            }
        }
        assert_eq!((plain(Coding::Gzip, b""), plain(Coding::Deflate, b"")), (Ok(Vec::new()), Ok(Vec::new())));
        let named = GzBuilder::new().filename("body.json").write(Vec::new(), Compression::fast());
        let named = { named }.finish().expect("memory");
        assert_eq!(plain(Coding::Gzip, &named).as_deref(), Ok(&b""[..]), "the command line tool writes a name");
    }

    #[test]
    fn nothing_but_one_whole_stream_is_taken() {
        for (coding, sent) in [(Coding::Gzip, gzip(TEXT)), (Coding::Deflate, zlib(TEXT, Compression::best()))] {
            for end in 1..sent.len() {
                let cut = if end == 1 { Garbled::WrongFormat } else { Garbled::Corrupt };
                assert_eq!(plain(coding, &sent[..end]), Err(cut), "{coding:?} cut at {end}");
            }
            for extra in [&b"\0"[..], b"{}", &sent] {
                assert_eq!(
                    plain(coding, &[&sent, extra].concat()),
                    Err(Garbled::TrailingData),
                    "{coding:?} and {extra:?}"
                );
            }
            // The checksum is at the end.
            for at in 1..=4 {
                let mut wrong = sent.clone();
                let at = wrong.len() - at;
                wrong[at] ^= 1;
                assert_eq!(plain(coding, &wrong), Err(Garbled::Corrupt), "{coding:?}, byte {at}");
            }
        }
    }

    #[test]
    fn no_coding_is_taken_for_another_or_for_text() {
        let mut bare = DeflateEncoder::new(Vec::new(), Compression::best());
        bare.write_all(TEXT).expect("memory");
        let bare = bare.finish().expect("memory");
        for sent in [&bare[..], TEXT, &gzip(TEXT), b"x^a=b", b"x"] {
            assert_eq!(plain(Coding::Deflate, sent), Err(Garbled::WrongFormat), "{}", sent.escape_ascii());
        }
        for sent in [&bare[..], TEXT, &zlib(TEXT, Compression::best())] {
            assert_eq!(plain(Coding::Gzip, sent), Err(Garbled::WrongFormat), "{}", sent.escape_ascii());
        }
    }

    #[test]
    fn a_stream_that_is_another_text_without_zlibs_head_is_not_taken() {
        // Bare, it is a stored block of 0x?01 bytes.
        assert!(
            may_be_raw_deflate(&[0x78, 0x01, 0x02, 0xfe, 0xfd]) && !may_be_raw_deflate(&[0x78, 0x01, 0x02, 0xfe, 0xfc])
        );
        let mut sent = zlib(TEXT, Compression::best());
        assert!(!may_be_raw_deflate(&sent));
        sent[3] = !sent[1];
        sent[4] = !sent[2];
        assert_eq!(Decoder::new(Coding::Deflate, &sent).err(), Some(Garbled::WrongFormat));
    }

    #[test]
    fn what_looks_compressed_is_no_text() {
        for sent in [gzip(TEXT), zlib(TEXT, Compression::best()), zlib(TEXT, Compression::none())] {
            assert!(looks_compressed(&sent));
        }
        for text in [TEXT, b"", b"x", b"x^a=1&b=2", b"a=1", "x\u{1}\u{e9}".as_bytes(), b"\xff\xfe"] {
            assert!(!looks_compressed(text), "{}", text.escape_ascii());
        }
    }

    #[test]
    fn no_more_is_decompressed_than_is_wanted() {
        let bomb = gzip(&vec![0; 1 << 24]);
        assert_eq!(Coding::Gzip.decompress(&bomb, 1 << 20), Ok(None));
        let exact = gzip(&[0; 1000]);
        assert_eq!(Coding::Gzip.decompress(&exact, 1000), Ok(Some(vec![0; 1000])));
        assert_eq!(Coding::Gzip.decompress(&exact, 999), Ok(None));
    }

    #[test]
    fn headers_name_one_coding_at_most() {
        for (values, expected) in [
            (&[][..], Ok(None)),
            (&["identity", "Identity"], Ok(None)),
            (&["gzip"], Ok(Some(Coding::Gzip))),
            (&["X-GZip"], Ok(Some(Coding::Gzip))),
            (&["identity", "deflate"], Ok(Some(Coding::Deflate))),
            (&["gzip", "gzip"], Err(Unsupported)),
            (&["gzip, gzip"], Err(Unsupported)),
            (&["identity, gzip"], Err(Unsupported)),
            (&["br"], Err(Unsupported)),
            (&["zstd"], Err(Unsupported)),
            (&[""], Err(Unsupported)),
        ] {
            let headers = values.iter().map(|value| (header::CONTENT_ENCODING, HeaderValue::from_static(value)));
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.append(name, value);
            }
            assert_eq!(Coding::from_headers(&map), expected, "{values:?}");
        }
    }
}
