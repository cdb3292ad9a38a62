//! The endpoints of one worker: the sources of a generation with the worker's store handle and connections.

use std::sync::Arc;
use std::sync::PoisonError;

use arc_swap::ArcSwap;
use arc_swap::ArcSwapOption;

use super::Shared;
use super::generation::Generation;
use super::generation::key_sets;
use crate::config::Listener;
use crate::dedup::Dedup;
use crate::gateway::DeliveryMode;
use crate::gateway::Endpoint;
use crate::gateway::Gateway;
use crate::gateway::route::Route;
use crate::source::Destination;
use crate::source::Source;
use crate::source::SourceSecret;
use crate::store::Store;
use crate::target::Http;
use crate::target::RedisStream;
use crate::target::Target;

/// What a worker serves with, for others; empty before the worker has started.
pub(super) type View = Arc<ArcSwapOption<Serving>>;

/// What a worker serves with.
#[derive(Debug)]
pub(super) struct Serving {
    /// The store handle of the worker.
    pub(super) store: Store,
    gateway: ArcSwap<Gateway>,
}

impl Serving {
    /// The endpoints of a generation over this store handle.
    pub(super) fn new(shared: &Shared, generation: &Generation, store: Store) -> Self {
        let gateway = gateway(shared, generation, &store, None);
        Self { gateway: ArcSwap::from_pointee(gateway), store }
    }

    /// Serves the requests that come from now on by another generation. Endpoints of sources that are the same stay,
    /// with their connections.
    pub(super) fn follow(&self, shared: &Shared, generation: &Generation) {
        let before = self.gateway.load_full();
        self.gateway.store(Arc::new(gateway(shared, generation, &self.store, Some(&before))));
    }

    /// What the next request is served by.
    pub(super) fn gateway(&self) -> Arc<Gateway> {
        self.gateway.load_full()
    }
}

impl Shared {
    /// Has listeners use the certificates of these, which were read as a whole. They are known by their names; what else
    /// is set of them takes effect at the next start.
    fn replace_certificates(&self, listeners: &[Listener]) {
        for (name, terms) in listeners.iter().filter_map(|listener| Some((&listener.name, listener.tls.as_ref()?))) {
            if let Some(tls) = self.tls.iter().find(|tls| tls.listener() == name) {
                tls.replace(Arc::clone(terms));
            }
        }
    }

    /// Makes a generation the current one: workers and dispatchers go by it from now on.
    pub(super) fn publish(&self, next: &Arc<Generation>, workers: &[View]) {
        let _one_at_a_time = self.publishing.lock().unwrap_or_else(PoisonError::into_inner);
        self.metrics.key_sets.set(key_sets(&next.settings));
        self.metrics.skipped.set(i64::try_from(next.settings.skipped.len()).unwrap_or(i64::MAX));
        self.replace_certificates(&next.settings.server.listeners);
        self.current.store(Arc::clone(next));
        self.settings.server.trusted_proxies.replace(&next.settings.server.trusted_proxies);
        for worker in workers.iter().filter_map(|view| view.load_full()) {
            worker.follow(self, next);
        }
        self.generation.send_replace(next.number);
    }
}

fn gateway(shared: &Shared, generation: &Generation, store: &Store, before: Option<&Gateway>) -> Gateway {
    let settings = &generation.settings;
    let sources = settings.sources.iter().filter_map(|source| {
        let is_same =
            |endpoint: &&Arc<Endpoint>| endpoint.source.as_ref().is_some_and(|(known, _)| Arc::ptr_eq(known, source));
        let same = before.and_then(|before| before.routes.of_path(&source.path).find(is_same));
        let endpoint = match same {
            Some(same) => Arc::clone(same),
            None => {
                let mode = delivery_mode(source, generation, store, shared)?;
                let name = source.name.as_str();
                Arc::new(endpoint(shared, name, Some((Arc::clone(source), mode)), &source.secrets))
            }
        };
        Some((Route { path: source.path.clone(), hosts: source.hosts.clone() }, endpoint))
    });
    let left_out = settings.skipped.iter().map(|skipped| {
        let endpoint = Endpoint { is_left_out: true, ..endpoint(shared, &skipped.name, None, &[]) };
        (Route { path: skipped.path.clone(), hosts: skipped.hosts.clone() }, Arc::new(endpoint))
    });
    let (single_flight, first_seen) = (Arc::clone(&shared.single_flight), Arc::clone(&shared.first_seen));
    Gateway {
        routes: sources.chain(left_out).collect(),
        proxies: settings.server.trusted_proxies.snapshot(),
        dedup: Dedup::new(single_flight, first_seen, store.clone(), shared.settings.store.terms),
        metrics: Arc::clone(&shared.metrics.gateway),
        unmatched: Arc::new(endpoint(shared, "", None, &[])),
    }
}

fn endpoint(
    shared: &Shared,
    name: &str,
    source: Option<(Arc<Source>, DeliveryMode)>,
    secrets: &[SourceSecret],
) -> Endpoint {
    let metrics = shared.metrics.gateway.for_source(name, secrets);
    Endpoint { source, is_left_out: false, metrics, sampler: shared.sampler(name) }
}

/// The delivery mode of a source, for one worker. `None` does not occur: the settings refuse a stream without Redis,
/// and a queue without a store that has queues.
fn delivery_mode(source: &Source, generation: &Generation, store: &Store, shared: &Shared) -> Option<DeliveryMode> {
    match &source.destination {
        Destination::Upstream(address, timeout) => {
            let http = Http::new(address.clone(), *timeout, source.limits.max_body);
            Some(DeliveryMode::Sync(Target::Http(Box::new(http))))
        }
        Destination::Queue(_) => generation.queues.get(source.name.as_str()).cloned().map(DeliveryMode::Queue),
        Destination::RedisStream(stream) => {
            let (redis, ttl) = (store.redis()?.clone(), shared.settings.store.terms.ttl);
            Some(DeliveryMode::Sync(Target::RedisStream(RedisStream::new(redis, stream.clone(), ttl))))
        }
    }
}
