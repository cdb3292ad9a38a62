//! A source without sockets: what the gateway makes of a request, from its head to its event.

use std::sync::Arc;

use doorward::base::time::Moment;
use doorward::config::Settings;
use doorward::gateway::decide::Verdict;
use doorward::gateway::decide::decide;
use doorward::http::body;
use doorward::http::inbound::Inbound;
use doorward::sign::Request;
use doorward::source::Source;
use doorward::source::refusal::Refusal;
use doorward::verify::identity::Event;

use crate::harness::provider::any_profile::Provider;

/// A source and its provider.
pub struct InProcessSource {
    pub provider: Provider,
    pub source: Arc<Source>,
    settings: Settings,
}

impl InProcessSource {
    /// A source with a shipped profile, or with one of these, by name and text.
    pub fn new(provider: Provider, own: &[(String, String)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, text) in own {
            std::fs::write(folder.path().join(format!("{name}.toml")), text).expect("a profile");
        }
        let config = format!("profiles = '{}'\n{}", folder.path().display(), provider.source("http://127.0.0.1:9/"));
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), config).expect("a configuration");
        let settings = Settings::load(file.path()).unwrap_or_else(|problems| panic!("{problems}"));
        let source = Arc::clone(settings.sources.first().expect("a source"));
        Self { provider, source, settings }
    }

    /// What becomes of a request that comes at this moment.
    pub fn receive(&self, request: &Request, now: Moment) -> Result<Event, Refusal> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            for jwks in &self.settings.jwks {
                let jwks = Arc::clone(jwks);
                drop(tokio::spawn(async move { jwks.run().await }));
            }
            let source = &self.source;
            body::check_head(&request.headers, &source.verifier.single_headers, &source.limits)?;
            let target = request.query.as_ref().map_or_else(|| "/".to_owned(), |query| format!("/?{query}"));
            let target = target.parse().expect("a target");
            let inbound =
                Inbound::recorded(request.method.clone(), target, request.headers.clone(), request.body.clone(), now);
            let decision = decide(&source.verifier, source.name.as_str(), &source.limits, inbound, || now).await;
            match decision.verdict.map_err(|rejection| rejection.refusal)? {
                Verdict::Event(event) => Ok(event),
                Verdict::Handshake(_) => panic!("a sample is no handshake"),
            }
        })
    }
}
