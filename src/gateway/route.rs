//! Finds the endpoint of a request by its path, and where several sources have one path, by its host.

use std::collections::HashMap;

use http::HeaderMap;
use http::Uri;
use http::header;

/// Where a source is reached.
#[derive(Debug, Clone)]
pub struct Route {
    /// Its path.
    pub path: String,
    /// Its hosts, in lower case and without a port; any when there are none.
    pub hosts: Vec<String>,
}

/// Routes by path and host.
#[derive(Debug)]
pub struct Routes<T>(HashMap<String, Hosts<T>>);

/// The routes of one path.
#[derive(Debug)]
struct Hosts<T> {
    named: Vec<(Vec<String>, T)>,
    /// The one for all other hosts.
    any: Option<T>,
}

impl<T> FromIterator<(Route, T)> for Routes<T> {
    fn from_iter<I: IntoIterator<Item = (Route, T)>>(routes: I) -> Self {
        let mut paths: HashMap<String, Hosts<T>> = HashMap::new();
        for (Route { path, hosts }, route) in routes {
            let known = paths.entry(path).or_insert_with(|| Hosts { named: Vec::new(), any: None });
            if hosts.is_empty() {
                known.any = Some(route);
            } else {
                known.named.push((hosts, route));
            }
        }
        Self(paths)
    }
}

impl<T> Routes<T> {
    /// The route of a request. The path of its target is compared byte for byte, without decoding or normalisation, so
    /// that each route has one spelling. The query is ignored. The host is that of the target (`:authority`) or else of
    /// `Host`, without its port.
    pub fn at(&self, target: &Uri, headers: &HeaderMap) -> Option<&T> {
        let Hosts { named, any } = self.0.get(target.path())?;
        // Most sources have none.
        if named.is_empty() {
            return any.as_ref();
        }
        let stated = || headers.get(header::HOST).and_then(|host| host.to_str().ok()).map(without_port);
        let host = target.host().or_else(stated);
        let is_it = |known: &String| host.is_some_and(|host| known.eq_ignore_ascii_case(host));
        let found = named.iter().find(|(hosts, _)| hosts.iter().any(is_it)).map(|(_, route)| route);
        found.or(any.as_ref())
    }

    /// The routes of this path.
    pub fn of_path(&self, path: &str) -> impl Iterator<Item = &T> {
        self.0.get(path).into_iter().flat_map(Hosts::all)
    }

    /// All routes.
    pub fn all(&self) -> impl Iterator<Item = &T> {
        self.0.values().flat_map(Hosts::all)
    }
}

impl<T> Hosts<T> {
    fn all(&self) -> impl Iterator<Item = &T> {
        self.named.iter().map(|(_, route)| route).chain(&self.any)
    }
}

/// A host without its port. An IPv6 address keeps its brackets.
fn without_port(host: &str) -> &str {
    let end = if host.starts_with('[') { host.find(']').map(|bracket| bracket + 1) } else { host.find(':') };
    end.and_then(|end| host.get(..end)).unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_compared_as_they_are_sent() {
        let route = Route { path: "/webhooks/a".to_owned(), hosts: Vec::new() };
        let routes: Routes<u8> = [(route, 1)].into_iter().collect();
        let at = |target: &str| routes.at(&target.parse().expect("a target"), &HeaderMap::new()).copied();
        assert_eq!(at("/webhooks/a"), Some(1));
        assert_eq!(at("/webhooks/a?x=/webhooks/b"), Some(1));
        assert_eq!(at("http://other.example/webhooks/a"), Some(1), "the path of an absolute target counts");
        for other in
            ["/", "/webhooks/A", "/webhooks/a/", "//webhooks/a", "/webhooks/%61", "/webhooks/./a", "/x/../webhooks/a"]
        {
            assert_eq!(at(other), None, "{other}");
        }
    }

    #[test]
    fn hosts_are_compared_without_port_and_case() {
        let route = |hosts: &[&str]| Route {
            path: "/a".to_owned(),
            hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
        };
        let named = [(route(&["one.example", "uno.example"]), 1), (route(&["two.example", "[::1]"]), 2)];
        let with_any: Routes<u8> = named.clone().into_iter().chain([(route(&[]), 3)]).collect();
        let named: Routes<u8> = named.into_iter().collect();
        let at = |routes: &Routes<u8>, target: &str, host: Option<&str>| {
            let headers = host.map(|host| (header::HOST, host.parse().expect("a value"))).into_iter().collect();
            routes.at(&target.parse().expect("a target"), &headers).copied()
        };
        for (host, expected) in [
            (Some("one.example"), Some(1)),
            (Some("UNO.example:8443"), Some(1)),
            (Some("two.example:"), Some(2)),
            (Some("[::1]:8080"), Some(2)),
            (Some("[::1]"), Some(2)),
            (Some("three.example"), None),
            (Some("one.example."), None),
            (Some("one.example.evil.example"), None),
            (Some("sub.one.example"), None),
            (Some("[one.example"), None),
            (Some(""), None),
            (None, None),
        ] {
            assert_eq!(at(&named, "/a", host), expected, "{host:?}");
            assert_eq!(at(&with_any, "/a", host), expected.or(Some(3)), "{host:?}");
        }
        assert_eq!(at(&named, "https://two.example:1/a", Some("one.example")), Some(2), "the target counts");
        assert_eq!(at(&with_any, "/b", Some("one.example")), None);
        assert_eq!(with_any.all().count(), 3);
    }
}
