//! Looks at the queued events in Redis, replays them and purges them.

use std::collections::BTreeMap;

use redis::Value;

use super::Local;
use super::RedisBacklog;
use super::entry::Entry;
use super::record;
use super::scripts;
use super::search::Found;
use super::search::Search;
use crate::store::Denied;
use crate::store::ledger::Part;
use crate::store::queued::Details;
use crate::store::queued::Done;
use crate::store::queued::Number;
use crate::store::queued::Page;
use crate::store::queued::State;
use crate::store::redis::connection::Failed;
use crate::store::redis::script::Script;

/// Most events that are changed in one step, so that nobody waits for long.
const PART: usize = 200;

impl RedisBacklog {
    /// See [`crate::store::Ledger::list`].
    pub(in crate::store) async fn list(&self, part: Part) -> Result<Page, Denied> {
        let Found { events, next } = self.search(&Search { part, newest_first: true }).await?;
        Ok(Page { events, next: next.map(|number| number.to_string()) })
    }

    /// See [`crate::store::Ledger::show`].
    pub(in crate::store) async fn show(&self, source: &str, number: Number) -> Result<Option<Details>, Denied> {
        let local = self.of(source)?;
        let Some(summary) = self.one(local, number).await? else { return Ok(None) };
        let call = scripts::call(&scripts::SHOW, &local.space).argument(number.to_string());
        let entry = Entry::read(&local.source, self.redis.call::<Value>(&local.space, &call).await.map_err(error)?);
        Ok(Some(Details { summary, message: entry.and_then(|entry| entry.message) }))
    }

    /// See [`crate::store::Ledger::replay`].
    pub(in crate::store) async fn replay(&self, source: &str, number: Number) -> Result<(), Denied> {
        let local = self.of(source)?;
        let summary = self.one(local, number).await?;
        match summary.ok_or_else(|| Denied::NoSuchEvent(source.to_owned(), number))?.state {
            State::Dead | State::Delivered => {}
            open @ (State::Queued | State::Retrying) => return Err(Denied::Waiting(open)),
        }
        match self.change(local, &scripts::REPLAY, &[State::Dead, State::Delivered], &[number]).await? {
            // Somebody was faster.
            0 => Err(Denied::Waiting(State::Retrying)),
            _ => Ok(()),
        }
    }

    /// See [`crate::store::Ledger::replay_all`].
    pub(in crate::store) async fn replay_all(&self, part: Part) -> Result<Done, Denied> {
        self.change_all(&scripts::REPLAY, part).await
    }

    /// See [`crate::store::Ledger::purge`].
    pub(in crate::store) async fn purge(&self, part: Part) -> Result<Done, Denied> {
        self.change_all(&scripts::PURGE, part).await
    }

    async fn change_all(&self, script: &'static Script, part: Part) -> Result<Done, Denied> {
        let search = Search { part, newest_first: false };
        let Found { events, next } = self.search(&search).await?;
        let mut sources: BTreeMap<String, Vec<Number>> = BTreeMap::new();
        for event in events {
            sources.entry(event.source).or_default().push(event.number);
        }
        let mut changed = 0;
        for (source, numbers) in sources {
            changed += self.change(self.of(&source)?, script, &search.part.states, &numbers).await?;
        }
        Ok(Done { events: changed, next: next.map(|number| number.to_string()) })
    }

    /// Changes events that are still in one of these states; how many.
    async fn change(
        &self,
        local: &Local,
        script: &'static Script,
        states: &[State],
        numbers: &[Number],
    ) -> Result<u64, Denied> {
        let letters: String = states.iter().filter_map(|state| record::letter_of(*state)).collect();
        let mut changed = 0;
        for part in numbers.chunks(PART) {
            let call = scripts::call(script, &local.space).argument(letters.as_str());
            let call = part.iter().fold(call, |call, number| call.argument(number.to_string()));
            changed += self.redis.call::<u64>(&local.space, &call).await.map_err(error)?;
            local.wake();
        }
        Ok(changed)
    }

    /// The queue of a source.
    pub(super) fn of(&self, source: &str) -> Result<&Local, Denied> {
        let queues = &self.queues.queues;
        queues.iter().find(|local| local.source == source).ok_or_else(|| {
            let mut names: Vec<_> = queues.iter().map(|local| local.source.clone()).collect();
            names.sort();
            Denied::NoSuchSource(source.to_owned(), names)
        })
    }
}

pub(super) fn error(failed: Failed) -> Denied {
    Denied::Unavailable(failed.error)
}
