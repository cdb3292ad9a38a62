//! What is read out of a JSON body is what other parsers find there. Where at least two of three that are widely used
//! take a body, and all that take it agree on what is wanted, so do we; and what we find, all find that take it.
#![no_main]

use std::cell::RefCell;

use bytes::Bytes;
use doorward::base::json::Pointer;
use doorward::base::json::Pointers;
use doorward_fuzz::cut;
use doorward_fuzz::parsers;
use doorward_fuzz::parsers::Answer;
use doorward_fuzz::parsers::Found;
use doorward_fuzz::parsers::Parser;
use libfuzzer_sys::fuzz_target;

thread_local! {
    static OTHERS: RefCell<[Parser; 2]> =
        RefCell::new([Parser::start("python3", "find.py"), Parser::start("node", "find.js")]);
}

// Pointers, one a line, an empty line and the document; or a `g` and what a document is made by.
fuzz_target!(|input: &[u8]| {
    let (wanted, body) = input.strip_prefix(b"g").map_or_else(|| written(input), parsers::document);
    // Where bytes are no UTF-8, Node reads this character.
    if wanted.iter().flat_map(Pointer::tokens).any(|token| token.contains('\u{fffd}')) {
        return;
    }
    let mut pointers = Pointers::default();
    let slots: Vec<_> = wanted.iter().map(|pointer| pointers.add(pointer)).collect();
    let ours =
        pointers.extract(&body).map(|fields| slots.iter().map(|slot| fields.get(*slot).clone()).collect::<Vec<_>>());
    let [python, node] = OTHERS.with_borrow_mut(|others| {
        others.iter_mut().for_each(|parser| parser.ask(&wanted, &body));
        others.each_mut().map(Parser::answer)
    });
    let told = format!("{wanted:?} {ours:?} {python:?} {node:?}");
    assert!(ours.is_err() || node.is_some(), "nobody else takes it: {told}");
    // How numbers are written, Python says.
    let answers = [(python, true), (node, false), (parsers::serde(&wanted, &body), false)];
    let answers: Vec<_> = answers.into_iter().filter_map(|(answer, exact)| Some((answer?, exact))).collect();
    if answers.iter().any(|(answer, _)| *answer == Answer::Twice) {
        assert!(ours.is_err(), "a name on the way is there twice: {told}");
        return;
    }
    let all: Vec<(&[Found], bool)> = answers
        .iter()
        .filter_map(|(answer, exact)| if let Answer::Found(all) = answer { Some((&all[..], *exact)) } else { None })
        .collect();
    let same = |pair: &[(&[Found], bool)]| pair[0].0.iter().zip(pair[1].0).all(|(one, other)| one.agrees(other));
    let agree = all.len() >= 2 && all.windows(2).all(same);
    if agree {
        assert!(ours.is_ok(), "others take it: {told}");
    }
    let Ok(ours) = &ours else { return };
    for (found, exact) in all {
        for (ours, found) in ours.iter().zip(found) {
            if agree {
                assert!(found.is(ours, exact), "others find {found:?}, not {ours:?}: {told}");
            } else {
                assert!(found.is_or_unusable(ours, exact), "one finds {found:?}, not {ours:?}: {told}");
            }
        }
    }
});

fn written(input: &[u8]) -> (Vec<Pointer>, Bytes) {
    let mut rest = input;
    let mut wanted = Vec::new();
    while let Some((line, after)) = cut(rest, b'\n') {
        rest = after;
        let Ok(text) = std::str::from_utf8(line) else { continue };
        if text.is_empty() {
            break;
        }
        if let Ok(pointer) = Pointer::parse(text) {
            assert_eq!(Pointer::parse(&pointer.to_string()).as_ref(), Ok(&pointer));
            wanted.push(pointer);
        }
    }
    (wanted, Bytes::copy_from_slice(rest))
}
