//! The signed requests that are sent, as a few providers make them.

use std::ops::Range;
use std::time::SystemTime;

use anyhow::Context;
use anyhow::Result;
use anyhow::ensure;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::Hmac;
use hmac::KeyInit;
use hmac::Mac;
use sha1::Sha1;
use sha2::Sha256;

use crate::client::Options;

// What stands in a head for what differs from request to request, byte for byte.
const SIGNATURE: char = '\u{1}';
const ID: char = '\u{2}';
const ORDER: char = '\u{3}';
/// Digits of an id.
const ID_DIGITS: usize = 16;
const ORDER_DIGITS: usize = 4;
/// Most bytes of a signature.
const MAX_SIGNATURE: usize = 64;

/// Whose webhooks are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Provider {
    /// HMAC-SHA256 of time and body in hex, each in a header of its own; one long text in JSON.
    Offergrid,
    /// The same, with both in one header; JSON with many members.
    Stripe,
    /// HMAC-SHA1 of the address and the sorted form in base64.
    Twilio,
    /// A token that is the same in all requests; JSON with many members.
    Jwt,
}

impl Provider {
    /// Its headers for a body of this many bytes, each with its end.
    fn headers(self, bytes: usize, time: u64, token: &str) -> String {
        let (hex, base64) = (String::from(SIGNATURE).repeat(64), String::from(SIGNATURE).repeat(28));
        match self {
            Self::Offergrid => {
                format!(
                    "User-Agent: Offergrid-Webhooks/1.0\r\nContent-Type: application/json\r\n\
                     Content-Length: {bytes}\r\nX-Offergrid-Timestamp: {time}\r\nX-Offergrid-Signature: {hex}\r\n"
                )
            }
            Self::Stripe => format!(
                "User-Agent: Stripe/1.0 (+https://stripe.com/docs/webhooks)\r\nAccept: */*; q=0.5, application/xml\r\n\
                 Content-Type: application/json; charset=utf-8\r\nContent-Length: {bytes}\r\nCache-Control: no-cache\r\n\
                 Stripe-Signature: t={time},v1={hex}\r\n"
            ),
            Self::Twilio => format!(
                "User-Agent: TwilioProxy/1.1\r\nAccept: */*\r\nContent-Length: {bytes}\r\n\
                 Content-Type: application/x-www-form-urlencoded; charset=UTF-8\r\nX-Twilio-Signature: {base64}\r\n"
            ),
            Self::Jwt => format!(
                "User-Agent: APIs-Google; (+https://developers.google.com/webmasters/APIs-Google.html)\r\n\
                 Accept: application/json\r\nContent-Type: application/json\r\nContent-Length: {bytes}\r\n\
                 Authorization: Bearer {token}\r\n"
            ),
        }
    }

    /// The beginning of the body, with what differs from request to request.
    fn beginning(self) -> String {
        let (id, order) = (String::from(ID).repeat(ID_DIGITS), String::from(ORDER).repeat(ORDER_DIGITS));
        match self {
            Self::Offergrid => {
                format!(r#"{{"id":"evt_{id}","order":"{order}","event":"order.created","data":""#)
            }
            Self::Stripe | Self::Jwt => {
                format!(r#"{{"id":"evt_{id}","order":"{order}","type":"order.created","created":1735812000,"items":["#)
            }
            // In the order of the names, so that nothing is left to sort for the signature.
            Self::Twilio => format!(
                "AccountSid=AC00000000000000000000000000000000&From=%2B15005550006&MessageSid=SM{id}{order}\
                 &MessageStatus=delivered&To=%2B15558675310"
            ),
        }
    }

    /// The rest of the body, of this many bytes.
    fn filler(self, bytes: usize) -> Result<Vec<u8>> {
        let (item, end): (fn(usize) -> String, [&str; 2]) = match self {
            Self::Offergrid => (|number| String::from(char::from(b'a' + (number % 26) as u8)), ["", r#""}"#]),
            Self::Stripe | Self::Jwt => (
                |number| {
                    format!(
                        r#"{{"sku":"sku_{number:06}","name":"High-Speed Internet","quantity":{},"price":49.95,"gift":false}},"#,
                        number % 9 + 1
                    )
                },
                [r#"{"note":""#, r#""}]}"#],
            ),
            Self::Twilio => (
                |number| format!("&Value{number:06}=%2B15005550006+to+%2B15558675310%2C+a+part+of+the+message"),
                ["&Z=", ""],
            ),
        };
        let fixed = end.concat().len();
        ensure!(bytes >= fixed, "a body has at least {} bytes", self.beginning().len() + fixed);
        let mut filler = String::new();
        for number in 0.. {
            let item = item(number);
            if filler.len() + item.len() + fixed > bytes {
                break;
            }
            filler += &item;
        }
        filler += end[0];
        filler += &"x".repeat(bytes - filler.len() - end[1].len());
        filler += end[1];
        Ok(filler.into_bytes())
    }

    /// A part of the body as it is signed: of forms, names and values one after the other.
    fn signed(self, part: &[u8]) -> Vec<u8> {
        match self {
            Self::Offergrid | Self::Stripe | Self::Jwt => part.to_vec(),
            Self::Twilio => {
                let text = String::from_utf8_lossy(part).replace(['&', '='], "").replace('+', " ");
                text.replace("%2B", "+").replace("%2C", ",").into_bytes()
            }
        }
    }
}

/// From a body up to its filler to the signature of all of it.
type Sign = Box<dyn Fn(&[u8]) -> String>;

/// Signed requests. They differ in id and signature only, so just the signatures are kept: bodies of 64 KiB times the
/// requests of a run would not fit into memory.
pub struct Requests {
    /// Everything before the filler, with gaps for what differs.
    pub head: Vec<u8>,
    signature_at: Range<usize>,
    id_at: Range<usize>,
    order_at: Range<usize>,
    pub filler: Vec<u8>,
    seed: u64,
    orders: u64,
    signatures: Vec<[u8; MAX_SIGNATURE]>,
}

impl Requests {
    pub fn sign(options: &Options) -> Result<Self> {
        let (address, path) = crate::split_url(&options.to)?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).context("the clock is before 1970")?;
        let (provider, time) = (options.provider, now.as_secs());
        let headers = provider.headers(options.body, time, options.token.as_deref().unwrap_or_default());
        let close = if options.close { "Connection: close\r\n" } else { "" };
        let beginning = provider.beginning();
        let head = format!("POST {path} HTTP/1.1\r\nHost: {address}\r\n{close}{headers}\r\n{beginning}");
        let body_at = head.len() - beginning.len();
        let room = options.body.checked_sub(beginning.len()).context("there is no room for the beginning of a body")?;
        let gap = |mark: char| {
            let at = head.find(mark).unwrap_or_default();
            at..at + head.matches(mark).count()
        };
        let mut requests = Self {
            signature_at: gap(SIGNATURE),
            id_at: gap(ID),
            order_at: gap(ORDER),
            filler: provider.filler(room)?,
            // Nanoseconds, so that the ids of different runs differ: a run takes more of them than it has requests.
            seed: now.as_nanos() as u64,
            orders: options.orders.clamp(1, 10_000),
            signatures: Vec::new(),
            head: head.clone().into_bytes(),
        };
        let sign = signer(options, time, &requests.filler)?;
        let mut head = requests.head.clone();
        for number in 0..options.budget() {
            requests.number(&mut head, number);
            let mut signature = [b'0'; MAX_SIGNATURE];
            if !options.forged {
                let text = sign(&head[body_at..]);
                signature[..text.len()].copy_from_slice(text.as_bytes());
            }
            requests.signatures.push(signature);
        }
        Ok(requests)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.signatures.len()
    }

    /// Fills the gaps of a head.
    pub fn fill(&self, head: &mut [u8], number: usize) {
        let gap = &mut head[self.signature_at.clone()];
        gap.copy_from_slice(&self.signatures[number][..gap.len()]);
        self.number(head, number as u64);
    }

    fn number(&self, head: &mut [u8], number: u64) {
        head[self.id_at.clone()].copy_from_slice(&self.id(number));
        head[self.order_at.clone()].copy_from_slice(&self.order(number));
    }

    /// Ids look random, as real ones do, and never repeat: this mixing (of SplitMix64) maps no two numbers to one.
    fn id(&self, number: u64) -> [u8; ID_DIGITS] {
        let mut mixed = self.seed.wrapping_add(number);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        let mut id = [0; ID_DIGITS];
        for (index, digit) in id.iter_mut().enumerate() {
            *digit = b"0123456789abcdef"[(mixed >> (4 * index)) as usize & 15];
        }
        id
    }

    fn order(&self, number: u64) -> [u8; ORDER_DIGITS] {
        let mut left = number % self.orders;
        let mut order = [b'0'; ORDER_DIGITS];
        for digit in order.iter_mut().rev() {
            *digit += (left % 10) as u8;
            left /= 10;
        }
        order
    }
}

fn signer(options: &Options, time: u64, filler: &[u8]) -> Result<Sign> {
    let (provider, secret) = (options.provider, options.secret.as_bytes());
    let filler = provider.signed(filler);
    Ok(match provider {
        Provider::Offergrid | Provider::Stripe => {
            let key = Hmac::<Sha256>::new_from_slice(secret).context("the secret is not a key")?;
            let key = key.chain_update(format!("{time}."));
            Box::new(move |begun| {
                hex::encode(key.clone().chain_update(begun).chain_update(&filler).finalize().into_bytes())
            })
        }
        Provider::Twilio => {
            let key = Hmac::<Sha1>::new_from_slice(secret).context("the secret is not a key")?;
            let key = key.chain_update(&options.to);
            Box::new(move |begun| {
                let begun = provider.signed(begun);
                STANDARD.encode(key.clone().chain_update(begun).chain_update(&filler).finalize().into_bytes())
            })
        }
        Provider::Jwt => Box::new(|_begun| String::new()),
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        options: Options,
    }

    #[test]
    fn bodies_have_the_size_that_is_asked_for_and_no_two_requests_are_alike() {
        for provider in ["offergrid", "stripe", "twilio", "jwt"] {
            for size in [300, 512, 8192, 65536] {
                let options = Command::parse_from([
                    "load",
                    "--provider",
                    provider,
                    "--body",
                    &size.to_string(),
                    "--to=http://127.0.0.1:1/webhooks/test",
                    "--connections=1",
                    "--requests=2",
                    "--pid=1",
                    "--upstream=127.0.0.1:2",
                    "--secret=hush",
                    "--proxy=test",
                    "--token=token",
                ])
                .options;
                let requests = Requests::sign(&options).expect("there is room in the body");
                let text = |number| {
                    let mut head = requests.head.clone();
                    requests.fill(&mut head, number);
                    String::from_utf8([head, requests.filler.clone()].concat()).expect("ASCII")
                };
                let (first, second) = (text(0), text(1));
                assert_ne!(first, second);
                assert!(!first.contains([SIGNATURE, ID, ORDER]), "{first}");
                let (_head, body) = first.split_once("\r\n\r\n").expect("a head");
                assert_eq!(body.len(), size, "{provider}");
                let json = serde_json::from_str::<serde_json::Value>(body);
                assert_eq!(json.is_ok(), provider != "twilio", "{body}");
            }
        }
    }
}
