//! Whatever `doorward sign` makes up for a profile is what that profile verifies, and nothing near it is.

use bytes::Bytes;
use doorward::base::secret::Secret;
use doorward::base::time::Moment;
use doorward::explain::Accepted;
use doorward::explain::Case;
use doorward::explain::explain;
use doorward::profile::Profile;
use doorward::profile::Profiles;
use doorward::profile::Reference;
use doorward::profile::Scheme;
use doorward::sign::Id;
use doorward::sign::Request;
use doorward::source::refusal::Refusal;
use doorward::verify::identity::Event;

use crate::harness::gateway::source::InProcessSource;
use crate::harness::provider::any_profile::Provider;

const NOW: i64 = 1_767_348_000;

/// Profiles of schemes, and ways to write keys, that no shipped profile has.
const OWN: [(&str, &str); 9] = [
    (
        "rsa",
        "[auth.rsa]\nhash = \"sha512\"\nsignature = { header = \"X-S\", encoding = \"base64\" }\nsigned = \"{body}\"\n",
    ),
    ("rsa-sha256", "[auth.rsa]\nsignature = { header = \"X-S\", encoding = \"hex\" }\nsigned = \"{body}\"\n"),
    (
        "ecdsa-raw",
        "[auth.ecdsa]\nformat = \"raw\"\nsignature = { header = \"X-S\", encoding = \"hex\" }\nsigned = \"{body}\"\n",
    ),
    (
        "ed25519-spki",
        "[auth.ed25519]\nkey = { encoding = \"spki\" }\nsignature = { query = \"s\", encoding = \"base64url\" }\n\
         signed = \"{header:X-Nonce}|{body}\"\nambiguous = \"it is\"\n",
    ),
    ("jwt-ps512", "[auth.jwt]\nalgorithm = \"PS512\"\nbody = { claim = \"sha256\", encoding = \"base64url\" }\n"),
    ("jwt-es384", "[auth.jwt]\nalgorithm = \"ES384\"\nbody = { claim = \"sha256\", encoding = \"hex\" }\n"),
    (
        "jwt-eddsa",
        "[auth.jwt]\nalgorithm = \"EdDSA\"\nfrom = { header = \"X-T\" }\nbody = { claim = \"b\", encoding = \"hex\" }\n",
    ),
    (
        "jwt-hs256",
        "[auth.jwt]\nalgorithm = \"HS256\"\nkey = { encoding = \"hex\" }\nbody = { claim = \"b\", encoding = \"hex\" }\n",
    ),
    ("form", "[auth.hmac]\nsignature = { form = \"mac\", encoding = \"hex\" }\nsigned = \"{form:id}\"\n"),
];

/// The text of one of them.
fn own(name: &str, auth: &str) -> String {
    let id = if name == "form" { "{ form = \"id\" }" } else { "{ json = \"/data/id\" }" };
    format!("title = \"{name}\"\n{auth}[event]\nid = {id}\n")
}

/// A source for every shipped profile, for alternatives of theirs, and for our own.
fn all() -> Vec<InProcessSource> {
    let shipped = Profiles::shipped();
    let mut provider: Vec<_> = shipped.iter().map(|(name, profile)| Provider::new(name, profile)).collect();
    let profile = |name: &str| shipped.get(name).expect("a profile");
    provider.push(Provider::with_private("standard-webhooks", profile("standard-webhooks")));
    provider.push(Provider::with_secret("gitlab", profile("gitlab"), "a-token-1"));
    let own = OWN.iter().map(|(name, auth)| {
        let profile = Profile::parse(&own(name, auth)).unwrap_or_else(|error| panic!("{name}: {error}"));
        Provider::new(name, &profile)
    });
    provider.into_iter().chain(own).map(receiver).collect()
}

/// A source of ours or a shipped one.
fn receiver(provider: Provider) -> InProcessSource {
    InProcessSource::new(provider, &OWN.map(|(name, auth)| (name.to_owned(), own(name, auth))))
}

/// The source of a shipped profile.
fn shipped(name: &str) -> InProcessSource {
    receiver(Provider::new(name, Profiles::shipped().get(name).expect("a profile")))
}

impl InProcessSource {
    fn receive_now(&self, request: &Request) -> Result<Event, Refusal> {
        self.receive(request, Moment::from_unix(NOW))
    }

    fn sign(&self, id: Id<'_>) -> Request {
        self.provider.sign(id, None, Moment::from_unix(NOW)).unwrap_or_else(|error| panic!("{}: {error}", self.name()))
    }

    fn name(&self) -> &str {
        self.source.name.as_str()
    }

    fn accepted(&self, request: &Request) -> Event {
        self.receive_now(request).unwrap_or_else(|refusal| panic!("{}: {refusal} {request:#?}", self.name()))
    }

    /// Whether the id of its events is one that a provider gives: neither a digest, as of a batch, nor the token
    /// itself.
    fn has_ids(&self) -> bool {
        let reference = &self.provider.profile().event.id;
        let proofs: Vec<_> = self.provider.profile().schemes().filter_map(Scheme::location).collect();
        let first = if let Reference::First(several) = reference { several.first() } else { Some(reference) };
        !matches!(first, Some(Reference::Each(_) | Reference::BodyDigest | Reference::Unique))
            && !reference.locations().iter().any(|location| proofs.contains(location))
    }
}

fn id_of(event: &Event) -> String {
    String::from_utf8(event.id.as_bytes().to_vec()).expect("UTF-8")
}

#[test]
fn every_profile_verifies_what_is_signed_for_it_under_the_id_that_was_asked_for() {
    let mut seen = 0;
    for receiver in all() {
        if receiver.has_ids() {
            let event = receiver.accepted(&receiver.sign(Id::Asked("4711")));
            assert!(id_of(&event).split(':').any(|part| part == "4711"), "{}: {}", receiver.name(), id_of(&event));
            seen += 1;
        } else {
            receiver.accepted(&receiver.sign(Id::Fresh(4711)));
        }
    }
    assert!(seen > 50, "only {seen} profiles have ids");
}

#[test]
fn a_secret_that_is_a_key_as_its_text_only_is_derived_from_by_both_sides() {
    for auth in [
        "[auth.jwt]\nalgorithm = \"HS256\"\nbody = { claim = \"b\", encoding = \"hex\" }\n",
        "[auth.hmac]\nsignature = { header = \"X-S\", encoding = \"hex\" }\nsigned = \"{body}\"\n",
    ] {
        let auth = format!("{auth}key = {{ encoding = \"base64\", or_text = true, derive = \"sha256\" }}\n");
        let profile = own("derived", &auth);
        let parsed = Profile::parse(&profile).expect("a profile");
        for secret in ["no base64, 1", "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="] {
            let provider = Provider::with_secret("derived", &parsed, secret);
            let receiver = InProcessSource::new(provider, &[("derived".to_owned(), profile.clone())]);
            receiver.accepted(&receiver.sign(Id::Fresh(1)));
        }
    }
}

#[test]
fn events_with_other_ids_are_other_events_and_those_with_the_same_id_the_same() {
    for receiver in all() {
        let [one, same, other] =
            [1 << 20, 1 << 20, 1 << 21].map(|bits| receiver.accepted(&receiver.sign(Id::Fresh(bits))));
        let keys = |event: &Event| (event.keys.id, event.keys.guard);
        // A token that is signed with randomness is its own id, and each of Dropbox's requests is an event of its own;
        // and Braintree signs what the sample cannot vary.
        if !["plaid", "dropbox"].contains(&receiver.name()) {
            assert_eq!(one.keys.id, same.keys.id, "{}", receiver.name());
        }
        assert_ne!(one.keys.id, other.keys.id, "{}", receiver.name());
        if keys(&one).1.is_some() && receiver.name() != "braintree" {
            assert_ne!(one.keys.guard, other.keys.guard, "{}", receiver.name());
        }
    }
}

#[test]
fn no_profile_takes_what_was_signed_with_another_key() {
    for receiver in all() {
        let forged = receiver.provider.forger().sign(Id::Fresh(1 << 20), None, Moment::from_unix(NOW)).expect("signed");
        let refusal = receiver.receive_now(&forged).expect_err(receiver.name());
        let expected = match receiver.provider.profile().auth.members.first().map(|member| &member.scheme) {
            Some(Scheme::Jwt(_)) => "token_signature",
            Some(Scheme::Token(_) | Scheme::Basic(_)) => "credential_mismatch",
            Some(Scheme::Signature(_)) if forged.headers.contains_key("x-gitlab-token") => "credential_mismatch",
            _ => "signature_mismatch",
        };
        assert_eq!(refusal.row().reason, expected, "{}", receiver.name());
    }
}

#[test]
fn no_profile_takes_a_body_with_one_byte_changed_that_is_signed() {
    let mut seen = 0;
    for receiver in all() {
        let bound = receiver.provider.profile().schemes().any(|scheme| match scheme {
            Scheme::Signature(_) => scheme.signs_body() || receiver.name() == "paypal",
            Scheme::Jwt(jwt) => jwt.body.is_some(),
            Scheme::Token(_) | Scheme::Basic(_) => false,
        });
        let mut request = receiver.sign(Id::Fresh(1 << 20));
        if !bound || request.headers.contains_key("x-gitlab-token") {
            continue;
        }
        let mut body = request.body.to_vec();
        let at = body.iter().rposition(u8::is_ascii_digit).expect("a digit");
        body[at] = if body[at] == b'9' { b'8' } else { b'9' };
        request.body = Bytes::from(body);
        let refusal = receiver.receive_now(&request).expect_err(receiver.name());
        let token = receiver.provider.profile().schemes().any(|scheme| matches!(scheme, Scheme::Jwt(_)));
        let expected = if token { "token_body" } else { "signature_mismatch" };
        assert_eq!(refusal.row().reason, expected, "{}", receiver.name());
        seen += 1;
    }
    assert!(seen > 40, "only {seen} profiles sign the body");
}

#[test]
fn a_body_of_ones_own_is_sent_as_it_is() {
    for (name, body) in [
        ("github", "{ \"a\" : 1.50 }\n"),
        ("stripe", "{ \"type\":\"x.y\", \"id\" : \"evt_mine\"}"),
        ("slack", "command=%2Fhello&text=a+b"),
        ("hugging-face", "[ ]"),
    ] {
        let receiver = shipped(name);
        let body = Bytes::from_static(body.as_bytes());
        let request = receiver.provider.sign(Id::Fresh(1), Some(&body), Moment::from_unix(NOW)).expect("signed");
        assert_eq!(request.body, body, "{name}");
        let event = receiver.accepted(&request);
        assert_eq!(id_of(&event) == "evt_mine", name == "stripe");
    }
}

#[test]
fn a_signature_that_stands_in_a_body_of_ones_own_is_all_that_changes_there() {
    let body = "{\"event-data\" : {\"id\":\"mine\", \"event\": \"opened\"},\n \
                \"signature\":{\"token\":\"a8ce0edb2dd8301dee6c2405235584e45aa91d1e9f979f3de0\",\"timestamp\":\"1767348000\",\"signature\":\"\"}}";
    let receiver = shipped("mailgun");
    let given = Bytes::from_static(body.as_bytes());
    let request = receiver.provider.sign(Id::Fresh(1), Some(&given), Moment::from_unix(NOW)).expect("signed");
    let (before, after) = body.split_once("\"signature\":\"").expect("its place");
    let sent = std::str::from_utf8(&request.body).expect("UTF-8");
    assert!(sent.starts_with(before) && sent.ends_with(&after[1..]), "{sent}");
    assert_eq!(id_of(&receiver.accepted(&request)), "mine");
}

#[test]
fn what_a_body_of_ones_own_decides_cannot_be_asked_for_besides() {
    let sign = |name: &str, id: Id<'_>, body: &'static str| {
        let shipped = Profiles::shipped();
        let provider = Provider::new(name, shipped.get(name).expect("a profile"));
        provider.sign(id, Some(&Bytes::from_static(body.as_bytes())), Moment::from_unix(NOW)).expect_err(name)
    };
    for (name, id, body, says) in [
        ("stripe", Id::Asked("x"), r#"{"id":"1"}"#, "body /id"),
        ("calendly", Id::Asked("x"), "{}", "known by their bodies"),
        ("plaid", Id::Asked("x"), "{}", "plaid-verification"),
        ("mailgun", Id::Fresh(1), "{}", "body /signature/token has 50 bytes, which does not hold"),
        ("aws-sns", Id::Fresh(1), r#"{"TopicArn":"other","SignatureVersion":"2"}"#, "body /TopicArn"),
        ("adyen", Id::Fresh(1), r#"{"notificationItems":[{},{}]}"#, "body /notificationItems/1"),
        ("mailgun", Id::Fresh(1), "nothing", "cannot be read"),
    ] {
        let message = sign(name, id, body);
        assert!(message.contains(says), "{name}: {message}");
    }
}

/// What is said of a request, and whether its cause is certain.
fn explained(case: &Case) -> (Result<Accepted, Refusal>, String, bool) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut explanation = explain(case).await.expect("explained");
        let failed = explanation.steps.iter().filter(|step| step.failed).count();
        assert_eq!(failed, usize::from(explanation.verdict.is_err()), "{:?}", explanation.steps);
        let cause = explanation.cause(case).await;
        let (words, proven) = cause.map_or_else(Default::default, |cause| (cause.description, cause.proven));
        let steps: String = explanation.steps.into_iter().map(|step| step.description).collect();
        (explanation.verdict, format!("{words}{steps}"), proven)
    })
}

#[test]
fn what_was_tampered_with_is_explained_for_every_profile() {
    let now = Moment::from_unix(NOW);
    for receiver in all() {
        let (name, provider) = (receiver.name(), &receiver.provider);
        let request = receiver.sign(Id::Fresh(1 << 20));
        let genuine = provider.case(&request, now);
        let (verdict, ..) = explained(&genuine);
        assert!(matches!(verdict, Ok(Accepted::Event { .. })), "{name}: {verdict:?}");

        let mut tampered = request.clone();
        tampered.body = [&request.body[..], b"\n"].concat().into();
        let mut named = Vec::new();
        if let Err(refusal) = receiver.receive_now(&tampered) {
            let (verdict, cause, proven) = explained(&provider.case(&tampered, now));
            assert_eq!(verdict.expect_err(name).row().reason, refusal.row().reason, "{name}");
            assert!(proven && cause.contains("line break at its end"), "{name}: {cause}");
            named.push("body");
        }
        if let Some(secret) = provider.secret() {
            let forger = provider.forger();
            let forged = forger.sign(Id::Fresh(1 << 20), None, now).expect("signed");
            let old_secrets = vec![Secret::new(forger.secret().expect("a secret")).expect("a secret")];
            let refusal = receiver.receive_now(&forged).expect_err(name);
            let (verdict, cause, proven) = explained(&Case { old_secrets, ..provider.case(&forged, now) });
            assert_eq!(verdict.expect_err(name).row().reason, refusal.row().reason, "{name}");
            assert!(proven && cause.contains("old secret 1"), "{name}: {cause}");
            assert!(!cause.contains(secret), "{name}: {cause}");
            named.push("secret");
        }
        // What is neither bound to the body nor to a shared secret names what it is for.
        for (param, says) in [("audience", "the token is for"), ("topic_arn", "/TopicArn"), ("email", "claim email")] {
            if provider.params.contains_key(param) {
                let mut case = provider.case(&request, now);
                case.params.insert(param.to_owned(), "another".to_owned());
                let (verdict, cause, _) = explained(&case);
                assert!(verdict.is_err() && cause.contains(says), "{name}: {cause}");
                named.push(param);
            }
        }
        assert!(!named.is_empty(), "{name}: nothing of it was tampered with");
    }
}
