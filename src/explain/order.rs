//! Recognises JSON whose members were sorted by name, such as by a capturing tool, and generates orders that they may
//! have had before.

use serde_json::value::RawValue;

use super::json_styles::MAX_BODY;
use super::json_styles::Node;
use super::json_styles::in_common_styles;

/// An object needs this many members for their order to be significant: two are in order by chance half of the time.
const MIN_MEMBERS: usize = 3;
/// Up to this many members, every order is tried.
const MAX_PERMUTED: usize = 5;

/// Whether the members of every object of a JSON body are sorted by name, and one object has [`MIN_MEMBERS`].
pub(super) fn sorted(body: &[u8]) -> bool {
    node(body).is_some_and(|node| is_sorted(&node) && has_enough(&node))
}

/// The same JSON in other orders, each with its description; nothing where it is not sorted.
pub(super) fn reordered(body: &[u8], sample: &str) -> impl Iterator<Item = (String, Vec<u8>)> + use<> {
    let sample = node(sample.as_bytes());
    let node = node(body).filter(|node| is_sorted(node) && has_enough(node));
    node.into_iter().flat_map(move |node| {
        let as_sample = sample
            .as_ref()
            .map(|sample| ("as those of the profile's sample do".to_owned(), ordered_like(&node, sample)));
        let first = ("with id first".to_owned(), id_first(&node));
        let all = as_sample.into_iter().chain([first]).chain(permutations(&node));
        all.flat_map(|(order, node)| in_common_styles(&node).map(move |bytes| (order.clone(), bytes)))
            .collect::<Vec<_>>()
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
        Node::Object(members) => members.len() >= MIN_MEMBERS || members.iter().any(|(_, value)| has_enough(value)),
    }
}

/// The members in the order of the sample, followed by those that it does not have.
fn ordered_like(node: &Node, sample: &Node) -> Node {
    match (node, sample) {
        (Node::Object(members), Node::Object(sample_members)) => {
            let position = |name: &str| sample_members.iter().position(|(sample_name, _)| sample_name == name);
            let inner = |(name, value): &(String, Node)| {
                let sample = position(name).and_then(|at| sample_members.get(at)).map(|(_, sample)| sample);
                (name.clone(), sample.map_or_else(|| value.clone(), |sample| ordered_like(value, sample)))
            };
            let mut members: Vec<_> = members.iter().map(inner).collect();
            members.sort_by_key(|(name, _)| position(name).unwrap_or(usize::MAX));
            Node::Object(members)
        }
        (Node::Array(items), Node::Array(sample)) => {
            let sample = sample.first();
            let inner = |item: &Node| sample.map_or_else(|| item.clone(), |sample| ordered_like(item, sample));
            Node::Array(items.iter().map(inner).collect())
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

/// The outermost members in every order, if they are at most [`MAX_PERMUTED`].
fn permutations(node: &Node) -> Vec<(String, Node)> {
    let Node::Object(members) = node else { return Vec::new() };
    if !(2..=MAX_PERMUTED).contains(&members.len()) {
        return Vec::new();
    }
    let mut all = vec![Vec::new()];
    for _position in members {
        let extended = |order: &Vec<usize>| {
            let remaining: Vec<usize> = (0..members.len()).filter(|at| !order.contains(at)).collect();
            let order = order.clone();
            remaining.into_iter().map(move |at| [order.as_slice(), &[at]].concat())
        };
        all = all.iter().flat_map(extended).collect();
    }
    all.iter()
        .map(|order| {
            let members: Vec<_> = order.iter().filter_map(|at| members.get(*at).cloned()).collect();
            let names: Vec<_> = members.iter().map(|(name, _)| name.as_str()).collect();
            (format!("in the order {}", names.join(", ")), Node::Object(members))
        })
        .collect()
}
