//! The request of one attempt, as it is written to a connection.

use std::borrow::Cow;

use bytes::Bytes;
use http::Method;

use super::address::Address;
use crate::message::Message;
use crate::target::Attempt;
use crate::target::Failure;
use crate::target::headers;

/// A request to an upstream.
#[derive(Debug)]
pub(super) struct Request<'a> {
    address: &'a Address,
    message: &'a Message,
    attempt: &'a Attempt<'a>,
    /// Path and query.
    path: Cow<'a, str>,
}

impl<'a> Request<'a> {
    /// The request of this attempt.
    ///
    /// # Errors
    /// [`Failure::Unsendable`] when there can be none.
    pub(super) fn new(address: &'a Address, message: &'a Message, attempt: &'a Attempt<'a>) -> Result<Self, Failure> {
        Ok(Self { address, message, attempt, path: address.path_for(message)? })
    }

    pub(super) fn method(&self) -> &Method {
        &self.message.method
    }

    pub(super) fn body(&self) -> &'a Bytes {
        &self.message.body
    }

    /// Writes the request line and the headers.
    pub(super) fn write_head(&self, out: &mut Vec<u8>) {
        let mut write = |parts: &[&[u8]]| parts.iter().for_each(|part| out.extend_from_slice(part));
        write(&[self.message.method.as_str().as_bytes(), b" ", self.path.as_bytes(), b" HTTP/1.1\r\n"]);
        headers::of_attempt(self.message, self.attempt, &self.address.authority, &mut |name, value| {
            write(&[name.as_str().as_bytes(), b": ", value, b"\r\n"]);
        });
        write(&[b"\r\n"]);
    }
}
