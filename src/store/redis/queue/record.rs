//! What is known of an event that was tried: `STATE ATTEMPTS,SPENT;JSON`, without the spaces. Scripts read what stands before
//! the JSON.

use crate::store::queued::LastAnswer;
use crate::store::queued::Settlement;
use crate::store::queued::State;
use crate::store::queued::Tries;
use crate::store::queued::Verdict;
use crate::time::Moment;

/// What the record of an event says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) state: State,
    pub(super) tries: Tries,
    pub(super) notes: Notes,
}

/// What only people read, but for the time of the last replay.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Notes {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) replayed: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) settled: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) answer: Option<LastAnswer>,
}

/// The letter of a verdict, which is that of the state that it leads to.
pub(super) fn letter(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Delivered => "V",
        Verdict::Retry(_) => "R",
        Verdict::Dead => "D",
    }
}

/// The letter of a state; an event that waits for its first attempt has none.
pub(super) fn letter_of(state: State) -> Option<char> {
    match state {
        State::Queued => None,
        State::Retrying => Some('R'),
        State::Delivered => Some('V'),
        State::Dead => Some('D'),
    }
}

/// What a settlement leaves behind, without the state, which the script puts before it.
pub(super) fn after(settlement: Settlement, before: Tries) -> String {
    let notes = Notes {
        replayed: before.replayed_at.map(Moment::millis),
        settled: Some(settlement.at.millis()),
        reason: settlement.reason,
        answer: settlement.answer,
    };
    written(settlement.attempts, before.spent, &notes)
}

/// A record without its state.
pub(super) fn written(attempts: u32, spent: u32, notes: &Notes) -> String {
    format!("{attempts},{spent};{}", serde_json::to_string(notes).unwrap_or_default())
}

impl Record {
    /// Reads a record; nothing is that of an event that was never tried. `None` when it is none.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if text.is_empty() {
            return Some(Self { state: State::Queued, tries: Tries::default(), notes: Notes::default() });
        }
        let (head, json) = text.split_once(';')?;
        let first = head.chars().next();
        let state = State::ALL.into_iter().find(|state| first.is_some() && letter_of(*state) == first)?;
        let (attempts, spent) = head.get(1..)?.split_once(',')?;
        // What only people read is not worth an event.
        let notes: Notes = serde_json::from_str(json).unwrap_or_default();
        let replayed_at = notes.replayed.map(Moment::from_millis);
        let tries = Tries { attempts: attempts.parse().ok()?, spent: spent.parse().ok()?, replayed_at };
        Some(Self { state, tries, notes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_attempt_came_to_is_read_again() {
        let before = Tries { attempts: 3, spent: 2, replayed_at: Some(Moment::from_millis(17)) };
        let answer = LastAnswer { status: 500, body: "a;b".to_owned() };
        for (verdict, state) in [
            (Verdict::Delivered, State::Delivered),
            (Verdict::Retry(Moment::from_millis(9)), State::Retrying),
            (Verdict::Dead, State::Dead),
        ] {
            let settlement = Settlement {
                verdict,
                attempts: 4,
                at: Moment::from_millis(99),
                reason: Some("the upstream answered 500".to_owned()),
                answer: Some(answer.clone()),
            };
            let text = format!("{}{}", letter(verdict), after(settlement, before));
            let record = Record::parse(&text).expect("a record");
            assert_eq!((record.state, record.tries), (state, Tries { attempts: 4, ..before }), "{text}");
            assert_eq!(record.notes.settled, Some(99));
            assert_eq!(record.notes.answer.as_ref(), Some(&answer));
        }
    }

    #[test]
    fn what_is_no_record_is_seen() {
        assert_eq!(Record::parse("").map(|record| record.state), Some(State::Queued));
        assert_eq!(Record::parse("R1,0;").map(|record| record.state), Some(State::Retrying));
        for bad in ["R", "R1", "R1,0", "R1;{}", "X1,0;{}", "Rx,0;{}", "\u{e9}1,0;{}"] {
            assert_eq!(Record::parse(bad), None, "{bad}");
        }
    }
}
