//! `explain` names the mistake that somebody made, for every usual one, and tells no secret.

use std::io::Write as _;

use bytes::Bytes;
use doorward::base::secret::Secret;
use doorward::base::time::Moment;
use doorward::config::default_ttl;
use doorward::explain::Accepted;
use doorward::explain::Case;
use doorward::explain::Cause;
use doorward::explain::Explanation;
use doorward::explain::explain;
use doorward::extract::params;
use doorward::profile::ContentEncoding;
use doorward::profile::Profile;
use doorward::profile::Profiles;
use doorward::sign;
use doorward::sign::Id;
use doorward::sign::Order;
use http::HeaderName;
use http::HeaderValue;

const NOW: i64 = 1_767_348_000;
const SECRET: &str = "It's a Secret to Everybody";

fn secrets(texts: &[&str]) -> Vec<Secret> {
    texts.iter().map(|text| Secret::new(text.as_bytes()).expect("a secret")).collect()
}

/// What a provider with this profile and secret sends, and a source that knows the same.
fn signed(profile: &Profile, secret: &str, params: &[(&str, &str)], body: Option<&str>) -> Case {
    let given: Vec<_> = params.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    let params = params::complete(profile, &given).expect("parameters");
    let body = body.map(|body| Bytes::copy_from_slice(body.as_bytes()));
    let request = sign::request(&Order {
        profile,
        params: &params,
        secrets: &secrets(&[secret]),
        key: None,
        body: body.as_ref(),
        query: None,
        id: Id::Fresh(1 << 20),
        kind: None,
        at: Moment::from_unix(NOW),
        certificate_url: None,
    })
    .expect("signed");
    let query = request.query.map(|query| format!("?{query}")).unwrap_or_default();
    Case {
        profile: profile.clone(),
        secrets: secrets(&[secret]),
        old_secrets: Vec::new(),
        ttl: default_ttl().expect("a default"),
        params,
        method: request.method,
        target: format!("/{query}").parse().expect("a target"),
        headers: request.headers,
        body: request.body,
        at: Moment::from_unix(NOW),
    }
}

fn shipped(name: &str, secret: &str) -> Case {
    signed(Profiles::shipped().get(name).expect("a profile"), secret, &[], None)
}

/// A profile of our own: an HMAC of time and body.
fn own(scheme: &str) -> Profile {
    let neighbours = scheme.contains("{timestamp}{body}");
    let ambiguous = if neighbours { "\nambiguous = \"no body begins with a digit\"" } else { "" };
    let text = format!(
        "title = \"Own\"\n[auth.hmac]\n{scheme}{ambiguous}\n[timestamp]\nfrom = {{ header = \"X-Time\" }}\nformat = \"unix\"\n\
         tolerance = \"5m\"\n[event]\nid = {{ json = \"/id\" }}\n"
    );
    Profile::parse(&text).unwrap_or_else(|error| panic!("{error}"))
}

const USUAL: &str = "signature = { header = \"X-Signature\", prefix = \"v1=\", encoding = \"hex\" }\nsigned = \
                     \"{timestamp}.{body}\"";

fn ours(scheme: &str) -> Case {
    signed(&own(scheme), SECRET, &[], Some("{\"id\": \"1\", \"text\": \"é/<b>\", \"n\": 1.0}"))
}

/// The explanation and the cause.
fn explained(case: &Case) -> (Explanation, Option<Cause>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut explanation = explain(case).await.expect("explained");
        let cause = explanation.cause(case).await;
        (explanation, cause)
    })
}

fn accepted(case: &Case) -> bool {
    matches!(explained(case).0.verdict, Ok(Accepted::Event { .. }))
}

/// Asserts that the request is refused for this reason, because of exactly this mistake.
#[track_caller]
fn assert_cause(case: &Case, reason: &str, says: &str) {
    let (explanation, cause) = explained(case);
    let refusal = explanation.verdict.as_ref().expect_err("refused");
    assert_eq!(refusal.row().reason, reason);
    let cause = cause.expect("a cause");
    assert!(cause.description.contains(says), "{:?} does not say {says:?}", cause.description);
    assert!(cause.proven, "{}", cause.description);
    assert!(explanation.steps.last().is_some_and(|step| step.failed), "{:?}", explanation.steps);
    for secret in case.secrets.iter().chain(&case.old_secrets) {
        let secret = std::str::from_utf8(secret.expose()).expect("text");
        assert!(!cause.description.contains(secret), "{}", cause.description);
        assert!(explanation.steps.iter().all(|step| !step.description.contains(secret)), "{:?}", explanation.steps);
    }
}

fn header(case: &mut Case, name: &str, value: &str) {
    let name = HeaderName::try_from(name).expect("a name");
    case.headers.insert(name, HeaderValue::from_str(value).expect("a value"));
}

fn take(case: &mut Case, name: &str) -> String {
    let value = case.headers.remove(name).expect("it is there");
    value.to_str().expect("text").to_owned()
}

#[test]
fn a_genuine_request_is_accepted_step_by_step() {
    let (explanation, cause) = explained(&ours(USUAL));
    assert!(
        matches!(explanation.verdict, Ok(Accepted::Event { ref id, .. }) if id == "1"),
        "{:?}",
        explanation.verdict
    );
    assert_eq!(cause, None);
    let labels: Vec<_> = explanation.steps.iter().map(|step| step.kind.label()).collect();
    let expected =
        ["looked for", "looked for", "found", "found", "signed", "computed", "compared", "looked for", "found"];
    assert_eq!(labels, expected);
    let computed = &explanation.steps[5].description;
    assert!(computed.starts_with("v1=") && computed.contains('…') && computed.len() < 50, "{computed}");
}

#[test]
fn bodies_that_were_altered_on_the_way_are_found_out() {
    let json = "{\"id\": \"1\", \"text\": \"é/<b>\", \"n\": 1.0}";
    for (altered, says) in [
        (format!("{json}\n"), "line break at its end"),
        (format!("{json}\r\n"), "line break at its end"),
        (format!(" {json} "), "blanks around it"),
        (format!("\u{feff}{json}"), "byte order mark"),
    ] {
        let mut case = ours(USUAL);
        case.body = altered.clone().into();
        assert_cause(&case, "signature_mismatch", says);
    }
    // What was signed is what a library writes, and what came is something else.
    for (signed_body, says) in [
        ("{\"id\":\"1\",\"text\":\"é/<b>\",\"n\":1}", "JSON.stringify"),
        ("{\"id\":\"1\",\"text\":\"é/<b>\",\"n\":1.0}", "without blanks"),
        ("{\"id\":\"1\",\"text\":\"é/<b>\",\"n\":1.0}\n", "without blanks"),
        ("{\"id\": \"1\", \"text\": \"\\u00e9/<b>\", \"n\": 1.0}", "Python's json.dumps"),
        ("{\"id\":\"1\",\"text\":\"\\u00e9\\/<b>\",\"n\":1.0}", "PHP's json_encode"),
        (
            "{\"id\":\"1\",\"n\":1.0,\"text\":\"é/\\u003cb\\u003e\"}",
            "Go's encoding/json writes it, with its members sorted",
        ),
        ("{\n  \"id\": \"1\",\n  \"text\": \"é/<b>\",\n  \"n\": 1.0\n}\n", "indented by two blanks"),
        ("{\n\t\"id\": \"1\",\n\t\"text\": \"é/<b>\",\n\t\"n\": 1.0\n}", "indented by tabs"),
        ("{\"id\": \"1\", \"text\": \"é/<b>\", \"n\": 1.0}\n", "lost a line feed"),
    ] {
        let mut case = signed(&own(USUAL), SECRET, &[], Some(signed_body));
        case.body = json.into();
        assert_cause(&case, "signature_mismatch", says);
    }
    let mut case = signed(&own(USUAL), SECRET, &[], Some("{\r\n\"id\": \"1\"\r\n}"));
    case.body = "{\n\"id\": \"1\"\n}".into();
    assert_cause(
        &case,
        "signature_mismatch",
        "end with a line feed, and those that were signed with a carriage return",
    );
    let mut case = ours(USUAL);
    case.body = "eyJpZCI6ICIxIiwgInRleHQiOiAiw6kvPGI+IiwgIm4iOiAxLjB9".into();
    assert_cause(&case, "signature_mismatch", "still base64");
    let mut case = ours(USUAL);
    case.body = json.replace('é', "\u{c3}\u{a9}").into();
    assert_cause(&case, "signature_mismatch", "encoded twice");
    let mut case = ours(USUAL);
    case.body = serde_json::to_string(json).expect("JSON").into();
    assert_cause(&case, "signature_mismatch", "JSON string");
}

#[test]
fn forms_that_were_encoded_anew_are_found_out() {
    let mut case = signed(
        Profiles::shipped().get("slack").expect("a profile"),
        SECRET,
        &[],
        Some("command=%2Fhello&text=a+b%7E&trigger_id=1"),
    );
    case.body = "command=%2fhello&text=a%20b%7E&trigger_id=1".into();
    assert_cause(&case, "signature_mismatch", "percent-encoding");
}

#[test]
fn secrets_that_are_misread_are_found_out() {
    let base64 = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
    for (sender, ours, says) in [
        (SECRET, "It's a Secret to Everybody ", "blanks or a line break around it"),
        (SECRET, "\"It's a Secret to Everybody\"", "quotation marks"),
        (SECRET, "plain:It's a Secret to Everybody", "plain:"),
        ("It's a Secret to Everybody\n", SECRET, "line break at its end"),
        ("whsec_abcdef", "abcdef", "lacks its prefix whsec_"),
        ("abcdef", "whsec_abcdef", "without what stands before its first '_'"),
        ("a+b/c", "a%2Bb%2Fc", "percent-encoded"),
        ("ABCDEF", "abcdef", "upper case"),
    ] {
        let mut case = signed(&own(USUAL), sender, &[], Some("{\"id\":\"1\"}"));
        case.secrets = secrets(&[ours]);
        assert_cause(&case, "signature_mismatch", says);
    }
    for (encoding, secret, says) in [
        ("base64", base64, "decoded from base64"),
        ("hex", "00112233445566778899aabbccddeeff", "decoded from hexadecimal"),
    ] {
        let mut case = signed(&own(&format!("key = {{ encoding = \"{encoding}\" }}\n{USUAL}")), secret, &[], None);
        case.profile = own(USUAL);
        assert_cause(&case, "signature_mismatch", says);
        let mut case = signed(&own(USUAL), secret, &[], None);
        case.profile = own(&format!("key = {{ encoding = \"{encoding}\" }}\n{USUAL}"));
        assert_cause(&case, "signature_mismatch", "as the text that it is");
    }
}

#[test]
fn a_secret_is_the_same_with_and_without_any_of_its_prefixes() {
    let bare = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
    let (usual, versioned) = (format!("whsec_{bare}"), format!("v1,whsec_{bare}"));
    for name in ["standard-webhooks", "svix", "clerk", "resend", "openai", "gitlab"] {
        for (sender, ours) in [(&usual, &versioned), (&versioned, &usual), (&versioned, &versioned)] {
            let mut case = shipped(name, sender);
            case.secrets = secrets(&[ours]);
            assert!(accepted(&case), "{name}: signed with {sender}, configured as {ours}");
        }
        let mut case = shipped(name, &usual);
        case.secrets = secrets(&[&versioned.replace('M', "N")]);
        assert!(!accepted(&case), "{name}");
    }
}

#[test]
fn a_secret_that_may_be_decoded_or_a_text_is_tried_as_both() {
    let either = own(&format!("key = {{ encoding = \"base64\", prefix = \"whsec_\", or_text = true }}\n{USUAL}"));
    let decoded = own(&format!("key = {{ encoding = \"base64\", prefix = \"whsec_\" }}\n{USUAL}"));
    let hex = own(&format!("key = {{ encoding = \"hex\", prefix = \"whsec_\" }}\n{USUAL}"));
    let (text, both) = ("a secret that is no base64", "whsec_00112233445566778899aabbccddeeff");
    for (sender, secret, right) in [
        (&decoded, both, true),
        (&own(USUAL), both, true),
        (&own(USUAL), text, true),
        (&hex, both, false),
        (&own(USUAL), "00112233445566778899aabbccddeeff", false),
    ] {
        let mut case = signed(sender, secret, &[], None);
        case.profile = either.clone();
        case.secrets = secrets(&[if secret == text { text } else { both }]);
        assert_eq!(accepted(&case), right, "{secret} as {:?}", sender.keys().next());
        // Whichever of the secrets it is, its position is told.
        case.secrets = secrets(&["another secret", both, text]);
        let at = if secret == text { 2 } else { 1 };
        let position = match explained(&case).0.verdict {
            Ok(Accepted::Event { secret, .. }) => secret,
            _ => None,
        };
        assert_eq!(position, right.then_some(at), "{secret}");
    }
    for secret in [text, both] {
        assert!(accepted(&signed(&either, secret, &[], None)), "what is signed here is accepted here: {secret}");
    }
}

#[test]
fn an_older_secret_and_a_second_one_are_found_out() {
    let mut case = ours(USUAL);
    case.secrets = secrets(&["a-newer-secret"]);
    case.old_secrets = secrets(&["the-first-secret", SECRET]);
    assert_cause(&case, "signature_mismatch", "old secret 2");
    let mut case = shipped("telegram", "an-old-token");
    (case.secrets, case.old_secrets) = (secrets(&["a-new-token"]), secrets(&["an-old-token"]));
    assert_cause(&case, "credential_mismatch", "old secret 1");
    let mut case = ours(USUAL);
    case.secrets = secrets(&["first", SECRET]);
    assert!(matches!(explained(&case).0.verdict, Ok(Accepted::Event { secret: Some(1), .. })));
}

#[test]
fn two_mistakes_at_once_are_found_out() {
    let mut case = ours(USUAL);
    case.secrets = secrets(&["\"It's a Secret to Everybody\""]);
    case.body = [&case.body[..], b"\n"].concat().into();
    assert_cause(&case, "signature_mismatch", "two mistakes at once. First, the secret has quotation marks");
}

#[test]
fn signatures_that_stand_elsewhere_are_found_out() {
    let mut case = ours(USUAL);
    let value = take(&mut case, "x-signature");
    header(&mut case, "x_signature", &value);
    assert_cause(
        &case,
        "signature_missing",
        "it stands in header x_signature, and the profile looks in header x-signature",
    );
    let mut case = ours(USUAL);
    let value = take(&mut case, "x-signature");
    header(&mut case, "x-signature", value.trim_start_matches("v1="));
    assert_cause(
        &case,
        "signature_malformed",
        "it stands in header x-signature, and the profile looks in header x-signature behind \"v1=\"",
    );
    let mut case = ours(USUAL);
    let value = take(&mut case, "x-signature");
    header(&mut case, "signatures", &format!("t=1;{value};v0=00"));
    assert_cause(&case, "signature_missing", "\"v1\" in header signatures");
    let mut case = ours(USUAL);
    let value = take(&mut case, "x-signature");
    case.target = format!("/?signature={}", value.trim_start_matches("v1=")).parse().expect("a target");
    assert_cause(&case, "signature_missing", "query parameter signature");
    // The time stands in the same list as the signature.
    let mut case = shipped("stripe", SECRET);
    let value = take(&mut case, "stripe-signature");
    header(&mut case, "http_stripe_signature", &value);
    assert_cause(&case, "signature_missing", "header http_stripe_signature");
    let mut case = shipped("telegram", "a-token");
    let value = take(&mut case, "x-telegram-bot-api-secret-token");
    header(&mut case, "authorization", &format!("Bearer {value}"));
    assert_cause(&case, "credential_missing", "header authorization behind \"Bearer \"");
}

#[test]
fn signatures_in_another_form_are_found_out() {
    let with = |encoding: &str, more: &str| {
        format!(
            "{more}signature = {{ header = \"X-Signature\", prefix = \"v1=\", encoding = \"{encoding}\" }}\nsigned = \
             \"{{timestamp}}.{{body}}\""
        )
    };
    for (sender, says) in [
        (with("base64", ""), "written in base64, and the profile says hexadecimal"),
        (with("hex", "hash = \"sha1\"\n"), "made with HMAC-SHA1, and the profile says HMAC-SHA256"),
        (with("base64", "hash = \"sha512\"\n"), "made with HMAC-SHA512"),
    ] {
        let mut case = ours(&sender);
        case.profile = own(USUAL);
        assert_cause(&case, "signature_malformed", says);
    }
    for (signs, says) in
        [("{body}", "what is signed is {body}"), ("{timestamp}{body}", "what is signed is {timestamp}{body}")]
    {
        let mut case = ours(&USUAL.replace("{timestamp}.{body}", signs));
        case.profile = own(USUAL);
        assert_cause(&case, "signature_mismatch", says);
    }
}

#[test]
fn addresses_that_are_spelled_otherwise_are_found_out() {
    let trello = Profiles::shipped().get("trello").expect("a profile").clone();
    for (registered, configured) in [
        ("https://a.example/hooks", "http://a.example/hooks"),
        ("https://a.example/hooks", "https://a.example:8443/hooks"),
        ("https://a.example/hooks/", "https://a.example/hooks"),
        ("https://a.example/hooks", "https://a.example/hooks?token=1"),
        ("http://a.example:80/hooks", "https://a.example/hooks"),
    ] {
        let mut case = signed(&trello, SECRET, &[("url", registered)], None);
        case.params.insert("url".to_owned(), configured.to_owned());
        assert_cause(&case, "signature_mismatch", &format!("the address that was signed is {registered}, "));
    }
    let mut case = signed(&trello, SECRET, &[("url", "https://real.example/x")], None);
    header(&mut case, "host", "real.example");
    (case.target, _) =
        ("/x".parse().expect("a target"), case.params.insert("url".to_owned(), "https://a.example".to_owned()));
    assert_cause(&case, "signature_mismatch", "the address that was signed is https://real.example/x, ");
}

#[test]
fn times_in_other_units_are_found_out() {
    let seconds = own(USUAL);
    let milliseconds = Profile::parse(
        &"title = \"Own\"\n[auth.hmac]\nSCHEME\n[timestamp]\nfrom = { header = \"X-Time\" }\nformat = \"unix-ms\"\ntolerance = \
          \"5m\"\n[event]\nid = { json = \"/id\" }\n"
            .replace("SCHEME", USUAL),
    )
    .expect("a profile");
    // The sender writes milliseconds, the profile reads seconds; and the other way round.
    let mut case = signed(&milliseconds, SECRET, &[], None);
    case.profile = seconds.clone();
    assert_cause(&case, "timestamp_future", "Unix milliseconds, and the profile reads Unix seconds");
    let mut case = signed(&seconds, SECRET, &[], None);
    case.profile = milliseconds.clone();
    assert_cause(&case, "timestamp_stale", "Unix seconds, and the profile reads Unix milliseconds");
    // What is signed is seconds, and what is sent is milliseconds.
    let mut case = signed(&seconds, SECRET, &[], None);
    header(&mut case, "x-time", &format!("{NOW}000"));
    case.profile = milliseconds;
    assert_cause(&case, "signature_mismatch", "the time that was signed is 1767348000, in Unix seconds");
}

#[test]
fn what_no_mistake_explains_is_said_so() {
    let mut case = ours(USUAL);
    case.body = "{\"id\":\"2\"}".into();
    let cause = explained(&case).1.expect("a cause");
    assert!(!cause.proven && cause.description.contains("none explains it"), "{}", cause.description);
    let mut case = ours(USUAL);
    case.at = Moment::from_unix(NOW + 3600);
    let cause = explained(&case).1.expect("a cause");
    assert!(!cause.proven && cause.description.contains("--at"), "{}", cause.description);
    let mut case = ours(USUAL);
    case.body = Bytes::new();
    let cause = explained(&case).1.expect("a cause");
    assert!(!cause.proven && cause.description.contains("The capture has no body"), "{}", cause.description);
    let mut case = shipped("azure-devops", "user:password");
    case.body = "{\"id\":\"a\",\"id\":\"b\"}".into();
    let (explanation, cause) = explained(&case);
    assert!(
        explanation.steps.last().is_some_and(|step| step.description.contains("is there twice")),
        "{:?}",
        explanation.steps
    );
    assert!(!cause.expect("a cause").proven, "nothing signs the body");
    for (body, says) in [
        ("{\"id\":\"\"}", "cannot be an event id"),
        ("{\"no\":1}", "nothing where its event id should be: body /id. The body has /no."),
        ("{}", "body /id."),
    ] {
        let case = signed(&own(USUAL), SECRET, &[], Some(body));
        let cause = explained(&case).1.expect("a cause");
        assert!(!cause.proven && cause.description.contains(says), "{}", cause.description);
    }
    let mut case = ours(USUAL);
    header(&mut case, "content-encoding", "gzip");
    let (explanation, cause) = explained(&case);
    assert!(explanation.steps.last().is_some_and(|step| step.description.contains("gzip")), "{:?}", explanation.steps);
    assert!(cause.expect("a cause").description.contains("compressed"));
}

#[test]
fn a_compressed_body_is_tried_as_sent_and_before_its_compression() {
    let plain = ours(USUAL);
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(&plain.body).expect("memory");
    let sent: Bytes = encoder.finish().expect("memory").into();
    let compressed = |signed: &Bytes, said: Option<ContentEncoding>| {
        let mut profile = plain.profile.clone();
        profile.content_encoding = said;
        let text = [b"1767348000.", &signed[..]].concat();
        let mut case = Case { profile, body: sent.clone(), ..plain.clone() };
        let signature = const_hex::encode(crate::harness::provider::signing::hmac_sha256(SECRET.as_bytes(), &text));
        header(&mut case, "x-signature", &format!("v1={signature}"));
        header(&mut case, "content-encoding", "gzip");
        case
    };
    let (as_sent, before) = (ContentEncoding::SignedAsSent, ContentEncoding::SignedPlain);
    for (signed, is, other, how) in
        [(&plain.body, before, as_sent, ", before compression"), (&sent, as_sent, before, ", as sent")]
    {
        for said in [None, Some(is)] {
            let (explanation, cause) = explained(&compressed(signed, said));
            assert!(explanation.verdict.is_ok() && cause.is_none(), "{:?}", explanation.verdict);
            let told = explanation
                .steps
                .iter()
                .any(|step| step.description.contains(&format!("{how}, because the signature")));
            assert!(told, "{:?}", explanation.steps);
        }
        let right = format!("Write content_encoding = \"{}\".", is.name());
        assert_cause(&compressed(signed, Some(other)), "signature_mismatch", &right);
    }
    let mut cut = compressed(&plain.body, None);
    cut.body.truncate(cut.body.len() - 1);
    let cause = explained(&cut).1.expect("a cause");
    assert!(!cause.proven && cause.description.contains("only a part of it is there"), "{}", cause.description);
    // As at the gateway, which decompresses nothing for strangers.
    for (said, reason) in [(as_sent, "signature_mismatch"), (before, "body_malformed")] {
        let mut cut = compressed(&plain.body, Some(said));
        cut.body.truncate(cut.body.len() - 1);
        assert_eq!(explained(&cut).0.verdict.expect_err("refused").row().reason, reason);
    }
}
