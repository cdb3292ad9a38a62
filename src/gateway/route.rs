//! Finds the endpoint of a request by its path.

use std::collections::HashMap;

use http::Uri;

/// Routes by path.
#[derive(Debug)]
pub struct Routes<T>(HashMap<String, T>);

impl<T> FromIterator<(String, T)> for Routes<T> {
    fn from_iter<I: IntoIterator<Item = (String, T)>>(routes: I) -> Self {
        Self(routes.into_iter().collect())
    }
}

impl<T> Routes<T> {
    /// The route of a request target. The path is compared byte for byte, without decoding or normalisation, so that
    /// each route has one spelling. The query is ignored.
    pub fn at(&self, target: &Uri) -> Option<&T> {
        self.0.get(target.path())
    }

    /// The route of this path.
    pub fn get(&self, path: &str) -> Option<&T> {
        self.0.get(path)
    }

    /// All routes.
    pub fn all(&self) -> impl Iterator<Item = &T> {
        self.0.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_compared_as_they_are_sent() {
        let routes: Routes<u8> = [("/webhooks/a".to_owned(), 1)].into_iter().collect();
        let at = |target: &str| routes.at(&target.parse().expect("a target")).copied();
        assert_eq!(at("/webhooks/a"), Some(1));
        assert_eq!(at("/webhooks/a?x=/webhooks/b"), Some(1));
        assert_eq!(at("http://other.example/webhooks/a"), Some(1), "the path of an absolute target counts");
        for other in
            ["/", "/webhooks/A", "/webhooks/a/", "//webhooks/a", "/webhooks/%61", "/webhooks/./a", "/x/../webhooks/a"]
        {
            assert_eq!(at(other), None, "{other}");
        }
    }
}
