//! Hypotheses: the URL that was signed is spelled otherwise than in the parameter `url`, or the query otherwise than in
//! the request.

use http::Uri;
use http::header;

use super::Hypothesis;
use super::form::spellings as spellings_of;
use crate::explain::Case;

/// The parameter with the URL that is registered with the provider.
const URL: &str = "url";

/// The same request with every spelling of the URL.
pub(super) fn spelled(case: &Case) -> Vec<Hypothesis> {
    let Some(spec) = case.params.get(URL) else { return Vec::new() };
    let mut seen = vec![spec.clone()];
    let mut all = Vec::new();
    for base in std::iter::once(spec.clone()).chain(captured(case)) {
        for url in spellings(&base, case.target.query()) {
            if seen.contains(&url) {
                continue;
            }
            seen.push(url.clone());
            let description = format!(
                "the address that was signed is {}, and the parameter url is {}. Set it as it is registered with the provider; \
                 behind a proxy the gateway sees another one.",
                shown(&url),
                shown(spec)
            );
            let mut case = case.clone();
            case.params.insert(URL.to_owned(), url);
            all.push(Hypothesis::new(description, case));
        }
    }
    all
}

/// The same request with every spelling of its query.
pub(super) fn query_spelled(case: &Case) -> Vec<Hypothesis> {
    let Some(query) = case.target.query().filter(|query| query.contains(['%', '+'])) else { return Vec::new() };
    let description = "the query is the same as the one that was signed, but its percent-encoding is another (%3a for %3A, + for %20 or \
                 the like): something parses it and writes it again. Pass on the address as it came.";
    let other = |spelled: String| {
        let target = format!("{}?{spelled}", case.target.path()).parse().ok()?;
        (target != case.target).then(|| Hypothesis::request(description, Case { target, ..case.clone() }))
    };
    spellings_of(query).into_iter().filter_map(other).collect()
}

/// The URL of the captured request.
fn captured(case: &Case) -> Vec<String> {
    let host = case.headers.get("x-forwarded-host").or_else(|| case.headers.get(header::HOST));
    let host = host.and_then(|host| host.to_str().ok());
    host.map(|host| format!("https://{host}{}", case.target)).into_iter().collect()
}

fn spellings(url: &str, query: Option<&str>) -> Vec<String> {
    let Some((_, rest)) = url.split_once("://") else { return Vec::new() };
    let (bare, own) = rest.split_once('?').map_or((rest, None), |(bare, own)| (bare, Some(own)));
    let (authority, path) = bare.split_once('/').map_or((bare, ""), |(authority, path)| (authority, path));
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    let mut queries = vec![None];
    queries.extend(own.into_iter().chain(query).map(Some));
    let path = path.trim_end_matches('/');
    let paths = if path.is_empty() {
        vec![String::new(), "/".to_owned()]
    } else {
        vec![format!("/{path}"), format!("/{path}/")]
    };
    let mut all = Vec::new();
    for scheme in ["https", "http"] {
        for authority in
            [authority.to_owned(), host.to_owned(), host.to_lowercase(), format!("{host}:443"), format!("{host}:80")]
        {
            for path in &paths {
                for query in &queries {
                    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
                    all.push(format!("{scheme}://{authority}{path}{query}"));
                }
            }
        }
    }
    all
}

/// A URL for people: without its query, which may contain a secret.
fn shown(url: &str) -> String {
    let query = if url.contains('?') { "?…" } else { "" };
    let bare = url.split('?').next().unwrap_or(url);
    let user = bare.parse::<Uri>().is_ok_and(|uri| uri.authority().is_some_and(|known| known.as_str().contains('@')));
    if user { "one with user and password".to_owned() } else { format!("{bare}{query}") }
}
