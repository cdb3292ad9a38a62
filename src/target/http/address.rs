//! The address of an app: its socket, its path, and which queries of requests are appended to that.

use std::borrow::Cow;
use std::path::PathBuf;

use http::HeaderValue;
use http::Uri;

use crate::base::query::Names;
use crate::message::Message;
use crate::target::Failure;
use crate::target::tls::Tls;

/// How the URL of a Unix domain socket begins. The path of the socket follows, `:`, and the path of the request.
const UNIX: &str = "http+unix://";
/// The longest path of a Unix domain socket in bytes: one less than `sun_path` has (unix(7)).
const MAX_SOCKET_PATH: usize = 107;

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

/// The socket that an app listens on: the unit that has one circuit breaker.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum UpstreamSocket {
    /// A port of a host, which is a name or an IP address.
    Tcp(String, u16),
    /// The path of a Unix domain socket.
    Unix(PathBuf),
}

/// The address of an app.
#[derive(Debug, Clone)]
pub struct Address {
    pub(super) socket: UpstreamSocket,
    /// Path and query.
    path: String,
    /// The parameters of its own query, which no sender can give another value.
    own_parameters: Names,
    forward: Forward,
    pub(super) authority: HeaderValue,
    pub(super) tls: Option<Tls>,
}

impl Address {
    /// Its socket.
    pub fn socket(&self) -> &UpstreamSocket {
        &self.socket
    }

    /// Reads an `http`, `https` or `http+unix` URL.
    ///
    /// # Errors
    /// What is wrong with it and what would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        // Credentials must not appear in the error, nor a query, which may have some too.
        let shown = if text.contains(['@', '?']) { "this".to_owned() } else { format!("{text:?}") };
        if text.contains('#') {
            return Err("has a fragment (#), which is never sent; remove it".to_owned());
        }
        if let Some(rest) = text.strip_prefix(UNIX) {
            return Self::parse_unix(&shown, rest);
        }
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
        let socket = UpstreamSocket::Tcp(host.trim_matches(['[', ']']).to_owned(), port);
        let authority = HeaderValue::from_str(authority.as_str()).map_err(|_bad| wrong())?;
        let tls = if secure { Some(Tls::new(host)?) } else { None };
        Ok(Self::new(socket, &path.parse().map_err(|_bad| wrong())?, (authority, tls)))
    }

    /// Reads what follows `http+unix://` in a URL, which is `shown` so in errors.
    fn parse_unix(shown: &str, rest: &str) -> Result<Self, String> {
        let wrong = || format!("{shown} is not a URL such as \"http+unix:///run/app.sock:/webhooks\"");
        let (socket, path) = rest.split_once(':').unwrap_or((rest, "/"));
        if !socket.starts_with('/') || socket.ends_with('/') || socket.contains('?') || !path.starts_with('/') {
            return Err(wrong());
        }
        if socket.len() > MAX_SOCKET_PATH || socket.contains('\0') {
            return Err(format!("{socket:?} is not the path of a socket, which has at most {MAX_SOCKET_PATH} bytes"));
        }
        let authority = HeaderValue::from_static("localhost");
        Ok(Self::new(UpstreamSocket::Unix(socket.into()), &path.parse().map_err(|_bad| wrong())?, (authority, None)))
    }

    /// `path` with its query, if it has one.
    fn new(socket: UpstreamSocket, path: &Uri, (authority, tls): (HeaderValue, Option<Tls>)) -> Self {
        Self {
            socket,
            path: path.to_string(),
            own_parameters: path.query().map(Names::of_query).unwrap_or_default(),
            forward: Forward::default(),
            authority,
            tls,
        }
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
        assert_eq!((target.socket, target.path.as_str()), (UpstreamSocket::Tcp("::1".to_owned(), 3000), "/hook?x=1"));
        assert_eq!(Address::parse("http://app").expect("a target").socket, UpstreamSocket::Tcp("app".to_owned(), 80));
        for bad in ["", "127.0.0.1:3000", "/hook", "ftp://app/x", "http://", "http://a:b@app/", "http://app:99999/"] {
            assert!(Address::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn targets_are_unix_sockets_with_an_absolute_path() {
        let target = Address::parse("http+unix:///run/app.sock:/hook?x=1:2").expect("a target");
        assert_eq!(
            (target.socket, target.path.as_str()),
            (UpstreamSocket::Unix("/run/app.sock".into()), "/hook?x=1:2")
        );
        assert_eq!(Address::parse("http+unix:///run/app.sock").expect("a target").path, "/");
        let long = |length: usize| Address::parse(&format!("http+unix:///{}:/", "a".repeat(length - 1)));
        assert!(long(MAX_SOCKET_PATH).is_ok());
        assert!(long(MAX_SOCKET_PATH + 1).expect_err("too long").contains("at most 107 bytes"));
        for bad in [
            "http+unix://",
            "http+unix://run/app.sock",
            "http+unix://%2Frun%2Fapp.sock/hook",
            "http+unix:///run/app.sock:hook",
            "http+unix:///run/app.sock:",
            "http+unix:///run/app.sock?x=1",
            "http+unix:///run/app.sock:/hook#part",
            "http://app/hook#part",
            "http+unix:///run/:/hook",
            "http+unix:///run/a\0b:/hook",
            "https+unix:///run/app.sock:/hook",
        ] {
            assert!(Address::parse(bad).is_err(), "{bad:?}");
        }
        for bad in
            ["http+unix://u:SECRET@h/", "http://h:x/?token=SECRET", "http://u:SECRET@h/", "http+unix:///a?b=SECRET"]
        {
            assert!(!Address::parse(bad).expect_err(bad).contains("SECRET"), "{bad:?}");
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
