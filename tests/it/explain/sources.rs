//! `doorward explain --source`: a captured request is judged by what the configuration says of a source.

use std::process::Output;

use tempfile::TempDir;

use crate::harness::gateway::doorward;
use crate::harness::provider::signing::hmac_sha256;

const SECRET: &str = "It's a Secret to Everybody";
const BODY: &str = "{\"id\":\"1\"}";

/// A folder with a configuration and a captured request, signed with the secret.
fn folder(more: &str) -> TempDir {
    let folder = TempDir::new().expect("a folder");
    let file = |name: &str, text: String| std::fs::write(folder.path().join(name), text).expect("a file");
    file("secret", format!("{SECRET}\n"));
    std::fs::create_dir(folder.path().join("own")).expect("a directory");
    file(
        "own/tenant.toml",
        "title = \"Own\"\n[params.tenant]\nabout = \"the tenant\"\n[auth.hmac]\nsignature = { header = \"X-Signature\", encoding = \
         \"hex\" }\nsigned = \"{tenant}.{body}\"\n[event]\nid = { json = \"/id\" }\n"
            .to_owned(),
    );
    file(
        "doorward.toml",
        format!(
            "profiles = \"{0}/own\"\n[sources.tenant]\nprofile = \"tenant\"\npath = \"/tenant\"\nsecrets = [\"file:{0}/secret\"]\n\
             params = {{ tenant = \"blue\" }}\ndeliver.upstream = {{ url = \"http://127.0.0.1:1\" }}\n\
             [sources.other]\nprofile = \"github\"\npath = \"/github\"\nsecrets = [\"env:DOORWARD_TESTS_NO_SUCH\"]\n\
             deliver.upstream = {{ url = \"http://127.0.0.1:1\" }}\n{more}",
            folder.path().display()
        ),
    );
    let digest = hmac_sha256(SECRET.as_bytes(), format!("blue.{BODY}").as_bytes());
    let digits: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    file("request", format!("POST /tenant HTTP/1.1\nX-Signature: {digits}\n\n{BODY}"));
    folder
}

fn explain(folder: &TempDir, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = doorward();
    command.current_dir(folder.path()).args(["explain", "request"]).args(arguments);
    command.envs(variables.iter().copied()).output().expect("it runs")
}

fn text(output: &Output) -> String {
    String::from_utf8([output.stdout.as_slice(), &output.stderr].concat()).expect("text")
}

#[test]
fn a_source_has_profile_secrets_and_parameters() {
    let folder = folder("");
    let path = folder.path().join("doorward.toml");
    for arguments in [&["--source", "tenant"][..], &["--config", path.to_str().expect("a path"), "--source", "tenant"]]
    {
        let output = explain(&folder, arguments, &[]);
        let said = text(&output);
        assert!(output.status.code() == Some(0) && said.contains("accepted: event 1"), "{said}");
        assert!(!said.contains(SECRET) && !said.contains("note"), "{said}");
    }
    // The environment stands over the file, as it does for the gateway.
    let output = explain(&folder, &["--source", "tenant"], &[("DOORWARD__SOURCES__TENANT__PARAMS__TENANT", "red")]);
    assert!(output.status.code() == Some(1) && text(&output).contains("signature_mismatch"), "{}", text(&output));
    let output = explain(
        &folder,
        &["--source", "tenant", "--old-secret", SECRET],
        &[("DOORWARD__SOURCES__TENANT__SECRETS", "plain:new")],
    );
    assert!(text(&output).contains("old secret 1") && !text(&output).contains(SECRET), "{}", text(&output));
}

#[test]
fn limits_are_those_of_the_configuration() {
    let folder = folder("[server]\nmax_body = \"10B\"\n");
    assert_eq!(explain(&folder, &["--source", "tenant"], &[]).status.code(), Some(0));
    let output = explain(&folder, &["--source", "tenant"], &[("DOORWARD__SERVER__MAX_BODY", "9B")]);
    let said = text(&output);
    assert!(output.status.code() == Some(1) && said.contains("larger than server.max_body"), "{said}");
}

#[test]
fn a_request_to_another_path_is_told() {
    let folder = folder("");
    let output = explain(&folder, &["--source", "tenant"], &[("DOORWARD__SOURCES__TENANT__PATH", "/moved")]);
    let said = text(&output);
    assert!(said.contains("the source's path is /moved, and the request went to /tenant"), "{said}");
    let output = explain(&folder, &["--source", "tenant"], &[("DOORWARD__SOURCES__TENANT__VERIFY", "observe")]);
    assert!(text(&output).contains("what is refused here is delivered all the same"), "{}", text(&output));
}

#[test]
fn what_is_wrong_with_the_source_is_said_and_nothing_of_others() {
    let folder = folder("[sources.plain]\nprofile = \"githab\"\npath = \"/plain\"\n");
    for (source, variables, says) in [
        ("tenent", &[][..], "has no source \"tenent\"; did you mean \"tenant\"? there are other, plain, tenant"),
        ("nothing-like-it", &[], "has no source \"nothing-like-it\"; there are other, plain, tenant"),
        ("other", &[], "DOORWARD_TESTS_NO_SUCH is not set"),
        ("plain", &[], "did you mean \"github\"?"),
        ("tenant", &[("DOORWARD__STORE__TTL", "soon")], "\"soon\" is not a duration"),
        ("tenant", &[("DOORWARD__SOURCES__TENANT__SECRETS", "")], "has none for HMAC-SHA256"),
        ("tenant", &[("DOORWARD__SOURCES__TENANT__SECRETS", "file:/no/such/file")], "cannot read"),
    ] {
        let output = explain(&folder, &["--source", source], variables);
        let said = text(&output);
        assert!(output.status.code() == Some(2) && said.contains(says), "{source}: {said}");
    }
    let output = explain(&folder, &["--source", "tenant", "--config", "no-such.toml"], &[]);
    assert!(output.status.code() == Some(2) && text(&output).contains("no-such.toml"), "{}", text(&output));
}

#[test]
fn what_the_source_says_is_not_said_again() {
    let folder = folder("");
    for more in [
        &["--profile", "github"][..],
        &["--secret", "env:X"],
        &["--param", "tenant=red"],
        &["--directory", "own"],
        &["--ttl", "1h"],
    ] {
        let output = explain(&folder, &[&["--source", "tenant"], more].concat(), &[]);
        assert!(
            output.status.code() == Some(2) && text(&output).contains("cannot be used with"),
            "{more:?}: {}",
            text(&output)
        );
    }
    let output = explain(&folder, &["--config", "doorward.toml", "--profile", "github"], &[]);
    assert!(output.status.code() == Some(2) && text(&output).contains("cannot be used with"), "{}", text(&output));
    let output = explain(&folder, &["--config", "doorward.toml"], &[]);
    let (code, said) = (output.status.code(), text(&output));
    assert!(code == Some(2) && said.contains("--source") && !said.contains("--profile"), "{said}");
    let output = explain(&folder, &[], &[]);
    assert!(output.status.code() == Some(2) && text(&output).contains("--profile"), "{}", text(&output));
}
