//! Finds the source of a request by its path, compared byte for byte.

use std::collections::HashMap;

use http::Uri;

/// Paths and what stands behind them.
#[derive(Debug)]
pub struct Routes<T>(HashMap<String, T>);

impl<T> FromIterator<(String, T)> for Routes<T> {
    fn from_iter<I: IntoIterator<Item = (String, T)>>(routes: I) -> Self {
        Self(routes.into_iter().collect())
    }
}

impl<T> Routes<T> {
    /// What stands at the path of this request target, compared byte for byte as it was sent: nothing is decoded, so no
    /// two spellings can mean the same. The query does not matter.
    pub fn at(&self, target: &Uri) -> Option<&T> {
        self.0.get(target.path())
    }

    /// All that stands behind paths.
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
