//! `doorward sign` and `doorward send` as commands: what they print, what a gateway says to it, and what they refuse.

use std::path::Path;
use std::process::Command;
use std::process::Output;

use doorward::profile::Profiles;
use serde_json::Value;
use tempfile::TempDir;

use crate::harness::free_port;
use crate::harness::gateway::Gateway;
use crate::harness::gateway::doorward;
use crate::harness::provider::SECRET;
use crate::harness::provider::any_profile::Provider;
use crate::harness::provider::github::Github;
use crate::harness::provider::signing::hmac_hex;
use crate::harness::upstream::Upstream;

/// One profile for each scheme, and for each place that a proof can stand in.
const SCHEMES: [&str; 12] = [
    "stripe",
    "mailgun",
    "braintree",
    "docusign",
    "telegram",
    "azure-event-grid",
    "microsoft-graph",
    "azure-devops",
    "discord",
    "sendgrid",
    "aws-sns",
    "pitchpoint",
];

/// The options that name a provider's keys and parameters.
fn options(provider: &Provider, folder: &Path) -> Vec<String> {
    let mut options = Vec::new();
    let mut add = |name: &str, value: String| options.extend([name.to_owned(), value]);
    if let Some(secret) = provider.secret() {
        add("--secret", format!("plain:{secret}"));
    }
    if let Some(pem) = provider.private_pem() {
        let file = folder.join("key.pem");
        std::fs::write(&file, pem).expect("a key");
        add("--key", file.display().to_string());
    }
    if let Some(url) = &provider.certificate_url {
        add("--certificate-url", url.clone());
    }
    provider.params.iter().for_each(|(name, value)| add("--param", format!("{name}={value}")));
    options
}

fn provider(name: &str) -> Provider {
    Provider::new(name, Profiles::shipped().get(name).expect("a profile"))
}

fn run(command: &mut Command) -> Output {
    command.output().expect("it runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

#[test]
fn what_is_sent_is_taken_once_under_every_scheme() {
    for name in SCHEMES {
        let (folder, upstream, provider) = (folder(), Upstream::start(), provider(name));
        let gateway = Gateway::start(&provider.source(&upstream.url()));
        let to = format!("http://{}/webhooks/{name}", gateway.address());
        let send = |more: &[&str]| {
            let mut command = doorward();
            command.args(["send", "--profile", name, "--to", &to]).args(options(&provider, folder.path())).args(more);
            let output = run(&mut command);
            assert_eq!(output.status.code(), Some(0), "{name}: {}{}", text(&output.stdout), text(&output.stderr));
        };
        send(&["--id", "4711"]);
        send(&["--id", "4711"]);
        assert_eq!(upstream.received().len(), 1, "{name}: the second is a duplicate");
        // What Braintree signs is not made up anew.
        if name != "braintree" {
            send(&[]);
            send(&[]);
            assert_eq!(upstream.received().len(), 3, "{name}: others are new events");
        }
    }
}

#[test]
fn the_request_its_status_and_the_answer_are_printed() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&Github::source(&upstream.url()));
    let to = format!("http://{}/webhooks/github?a=b", gateway.address());
    let send = |secret: &str, more: &[&str]| {
        run(doorward()
            .args(["send", "--profile", "github", "--id", "4711", "--secret", secret, "--to", &to])
            .args(more))
    };
    let first = send(SECRET, &[]);
    assert_eq!(first.status.code(), Some(0), "{}", text(&first.stderr));
    assert_eq!(text(&first.stdout), format!("POST {to}\nid 4711\n\n200 OK\n{{\"ok\":true}}\n"));
    assert_eq!(upstream.ids(), ["4711"]);
    let again = send(SECRET, &["--json"]);
    let again: Value = serde_json::from_slice(&again.stdout).expect("JSON");
    assert_eq!((&again["status"], &again["request"]["url"]), (&Value::from(200), &Value::from(to.as_str())));
    assert_eq!(again["body"], r#"{"received":true,"duplicate":true}"#);
    let refused = send("another", &[]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stdout).contains("401 Unauthorized"), "{}", text(&refused.stdout));
    for output in [first, refused] {
        assert!(!text(&output.stdout).contains(SECRET) && !text(&output.stderr).contains(SECRET));
    }
}

#[test]
fn an_address_that_is_signed_is_the_one_that_is_sent_to() {
    for name in ["twilio", "hubspot", "square", "trello"] {
        let (folder, upstream, mut provider) = (folder(), Upstream::start(), provider(name));
        let listen = format!("127.0.0.1:{}", free_port());
        let address = format!("http://{listen}/webhooks/{name}");
        // Twilio signs the query as it comes, the others the address as it was registered.
        let (registered, to) = match name {
            "twilio" => (address.clone(), format!("{address}?a=b%20c&d")),
            _ => (format!("{address}?a=b"), format!("{address}?a=b")),
        };
        provider.params.insert("url".to_owned(), registered);
        let _gateway = Gateway::start(&format!("server.listen = \"{listen}\"\n{}", provider.source(&upstream.url())));
        provider.params.remove("url");
        let output =
            run(doorward().args(["send", "--profile", name, "--to", &to]).args(options(&provider, folder.path())));
        assert_eq!(output.status.code(), Some(0), "{name}: {}{}", text(&output.stdout), text(&output.stderr));
        assert_eq!(upstream.received().len(), 1);
    }
}

#[test]
fn headers_can_be_piped_into_curl() {
    let (folder, upstream) = (folder(), Upstream::start());
    let gateway = Gateway::start(&Github::source(&upstream.url()));
    std::fs::write(folder.path().join("event.json"), "{ \"a\": 1.50 }\n").expect("a body");
    let script = format!(
        "{} sign --profile github --secret env:SECRET --id mine --type push --body event.json | \
         curl -s -f -H @- --data-binary @event.json http://{}/webhooks/github",
        env!("CARGO_BIN_EXE_doorward"),
        gateway.address()
    );
    let output = run(Command::new("sh").args(["-c", &script]).env("SECRET", SECRET).current_dir(folder.path()));
    assert_eq!(text(&output.stdout), r#"{"ok":true}"#, "{}", text(&output.stderr));
    let received = upstream.received();
    assert_eq!(received[0].body, b"{ \"a\": 1.50 }\n");
    assert_eq!(received[0].header("doorward-event-type"), Some("push"));
    assert_eq!(upstream.ids(), ["mine"]);
}

#[test]
fn the_body_is_printed_when_it_is_made_up_or_the_signature_is_in_it() {
    let folder = folder();
    let token = "a8ce0edb2dd8301dee6c2405235584e45aa91d1e9f979f3de0";
    let body = &format!("{{\"signature\":{{\"token\":\"{token}\",\"timestamp\":\"1\",\"signature\":\"\"}}}}");
    std::fs::write(folder.path().join("event.json"), body).expect("a body");
    let sign = |profile: &str, more: &[&str]| {
        let mut command = doorward();
        command.args(["sign", "--profile", profile, "--secret", "s", "--at", "1767348000"]).args(more);
        text(&run(command.current_dir(folder.path())).stdout)
    };
    let signature = hmac_hex("s", &[b"1", token.as_bytes()]);
    let signed = body.replace("\"signature\":\"\"", &format!("\"signature\":\"{signature}\""));
    assert_eq!(sign("mailgun", &["--body", "event.json"]), format!("content-type: application/json\n\n{signed}\n"));
    let printed = sign("stripe", &["--id", "evt_mine"]);
    assert!(printed.contains("stripe-signature: t=1767348000,v1=") && printed.contains("\n\n{\"id\":\"evt_mine\""));
    let printed = sign("stripe", &["--body", "event.json"]);
    assert!(printed.ends_with('\n') && !printed.contains("\n\n") && !printed.contains('{'), "{printed}");
}

#[test]
fn times_that_no_date_can_say_are_not_signed() {
    // The dates that providers write end with the year 9999; told to sign a later one, the program panicked.
    for at in ["253402207201", "99999999999999", "-1"] {
        let output =
            doorward().args(["sign", "--profile", "zendesk", "--secret", "s"]).arg(format!("--at={at}")).output();
        let output = output.expect("it runs");
        assert_eq!(output.status.code(), Some(2), "{at}: {}", text(&output.stderr));
        assert!(text(&output.stderr).contains("is not in 0..=253402207200"), "{}", text(&output.stderr));
    }
    let last = run(doorward().args(["sign", "--profile", "zendesk", "--secret", "s", "--at", "253402207200"]));
    assert!(text(&last.stdout).contains("9999-12-30T22:00:00"), "{}", text(&last.stdout));
}

#[test]
fn a_secret_that_others_can_see_is_warned_of() {
    let folder = folder();
    let file = folder.path().join("secret");
    std::fs::write(&file, "hush-hush-hush-1\n").expect("written");
    let file = format!("file:{}", file.display());
    let capture = folder.path().join("request.txt");
    std::fs::write(&capture, Github::delivery("1", "{}").bytes()).expect("written");
    let capture = capture.display().to_string();
    let nowhere = format!("http://{}/", Upstream::nowhere());
    let commands = [
        (vec!["sign"], "--secret"),
        (vec!["send", "--to", &nowhere], "--secret"),
        (vec!["explain", &capture], "--secret"),
        (vec!["explain", &capture, "--secret", "env:SECRET"], "--old-secret"),
    ];
    for (arguments, option) in commands {
        let warned = |secret: &str| {
            let mut command = doorward();
            command.args(&arguments).args(["--profile", "github", option, secret]).env("SECRET", "hush-hush-hush-1");
            text(&run(&mut command).stderr).contains(&format!("warning: {option}: the list of processes"))
        };
        assert!(warned("hush-hush-hush-1") && warned("plain:hush-hush-hush-1"), "{arguments:?}");
        assert!(!warned("env:SECRET") && !warned(&file), "{arguments:?}");
    }
    for (token, expected) in [("plain:hush-hush-hush-1", true), ("env:SECRET", false)] {
        let mut command = doorward();
        command.args(["events", "list", "--url", &nowhere, "--token", token]).env("SECRET", "hush-hush-hush-1");
        assert_eq!(text(&run(&mut command).stderr).contains("warning: --token: "), expected, "{token}");
    }
    let mut command = doorward();
    command.args(["explain", "--profile", "discord", &capture, "--secret", "plain:aGFyZGx5IGEga2V5"]);
    assert!(!text(&run(&mut command).stderr).contains("warning"), "a public key is no secret");
}

#[test]
fn a_query_that_is_part_of_the_proof_is_named() {
    let output = run(doorward().args(["sign", "--profile", "azure-event-grid", "--secret", "a b"]));
    assert!(text(&output.stderr).contains("the address has to end with ?code=a+b"), "{}", text(&output.stderr));
    let output = run(doorward().args(["sign", "--profile", "azure-event-grid", "--secret", "a b", "--json"]));
    let signed: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((&signed["method"], &signed["query"]), (&Value::from("POST"), &Value::from("code=a+b")));
    assert_eq!(signed["headers"]["aeg-event-type"], "Notification");
    assert!(signed["body"].as_str().expect("a body").contains(signed["id"].as_str().expect("an id")));
}

#[test]
fn a_throw_away_key_comes_with_what_the_source_has_to_know() {
    let params = |name| provider(name).params.into_iter();
    for (name, kind) in [
        ("discord", "secrets"),
        ("sendgrid", "secrets"),
        ("plaid", "secrets"),
        ("pitchpoint", "jwks"),
        ("paypal", "certificate"),
    ] {
        let sign = |json: &[&str]| {
            let mut command = doorward();
            command.args(["sign", "--profile", name]).args(json);
            command.args(
                params(name)
                    .filter(|(param, _)| param != "certificate_hosts" && param != "jwks_url")
                    .flat_map(|(name, value)| ["--param".to_owned(), format!("{name}={value}")]),
            );
            if kind == "certificate" {
                command.args(["--certificate-url", "https://api.paypal.com/c.pem"]);
            }
            let output = run(&mut command);
            assert_eq!(output.status.code(), Some(0), "{name}: {}", text(&output.stderr));
            output
        };
        let signed: Value = serde_json::from_slice(&sign(&["--json"]).stdout).expect("JSON");
        assert!(!signed["public"][kind].is_null(), "{name}: {}", signed["public"]);
        assert!(text(&sign(&[]).stderr).contains("the key, "), "{name}");
    }
    let keys = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/keys");
    let output =
        run(doorward().args(["sign", "--profile", "discord", "--json", "--key"]).arg(format!("{keys}/ed25519-a.pem")));
    let once: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let output =
        run(doorward().args(["sign", "--profile", "discord", "--json", "--key"]).arg(format!("{keys}/ed25519-a.pem")));
    let again: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(once["public"], again["public"], "a key of one's own stays");
}

#[test]
fn profiles_of_ones_own_are_signed_too() {
    let folder = folder();
    let profile = "title = \"Own\"\n[params.account]\nabout = \"the account\"\ndefault = \"{region}-1\"\n\
                   [params.region]\nabout = \"the region\"\n\
                   [auth.hmac]\nsignature = { header = \"X-Signature\", encoding = \"hex\" }\n\
                   signed = \"{account}{body}\"\n[event]\nid = { json = \"/a/id\" }\ntype = { header = \"X-Type\" }\n";
    std::fs::write(folder.path().join("own.toml"), profile).expect("a profile");
    let output = run(doorward()
        .args(["sign", "--profile", "own", "--secret", "s", "--id", "1", "--type", "x.y", "--param", "region=eu"])
        .arg("--directory")
        .arg(folder.path()));
    let signature = hmac_hex("s", &[b"eu-1", br#"{"a":{"id":"1"}}"#]);
    assert_eq!(
        text(&output.stdout),
        format!(
            "content-type: application/json\nx-type: x.y\nx-signature: {signature}\n\n{{\"a\":{{\"id\":\"1\"}}}}\n"
        ),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn what_is_missing_or_does_not_fit_is_answered_with_what_would() {
    let folder = folder();
    let (nothing, port) = (folder.path().join("none").display().to_string(), free_port());
    let nowhere = format!("http://127.0.0.1:{port}/");
    let rsa = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/keys/rsa-a.pem");
    std::fs::write(folder.path().join("text"), "no key").expect("a file");
    let not_a_key = folder.path().join("text").display().to_string();
    let cases: [(&[&str], &str); 20] = [
        (&["sign", "--profile", "strpe", "--secret", "s"], "did you mean stripe?"),
        (&["sign", "--profile", "stripe"], "--secret is missing: the endpoint's signing secret, whsec_…"),
        (&["sign", "--profile", "standard-webhooks"], "or name a private key with --key"),
        (&["sign", "--profile", "stripe", "--secret", "env:DOORWARD_TEST_NOT_SET"], "DOORWARD_TEST_NOT_SET is not set"),
        (&["sign", "--profile", "adyen-platform", "--secret", "hush!"], "the secret is not hexadecimal"),
        (&["sign", "--profile", "svix", "--secret", "whsec_hush!"], "the secret is not base64"),
        (&["sign", "--profile", "azure-devops", "--secret", "hush!"], "the secret is not \"user:password\""),
        (&["sign", "--profile", "stripe", "--secret", "s", "--secret", ""], "--secret: is empty"),
        (&["sign", "--profile", "stripe", "--secret", "s", "--body", &nothing], "none: No such file"),
        (&["sign", "--profile", "square", "--secret", "s"], "--param url=… is missing: the notification URL"),
        (&["sign", "--profile", "stripe", "--secret", "s", "--param", "x=y"], "it takes none"),
        (&["sign", "--profile", "paypal", "--param", "webhook_id=1"], "--certificate-url is missing"),
        (&["sign", "--profile", "discord", "--secret", "hush!"], "name its file with --key"),
        (&["sign", "--profile", "discord", "--key", &nothing], "openssl genpkey -algorithm ed25519"),
        (&["sign", "--profile", "discord", "--key", &not_a_key], "is not a private key in PKCS#8 PEM"),
        (&["sign", "--profile", "discord", "--key", rsa], "is a key for RSA, and this provider signs with Ed25519"),
        (&["sign", "--profile", "stripe", "--key", rsa], "give its secret with --secret"),
        (&["sign", "--profile", "linear", "--secret", "s", "--type", "Issue"], "has 2 parts, joined by dots"),
        (
            &["send", "--profile", "stripe", "--secret", "s", "--to", "127.0.0.1:8080"],
            "write an address such as http://",
        ),
        (&["send", "--profile", "stripe", "--secret", "s", "--to", &nowhere], "is the gateway running there?"),
    ];
    for (arguments, says) in cases {
        let output = run(doorward().args(arguments));
        let stderr = text(&output.stderr);
        assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(1), ""), "{arguments:?}: {stderr}");
        assert!(stderr.contains(says) && !stderr.contains("hush!"), "{arguments:?}: {stderr}");
    }
    for arguments in [
        &["sign", "--secret", "s"][..],
        &["send", "--profile", "stripe"],
        &["sign", "--profile", "stripe", "--param", "x"],
    ] {
        assert_eq!(run(doorward().args(arguments)).status.code(), Some(2), "{arguments:?}");
    }
}
