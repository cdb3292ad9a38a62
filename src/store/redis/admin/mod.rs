//! Lists, shows, replays and purges deliveries in Redis.

mod search;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;

use redis::Value;

use self::search::Found;
use self::search::Search;
use super::Purpose;
use super::Redis;
use super::RedisQueue;
use super::entry;
use super::queue;
use super::queue_scripts;
use super::record;
use crate::message::Message;
use crate::store::AdminError;
use crate::store::DestinationId;
use crate::store::Details;
use crate::store::Done;
use crate::store::Filter;
use crate::store::Keyspace;
use crate::store::MessageId;
use crate::store::Page;
use crate::store::Part;
use crate::store::State;
use crate::store::Summary;
use crate::store::Unavailable;
use crate::store::redis::script::Call;
use crate::store::search::Direction;

/// Most deliveries that one script changes, so that other commands are not delayed.
const BATCH: usize = 200;

/// A destination that has deliveries, whether or not it is configured.
#[derive(Debug)]
struct StoredDestination {
    id: DestinationId,
    space: Keyspace,
    /// Absent when this gateway does not deliver to it.
    queue: Option<Arc<RedisQueue>>,
}

impl StoredDestination {
    fn keys(&self) -> impl Iterator<Item = String> {
        queue::keys(&self.space, &self.id.name)
    }
}

impl Redis {
    pub(in crate::store) async fn list(&self, part: Part) -> Result<Page, AdminError> {
        let places = self.places(&part.filter).await?;
        let Found { deliveries, next } =
            self.search(&Search { part, direction: Direction::NewestFirst }, &places).await?;
        Ok(Page { deliveries, next })
    }

    pub(in crate::store) async fn show(&self, source: &str, id: MessageId) -> Result<Option<Details>, AdminError> {
        let places = self.places(&of_source(source)).await?;
        let (mut deliveries, mut message) = (Vec::new(), None);
        for place in &places {
            if let Some((summary, read)) = self.one(place, id).await? {
                deliveries.push(summary);
                message = message.or(read);
            }
        }
        Ok(if deliveries.is_empty() { None } else { Some(Details { deliveries, message }) })
    }

    async fn one(
        &self,
        place: &StoredDestination,
        id: MessageId,
    ) -> Result<Option<(Summary, Option<Arc<Message>>)>, AdminError> {
        let call = queue_scripts::SHOW.call(place.keys()).argument(self.now());
        let call = call.argument(place.id.name.as_str()).argument(id.to_string());
        let shown: Value = self.connections.call(&place.space, Purpose::Maintenance, &call).await?;
        Ok(entry::details(&place.id, shown))
    }

    /// Replays these deliveries, if they are still finished; returns their number.
    pub(in crate::store) async fn replay(&self, deliveries: &[Summary]) -> Result<u64, AdminError> {
        let (mut replayed, mut queued) = (0, false);
        for delivery in deliveries {
            let id = delivery.destination_id();
            let queue = self.queues().iter().find(|queue| *queue.id() == id).map(Arc::clone);
            if let Some(queue) = queue {
                replayed += self.reopen(&queue, &[delivery.state], &[delivery.id]).await?;
                queued = true;
            }
        }
        match deliveries.first().filter(|_| !queued) {
            Some(delivery) => Err(AdminError::NoQueue(delivery.source.clone())),
            None => Ok(replayed),
        }
    }

    pub(in crate::store) async fn replay_all(
        &self,
        part: Part,
        served: impl Fn(&DestinationId) -> bool,
    ) -> Result<Done, AdminError> {
        let named = part.filter.source.is_some();
        let mut places = self.places(&part.filter).await?;
        places.iter_mut().filter(|place| !served(&place.id)).for_each(|place| place.queue = None);
        if !named {
            places.retain(|place| place.queue.is_some());
        }
        let search = Search { part, direction: Direction::OldestFirst };
        let (found, next) = self.found(&search, &places).await?;
        let mut deliveries = 0;
        for place in &places {
            let Some(queue) = &place.queue else { return Err(AdminError::NoQueue(place.id.source.clone())) };
            let ids = found.get(&place.id).map(Vec::as_slice).unwrap_or_default();
            deliveries += self.reopen(queue, &search.part.states, ids).await?;
        }
        Ok(Done { deliveries, next })
    }

    pub(in crate::store) async fn purge(&self, part: Part) -> Result<Done, AdminError> {
        let places = self.places(&part.filter).await?;
        let search = Search { part, direction: Direction::OldestFirst };
        let (found, next) = self.found(&search, &places).await?;
        let mut deliveries = 0;
        for place in &places {
            let ids = found.get(&place.id).map(Vec::as_slice).unwrap_or_default();
            if ids.is_empty() {
                continue;
            }
            let names: BTreeSet<String> = self.destinations(&place.space).await?;
            for ids in ids.chunks(BATCH) {
                let records = names.iter().map(|name| queue::key(&place.space, name, "records"));
                let call = queue_scripts::PURGE.call(place.keys().chain([answer_key(&place.space)?]).chain(records));
                let call = call.argument(self.now()).argument(letters(&search.part.states));
                let call = call.argument(names.len().to_string());
                let call = names.iter().fold(call, |call, name| call.argument(name.as_str()));
                deliveries += self.change(&place.space, call, ids).await?;
            }
        }
        Ok(Done { deliveries, next })
    }

    /// The deliveries that are found, by destination, the oldest first.
    async fn found(
        &self,
        search: &Search,
        places: &[StoredDestination],
    ) -> Result<(Ids, Option<MessageId>), AdminError> {
        let Found { deliveries, next } = self.search(search, places).await?;
        let mut found = Ids::new();
        for delivery in deliveries {
            found.entry(delivery.destination_id()).or_default().push(delivery.id);
        }
        Ok((found, next))
    }

    /// Replays deliveries that are still in one of these states; returns their number.
    async fn reopen(&self, queue: &RedisQueue, states: &[State], ids: &[MessageId]) -> Result<u64, AdminError> {
        let mut reopened = 0;
        for ids in ids.chunks(BATCH) {
            let call = queue_scripts::REPLAY.call(queue.keys().chain([answer_key(&queue.space)?])).argument(self.now());
            let call = call.argument(queue.id().name.as_str()).argument(letters(states));
            reopened += self.change(&queue.space, call, ids).await?;
            queue.handle.signal().raise();
        }
        Ok(reopened)
    }

    async fn change(&self, space: &Keyspace, call: Call, ids: &[MessageId]) -> Result<u64, AdminError> {
        let call = ids.iter().fold(call, |call, id| call.argument(id.to_string()));
        Ok(self.connections.call(space, Purpose::Maintenance, &call).await?)
    }

    /// The destinations that a filter selects: configured ones, and those that a source had before.
    async fn places(&self, filter: &Filter) -> Result<Vec<StoredDestination>, AdminError> {
        let queues = self.queues().clone();
        let mut spaces: BTreeMap<String, Keyspace> =
            queues.iter().map(|queue| (queue.id().source.clone(), queue.space.clone())).collect();
        match &filter.source {
            None => spaces.extend(self.process.spaces.iter().map(|space| (space.source().to_owned(), space.clone()))),
            Some(source) => {
                spaces.retain(|known, _| known == source);
                spaces.entry(source.clone()).or_insert_with(|| Keyspace::of_source(source));
            }
        }
        let mut places = Vec::new();
        for (source, space) in spaces {
            let of_source = queues.iter().filter(|queue| queue.id().source == source);
            let mut names: BTreeSet<String> = of_source.map(|queue| queue.id().name.clone()).collect();
            match self.destinations(&space).await {
                Ok(more) => names.extend(more),
                // In a cluster, a node that the filter does not need may be unavailable.
                Err(failed) if !names.is_empty() || filter.source.is_some() => return Err(failed.into()),
                Err(_) => {}
            }
            places.extend(names.into_iter().map(|name| {
                let id = DestinationId { source: source.clone(), name };
                let queue = queues.iter().find(|queue| *queue.id() == id).map(Arc::clone);
                StoredDestination { id, space: space.clone(), queue }
            }));
        }
        let known = places.iter().map(|place| &place.id).chain(queues.iter().map(|queue| queue.id()));
        filter.check(&known.collect::<Vec<_>>())?;
        places.retain(|place| filter.selects(&place.id));
        Ok(places)
    }
}

type Ids = BTreeMap<DestinationId, Vec<MessageId>>;

fn of_source(source: &str) -> Filter {
    Filter { source: Some(source.to_owned()), ..Filter::default() }
}

fn letters(states: &[State]) -> String {
    states.iter().filter_map(|state| record::letter(*state)).collect()
}

/// The key at which a script stores its answer, so that a repeated call returns the same one.
fn answer_key(space: &Keyspace) -> Result<String, AdminError> {
    let number = getrandom::u64().map_err(|error| Unavailable(error.to_string()))?;
    Ok(format!("{}answer:{number:016x}", space.prefix()))
}
