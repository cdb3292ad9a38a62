//! Checks of `[[handshake]]`.

use super::values::Use;
use super::values::check_conditions;
use super::values::check_location;
use super::values::check_template;
use super::values::check_texts;
use crate::profile::ConfigPath;
use crate::profile::Finding;
use crate::profile::Handshake;
use crate::profile::Json;
use crate::profile::Profile;
use crate::profile::Verb;
use crate::profile::finding::fail;

pub(super) fn check_handshake(
    profile: &Profile,
    handshake: &Handshake,
    config_path: &ConfigPath,
) -> Result<(), Finding> {
    if handshake.method == Verb::Post && handshake.when.is_empty() {
        let message = "when is missing: events come with POST, too, and all of them would be answered and never delivered; write \
                       when = [{ json = \"/type\", equals = \"…\" }]";
        return fail(config_path, message);
    }
    check_conditions(profile, &handshake.when, &config_path.key("when"))?;
    check_conditions(profile, &handshake.check, &config_path.key("check"))?;
    if let Some(visit) = &handshake.visit {
        let config_path = config_path.key("visit");
        check_location(&visit.from, &config_path, false)?;
        check_texts(profile, [&visit.hosts], &config_path.key("hosts"))?;
    }
    let config_path = config_path.key("reply");
    if handshake.reply.text.is_some() && handshake.reply.json.is_some() {
        return fail(&config_path, "reply has both text and json; it has one body");
    }
    if let Some(text) = &handshake.reply.text {
        check_template(profile, text, Use::Reply, &config_path.key("text"))?;
    }
    for (name, value) in handshake.reply.json.iter().flatten() {
        if let Json::Text(text) = value {
            check_template(profile, text, Use::Reply, &config_path.key("json").key(name))?;
        }
    }
    for (name, value) in &handshake.reply.headers {
        let config_path = config_path.key("headers").key(name);
        if http::HeaderName::try_from(name).is_err() {
            return fail(&config_path, format!("{name:?} is not a header name"));
        }
        check_template(profile, value, Use::Reply, &config_path)?;
    }
    Ok(())
}
