//! Finds events in Redis that a filter means, without looking at all of them at once.

use redis::Value;

use super::Local;
use super::RedisBacklog;
use super::entry;
use super::ledger::error;
use super::no_answer;
use super::scripts;
use crate::limits;
use crate::store::Denied;
use crate::store::ledger::Part;
use crate::store::queued::Filter;
use crate::store::queued::Number;
use crate::store::queued::State;
use crate::store::queued::Summary;

/// How far apart, in milliseconds, an event's reception and its number may be: a slow body, or clocks that differ.
const SLACK: i64 = 5 * 60 * 1000;

/// What is looked for, and from which side.
#[derive(Debug)]
pub(super) struct Search {
    pub(super) part: Part,
    pub(super) newest_first: bool,
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) events: Vec<Summary>,
    /// The number behind which it goes on; nothing when there are no more.
    pub(super) next: Option<Number>,
}

impl Search {
    fn means(&self, event: &Summary) -> bool {
        let Filter { source: _, state: _, kind, id, from, until } = &self.part.filter;
        self.part.states.contains(&event.state)
            && id.as_ref().is_none_or(|id| *id == event.id)
            && kind.as_ref().is_none_or(|kind| Some(kind) == event.kind.as_ref())
            && from.is_none_or(|from| event.received_at >= from)
            && until.is_none_or(|until| event.received_at < until)
    }

    /// Where to begin and to end.
    fn bounds(&self) -> (String, String) {
        let low =
            self.part.filter.from.map_or_else(|| "-".to_owned(), |from| (from.millis() - SLACK).max(0).to_string());
        let high =
            self.part.filter.until.map_or_else(|| "+".to_owned(), |until| (until.millis() + SLACK).max(0).to_string());
        let (from, to) = if self.newest_first { (high, low) } else { (low, high) };
        (self.part.behind.map_or(from, |behind| format!("({behind}")), to)
    }

    /// The set in which all that is meant stands.
    fn index(&self) -> &'static str {
        match self.part.states.as_slice() {
            [State::Dead] => "dead",
            [State::Retrying] => "retrying",
            _ => "",
        }
    }

    /// Whether `a` comes before `b`.
    fn precedes(&self, a: Number, b: Number) -> bool {
        if self.newest_first { a > b } else { a < b }
    }
}

impl RedisBacklog {
    /// Finds events, in all queues or in the filter's.
    pub(super) async fn search(&self, search: &Search) -> Result<Found, Denied> {
        let named = search.part.filter.source.as_ref().map(|source| self.of(source)).transpose()?;
        let queues: Vec<&Local> = named.map_or_else(|| self.queues.queues.iter().collect(), |local| vec![local]);
        let limits = &self.queues.limits;
        let looks = (limits.max_scanned / queues.len().max(1)).max(limits.list_page);
        let mut found = Found::default();
        for local in queues {
            let Found { events, next } = self.walk(local, search, looks).await?;
            found.events.extend(events);
            // Behind this number, not all have been looked at.
            found.next = match (found.next, next) {
                (Some(a), Some(b)) => Some(if search.precedes(a, b) { a } else { b }),
                (a, b) => a.or(b),
            };
        }
        found.events.sort_by_key(|event| event.number);
        if search.newest_first {
            found.events.reverse();
        }
        if let Some(end) = found.next {
            found.events.retain(|event| !search.precedes(end, event.number));
        }
        if found.events.len() > search.part.limit {
            // What has the same number in another queue stays together, or half of it would be behind the cursor.
            let last = found.events.get(search.part.limit.saturating_sub(1)).map(|event| event.number);
            found.events.retain(|event| last.is_some_and(|last| !search.precedes(last, event.number)));
            found.next = last.or(search.part.behind);
        }
        Ok(found)
    }

    async fn walk(&self, local: &Local, search: &Search, looks: usize) -> Result<Found, Denied> {
        let page = self.queues.limits.list_page.to_string();
        let (mut from, to) = search.bounds();
        let mut found = Found::default();
        let mut looked = 0;
        loop {
            let direction = if search.newest_first { "1" } else { "0" };
            let arguments = [direction, &from, &to, &page, search.index()];
            let (more, shown) = self.page(local, arguments).await?;
            looked += shown.len();
            let last = shown.last().map(|event| event.number);
            found.events.extend(shown.into_iter().filter(|event| search.means(event)));
            let Some(last) = last.filter(|_| more) else { return Ok(Found { next: None, ..found }) };
            if found.events.len() > search.part.limit || looked >= looks {
                return Ok(Found { next: Some(last), ..found });
            }
            from = format!("({last}");
        }
    }

    /// One event.
    pub(super) async fn one(&self, local: &Local, number: Number) -> Result<Option<Summary>, Denied> {
        let number = number.to_string();
        Ok(self.page(local, ["0", &number, &number, "1", ""]).await?.1.pop())
    }

    async fn page(&self, local: &Local, arguments: [&str; 5]) -> Result<(bool, Vec<Summary>), Denied> {
        let call = scripts::call(&scripts::LIST, &local.space);
        let call = arguments.into_iter().fold(call, |call, argument| call.argument(argument));
        let limits::Redis { list_step, list_bytes, .. } = self.queues.limits;
        let call = [list_step, list_bytes].iter().fold(call, |call, most| call.argument(most.to_string()));
        let (more, shown): (i64, Vec<Value>) = self.redis.call(&local.space, &call).await.map_err(error)?;
        let shown: Option<Vec<_>> = shown.into_iter().map(|shown| entry::summary(&local.source, shown)).collect();
        Ok((more == 1, shown.ok_or_else(no_answer)?))
    }
}
