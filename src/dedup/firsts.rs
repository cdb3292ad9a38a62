//! Under which ids and as which types events came first, as far as this process still knows: for people only, nothing is
//! decided by it.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use http::HeaderValue;

use crate::event::Event;
use crate::event::Key;
use crate::store::KeyMap;
use crate::time::Moment;

/// How an event came first.
#[derive(Debug, Clone)]
pub struct First {
    /// Its id.
    pub id: HeaderValue,
    /// Its type, where it had one.
    pub kind: Option<HeaderValue>,
    /// When it came.
    pub at: Moment,
}

/// Events by their content, the oldest forgotten first. Takes about 250 bytes an event.
#[derive(Debug)]
pub struct Firsts {
    known: Mutex<Known>,
    max: usize,
}

#[derive(Debug, Default)]
struct Known {
    by_content: KeyMap<First>,
    /// In the order in which they came.
    order: VecDeque<Key>,
}

impl Firsts {
    /// Knows at most this many.
    pub fn new(max: usize) -> Self {
        Self { known: Mutex::default(), max }
    }

    /// Notes an event.
    pub(super) fn note(&self, content: Key, event: &Event) {
        let (id, kind) = (event.id().clone(), event.kind().cloned());
        self.insert(content, First { id, kind, at: event.inbound().received_at() });
    }

    fn insert(&self, content: Key, first: First) {
        let mut known = self.lock();
        if known.by_content.insert(content, first).is_some() {
            return;
        }
        known.order.push_back(content);
        if known.order.len() > self.max
            && let Some(oldest) = known.order.pop_front()
        {
            known.by_content.remove(&oldest);
        }
    }

    /// How the event of this content came first.
    pub(super) fn get(&self, content: Key) -> Option<First> {
        self.lock().by_content.get(&content).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(id: &'static str) -> First {
        First { id: HeaderValue::from_static(id), kind: None, at: Moment::from_unix(1) }
    }

    #[test]
    fn the_oldest_is_forgotten_when_there_are_too_many() {
        let firsts = Firsts::new(2);
        let id = |number| firsts.get(Key([number; 16])).map(|first| first.id);
        firsts.insert(Key([1; 16]), first("one"));
        firsts.insert(Key([2; 16]), first("two"));
        assert_eq!((id(1).as_deref_str(), id(2).as_deref_str()), (Some("one"), Some("two")));
        firsts.insert(Key([1; 16]), first("one again"));
        assert_eq!(
            (id(1).as_deref_str(), id(2).as_deref_str()),
            (Some("one again"), Some("two")),
            "it takes no more room"
        );
        firsts.insert(Key([3; 16]), first("three"));
        assert_eq!((id(1).as_deref_str(), id(2).as_deref_str()), (None, Some("two")));
        assert_eq!(id(3).as_deref_str(), Some("three"));
    }

    trait Text {
        fn as_deref_str(&self) -> Option<&str>;
    }

    impl Text for Option<HeaderValue> {
        fn as_deref_str(&self) -> Option<&str> {
            self.as_ref().and_then(|value| value.to_str().ok())
        }
    }
}
