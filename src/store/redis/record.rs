//! The record of an attempted delivery in Redis: the letter of its state, then
//! `ATTEMPTS,BEFORE,REPLAYED,SETTLED,STATUS;FAILURES`. Unknown fields are empty; times are in milliseconds since 1970.

use std::fmt::Display;

use crate::base::time::Moment;
use crate::store::Failures;
use crate::store::Outcome;
use crate::store::State;
use crate::store::Tries;

/// A decoded record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) state: State,
    pub(super) tries: Tries,
    pub(super) settled: Option<Moment>,
    pub(super) status: Option<u16>,
}

/// The letter of a state in records; a delivery before its first attempt has no record.
pub(super) fn letter(state: State) -> Option<char> {
    match state {
        State::Queued | State::Blocked => None,
        State::Retrying => Some('R'),
        State::Delivered => Some('V'),
        State::Dead => Some('D'),
    }
}

impl Record {
    /// The record of a delivery that was never attempted.
    pub(super) fn first() -> Self {
        Self { state: State::Queued, tries: Tries::default(), settled: None, status: None }
    }

    /// The record after an outcome.
    pub(super) fn after(outcome: Outcome, before: &Tries) -> Self {
        let state = outcome.state();
        let (settled, status, failures) = match outcome {
            Outcome::Delivered { at, status } => (at, status, before.failures.clone()),
            Outcome::Retry { failed, .. } | Outcome::Dead { failed } => (failed.at, None, before.failures.with(failed)),
        };
        let tries = Tries { attempts: before.attempts.saturating_add(1), failures, ..before.clone() };
        Self { state, tries, settled: Some(settled), status }
    }

    /// The text of the record without the state.
    pub(super) fn without_state(&self) -> String {
        let Self { tries, settled, status, .. } = self;
        format!(
            "{},{},{},{},{};{}",
            tries.attempts,
            tries.before_replay,
            shown(tries.replayed_at.map(|at| at.millis().max(0))),
            shown(settled.map(|at| at.millis().max(0))),
            shown(*status),
            tries.failures.as_json().unwrap_or_default()
        )
    }

    /// Parses a record; an empty text is that of a delivery that was never attempted. `None` when it is damaged.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if text.is_empty() {
            return Some(Self::first());
        }
        let (head, failures) = text.split_once(';')?;
        let first = head.chars().next();
        let state = State::ALL.into_iter().find(|state| first.is_some() && letter(*state) == first)?;
        let parts: Vec<_> = head.get(1..)?.split(',').collect();
        let [attempts, before_replay, replayed, settled, status] = *parts.as_slice() else { return None };
        // Damage in fields that are only shown to people does not matter.
        let moment = |text: &str| text.parse().ok().map(Moment::from_millis);
        let tries = Tries {
            attempts: attempts.parse().ok()?,
            before_replay: before_replay.parse().ok()?,
            replayed_at: moment(replayed),
            failures: Failures::stored(Some(failures)),
        };
        Some(Self { state, tries, settled: moment(settled), status: status.parse().ok() })
    }
}

fn shown(value: Option<impl Display>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::store::FailedAttempt;

    #[test]
    fn what_an_attempt_came_to_is_read_again() {
        let at = Moment::from_millis(99);
        let failed = FailedAttempt {
            at,
            ms: 3,
            status: Some(500),
            reason: "it answered 500".to_owned(),
            answer: "a;b,".to_owned(),
        };
        let before = Tries {
            attempts: 3,
            before_replay: 2,
            replayed_at: Some(Moment::from_millis(17)),
            failures: Failures::default().with(failed.clone()),
        };
        for (outcome, state, failures) in [
            (Outcome::Delivered { at, status: Some(204) }, State::Delivered, 1),
            (Outcome::Retry { after: Duration::ZERO, failed: failed.clone() }, State::Retrying, 2),
            (Outcome::Dead { failed }, State::Dead, 2),
        ] {
            let written = Record::after(outcome, &before);
            let text = format!("{}{}", letter(state).expect("a letter"), written.without_state());
            let read = Record::parse(&text).expect("a record");
            assert_eq!(read, written, "{text}");
            assert_eq!((read.state, read.tries.attempts, read.settled), (state, 4, Some(at)));
            assert_eq!(read.tries.failures.list().len(), failures);
            assert_eq!(read.status, (state == State::Delivered).then_some(204));
        }
    }

    #[test]
    fn what_is_no_record_is_seen() {
        assert_eq!(Record::parse(""), Some(Record::first()));
        assert_eq!(Record::parse("R1,0,,,;").map(|record| record.state), Some(State::Retrying));
        for bad in
            ["R", "R1", "R1,0,,,", "R1,0;", "X1,0,,,;", "Rx,0,,,;", "R1,0,,,,;", "\u{e9}1,0,,,;", "R99999999999,0,,,;"]
        {
            assert_eq!(Record::parse(bad), None, "{bad}");
        }
    }
}
