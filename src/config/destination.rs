//! Reads `[sources.NAME.deliver]`: where the events of a source go. (`impl SourceContext` here, because `source.rs`
//! would be too long.)

use std::time::Duration;

use super::queue;
use super::section::Section;
use super::section::count;
use super::section::duration;
use super::section::flag;
use super::source::SourceContext;
use crate::profile::Location;
use crate::profile::Profile;
use crate::profile::Scheme;
use crate::source::Destination;
use crate::store::Keyspace;
use crate::store::Kind;
use crate::store::sqlite::why_volatile;
use crate::target::Address;
use crate::target::Forward;
use crate::target::Stream;

/// The default timeout of an upstream, unless the provider's deadline is shorter.
const UPSTREAM_TIMEOUT: Duration = Duration::from_secs(10);
/// The part of a provider's deadline that is reserved for the network.
const MARGIN: Duration = Duration::from_secs(1);

impl SourceContext<'_> {
    /// Reads the destination, and the location of the ordering key.
    pub(super) fn destination(
        &self,
        section: &mut Section<'_>,
        profile: Option<&Profile>,
    ) -> Option<(Destination, Option<Location>)> {
        const FORMS: &str = "write deliver.upstream = { url = \"…\" }, deliver.queue = { url = \"…\" } or deliver.redis-stream = \
                             { key = \"…\" }";
        let Some(mut deliver) = section.subsection("deliver") else {
            section.error("deliver", format!("is missing: where do events go? {FORMS}"));
            return None;
        };
        let unordered = |destination: Option<Destination>| Some((destination?, None));
        let mut named = Vec::new();
        named.extend(deliver.subsection("upstream").map(|upstream| unordered(self.upstream(upstream, profile))));
        named.extend(deliver.subsection("redis-stream").map(|stream| unordered(self.stream(stream))));
        named.extend(deliver.subsection("queue").map(|queue| self.queue(queue, profile)));
        match named.len() {
            0 => section.error("deliver", format!("says nothing that is known; {FORMS}")),
            1 => {}
            _ => section.error("deliver", "names more than one destination; a source has one"),
        }
        deliver.finish();
        named.pop().filter(|_| named.is_empty()).flatten()
    }

    fn upstream(&self, mut section: Section<'_>, profile: Option<&Profile>) -> Option<Destination> {
        let target = section.required("url", Address::parse);
        let configured = section.optional("timeout", duration);
        let deadline = profile.and_then(|profile| profile.facts.deadline);
        let default =
            deadline.map_or(UPSTREAM_TIMEOUT, |deadline| deadline.saturating_sub(MARGIN).min(UPSTREAM_TIMEOUT));
        let timeout = configured.unwrap_or_else(|| default.max(MARGIN));
        if let Some(deadline) = deadline.filter(|deadline| timeout >= *deadline) {
            section.warning(
                "timeout",
                format!(
                    "is not shorter than the {deadline:?} that the provider waits: it gives up and sends again first"
                ),
            );
        }
        if let Some(lease) = self.store.map(|store| store.terms.lease).filter(|lease| timeout >= *lease) {
            section.error(
                "timeout",
                format!("is not shorter than store.lease ({lease:?}): the claim would end during the delivery"),
            );
        }
        let forward = forward(&mut section, profile);
        section.finish();
        Some(Destination::Upstream(target?.forwarding(forward), timeout))
    }

    fn queue(&self, mut section: Section<'_>, profile: Option<&Profile>) -> Option<(Destination, Option<Location>)> {
        let forward = forward(&mut section, profile);
        match self.store.map(|store| &store.kind) {
            Some(Kind::Memory) => {
                section.error(
                    "",
                    "needs a store that outlives the process; set store.url to sqlite:PATH or redis://HOST:PORT",
                );
            }
            Some(Kind::Redis(_)) => self.warn_of_loss(&section),
            Some(Kind::Sqlite(path)) => {
                if let Some(why) = why_volatile(path) {
                    section.warning(
                        "",
                        format!(
                            "keeps events that were acknowledged in {}, which is on {why}; set store.url to a file on a \
                             disk that stays, such as a PersistentVolumeClaim, or to redis://HOST:PORT",
                            path.display()
                        ),
                    );
                }
            }
            None => {}
        }
        // Only a Redis store has other gateways that could take over.
        let lease = self.store.filter(|store| matches!(store.kind, Kind::Redis(_))).map(|store| store.terms.lease);
        queue::queue(section, forward, lease).map(|(terms, order)| (Destination::Queue(terms), order))
    }

    fn warn_of_loss(&self, section: &Section<'_>) {
        if self.store.is_some_and(|store| store.durability.is_none()) {
            section.warning(
                "",
                "with store.durability = \"none\", an event that was acknowledged may be lost when Redis crashes or fails \
                 over; set \"aof\" or { replicas = 1 }",
            );
        }
    }

    fn stream(&self, mut section: Section<'_>) -> Option<Destination> {
        // The markers of sent messages are on the node of the stream.
        let key = section.required("key", |key| Keyspace::of_stream(key).map(|space| (key.to_owned(), space)));
        let maxlen = section.optional("maxlen", count(1, usize::MAX));
        match self.store.map(|store| (&store.kind, store.durability)) {
            Some((Kind::Memory | Kind::Sqlite(_), _)) => section.error(
                "",
                "needs a Redis store, on which the stream lives; set store.url to redis://, redis-cluster:// or \
                 redis-sentinel://",
            ),
            Some((Kind::Redis(_), _)) => self.warn_of_loss(&section),
            None => {}
        }
        section.finish();
        let maxlen = maxlen.map(|maxlen| u64::try_from(maxlen).unwrap_or(u64::MAX));
        let (key, keyspace) = key?;
        Some(Destination::RedisStream(Stream { key, keyspace, maxlen }))
    }
}

/// Reads which requests have their query forwarded to the app; by default, those whose query is signed.
fn forward(section: &mut Section<'_>, profile: Option<&Profile>) -> Forward {
    let signed = profile.is_some_and(Profile::signs_whole_query);
    let configured = section.optional("forward_query", flag);
    let signature = |scheme: &Scheme| matches!(scheme, Scheme::Signature(_));
    if configured == Some(true) && !signed && profile.is_some_and(|profile| profile.schemes().any(signature)) {
        section.warning(
            "forward_query",
            "is true, and this profile's signatures do not cover the query: whoever has captured a request can send it with \
             another one",
        );
    }
    match configured {
        Some(true) => Forward::Always,
        None if signed => Forward::Verified,
        Some(false) | None => Forward::Never,
    }
}
