//! The address of an app, and which queries of requests are appended to it.

use std::borrow::Cow;

use http::HeaderValue;
use http::Uri;

use crate::base::query::Names;
use crate::message::Message;
use crate::target::Failure;
use crate::target::tls::Tls;

/// Which requests have their query appended to the address of the app.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Forward {
    /// None.
    #[default]
    Never,
    /// Verified ones, for providers that sign the query.
    Verified,
    /// All, although the query may be unsigned.
    Always,
}

/// The address of an app.
#[derive(Debug, Clone)]
pub struct Address {
    pub(super) host: String,
    pub(super) port: u16,
    /// Path and query.
    path: String,
    /// The parameters of its own query, which no sender can give another value.
    own_parameters: Names,
    forward: Forward,
    pub(super) authority: HeaderValue,
    pub(super) tls: Option<Tls>,
}

impl Address {
    /// Host and port: the unit that has one circuit breaker.
    pub fn endpoint(&self) -> (String, u16) {
        (self.host.clone(), self.port)
    }

    /// Reads an `http` or `https` URL.
    ///
    /// # Errors
    /// What is wrong with it and what would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        // Credentials must not appear in the error.
        let shown = if text.contains('@') { "this".to_owned() } else { format!("{text:?}") };
        let wrong = || format!("{shown} is not a URL such as \"http://127.0.0.1:3000/webhooks\"");
        let uri: Uri = text.parse().map_err(|_bad| wrong())?;
        let authority = uri.authority().ok_or_else(wrong)?;
        if authority.as_str().contains('@') {
            return Err("has credentials, which are not sent; remove them".to_owned());
        }
        let (secure, default_port) = match uri.scheme_str() {
            Some("http") => (false, 80),
            Some("https") => (true, 443),
            _ => return Err(wrong()),
        };
        let host = authority.host();
        let port = match authority.port_u16() {
            Some(port) => port,
            None if authority.as_str() == host => default_port,
            None => return Err(format!("{shown} has no port from 0 to 65535 after its host")),
        };
        let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        let path: Uri = path.parse().map_err(|_bad| wrong())?;
        Ok(Self {
            host: host.trim_matches(['[', ']']).to_owned(),
            port,
            path: path.to_string(),
            own_parameters: uri.query().map(Names::of_query).unwrap_or_default(),
            forward: Forward::default(),
            authority: HeaderValue::from_str(authority.as_str()).map_err(|_bad| wrong())?,
            tls: if secure { Some(Tls::new(host)?) } else { None },
        })
    }

    /// The same address with the queries of these requests appended.
    #[must_use]
    pub fn forwarding(mut self, forward: Forward) -> Self {
        self.forward = forward;
        self
    }

    /// Path and query for a message.
    pub(super) fn path_for(&self, message: &Message) -> Result<Cow<'_, str>, Failure> {
        let target = match self.forward {
            Forward::Always => Some(&message.target),
            Forward::Verified => Some(&message.target).filter(|_| message.verified),
            Forward::Never => None,
        };
        let query =
            target.and_then(|target| target.split_once('?')).map(|(_, query)| self.own_parameters.remove_from(query));
        let Some(query) = query.filter(|query| !query.is_empty()) else { return Ok(Cow::Borrowed(&self.path)) };
        let joint = match self.path.split_once('?').map(|(_, own)| own) {
            None => "?",
            Some(own) if own.is_empty() || own.ends_with('&') => "",
            Some(_) => "&",
        };
        let address: Result<Uri, _> = format!("{}{joint}{query}", self.path).parse();
        match address {
            Ok(address) => Ok(Cow::Owned(address.to_string())),
            Err(_long) => Err(Failure::Unsendable("its address is too long with the query".to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_urls_with_a_host() {
        let target = Address::parse("http://[::1]:3000/hook?x=1").expect("a target");
        assert_eq!((target.host.as_str(), target.port, target.path.as_str()), ("::1", 3000, "/hook?x=1"));
        assert_eq!(Address::parse("http://app").expect("a target").port, 80);
        for bad in ["", "127.0.0.1:3000", "/hook", "ftp://app/x", "http://", "http://a:b@app/", "http://app:99999/"] {
            assert!(Address::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_query_is_joined_to_the_address_and_does_not_take_the_place_of_its_own() {
        let address = |url: &str, target: &str| {
            let message = Message { target: target.into(), ..Message::example() };
            let target = Address::parse(url).expect("a target").forwarding(Forward::Always);
            target.path_for(&message).map(|address| address.to_string())
        };
        for (url, target, expected) in [
            ("http://app/hook", "/in?a=1&b=%2f+&c", "/hook?a=1&b=%2f+&c"),
            ("http://app", "/in?a", "/?a"),
            ("http://app/hook?x=1", "/in?a=?&b", "/hook?x=1&a=?&b"),
            ("http://app/hook?x=1", "/in?X=2&a=1&x", "/hook?x=1&a=1"),
            ("http://app/hook?x=1", "/in?x=2", "/hook?x=1"),
            ("http://app/hook?", "/in?a=1", "/hook?a=1"),
            ("http://app/hook?x&", "/in?a=1", "/hook?x&a=1"),
            ("http://app/hook?x=1", "/in?", "/hook?x=1"),
            ("http://app/hook", "/in", "/hook"),
        ] {
            assert_eq!(address(url, target).expect(url), expected, "{url} {target}");
        }
        let room = usize::from(u16::MAX) - 1 - "/hook?".len();
        assert!(address("http://app/hook", &format!("/in?{}", "a".repeat(room))).is_ok());
        let long = address("http://app/hook", &format!("/in?{}", "a".repeat(room + 1)));
        assert_eq!(
            long.expect_err("too long").to_string(),
            "the message cannot be sent there: its address is too long with the query"
        );
    }
}
