//! Finite automata in which each symbol of a text belongs to one of several values, and the search for a text that can
//! be read in two ways.
//!
//! A word of the automaton is a signed text; each symbol of it belongs to one of the values, or to the text between
//! them. The automaton is ambiguous when two runs over the same word assign a symbol to different owners.

use std::collections::HashSet;
use std::collections::VecDeque;

/// Most repetitions that are counted. Beyond it a text counts as one of any length, which allows more, never less.
const MAX_COUNTED: usize = 128;

/// A set of symbols: the 256 bytes, and 64 for texts that are the same in all requests but known only to the source.
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

    /// The symbol of a parameter; beyond 64 they share theirs, which makes more texts alike, never fewer.
    pub(super) fn constant(number: usize) -> Self {
        Self::none().with(Self::BYTES + number % 64)
    }

    /// These bytes.
    pub(super) fn of(bytes: impl IntoIterator<Item = u8>) -> Self {
        bytes.into_iter().fold(Self::none(), |class, byte| class.with(usize::from(byte)))
    }

    /// Everything but these bytes.
    pub(super) fn without(bytes: impl IntoIterator<Item = u8>) -> Self {
        Self::any().minus(Self::of(bytes))
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

/// What a value may look like.
#[derive(Debug, Clone)]
pub(super) enum Language {
    /// One symbol of these.
    One(Class),
    /// One after the other.
    Sequence(Vec<Self>),
    /// Any of these.
    Choice(Vec<Self>),
    /// So many of these, at least and at most.
    Repeat(Class, usize, usize),
}

impl Language {
    pub(super) fn nothing() -> Self {
        Self::Sequence(Vec::new())
    }

    /// This text.
    pub(super) fn literal(text: &str) -> Self {
        Self::Sequence(text.bytes().map(|byte| Self::One(Class::byte(byte))).collect())
    }
}

/// Whose symbol it is: the number of a value; `None` for what stands between them.
pub(super) type Owner = Option<usize>;

/// A place in the text.
type State = usize;

#[derive(Debug, Clone, Copy)]
struct Step {
    class: Class,
    owner: Owner,
    to: State,
}

/// The texts that can be signed, with whose each symbol is.
#[derive(Debug)]
pub(super) struct Automaton {
    /// The steps out of each state; texts begin at the first.
    steps: Vec<Vec<Step>>,
    accepting: Vec<bool>,
    /// Which branch each state belongs to, and the one that grows.
    branches: Vec<usize>,
    branch: usize,
}

impl Automaton {
    pub(super) fn new() -> Self {
        Self { steps: vec![Vec::new()], accepting: vec![false], branches: vec![0], branch: 0 }
    }

    /// Where texts begin.
    pub(super) fn start(&self) -> Vec<State> {
        vec![0]
    }

    /// Texts that are appended from the start belong to this branch now.
    pub(super) fn set_branch(&mut self, branch: usize) {
        self.branch = branch;
    }

    /// Goes on from these states with a text of the language; the states in which it may end.
    pub(super) fn append(&mut self, from: Vec<State>, language: &Language, owner: Owner) -> Vec<State> {
        match language {
            Language::One(class) => self.step(&from, *class, owner),
            Language::Sequence(all) => all.iter().fold(from, |from, one| self.append(from, one, owner)),
            Language::Choice(any) => any.iter().flat_map(|one| self.append(from.clone(), one, owner)).collect(),
            Language::Repeat(class, min, max) => self.repeat(from, *class, (*min, *max), owner),
        }
    }

    /// Texts may end in these states.
    pub(super) fn accept(&mut self, ends: &[State]) {
        for end in ends {
            if let Some(accepting) = self.accepting.get_mut(*end) {
                *accepting = true;
            }
        }
    }

    fn step(&mut self, from: &[State], class: Class, owner: Owner) -> Vec<State> {
        let to = self.steps.len();
        self.steps.push(Vec::new());
        self.accepting.push(false);
        self.branches.push(self.branch);
        for state in from {
            self.link(*state, Step { class, owner, to });
        }
        vec![to]
    }

    fn link(&mut self, state: State, step: Step) {
        if let Some(steps) = self.steps.get_mut(state) {
            steps.push(step);
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
            self.link(*state, Step { class, owner, to: *state });
        }
        ends.into_iter().chain(more).collect()
    }

    /// The owners between which the first symbol can be disputed in a text that has two readings, in two branches where
    /// it is looked for `across` them; `None` when every text has one.
    pub(super) fn dispute(&self, across: bool) -> Option<(Owner, Owner)> {
        // Where two runs over the same text stand, and whose the first symbol was that they gave to different owners.
        let mut seen = HashSet::from([(0, 0, false)]);
        let mut queue = VecDeque::from([(0, 0, None)]);
        while let Some((one, other, dispute)) = queue.pop_front() {
            let ends = |state: State| self.accepting.get(state).is_some_and(|accepting| *accepting);
            if dispute.is_some() && ends(one) && ends(other) {
                return dispute;
            }
            for left in self.steps.get(one).into_iter().flatten() {
                for right in self.steps.get(other).into_iter().flatten() {
                    let branch = |state: State| self.branches.get(state);
                    let apart = branch(left.to) != branch(right.to);
                    if left.class.and(right.class).is_empty() || across && !apart {
                        continue;
                    }
                    let differ = left.owner != right.owner;
                    let dispute = dispute.or_else(|| differ.then_some((left.owner, right.owner)));
                    if seen.insert((left.to, right.to, dispute.is_some())) {
                        queue.push_back((left.to, right.to, dispute));
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

    /// The dispute over texts that are made of these languages, one after the other.
    fn dispute(values: &[(Language, Owner)]) -> Option<(Owner, Owner)> {
        let mut automaton = Automaton::new();
        let ends =
            values.iter().fold(automaton.start(), |from, (language, owner)| automaton.append(from, language, *owner));
        automaton.accept(&ends);
        automaton.dispute(false)
    }

    fn any() -> Language {
        Language::Repeat(Class::any(), 0, usize::MAX)
    }

    #[test]
    fn values_are_told_apart_by_what_one_of_them_cannot_contain() {
        let dot = || (Language::literal("."), None);
        let without = |bytes: &str| Language::Repeat(Class::without(bytes.bytes()), 0, usize::MAX);
        assert!(dispute(&[(any(), Some(0)), dot(), (any(), Some(1))]).is_some());
        assert_eq!(dispute(&[(without("."), Some(0)), dot(), (any(), Some(1))]), None);
        assert_eq!(dispute(&[(any(), Some(0)), dot(), (without("."), Some(1))]), None);
        assert!(dispute(&[(any(), Some(0)), dot(), (without(":"), Some(1))]).is_some());
        let between = (Language::literal("ab"), None);
        assert_eq!(dispute(&[(without("b"), Some(0)), between.clone(), (any(), Some(1))]), None);
        assert!(dispute(&[(without("c"), Some(0)), between, (any(), Some(1))]).is_some());
    }

    #[test]
    fn neighbours_are_told_apart_by_a_length_that_is_counted() {
        let long = |min, max| Language::Repeat(Class::any(), min, max);
        for length in [0, 1, 50, MAX_COUNTED] {
            assert_eq!(dispute(&[(long(length, length), Some(0)), (any(), Some(1))]), None, "{length}");
            assert_eq!(dispute(&[(any(), Some(0)), (long(length, length), Some(1))]), None, "{length}");
        }
        assert!(dispute(&[(long(49, 50), Some(0)), (any(), Some(1))]).is_some());
        let beyond = MAX_COUNTED + 1;
        assert!(dispute(&[(long(beyond, beyond), Some(0)), (any(), Some(1))]).is_some(), "it is not counted so far");
        assert!(dispute(&[(long(0, beyond), Some(0)), (any(), Some(1))]).is_some());
    }

    /// A value of few symbols, or a text between two.
    fn short() -> impl Strategy<Value = (Language, Owner)> {
        let letters = proptest::collection::vec(proptest::sample::select(b"abc".to_vec()), 0..3);
        let value = (letters.clone(), 0..3_usize, 0..3_usize, any_bool(), 0..3_usize).prop_map(
            |(letters, min, more, endless, owner)| {
                let max = if endless { usize::MAX } else { min + more };
                (Language::Repeat(Class::of(letters), min, max), Some(owner))
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
            let found = dispute(&values).is_some();
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
        let letters = Language::Repeat(Class::of(b'a'..=b'z'), 0, usize::MAX);
        assert_eq!(dispute(&[(letters, Some(0)), constant.clone(), (any(), Some(1))]), None);
        assert!(dispute(&[(any(), Some(0)), constant, (any(), Some(1))]).is_some());
    }
}
