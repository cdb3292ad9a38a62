//! Warnings about a profile: where it proves less than it seems to, or answers in such a way that events are lost.

use http::HeaderName;

use super::Combination;
use super::Condition;
use super::Function;
use super::Handshake;
use super::Hash;
use super::Holder;
use super::Member;
use super::Piece;
use super::Place;
use super::Profile;
use super::Reference;
use super::Scheme;
use super::Status;
use super::Template;
use super::Test;
use super::TimestampPolicy;
use super::Trail;
use super::Verb;
use super::Verifier;

/// A warning about a profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lint {
    /// The key that it is about.
    pub trail: Trail,
    /// What is to be known of it; a sentence that begins with the key.
    pub message: String,
}

impl Lint {
    fn new(trail: Trail, message: impl Into<String>) -> Self {
        Self { trail, message: message.into() }
    }
}

/// Headers that are taken for an event's id and are none, and what they are.
const NO_EVENT_IDS: &[(&str, &str)] = &[
    ("x-webhook-id", "at several providers X-Webhook-ID names the subscription and is the same for every event"),
    ("x-webhook-subscription", "X-Webhook-Subscription names the subscription and is the same for every event"),
    ("x-hook-uuid", "X-Hook-UUID names the webhook and is the same for every event"),
    ("x-wc-webhook-id", "X-WC-Webhook-ID names the webhook and is the same for every event"),
    ("x-wc-webhook-delivery-id", "X-WC-Webhook-Delivery-ID is the same for all deliveries of one second"),
    ("x-zendesk-webhook-id", "X-Zendesk-Webhook-Id names the webhook and is the same for every event"),
    ("x-github-hook-id", "X-GitHub-Hook-ID names the webhook and is the same for every event"),
    ("x-gitlab-event-uuid", "X-Gitlab-Event-UUID is shared by hooks that cause each other"),
    ("x-gitlab-webhook-uuid", "X-Gitlab-Webhook-UUID does not stay the same over the attempts of one event"),
];

impl Profile {
    /// All warnings, in the order of the file.
    pub fn lints(&self) -> Vec<Lint> {
        let members = self.auth.members.iter().enumerate().filter(|(_, member)| self.may_decide(member));
        let members = members.filter_map(|(at, member)| scheme(at, &member.scheme));
        members
            .chain(self.several_readings())
            .chain(self.any_file())
            .chain(self.uncovered_time())
            .chain(self.identity())
            .chain(self.oracles())
            .chain(self.greedy())
            .chain(self.answers())
            .chain(self.retries())
            .collect()
    }

    /// Whether it is not merely asked for beside a signature.
    fn may_decide(&self, member: &Member) -> bool {
        let beside = self.auth.combination == Combination::All
            && self.schemes().any(|scheme| matches!(scheme, Scheme::Signature(_)));
        matches!(member.scheme, Scheme::Signature(_)) || !beside
    }

    /// What the profile says of texts that can be read in more than one way.
    fn several_readings(&self) -> impl Iterator<Item = Lint> {
        self.auth.members.iter().enumerate().filter_map(|(at, member)| {
            let Scheme::Signature(signature) = &member.scheme else { return None };
            let why = signature.ambiguous.as_ref()?;
            let trail = Trail::member(at, member.scheme.table()).key("ambiguous");
            Some(Lint::new(
                trail,
                format!("says why it does no harm that what is signed can be read in more than one way: {why}"),
            ))
        })
    }

    /// Certificates that may be anything that somebody has put on an allowed host.
    fn any_file(&self) -> impl Iterator<Item = Lint> {
        self.auth.members.iter().enumerate().filter_map(|(at, member)| match &member.scheme {
            Scheme::Signature(said) => match &said.verifier {
                Verifier::Certificate(_, certificate) if certificate.path.is_none() => Some(Lint::new(
                    Trail::member(at, "rsa").key("certificate"),
                    "says no path: any file on its hosts will do, and whoever can put one there signs as the provider; write \
                     path = \"/certificates/*\"",
                )),
                Verifier::Certificate(..)
                | Verifier::Hmac(_)
                | Verifier::Ed25519
                | Verifier::Ecdsa(_)
                | Verifier::Rsa(_) => None,
            },
            Scheme::Token(_) | Scheme::Basic(_) | Scheme::Jwt(_) => None,
        })
    }

    fn uncovered_time(&self) -> Option<Lint> {
        let enforced = self.timestamp.as_ref().is_some_and(|timestamp| timestamp.policy == TimestampPolicy::Enforce);
        (enforced && !self.signs_timestamp()).then(|| {
            Lint::new(
                Trail::to(["timestamp", "tolerance"]),
                "is enforced on a time that no signature covers: it keeps out late retries, but no replay, which can \
                 bring any time along",
            )
        })
    }

    fn identity(&self) -> Vec<Lint> {
        let trail = Trail::to(["event", "id"]);
        let mut lints: Vec<_> = self
            .event
            .id
            .places()
            .into_iter()
            .filter_map(no_event_id)
            .map(|what| Lint::new(trail.clone(), what))
            .collect();
        lints.extend(self.first_items().map(|message| Lint::new(trail.clone(), message)));
        if self.takes_uncovered_bodies() {
            lints.push(Lint::new(
                trail.clone(),
                "stands in the body, which the signature does not cover as a whole: whoever has seen a signature can send \
                 it with another body. What is signed is let through once, whatever its id; set allow as well",
            ));
        }
        if (self.event.id == Reference::Unique || self.event.id.always_has_digest())
            && self.auth.members.iter().any(|member| self.is_replayable(&member.scheme))
        {
            lints.push(Lint::new(
                trail,
                if self.event.id == Reference::Unique {
                    "is another one for each request, and no signed time is enforced: a captured request is delivered each \
                     time that somebody sends it again"
                } else if self.signs_timestamp() {
                    "is a digest of the body: two events with the same bytes count as one"
                } else {
                    "is a digest of the body, and no time is signed: two events with the same bytes count as one, and a \
                     captured request is delivered again once store.ttl has passed"
                },
            ));
        }
        lints
    }

    /// Ids of one item of a list that may have others, which are lost with it.
    fn first_items(&self) -> impl Iterator<Item = String> {
        let places = self.event.id.places();
        let pointers = places
            .into_iter()
            .filter_map(|place| if let Holder::Json(pointer) = &place.holder { Some(pointer.tokens()) } else { None });
        let index = |token: &String| !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_digit());
        let mut lists: Vec<_> =
            pointers.filter_map(|tokens| Some(tokens.split_at_checked(tokens.iter().position(index)?)?.0)).collect();
        lists.dedup();
        let alone = |list: &[String]| {
            let second = [list, &["1".to_owned()]].concat();
            let is_it = |place: &Place| matches!(&place.holder, Holder::Json(pointer) if *pointer.tokens() == *second);
            self.require.iter().any(|said| matches!(said.test, Test::Absent) && is_it(&said.place))
        };
        lists.into_iter().filter(move |list| !alone(list)).map(|list| {
            let list: String = list.iter().map(|token| format!("/{token}")).collect();
            format!(
                "is that of one item of a list: a batch that begins with an event which came before is dropped with the new ones \
                 in it; write each = \"{list}/*/…\", or [[require]] with json = \"{list}/1\" and absent = true where there is \
                 never another item"
            )
        })
    }

    /// Whether a signature that covers nothing of the body's ids is enough.
    fn takes_uncovered_bodies(&self) -> bool {
        let covers = |member: &Member| {
            let in_body = self.event.id.places().into_iter().filter(|place| place.is_in_body());
            in_body.into_iter().all(|place| self.covers(&member.scheme, place))
        };
        let signatures = || self.auth.members.iter().filter(|member| matches!(member.scheme, Scheme::Signature(_)));
        match self.auth.combination {
            Combination::All => signatures().next().is_some() && !signatures().any(covers),
            Combination::First => !signatures().all(covers),
        }
    }

    /// Whether a request is as good tomorrow as it is today. Tokens expire.
    fn is_replayable(&self, scheme: &Scheme) -> bool {
        if let Scheme::Jwt(_) = scheme {
            return false;
        }
        !self.timestamp.as_ref().is_some_and(|timestamp| {
            timestamp.policy == TimestampPolicy::Enforce
                && timestamp.tolerance.is_some_and(|tolerance| tolerance.past.is_some())
                && self.covers(scheme, &timestamp.from)
        })
    }

    /// Handshakes in which anybody gets a signature over anything.
    fn oracles(&self) -> impl Iterator<Item = Lint> {
        let signs = |said: &Handshake| {
            said.templates().flat_map(Template::walk).any(|piece| matches!(piece, Piece::Call(Function::Hmac(..), _)))
        };
        let limits = |check: &Condition| matches!(check.test, Test::Equals(_) | Test::Length(..) | Test::Without(_));
        let open = self
            .handshakes
            .iter()
            .enumerate()
            .filter(move |(_, said)| !said.is_signed() && !said.check.iter().any(limits) && signs(said));
        open.map(|(at, _)| {
            Lint::new(
                Trail::to(["handshake"]).item(at).key("check"),
                "says nothing of what the text may be, and the reply is signed: anybody can have a signature made over a \
                 text of theirs, perhaps an event; write a check that lets no event's body pass, such as without = \"{[\" or max_length",
            )
        })
    }

    /// Unsigned handshakes that may take what is signed.
    fn greedy(&self) -> impl Iterator<Item = Lint> {
        let header = |place: &Place| matches!(place.holder, Holder::Header(_) | Holder::Numbered(_));
        let unsigned =
            self.handshakes.iter().enumerate().filter(|(_, said)| said.method == Verb::Post && !said.is_signed());
        unsigned.filter_map(move |(at, said)| {
            let leaves = |proof: &Place| {
                let absent = said.when.iter().filter(|condition| condition.test == Test::Absent);
                absent.into_iter().any(|condition| condition.place == Place { item: None, ..proof.clone() })
            };
            let taken = self.schemes().map(Scheme::proof).find(|proof| header(proof) && !leaves(proof))?;
            Some(Lint::new(
                Trail::to(["handshake"]).item(at).key("when"),
                format!(
                    "does not say that {} is absent: what is signed may be taken for the probe, answered and never \
                     delivered; write a condition on it with absent = true",
                    Place { item: None, ..taken }
                ),
            ))
        })
    }

    fn answers(&self) -> Vec<Lint> {
        let statuses = [
            ("refused", self.answers.refused.status),
            ("malformed", self.answers.malformed),
            ("too_large", self.answers.too_large),
        ];
        let mut lints = Vec::new();
        for (key, status) in statuses {
            if let Some(status @ (404 | 410)) = status.map(Status::code) {
                lints.push(Lint::new(
                    Trail::to(["answers", key]),
                    format!("is {status}, which tells several providers that the endpoint is gone: they disable it"),
                ));
            }
        }
        let accepted = self.answers.accepted.status.map_or(200, Status::code);
        if self.facts.retried.as_ref().is_some_and(|retried| retried.contains(accepted)) {
            lints.push(Lint::new(
                Trail::to(["answers", "accepted"]),
                format!("is {accepted}, on which the provider tries again: it takes the event for lost"),
            ));
        }
        lints
    }

    fn retries(&self) -> Option<Lint> {
        let said = self.answers.retry.map(Status::code);
        let (trail, known) = (Trail::to(["answers", "retry"]), Trail::to(["facts", "retried"]));
        let Some(retried) = &self.facts.retried else {
            let status = said.filter(|status| *status < 500)?;
            return Some(Lint::new(
                trail,
                format!(
                    "is {status}: to many providers every 4xx is final; facts.retried says on what this one tries again"
                ),
            ));
        };
        if retried.is_nothing() {
            return Some(Lint::new(
                known,
                "is empty: the provider tries nothing again, and what cannot be taken at once has to be sent again by hand",
            ));
        }
        let lost = |status: &u16| !retried.contains(*status);
        match said {
            Some(status) if lost(&status) => Some(Lint::new(
                trail,
                format!("is {status}, on which the provider does not try again (it does on {retried}): such events are lost"),
            )),
            Some(_) => None,
            None => [503, 502, 504].into_iter().find(lost).map(|status| {
                Lint::new(
                    known,
                    format!(
                        "does not have {status}, with which the gateway asks for another attempt: such events are lost; \
                         write answers.retry with a status that is tried again"
                    ),
                )
            }),
        }
    }
}

fn scheme(at: usize, scheme: &Scheme) -> Option<Lint> {
    let trail = Trail::member(at, scheme.table());
    let (trail, message) = match scheme {
        Scheme::Signature(signature) => match &signature.verifier {
            Verifier::Hmac(Hash::Sha1) => (
                trail.key("hash"),
                "is SHA-1, which still holds inside HMAC; where the provider offers another, take that",
            ),
            Verifier::Rsa(Hash::Sha1) | Verifier::Certificate(Hash::Sha1, _) => (
                trail.key("hash"),
                "is SHA-1, of which collisions can be made; where the provider offers another, take that",
            ),
            Verifier::Hmac(_)
            | Verifier::Ed25519
            | Verifier::Ecdsa(_)
            | Verifier::Rsa(_)
            | Verifier::Certificate(..) => {
                return None;
            }
        },
        Scheme::Token(_) | Scheme::Basic(_) => (
            trail,
            "is a secret that is sent along: it proves nothing about the request, and whoever has seen one can send \
             others. Where the provider offers signatures, take those; set allow as well",
        ),
        Scheme::Jwt(jwt) if jwt.body.is_none() => (
            trail,
            "does not cover the body: whoever gets hold of a token can send anything until it expires. Set allow as well",
        ),
        Scheme::Jwt(_) => return None,
    };
    Some(Lint::new(trail, message))
}

fn no_event_id(place: &Place) -> Option<String> {
    let Holder::Header(names) = &place.holder else { return None };
    let known = |name: &HeaderName| NO_EVENT_IDS.iter().find(|(known, _)| *known == name.as_str());
    let (_, what) = names.iter().find_map(known)?;
    Some(format!("may be no event's id: {what}"))
}

#[cfg(test)]
mod tests {
    use super::super::Profiles;
    use super::*;

    /// What is said of a profile with these parts.
    fn lints(auth: &str, event: &str, rest: &str) -> Vec<String> {
        let text = format!("title = \"X\"\n{auth}\n[event]\nid = {event}\n{rest}");
        let profile = Profile::parse(&text).unwrap_or_else(|wrong| panic!("{wrong}"));
        profile.lints().into_iter().map(|lint| format!("{} {}", lint.trail, lint.message)).collect()
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
        let said = lints(&first, ID, "");
        assert!(said.iter().any(|lint| lint.contains("event.id stands in the body")), "{said:?}");
        assert!(said.iter().any(|lint| lint.ends_with("in more than one way: it is")), "{said:?}");
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
        for (said, retried) in
            [("retry = 503", ""), ("retry = 409", "\"409\""), ("", "\"non-2xx\""), ("accepted = 204", "\"5xx\"")]
        {
            assert_eq!(answers(said, retried), [""; 0]);
        }
    }

    #[test]
    fn shipped_profiles_lose_nothing_that_they_could_keep() {
        for (name, profile) in Profiles::shipped().iter() {
            let lints = profile.lints();
            assert!(!lints.iter().any(|lint| lint.message.contains("taken for the probe")), "{name}: {lints:#?}");
            let lost = lints.iter().filter(|lint| lint.trail.to_string().starts_with("answers"));
            assert_eq!(lost.count(), 0, "{name}: {lints:#?}");
            let none = profile.facts.retried.as_ref().is_some_and(super::super::Retried::is_nothing);
            assert_eq!(lints.iter().any(|lint| lint.trail.to_string() == "facts.retried"), none, "{name}: {lints:#?}");
        }
    }
}
