//! The encoding of message ids and delivery states as integers in the file.

use crate::base::time::Moment;
use crate::store::MessageId;
use crate::store::State;

/// The number of ids in one millisecond.
const PER_MILLISECOND: i64 = 4096;

/// Encodes a state.
pub(super) fn state(state: State) -> i64 {
    match state {
        State::Blocked => 2,
        State::Queued => 3,
        State::Retrying => 4,
        State::Delivered => 5,
        State::Dead => 6,
    }
}

/// Decodes a state.
pub(super) fn state_of(written: i64) -> Option<State> {
    State::ALL.into_iter().find(|known| state(*known) == written)
}

/// The id of the first message that is stored at this moment.
pub(super) fn first_of(moment: Moment) -> i64 {
    moment.millis().clamp(0, i64::MAX / PER_MILLISECOND) * PER_MILLISECOND
}

/// About when the message with this id was stored.
pub(super) fn stored(id: i64) -> Moment {
    Moment::from_millis(id.div_euclid(PER_MILLISECOND))
}

/// The next id after `last`, at least that of `now`.
pub(super) fn next(last: i64, now: Moment) -> i64 {
    last.saturating_add(1).max(first_of(now))
}

/// Decodes an id.
pub(super) fn public(id: i64) -> MessageId {
    let part = |part: i64| u64::try_from(part).unwrap_or(0);
    MessageId { millis: part(id.div_euclid(PER_MILLISECOND)), sequence: part(id.rem_euclid(PER_MILLISECOND)) }
}

/// Encodes an id; `None` when it is out of range.
pub(super) fn written(id: MessageId) -> Option<i64> {
    let sequence = i64::try_from(id.sequence).ok().filter(|sequence| *sequence < PER_MILLISECOND)?;
    i64::try_from(id.millis).ok()?.checked_mul(PER_MILLISECOND)?.checked_add(sequence)
}

/// A limit as an SQL integer.
pub(super) fn limit_of(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_grow_with_time_and_whatever_the_clock_does() {
        let now = Moment::from_millis(1_000);
        assert_eq!(next(0, now), 1_000 * PER_MILLISECOND);
        assert_eq!(next(2_000 * PER_MILLISECOND, now), 2_000 * PER_MILLISECOND + 1);
        assert_eq!(written(public(next(0, now) + 17)), Some(1_000 * PER_MILLISECOND + 17));
        assert_eq!(written(MessageId { millis: 1, sequence: 4096 }), None);
    }

    #[test]
    fn states_come_back_as_they_were() {
        assert!(State::ALL.into_iter().all(|known| state_of(state(known)) == Some(known)));
        assert_eq!(state_of(7), None);
    }
}
