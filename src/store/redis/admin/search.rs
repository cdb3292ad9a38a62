//! Finds the deliveries in Redis that a filter selects, in steps of bounded size.

use redis::Value;

use super::StoredDestination;
use crate::base::limits;
use crate::base::time::Moment;
use crate::store::AdminError;
use crate::store::Filter;
use crate::store::MessageId;
use crate::store::Part;
use crate::store::State;
use crate::store::Summary;
use crate::store::redis::Purpose;
use crate::store::redis::Redis;
use crate::store::redis::entry;
use crate::store::redis::no_answer;
use crate::store::redis::queue_scripts;
use crate::store::search::Direction;

/// A page of a search, and its direction.
#[derive(Debug)]
pub(super) struct Search {
    pub(super) part: Part,
    pub(super) direction: Direction,
}

pub(super) type Found = crate::store::search::Found<Summary, MessageId>;

impl Search {
    fn selects(&self, delivery: &Summary) -> bool {
        let Filter { source: _, destination: _, state: _, kind, id, from, until } = &self.part.filter;
        self.part.states.contains(&delivery.state)
            && id.as_ref().is_none_or(|id| *id == delivery.event_id)
            && kind.as_ref().is_none_or(|kind| Some(kind) == delivery.kind.as_ref())
            && from.is_none_or(|from| delivery.received_at >= from)
            && until.is_none_or(|until| delivery.received_at < until)
    }

    /// The first and the last id, in the syntax of `XRANGE`.
    fn bounds(&self) -> (String, String) {
        let (from, until) = self.part.filter.id_range();
        let millis = |bound: Moment| bound.millis().max(0).to_string();
        let low = from.map_or_else(|| "-".to_owned(), millis);
        let high = until.map_or_else(|| "+".to_owned(), millis);
        let (from, to) = match self.direction {
            Direction::NewestFirst => (high, low),
            Direction::OldestFirst => (low, high),
        };
        (self.part.after.map_or(from, |after| format!("({after}")), to)
    }

    /// The sorted set that has all selected deliveries, if there is one.
    fn index(&self) -> &'static str {
        match self.part.states.as_slice() {
            [State::Dead] => "dead",
            [State::Retrying] => "retrying",
            [State::Blocked | State::Queued] => "open",
            _ => "",
        }
    }
}

impl Redis {
    /// Finds deliveries to these destinations. Those of one message are on one page.
    pub(super) async fn search(&self, search: &Search, places: &[StoredDestination]) -> Result<Found, AdminError> {
        let limits = &self.process.limits;
        let looks = (limits.max_scanned / places.len().max(1)).max(limits.list_page);
        let mut walks = Vec::with_capacity(places.len());
        for place in places {
            walks.push(self.walk(place, search, looks).await?);
        }
        Ok(Found::merged(walks, |delivery| delivery.id, (search.direction, search.part.limit)))
    }

    async fn walk(&self, place: &StoredDestination, search: &Search, looks: usize) -> Result<Found, AdminError> {
        let (mut from, to) = search.bounds();
        let mut found = Found::default();
        let mut pages = 0;
        loop {
            let direction = if search.direction == Direction::NewestFirst { "1" } else { "0" };
            let limits::Redis { list_page, list_step, list_bytes, .. } = self.process.limits;
            let call = queue_scripts::LIST.call(place.keys()).argument(self.now()).argument(place.id.name.as_str());
            let call = call.argument(direction).argument(from.as_str()).argument(to.as_str());
            let call = call.argument(list_page.to_string()).argument(search.index());
            let call = call.argument(list_step.to_string()).argument(list_bytes.to_string());
            let (last, rows): (String, Vec<Value>) =
                self.connections.call(&place.space, Purpose::Maintenance, &call).await?;
            pages += 1;
            let rows: Option<Vec<_>> = rows.into_iter().map(|row| entry::summary(&place.id, row)).collect();
            let rows = rows.ok_or_else(no_answer)?;
            found.deliveries.extend(rows.into_iter().filter(|delivery| search.selects(delivery)));
            let Ok(last) = last.parse() else { return Ok(Found { next: None, ..found }) };
            if found.deliveries.len() > search.part.limit || pages * list_page >= looks {
                return Ok(Found { next: Some(last), ..found });
            }
            from = format!("({last}");
        }
    }
}
