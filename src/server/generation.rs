//! A generation: what is built from one validated configuration. The next one is read, checked and built whole, then
//! takes the place of the one before; requests end on the one that they began with.

use std::collections::HashMap;
use std::sync::Arc;

use super::Shared;
use super::withheld::Withheld;
use crate::base::clock::Clock;
use crate::base::limits;
use crate::config::Settings;
use crate::dispatch;
use crate::dispatch::CircuitBreaker;
use crate::dispatch::Resources;
use crate::dispatch::Terms;
use crate::source::DeliveryTerms;
use crate::source::Source;
use crate::store::DestinationId;
use crate::store::Queue;
use crate::store::Store;
use crate::store::Unavailable;
use crate::target::Http;
use crate::target::Target;
use crate::verify::Jwks;

/// About how many bytes of memory a request takes besides its body, at most.
const MAX_HEAD: usize = 256 * 1024;

/// Most bytes that are read of an app's answer to a queued delivery. An answer must be read for its connection to be
/// reused.
const MAX_ANSWER: usize = 64 * 1024;

/// What is built from one configuration.
#[derive(Debug)]
pub(super) struct Generation {
    /// Counted from 1.
    pub(super) number: u64,
    pub(super) settings: Arc<Settings>,
    /// The queues, by source.
    pub(super) queues: HashMap<String, Queue>,
    /// The circuit breakers of the queues' endpoints.
    breakers: HashMap<DestinationId, Arc<CircuitBreaker>>,
    /// Which parts of stored events are not shown.
    pub(super) withheld: Withheld,
}

impl Generation {
    /// Registers the queues with the store. The circuit breakers of endpoints that the generation `before` has are
    /// the same.
    pub(super) async fn build(
        settings: Arc<Settings>,
        before: Option<&Self>,
        store: &Store,
        (limits, clock): (&limits::Dispatch, &Clock),
    ) -> Result<Self, Unavailable> {
        let queues = registered(&settings, before, store).await?;
        let known = before.into_iter().flat_map(|before| {
            let breaker = |id: &DestinationId| before.breakers.get(id).map(Arc::clone);
            queued(&before.settings).filter_map(move |(source, terms)| {
                Some((terms.address.socket().clone(), breaker(&DestinationId::unnamed(source.name.as_str()))?))
            })
        });
        let mut endpoints: HashMap<_, _> = known.collect();
        let mut breakers = HashMap::new();
        for (source, terms) in queued(&settings) {
            let breaker = endpoints
                .entry(terms.address.socket().clone())
                .or_insert_with(|| CircuitBreaker::new(limits.clone(), clock.clone()));
            breakers.insert(DestinationId::unnamed(source.name.as_str()), Arc::clone(breaker));
        }
        let number = before.map_or(1, |before| before.number + 1);
        let withheld = Withheld::of_sources(&settings.sources);
        Ok(Self { number, settings, queues, breakers, withheld })
    }

    /// The circuit breaker of a destination's endpoint.
    pub(super) fn breaker(&self, id: &DestinationId) -> Option<&Arc<CircuitBreaker>> {
        self.breakers.get(id)
    }

    /// The terms of a source's queue.
    fn terms(&self, source: &Source, terms: &DeliveryTerms, queue: &Queue) -> Option<Terms> {
        let http = Http::new(terms.address.clone(), terms.timeout, MAX_ANSWER);
        Some(Terms {
            target: Target::Http(Box::new(http)),
            policy: terms.policy.clone(),
            timeout: terms.timeout,
            concurrency: terms.concurrency,
            largest: source.limits.max_body.saturating_add(MAX_HEAD),
            breaker: Arc::clone(self.breakers.get(queue.id())?),
        })
    }
}

impl Shared {
    /// What dispatchers share on the current runtime, and what tells the destinations of the current generation. Of a
    /// source that is the same, the terms are.
    pub(super) fn dispatchers(self: Arc<Self>) -> (Resources, impl FnMut() -> Vec<dispatch::Destination>) {
        let (store, budget, clock) = (self.store.local(), self.budget.clone(), self.clock.clone());
        let resources = Resources { store, budget, clock, wall: Clock::System };
        let mut known: HashMap<DestinationId, (Arc<Source>, Arc<Terms>)> = HashMap::new();
        let destinations = move || {
            let generation = self.current.load_full();
            let mut before = std::mem::take(&mut known);
            let destination = |(source, terms): (&Arc<Source>, &DeliveryTerms)| {
                let queue = generation.queues.get(source.name.as_str())?.clone();
                let terms = match before.remove(queue.id()) {
                    Some((same, terms)) if Arc::ptr_eq(&same, source) => terms,
                    _ => Arc::new(generation.terms(source, terms, &queue)?),
                };
                known.insert(queue.id().clone(), (Arc::clone(source), Arc::clone(&terms)));
                let metrics = self.metrics.dispatch.for_destination(queue.id());
                Some(dispatch::Destination { queue, terms, metrics })
            };
            queued(&generation.settings).filter_map(destination).collect()
        };
        (resources, destinations)
    }
}

/// The key sets of the sources, with their names.
pub(super) fn key_sets(settings: &Settings) -> Vec<(String, Arc<Jwks>)> {
    let of_source = |source: &Arc<Source>| {
        let name = source.name.as_str().to_owned();
        let key_sets: Vec<_> = source.verifier.authenticator.key_sets().map(Arc::clone).collect();
        key_sets.into_iter().map(move |jwks| (name.clone(), jwks))
    };
    settings.sources.iter().flat_map(of_source).collect()
}

/// The queues of the sources. The store is asked only about those whose terms the generation `before` does not have: a
/// reload may have to revoke a secret while the store is in trouble.
async fn registered(
    settings: &Settings,
    before: Option<&Generation>,
    store: &Store,
) -> Result<HashMap<String, Queue>, Unavailable> {
    let terms = |settings: &Settings| -> Vec<_> {
        queued(settings).map(|(source, terms)| terms.queue(source.name.as_str())).collect()
    };
    let (mut queues, mut unknown, known) = (HashMap::new(), Vec::new(), before.map(|before| terms(&before.settings)));
    let known: HashMap<_, _> = known.iter().flatten().map(|terms| (&terms.id, terms)).collect();
    for terms in terms(settings) {
        let source = terms.id.source.clone();
        let same = known.get(&terms.id).filter(|known| ***known == terms).and(before);
        match same.and_then(|before| before.queues.get(&source)) {
            Some(queue) => drop(queues.insert(source, queue.clone())),
            None => unknown.push(terms),
        }
    }
    if before.is_none() || !unknown.is_empty() {
        let registered = store.register(&unknown).await?;
        queues.extend(registered.into_iter().map(|queue| (queue.id().source.clone(), queue)));
    }
    Ok(queues)
}

/// The sources whose events are queued.
fn queued(settings: &Settings) -> impl Iterator<Item = (&Arc<Source>, &DeliveryTerms)> {
    settings.sources.iter().filter_map(|source| Some((source, source.destination.queue()?)))
}
