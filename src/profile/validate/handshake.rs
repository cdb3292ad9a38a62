//! Checks of `[[handshake]]`.

use super::values::Use;
use super::values::checks;
use super::values::location;
use super::values::template;
use super::values::texts;
use crate::profile::ConfigPath;
use crate::profile::Finding;
use crate::profile::Handshake;
use crate::profile::Json;
use crate::profile::Profile;
use crate::profile::Verb;
use crate::profile::finding::wrong;

pub(super) fn handshake(profile: &Profile, given: &Handshake, config_path: &ConfigPath) -> Result<(), Finding> {
    if given.method == Verb::Post && given.when.is_empty() {
        let message = "when is missing: events come with POST, too, and all of them would be answered and never delivered; write \
                       when = [{ json = \"/type\", equals = \"…\" }]";
        return wrong(config_path, message);
    }
    checks(profile, &given.when, &config_path.key("when"))?;
    checks(profile, &given.check, &config_path.key("check"))?;
    if let Some(visit) = &given.visit {
        let config_path = config_path.key("visit");
        location(&visit.from, &config_path, false)?;
        texts(profile, [&visit.hosts], &config_path.key("hosts"))?;
    }
    let config_path = config_path.key("reply");
    if given.reply.text.is_some() && given.reply.json.is_some() {
        return wrong(&config_path, "reply has both text and json; it has one body");
    }
    if let Some(text) = &given.reply.text {
        template(profile, text, Use::Reply, &config_path.key("text"))?;
    }
    for (name, value) in given.reply.json.iter().flatten() {
        if let Json::Text(text) = value {
            template(profile, text, Use::Reply, &config_path.key("json").key(name))?;
        }
    }
    for (name, value) in &given.reply.headers {
        let config_path = config_path.key("headers").key(name);
        if http::HeaderName::try_from(name).is_err() {
            return wrong(&config_path, format!("{name:?} is not a header name"));
        }
        template(profile, value, Use::Reply, &config_path)?;
    }
    Ok(())
}
