//! Warnings about a profile that proves less than it seems to, or whose answers make the provider drop events.

mod answers;
mod event_id;
mod handshakes;
mod proof;

use super::Finding;
use super::Profile;

/// All warnings.
pub(super) fn lints(profile: &Profile) -> Vec<Finding> {
    let mut lints = proof::lints(profile);
    lints.extend(event_id::lints(profile));
    lints.extend(handshakes::lints(profile));
    lints.extend(answers::lints(profile));
    lints
}

#[cfg(test)]
mod tests {
    use super::super::Profiles;
    use super::event_id::NO_EVENT_IDS;
    use super::*;

    /// What is said of a profile with these parts.
    fn lints(auth: &str, event: &str, rest: &str) -> Vec<String> {
        let text = format!("title = \"X\"\n{auth}\n[event]\nid = {event}\n{rest}");
        let profile = Profile::parse(&text).unwrap_or_else(|wrong| panic!("{wrong}"));
        profile.lints().into_iter().map(|lint| format!("{} {}", lint.config_path, lint.message)).collect()
    }

    const HMAC: &str = "[auth.hmac]\nsignature = { header = \"X-S\", encoding = \"hex\" }\nsigned = \"{body}\"";
    const TIMED: &str =
        "[auth.hmac]\nsignature = { header = \"X-S\", encoding = \"hex\" }\nsigned = \"{timestamp}.{body}\"";
    const TIME: &str = "[timestamp]\nfrom = { header = \"X-T\" }\nformat = \"unix\"\ntolerance = \"5m\"";
    const ID: &str = "{ json = \"/id\" }";

    fn only(lints: &[String], words: &str) {
        assert_eq!(lints.len(), 1, "{lints:#?}");
        assert!(lints.iter().all(|lint| lint.contains(words)), "{words}: {lints:#?}");
    }

    #[test]
    fn a_plain_signature_over_the_body_is_nothing_to_look_at() {
        for (auth, id, rest) in [(HMAC, ID, ""), (TIMED, ID, TIME), (TIMED, "{ digest = \"body\" }", TIME)] {
            assert_eq!(lints(auth, id, rest), [""; 0]);
        }
    }

    #[test]
    fn a_time_that_nobody_signs_is_to_be_looked_at() {
        only(&lints(HMAC, ID, TIME), "timestamp.tolerance is enforced");
        assert_eq!(lints(HMAC, ID, &TIME.replace("tolerance = \"5m\"", "policy = \"record\"")), [""; 0]);
    }

    #[test]
    fn ids_that_are_no_events_are_to_be_looked_at() {
        for (name, _) in NO_EVENT_IDS {
            only(&lints(HMAC, &format!("{{ header = \"{name}\" }}"), ""), "event.id may be no event's id");
            let fallback = format!("{{ first = [{ID}, {{ header = [\"x-own\", \"{name}\"] }}] }}");
            only(&lints(HMAC, &fallback, ""), "event.id may be no event's id");
        }
        assert_eq!(lints(HMAC, "{ header = \"X-Pps-Webhook-Id\" }", ""), [""; 0]);
    }

    #[test]
    fn ids_of_the_first_of_several_items_are_to_be_looked_at() {
        only(&lints(HMAC, "{ json = \"/0/id\" }", ""), "event.id is that of one item of a list");
        only(&lints(HMAC, "{ all = [{ json = \"/a/0/id\" }, { json = \"/a/0/time\" }] }", ""), "each = \"/a/*/…\"");
        let require = |test: &str| lints(HMAC, "{ json = \"/a/0/id\" }", &format!("[[require]]\njson = {test}\n"));
        assert_eq!(require("\"/a/1\"\nabsent = true"), [""; 0]);
        only(&require("\"/a/0\"\nabsent = true"), "json = \"/a/1\"");
        only(&require("\"/a/1\"\npresent = true"), "event.id is that of one item");
        assert_eq!(lints(HMAC, "{ each = \"/a/*/id\" }", ""), [""; 0]);
        for id in ["/a0/id", "/a//id"] {
            assert_eq!(lints(HMAC, &format!("{{ json = \"{id}\" }}"), ""), [""; 0]);
        }
    }

    #[test]
    fn ids_beside_what_is_signed_are_to_be_looked_at() {
        let part = HMAC.replace("{body}", "{json:/token}");
        only(&lints(&part, ID, ""), "event.id stands in the body");
        only(&lints(&part, "{ form = \"id\" }", ""), "event.id stands in the body");
        assert_eq!(lints(&part, "{ header = \"X-Id\" }", ""), [""; 0]);
        let both = format!("{}\n{}", all(&HMAC.replace("X-S", "X-A")), all(&part));
        assert_eq!(lints(&both, ID, ""), [""; 0], "the other signature covers it");
        let ambiguous = |scheme: &str| all(&format!("{scheme}\nambiguous = \"it is\"")).replace("all", "first");
        let first = format!("{}\n{}", ambiguous(&HMAC.replace("X-S", "X-A")), ambiguous(&part));
        let spec = lints(&first, ID, "");
        assert!(spec.iter().any(|lint| lint.contains("event.id stands in the body")), "{spec:?}");
        assert!(spec.iter().any(|lint| lint.ends_with("in more than one way: it is")), "{spec:?}");
    }

    fn all(scheme: &str) -> String {
        format!("[[auth.all]]\n{}", scheme.replace("[auth.", "[auth.all."))
    }

    #[test]
    fn requests_that_can_be_sent_again_are_to_be_looked_at() {
        only(&lints(HMAC, "{ digest = \"body\" }", ""), "once store.ttl has passed");
        only(&lints(HMAC, "{ all = [{ header = \"X-T\" }, { digest = \"body\" }] }", ""), "once store.ttl has passed");
        only(
            &lints(
                HMAC,
                "{ first = [{ all = [{ json = \"/id\" }, { digest = \"body\" }] }, { digest = \"body\" }] }",
                "",
            ),
            "once store.ttl has passed",
        );
        assert_eq!(lints(HMAC, "{ first = [{ header = \"X-I\" }, { digest = \"body\" }] }", ""), [""; 0]);
        let recorded = TIME.replace("tolerance = \"5m\"", "policy = \"record\"");
        let lints_of_recorded = lints(TIMED, "{ digest = \"body\" }", &recorded);
        only(&lints_of_recorded, "two events with the same bytes count as one");
        assert!(!lints_of_recorded.concat().contains("store.ttl"), "its time says how old it is");
        only(&lints(HMAC, "{ unique = true }", ""), "each time that somebody sends it again");
        only(&lints(TIMED, "{ unique = true }", &TIME.replace("\"5m\"", "{ future = \"5m\" }")), "sends it again");
        only(&lints(TIMED, "{ unique = true }", &TIME.replace("tolerance = \"5m\"", "policy = \"record\"")), "again");
    }

    #[test]
    fn handshakes_that_sign_anything_are_to_be_looked_at() {
        let handshake = |more: &str, reply: &str| {
            let rest = format!(
                "[[handshake]]\nmethod = \"GET\"\nwhen = [{{ query = \"c\", present = true }}]\n{more}\nreply = {reply}"
            );
            lints(HMAC, ID, &rest)
        };
        let signed = "{ json = { token = \"{hmac_sha256_hex:query:c}\" } }";
        only(&handshake("", signed), "handshake[0].check says nothing of what the text may be");
        only(&handshake("", "{ text = \"{hmac_sha1_hex:query:c}\" }"), "the reply is signed");
        only(&handshake("check = [{ query = \"c\", present = true }]", signed), "the reply is signed");
        assert_eq!(handshake("check = [{ query = \"c\", without = \"{[\" }]", signed), [""; 0]);
        assert_eq!(handshake("", "{ text = \"{query:c}\" }"), [""; 0]);
    }

    #[test]
    fn unsigned_handshakes_that_may_take_events_are_to_be_looked_at() {
        let handshake = |auth: &str, method: &str, when: &str| {
            lints(auth, ID, &format!("[[handshake]]\nmethod = \"{method}\"\nsigned = false\nwhen = [{when}]"))
        };
        let form = "{ form = \"test\", present = true }";
        only(&handshake(HMAC, "POST", form), "handshake[0].when does not say that header x-s is absent");
        only(&handshake(HMAC, "POST", "{ header = \"X-T\", absent = true }"), "header x-s is absent");
        only(&handshake(HMAC, "POST", "{ header = \"X-S\", present = true }"), "header x-s is absent");
        assert_eq!(handshake(HMAC, "POST", &format!("{form}, {{ header = \"X-S\", absent = true }}")), [""; 0]);
        assert_eq!(handshake(HMAC, "GET", form), [""; 0]);
    }

    #[test]
    fn weak_schemes_are_to_be_looked_at() {
        only(&lints(&format!("{HMAC}\nhash = \"sha1\""), ID, ""), "auth.hmac.hash is SHA-1, which still holds");
        only(&lints(&format!("{}\nhash = \"sha1\"", HMAC.replace("hmac", "rsa")), ID, ""), "collisions");
        only(&lints("[auth.token]\nfrom = { header = \"X-T\" }", ID, ""), "auth.token is a secret that is sent along");
        only(&lints("[auth.basic]", ID, ""), "auth.basic is a secret that is sent along");
        only(&lints("[auth.jwt]\nalgorithm = \"RS256\"\naudience = \"us\"", ID, ""), "does not cover the body");
        let beside = format!("{}\n[[auth.all]]\n[auth.all.basic]", all(HMAC));
        assert_eq!(lints(&beside, ID, ""), [""; 0]);
        only(&lints(&beside.replace("all", "first"), ID, ""), "auth.basic is a secret");
        let bound = "[auth.jwt]\nalgorithm = \"RS256\"\nbody = { claim = \"digest\", encoding = \"hex\" }";
        assert_eq!(lints(bound, "{ digest = \"body\" }", ""), [""; 0]);
    }

    #[test]
    fn certificates_that_may_be_any_file_are_to_be_looked_at() {
        let certificate = |path: &str| {
            format!(
                "{}\ncertificate = {{ header = \"X-C\", hosts = \"example.com\"{path} }}",
                HMAC.replace("hmac", "rsa")
            )
        };
        only(&lints(&certificate(""), ID, ""), "auth.rsa.certificate says no path");
        assert_eq!(lints(&certificate(", path = \"/certificates/*.pem\""), ID, ""), [""; 0]);
    }

    #[test]
    fn answers_that_lose_events_are_to_be_looked_at() {
        let answers = |answers: &str, retried: &str| {
            let facts = if retried.is_empty() { String::new() } else { format!("[facts]\nretried = {retried}\n") };
            lints(HMAC, ID, &format!("[answers]\n{answers}\n{facts}"))
        };
        only(&answers("refused = 410", ""), "answers.refused is 410");
        only(&answers("too_large = 404", ""), "answers.too_large is 404");
        only(&answers("retry = 429", "\"5xx\""), "answers.retry is 429, on which the provider does not try again");
        only(&answers("retry = 429", ""), "answers.retry is 429: to many providers every 4xx is final");
        only(&answers("", "\"409\""), "facts.retried does not have 503");
        only(&answers("", "[\"503\", \"504\"]"), "facts.retried does not have 502");
        only(&answers("", "[]"), "facts.retried is empty");
        only(&answers("accepted = 202", "\"non-200\""), "answers.accepted is 202");
        for (spec, retried) in
            [("retry = 503", ""), ("retry = 409", "\"409\""), ("", "\"non-2xx\""), ("accepted = 204", "\"5xx\"")]
        {
            assert_eq!(answers(spec, retried), [""; 0]);
        }
    }

    #[test]
    fn shipped_profiles_lose_nothing_that_they_could_keep() {
        for (name, profile) in Profiles::shipped().iter() {
            let lints = profile.lints();
            assert!(!lints.iter().any(|lint| lint.message.contains("taken for the probe")), "{name}: {lints:#?}");
            let lost = lints.iter().filter(|lint| lint.config_path.to_string().starts_with("answers"));
            assert_eq!(lost.count(), 0, "{name}: {lints:#?}");
            let none = profile.facts.retried.as_ref().is_some_and(super::super::Retried::is_nothing);
            assert_eq!(
                lints.iter().any(|lint| lint.config_path.to_string() == "facts.retried"),
                none,
                "{name}: {lints:#?}"
            );
        }
    }
}
