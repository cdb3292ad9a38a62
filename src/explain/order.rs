//! Recognises JSON whose members a tool has sorted by name, and makes the orders that they may have had.

use serde_json::value::RawValue;

use super::json_styles::MAX_BODY;
use super::json_styles::Node;
use super::json_styles::usual;

/// Fewest members whose order says anything: two are sorted by chance half of the time.
const FEWEST: usize = 3;
/// Most members of which every order is tried.
const MOST: usize = 5;

/// Whether the members of every object of a JSON body are sorted by name, and one has enough for that to be no chance.
pub(super) fn sorted(body: &[u8]) -> bool {
    node(body).is_some_and(|node| is_sorted(&node) && has_enough(&node))
}

/// The same JSON in other orders, each with its words; nothing where it is not sorted.
pub(super) fn reordered(body: &[u8], sample: &str) -> impl Iterator<Item = (String, Vec<u8>)> + use<> {
    let sample = node(sample.as_bytes());
    let node = node(body).filter(|node| is_sorted(node) && has_enough(node));
    node.into_iter().flat_map(move |node| {
        let like =
            sample.as_ref().map(|sample| ("as those of the profile's sample do".to_owned(), like(&node, sample)));
        let first = ("with id first".to_owned(), id_first(&node));
        let all = like.into_iter().chain([first]).chain(orders(&node));
        all.flat_map(|(order, node)| usual(&node).map(move |bytes| (order.clone(), bytes))).collect::<Vec<_>>()
    })
}

fn node(text: &[u8]) -> Option<Node> {
    let text = std::str::from_utf8(text).ok().filter(|text| text.len() <= MAX_BODY)?;
    serde_json::from_str::<&RawValue>(text).ok().and_then(Node::read)
}

fn is_sorted(node: &Node) -> bool {
    match node {
        Node::Word(_) | Node::Text(_) => true,
        Node::Array(items) => items.iter().all(is_sorted),
        Node::Object(members) => {
            members.iter().map(|(name, _)| name).is_sorted() && members.iter().all(|(_, value)| is_sorted(value))
        }
    }
}

fn has_enough(node: &Node) -> bool {
    match node {
        Node::Word(_) | Node::Text(_) => false,
        Node::Array(items) => items.iter().any(has_enough),
        Node::Object(members) => members.len() >= FEWEST || members.iter().any(|(_, value)| has_enough(value)),
    }
}

/// The members in the order of another value, those that it does not have behind them.
fn like(node: &Node, sample: &Node) -> Node {
    match (node, sample) {
        (Node::Object(members), Node::Object(known)) => {
            let location = |name: &str| known.iter().position(|(known, _)| known == name);
            let inner = |(name, value): &(String, Node)| {
                let known = known.iter().find(|(known, _)| known == name).map(|(_, known)| known);
                (name.clone(), known.map_or_else(|| value.clone(), |known| like(value, known)))
            };
            let mut members: Vec<_> = members.iter().map(inner).collect();
            members.sort_by_key(|(name, _)| location(name).unwrap_or(usize::MAX));
            Node::Object(members)
        }
        (Node::Array(items), Node::Array(known)) => {
            let known = known.first();
            Node::Array(
                items.iter().map(|item| known.map_or_else(|| item.clone(), |known| like(item, known))).collect(),
            )
        }
        (_, _) => node.clone(),
    }
}

fn id_first(node: &Node) -> Node {
    match node {
        Node::Object(members) => {
            let mut members: Vec<_> = members.iter().map(|(name, value)| (name.clone(), id_first(value))).collect();
            members.sort_by_key(|(name, _)| name != "id");
            Node::Object(members)
        }
        Node::Array(items) => Node::Array(items.iter().map(id_first).collect()),
        Node::Word(_) | Node::Text(_) => node.clone(),
    }
}

/// The outermost members in every order, where they are few.
fn orders(node: &Node) -> Vec<(String, Node)> {
    let Node::Object(members) = node else { return Vec::new() };
    if !(2..=MOST).contains(&members.len()) {
        return Vec::new();
    }
    let mut all = vec![Vec::new()];
    for _place in members {
        let longer = |begun: &Vec<usize>| {
            let left: Vec<usize> = (0..members.len()).filter(|at| !begun.contains(at)).collect();
            let begun = begun.clone();
            left.into_iter().map(move |at| [begun.as_slice(), &[at]].concat())
        };
        all = all.iter().flat_map(longer).collect();
    }
    all.iter()
        .map(|order| {
            let members: Vec<_> = order.iter().filter_map(|at| members.get(*at).cloned()).collect();
            let names: Vec<_> = members.iter().map(|(name, _)| name.as_str()).collect();
            (format!("in the order {}", names.join(", ")), Node::Object(members))
        })
        .collect()
}
