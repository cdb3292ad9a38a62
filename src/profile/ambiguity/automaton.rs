//! Nondeterministic finite automata over signed texts, and the search for a text that can be read in two ways.
//!
//! A word of the automaton is a signed text. Each transition has an owner: the value that the symbol belongs to, or the
//! fixed text between values. The automaton is ambiguous when two runs over the same word assign a symbol to different
//! owners.

use std::collections::HashSet;
use std::collections::VecDeque;

/// The most repetitions that states are made for. A text with a higher limit counts as one of any length, which adds
/// words to the language and removes none: an ambiguity is never missed.
const MAX_COUNTED: usize = 128;

/// A set of symbols. The alphabet is the 256 bytes, and 64 symbols for texts that are the same in all requests but
/// whose value the profile does not know, such as parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Class([u64; 5]);

impl Class {
    const BYTES: usize = 256;

    pub(super) const fn none() -> Self {
        Self([0; 5])
    }

    pub(super) const fn any() -> Self {
        Self([u64::MAX; 5])
    }

    pub(super) fn byte(byte: u8) -> Self {
        Self::none().with(usize::from(byte))
    }

    /// The symbol of an unknown constant. More than 64 constants share symbols, which can only add ambiguities.
    pub(super) fn constant(number: usize) -> Self {
        Self::none().with(Self::BYTES + number % 64)
    }

    /// These bytes.
    pub(super) fn bytes(bytes: impl IntoIterator<Item = u8>) -> Self {
        bytes.into_iter().fold(Self::none(), |class, byte| class.with(usize::from(byte)))
    }

    /// All symbols except these bytes.
    pub(super) fn without(bytes: impl IntoIterator<Item = u8>) -> Self {
        Self::any().minus(Self::bytes(bytes))
    }

    pub(super) fn and(self, other: Self) -> Self {
        self.combined(other, |one, other| one & other)
    }

    fn minus(self, other: Self) -> Self {
        self.combined(other, |one, other| one & !other)
    }

    fn combined(mut self, other: Self, join: impl Fn(u64, u64) -> u64) -> Self {
        self.0.iter_mut().zip(other.0).for_each(|(one, other)| *one = join(*one, other));
        self
    }

    fn with(mut self, symbol: usize) -> Self {
        if let Some(word) = self.0.get_mut(symbol / 64) {
            *word |= 1 << (symbol % 64);
        }
        self
    }

    fn is_empty(self) -> bool {
        self.0 == [0; 5]
    }
}

/// The texts that a value may be.
#[derive(Debug, Clone)]
pub(super) enum Language {
    /// One symbol of this class.
    One(Class),
    /// A concatenation.
    Sequence(Vec<Self>),
    /// One of several.
    Choice(Vec<Self>),
    /// Symbols of this class, with a minimum and a maximum number.
    Repeat(Class, usize, usize),
}

impl Language {
    pub(super) fn nothing() -> Self {
        Self::Sequence(Vec::new())
    }

    /// Only this text.
    pub(super) fn literal(text: &str) -> Self {
        Self::Sequence(text.bytes().map(|byte| Self::One(Class::byte(byte))).collect())
    }
}

/// The value that a symbol belongs to, by its number; `None` for the fixed text between values.
pub(super) type Owner = Option<usize>;

/// A state, as an index into [`Automaton::transitions`].
type State = usize;

/// A transition to another state over one symbol of the class.
#[derive(Debug, Clone, Copy)]
struct Transition {
    class: Class,
    owner: Owner,
    to: State,
}

/// A nondeterministic finite automaton of the texts that can be signed.
#[derive(Debug)]
pub(super) struct Automaton {
    /// The transitions out of each state. The first state is the start.
    transitions: Vec<Vec<Transition>>,
    accepting: Vec<bool>,
    /// The branch of each state.
    branches: Vec<usize>,
    /// The branch of new states.
    branch: usize,
}

impl Automaton {
    pub(super) fn new() -> Self {
        Self { transitions: vec![Vec::new()], accepting: vec![false], branches: vec![0], branch: 0 }
    }

    /// The start state.
    pub(super) fn start(&self) -> Vec<State> {
        vec![0]
    }

    /// Sets the branch of the states that are appended next. Each scheme that shares a key is a branch.
    pub(super) fn set_branch(&mut self, branch: usize) {
        self.branch = branch;
    }

    /// Appends a text of the language after these states. Returns the states in which it may end.
    pub(super) fn append(&mut self, from: Vec<State>, language: &Language, owner: Owner) -> Vec<State> {
        match language {
            Language::One(class) => self.step(&from, *class, owner),
            Language::Sequence(all) => all.iter().fold(from, |from, one| self.append(from, one, owner)),
            Language::Choice(any) => any.iter().flat_map(|one| self.append(from.clone(), one, owner)).collect(),
            Language::Repeat(class, min, max) => self.repeat(from, *class, (*min, *max), owner),
        }
    }

    /// Makes these states accepting.
    pub(super) fn accept(&mut self, ends: &[State]) {
        for end in ends {
            if let Some(accepting) = self.accepting.get_mut(*end) {
                *accepting = true;
            }
        }
    }

    fn step(&mut self, from: &[State], class: Class, owner: Owner) -> Vec<State> {
        let to = self.transitions.len();
        self.transitions.push(Vec::new());
        self.accepting.push(false);
        self.branches.push(self.branch);
        for state in from {
            self.link(*state, Transition { class, owner, to });
        }
        vec![to]
    }

    fn link(&mut self, state: State, transition: Transition) {
        if let Some(transitions) = self.transitions.get_mut(state) {
            transitions.push(transition);
        }
    }

    fn repeat(&mut self, from: Vec<State>, class: Class, (min, max): (usize, usize), owner: Owner) -> Vec<State> {
        let mut ends = from;
        for _ in 0..min.min(MAX_COUNTED) {
            ends = self.step(&ends, class, owner);
        }
        if min <= MAX_COUNTED && max <= MAX_COUNTED {
            let mut all = ends.clone();
            for _ in min..max {
                ends = self.step(&ends, class, owner);
                all.extend(&ends);
            }
            return all;
        }
        let more = self.step(&ends, class, owner);
        for state in &more {
            self.link(*state, Transition { class, owner, to: *state });
        }
        ends.into_iter().chain(more).collect()
    }

    /// Searches for a text with two readings. Returns the two owners of the first symbol on which the readings differ;
    /// `None` when every text has one reading. With `across`, the readings must be in two different branches.
    pub(super) fn find_ambiguity(&self, across: bool) -> Option<(Owner, Owner)> {
        // A breadth-first search of the product automaton: pairs of states that two runs over the same text reach, and
        // the first pair of different owners.
        let mut seen = HashSet::from([(0, 0, false)]);
        let mut queue = VecDeque::from([(0, 0, None)]);
        while let Some((one, other, owners)) = queue.pop_front() {
            let ends = |state: State| self.accepting.get(state).is_some_and(|accepting| *accepting);
            if owners.is_some() && ends(one) && ends(other) {
                return owners;
            }
            for left in self.transitions.get(one).into_iter().flatten() {
                for right in self.transitions.get(other).into_iter().flatten() {
                    let branch = |state: State| self.branches.get(state);
                    let apart = branch(left.to) != branch(right.to);
                    if left.class.and(right.class).is_empty() || across && !apart {
                        continue;
                    }
                    let differ = left.owner != right.owner;
                    let owners = owners.or_else(|| differ.then_some((left.owner, right.owner)));
                    if seen.insert((left.to, right.to, owners.is_some())) {
                        queue.push_back((left.to, right.to, owners));
                    }
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The ambiguity of texts that are made of these languages, one after the other.
    fn ambiguity(values: &[(Language, Owner)]) -> Option<(Owner, Owner)> {
        let mut automaton = Automaton::new();
        let ends =
            values.iter().fold(automaton.start(), |from, (language, owner)| automaton.append(from, language, *owner));
        automaton.accept(&ends);
        automaton.find_ambiguity(false)
    }

    fn any() -> Language {
        Language::Repeat(Class::any(), 0, usize::MAX)
    }

    #[test]
    fn values_are_told_apart_by_what_one_of_them_cannot_contain() {
        let dot = || (Language::literal("."), None);
        let without = |bytes: &str| Language::Repeat(Class::without(bytes.bytes()), 0, usize::MAX);
        assert!(ambiguity(&[(any(), Some(0)), dot(), (any(), Some(1))]).is_some());
        assert_eq!(ambiguity(&[(without("."), Some(0)), dot(), (any(), Some(1))]), None);
        assert_eq!(ambiguity(&[(any(), Some(0)), dot(), (without("."), Some(1))]), None);
        assert!(ambiguity(&[(any(), Some(0)), dot(), (without(":"), Some(1))]).is_some());
        let between = (Language::literal("ab"), None);
        assert_eq!(ambiguity(&[(without("b"), Some(0)), between.clone(), (any(), Some(1))]), None);
        assert!(ambiguity(&[(without("c"), Some(0)), between, (any(), Some(1))]).is_some());
    }

    #[test]
    fn neighbours_are_told_apart_by_a_length_that_is_counted() {
        let long = |min, max| Language::Repeat(Class::any(), min, max);
        for length in [0, 1, 50, MAX_COUNTED] {
            assert_eq!(ambiguity(&[(long(length, length), Some(0)), (any(), Some(1))]), None, "{length}");
            assert_eq!(ambiguity(&[(any(), Some(0)), (long(length, length), Some(1))]), None, "{length}");
        }
        assert!(ambiguity(&[(long(49, 50), Some(0)), (any(), Some(1))]).is_some());
        let beyond = MAX_COUNTED + 1;
        assert!(ambiguity(&[(long(beyond, beyond), Some(0)), (any(), Some(1))]).is_some(), "it is not counted so far");
        assert!(ambiguity(&[(long(0, beyond), Some(0)), (any(), Some(1))]).is_some());
    }

    /// A value of few symbols, or a text between two.
    fn short() -> impl Strategy<Value = (Language, Owner)> {
        let letters = proptest::collection::vec(proptest::sample::select(b"abc".to_vec()), 0..3);
        let value = (letters.clone(), 0..3_usize, 0..3_usize, any_bool(), 0..3_usize).prop_map(
            |(letters, min, more, endless, owner)| {
                let max = if endless { usize::MAX } else { min + more };
                (Language::Repeat(Class::bytes(letters), min, max), Some(owner))
            },
        );
        let between = letters.prop_map(|letters| {
            let bytes = letters.into_iter().map(|byte| Language::One(Class::byte(byte)));
            (Language::Sequence(bytes.collect()), None)
        });
        prop_oneof![value, between]
    }

    fn any_bool() -> impl Strategy<Value = bool> {
        proptest::bool::ANY
    }

    /// Every way to give the symbols of the text to the values in their order.
    fn readings(text: &[u8], values: &[(Language, Owner)]) -> Vec<Vec<Owner>> {
        let Some(((language, owner), rest)) = values.split_first() else {
            return if text.is_empty() { vec![Vec::new()] } else { Vec::new() };
        };
        let is = |class: Class, byte: u8| class.and(Class::byte(byte)) == Class::byte(byte);
        let holds = |part: &[u8]| match language {
            Language::Repeat(class, min, max) => {
                (*min..=*max).contains(&part.len()) && part.iter().all(|byte| is(*class, *byte))
            }
            Language::Sequence(all) => {
                let one = |(one, byte): (&Language, &u8)| matches!(one, Language::One(class) if is(*class, *byte));
                all.len() == part.len() && all.iter().zip(part).all(one)
            }
            Language::One(_) | Language::Choice(_) => unreachable!("not made here"),
        };
        let ends = (0..=text.len()).filter(|end| holds(&text[..*end]));
        ends.flat_map(|end| {
            readings(&text[end..], rest).into_iter().map(move |behind| [vec![*owner; end], behind].concat())
        })
        .collect()
    }

    proptest! {
        #[test]
        fn no_short_text_has_two_readings_where_none_was_found(values in proptest::collection::vec(short(), 1..5)) {
            let found = ambiguity(&values).is_some();
            let texts = (0..=5_u32).flat_map(|length| (0..3_usize.pow(length)).map(move |number| {
                (0..length).map(|at| b"abc"[number / 3_usize.pow(at) % 3]).collect::<Vec<u8>>()
            }));
            for text in texts {
                let mut readings = readings(&text, &values);
                readings.sort();
                readings.dedup();
                prop_assert!(found || readings.len() < 2, "{text:?} has the readings {readings:?}");
            }
        }
    }

    #[test]
    fn what_is_the_same_in_all_requests_ends_a_value_that_cannot_hold_it() {
        let constant = (Language::One(Class::constant(0)), None);
        let letters = Language::Repeat(Class::bytes(b'a'..=b'z'), 0, usize::MAX);
        assert_eq!(ambiguity(&[(letters, Some(0)), constant.clone(), (any(), Some(1))]), None);
        assert!(ambiguity(&[(any(), Some(0)), constant, (any(), Some(1))]).is_some());
    }
}
