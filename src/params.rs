//! The parameters that a source gives its profile.

use std::collections::HashMap;

use crate::profile::Piece;
use crate::profile::Template;

/// The parameters of a source, by name.
pub type Params = HashMap<String, String>;

/// The value of a parameter; nothing when there is none, which a source without it is refused for.
pub fn param<'p>(params: &'p Params, name: &str) -> &'p str {
    params.get(name).map_or("", String::as_str)
}

/// Replaces `{name}` by the parameter of that name.
#[expect(clippy::wildcard_enum_match_arm, reason = "a profile with anything else in such a text is refused")]
pub fn fill(text: &str, params: &Params) -> String {
    let Ok(template) = text.parse::<Template>() else { return text.to_owned() };
    let piece = |piece: &Piece| match piece {
        Piece::Param(name) => param(params, name).to_owned(),
        Piece::Url => param(params, "url").to_owned(),
        Piece::Literal(text) => text.clone(),
        other => other.to_string(),
    };
    template.pieces().map(piece).collect()
}
