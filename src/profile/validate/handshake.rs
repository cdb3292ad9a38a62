//! Checks of `[[handshake]]`.

use super::values::Use;
use super::values::checks;
use super::values::place;
use super::values::template;
use super::values::texts;
use crate::profile::Finding;
use crate::profile::Handshake;
use crate::profile::Json;
use crate::profile::Profile;
use crate::profile::Trail;
use crate::profile::Verb;
use crate::profile::finding::wrong;

pub(super) fn handshake(profile: &Profile, given: &Handshake, trail: &Trail) -> Result<(), Finding> {
    if given.method == Verb::Post && given.when.is_empty() {
        let message = "when is missing: events come with POST, too, and all of them would be answered and never delivered; write \
                       when = [{ json = \"/type\", equals = \"…\" }]";
        return wrong(trail, message);
    }
    checks(profile, &given.when, &trail.key("when"))?;
    checks(profile, &given.check, &trail.key("check"))?;
    if let Some(visit) = &given.visit {
        let trail = trail.key("visit");
        place(&visit.from, &trail, false)?;
        texts(profile, [&visit.hosts], &trail.key("hosts"))?;
    }
    let trail = trail.key("reply");
    if given.reply.text.is_some() && given.reply.json.is_some() {
        return wrong(&trail, "reply has both text and json; it has one body");
    }
    if let Some(text) = &given.reply.text {
        template(profile, text, Use::Reply, &trail.key("text"))?;
    }
    for (name, value) in given.reply.json.iter().flatten() {
        if let Json::Text(text) = value {
            template(profile, text, Use::Reply, &trail.key("json").key(name))?;
        }
    }
    for (name, value) in &given.reply.headers {
        let trail = trail.key("headers").key(name);
        if http::HeaderName::try_from(name).is_err() {
            return wrong(&trail, format!("{name:?} is not a header name"));
        }
        template(profile, value, Use::Reply, &trail)?;
    }
    Ok(())
}
