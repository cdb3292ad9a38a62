//! Challenges that anybody may have answered: the gateway is no signing oracle, no answer is good for anything else.

use crate::harness::gateway::Gateway;
use crate::harness::gateway::one_source::start_shipped;
use crate::harness::provider::SECRET;
use crate::harness::provider::delivery::Delivery;
use crate::harness::provider::delivery::request;

/// What somebody might want an event to be, and what else could begin one.
const TEXTS: &[&str] = &[
    r#"{"for_user_id":"2244994945","follow_events":[]}"#,
    "{}",
    "[]",
    " {}",
    "\n\t {}",
    "\r[]",
    "\u{c}{}",
    "\u{feff}{}",
    "\u{a0}{}",
    "[",
    "{",
    "x{}",
    "}",
    "]",
    "\"{}\"",
    "\"text\"",
    "null",
    "true",
    "17",
    "-1.5e3",
    "a=b&c=d",
    "<a/>",
    "\u{e9}",
    "\0",
    " ",
    "",
    "M2RkODJkZmMtYjlkYi00NmQ4LTk0MGUtM2JjYzkwM2Q4MjQ0",
];

#[test]
fn no_answer_to_xs_challenge_is_the_signature_of_an_event() {
    let (gateway, upstream) = start_shipped("x", &format!("secrets = [\"plain:{SECRET}\"]"));
    let mut answered = 0;
    for text in TEXTS {
        let answer = ask(&gateway, "/x", "crc_token", text);
        if answer.status != 200 {
            assert_eq!(answer.status, 401, "{text:?}");
            continue;
        }
        answered += 1;
        let token = answer.json()["response_token"].as_str().expect("a token").to_owned();
        let event = request("POST", "/x", &[("x-twitter-webhooks-signature", &token)], *text);
        assert_eq!(event.send(gateway.address()).status, 400, "{text:?}");
    }
    assert_eq!((answered, gateway.refusals("x", "handshake_refused")), (14, 13.0));
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn every_crc_token_that_x_may_send_is_answered() {
    let (gateway, _upstream) = start_shipped("x", &format!("secrets = [\"plain:{SECRET}\"]"));
    let letters: String = (b'!'..=b'~').map(char::from).filter(|letter| !"{[".contains(*letter)).collect();
    for token in ["challenge_string", "a+b/=\"\u{e9}", &letters, &"0123456789abcdef".repeat(64)] {
        assert_eq!(ask(&gateway, "/x", "crc_token", token).status, 200, "{token:?}");
    }
}

#[test]
fn no_answer_to_braintrees_challenge_is_the_signature_of_an_event() {
    let lines = format!("secrets = [\"plain:{SECRET}\"]\nparams = {{ public_key = \"public\" }}");
    let (gateway, upstream) = start_shipped("braintree", &lines);
    let mut answered = 0;
    for text in TEXTS.iter().map(|text| (*text).to_owned()).chain((18..=36).map(|length| "A".repeat(length))) {
        // With a line break behind it the payload would be signed as what was asked for.
        for asked in [text.clone(), format!("{text}\n")] {
            let answer = ask(&gateway, "/braintree", "bt_challenge", &asked);
            if answer.status != 200 {
                assert_eq!(answer.status, 401, "{text:?}");
                continue;
            }
            answered += 1;
            for payload in [&asked, &text] {
                let form = form_urlencoded::Serializer::new(String::new())
                    .append_pair("bt_signature", &answer.text())
                    .append_pair("bt_payload", payload)
                    .finish();
                assert_eq!(request("POST", "/braintree", &[], form).send(gateway.address()).status, 401, "{text:?}");
            }
        }
    }
    assert_eq!(answered, 26);
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn a_challenge_that_is_there_twice_is_not_answered() {
    let (gateway, _upstream) = start_shipped("x", &format!("secrets = [\"plain:{SECRET}\"]"));
    for target in ["/x?crc_token=a&crc_token=b", "/x?crc_token=a&crc_token=a", "/x?crc_token=a&crc%5ftoken=%7B%7D"] {
        let answer = request("GET", target, &[], "").send(gateway.address());
        assert_eq!((answer.status, answer.text().contains("sha256")), (401, false), "{target}");
    }
}

fn ask(gateway: &Gateway, path: &str, name: &str, text: &str) -> crate::harness::http::Answer {
    let query = form_urlencoded::Serializer::new(String::new()).append_pair(name, text).finish();
    let get: Delivery = request("GET", &format!("{path}?{query}"), &[], "");
    get.send(gateway.address())
}
