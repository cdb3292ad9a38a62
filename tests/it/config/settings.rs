//! Configurations, good and bad: what `doorward check` says of them, and that a bad one never starts.
//!
//! The configurations and what is said of them stand in the tables `tests/fixtures/settings/*.txt`. With the
//! environment variable `DOORWARD_TESTS_UPDATE=1` what is said is written there instead of compared.

use std::path::Path;
use std::process::Output;

use crate::harness::cases::Cases;
use crate::harness::gateway::Gateway;
use crate::harness::gateway::doorward;
use crate::harness::provider::SECRET;
use crate::harness::provider::github::Github;
use crate::harness::upstream::Upstream;

/// The secret of every fixture, which nobody may be told.
const HUSH: &str = "hush-hush";

#[test]
fn every_problem_is_reported_with_its_place_and_what_would_be_right() {
    let configs = Cases::of("settings");
    let folder = configs.written();
    configs.compare(|name| checked(folder.path(), name));
}

#[test]
fn no_secret_is_ever_printed() {
    let configs = Cases::of("settings");
    let folder = configs.written();
    let said: Vec<_> = configs.iter().map(|(name, _)| (name, checked(folder.path(), name))).collect();
    assert!(said.len() > 10);
    let told: Vec<_> = said.iter().filter(|(_, said)| said.contains(HUSH)).map(|(name, _)| name).collect();
    assert!(told.is_empty(), "{told:#?}");
}

/// What is printed for developers may end in a log as well.
#[test]
fn no_secret_is_in_what_the_settings_print_of_themselves() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("doorward.toml");
    for url in
        ["redis://user:hush-hush@127.0.0.1", "redis-sentinel://:hush-hush@127.0.0.1/m?sentinel-password=hush-hush"]
    {
        let file = format!(
            "[store]\nurl = \"{url}\"\n[admin]\ntoken = \"plain:hush-hush-hush-hush\"\n\
             [sources.meta]\nprofile = \"meta\"\npath = \"/m\"\nsecrets = [\"plain:hush-hush\"]\n\
             params = {{ verify_token = \"hush-hush\" }}\ndeliver.upstream = {{ url = \"http://127.0.0.1:9/\" }}\n\
             [sources.zoom]\nprofile = \"zoom\"\npath = \"/z\"\nsecrets = [\"plain:hush-hush\"]\n\
             deliver.redis-stream = {{ key = \"z\" }}\n\
             [sources.telegram]\nprofile = \"telegram\"\npath = \"/t\"\nsecrets = [\"plain:hush-hush\"]\n\
             deliver.queue = {{ url = \"http://127.0.0.1:9/\" }}\n\
             [sources.pubsub]\nprofile = \"pitchpoint\"\npath = \"/p\"\n\
             params = {{ issuer = \"i\", audience = \"a\", jwks_url = \"https://127.0.0.1/?key=hush-hush\" }}\n\
             deliver.upstream = {{ url = \"http://127.0.0.1:9/\" }}\n",
        );
        std::fs::write(&config, file).expect("written");
        let settings = doorward::config::Settings::load(&config).unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(settings.sources.len(), 4);
        let printed = format!("{settings:?}");
        let bytes = HUSH.bytes().map(|byte| byte.to_string()).collect::<Vec<_>>().join(", ");
        assert!(!printed.contains(HUSH) && !printed.contains(&bytes), "{printed}");
    }
}

#[test]
fn problems_come_in_the_same_order_every_time() {
    let configs = Cases::of("settings");
    let folder = configs.written();
    for (name, _) in configs.iter() {
        let first = checked(folder.path(), name);
        for _ in 0..3 {
            assert_eq!(checked(folder.path(), name), first, "{name}");
        }
    }
}

#[test]
fn a_missing_file_is_a_problem_with_a_way_out() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = check(folder.path(), Path::new("nowhere.toml"), &[]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(78));
    assert!(said.contains("nowhere.toml") && said.contains("--config"), "{said}");
}

#[test]
fn a_file_that_is_no_text_is_a_problem() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("binary.toml"), b"[server]\n# \xff\xfe\n").expect("written");
    for path in ["binary.toml", "."] {
        let output = check(folder.path(), Path::new(path), &[]);
        assert_eq!(output.status.code(), Some(78), "{path}");
        assert!(String::from_utf8_lossy(&output.stderr).starts_with(path), "{path}");
    }
}

#[test]
fn what_hardly_belongs_to_a_secret_is_warned_of() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("doorward.toml");
    let warned = |file: &str, secret: &str| {
        std::fs::write(&config, file).expect("written");
        std::fs::write(folder.path().join("secret"), secret).expect("written");
        let variables = [("DOORWARD_TESTS_SECRET", secret), ("DOORWARD_TESTS_OTHER", "hush-hush-hush-2")];
        let output = check(folder.path(), &config, &variables);
        let said = String::from_utf8(output.stderr).expect("UTF-8");
        assert_eq!(output.status.code(), Some(0), "{said}");
        assert!(!said.contains("hush"), "{said}");
        said.lines().any(|line| line.starts_with("warning") && line.contains(" or ends with "))
    };
    let source = |secret: &str| {
        let own = Github::source("http://127.0.0.1:9/").replace(&format!("plain:{SECRET}"), secret);
        format!("{own}[store]\nurl = \"memory:\"\n")
    };
    let (variable, file) = (source("env:DOORWARD_TESTS_SECRET"), source("file:secret"));
    for stray in
        ["hush-hush-hush-1\n", "hush-hush-hush-1\r", "\"hush-hush-hush-1\"", "hush-hush-hush-1 ", "\thush", "'hush"]
    {
        assert!(warned(&variable, stray), "{stray:?}");
    }
    assert!(!warned(&variable, "hush-hush \"hush\"-1"));
    // One line break at the end of a file is dropped.
    for (content, expected) in
        [("hush-hush-hush-1\n", false), ("hush-hush-hush-1\r\n", false), ("hush-hush-hush-1\n\n", true)]
    {
        assert_eq!(warned(&file, content), expected, "{content:?}");
    }
    let meta = "[sources.meta]\nprofile = \"meta\"\npath = \"/m\"\nsecrets = [\"env:DOORWARD_TESTS_OTHER\"]\n\
                params = { verify_token = \"env:DOORWARD_TESTS_SECRET\" }\n\
                deliver.upstream = { url = \"http://127.0.0.1:9/\" }\n";
    assert!(warned(meta, "hush-hush-hush-1\n") && !warned(meta, "hush-hush-hush-1"), "of a parameter");
    let admin = format!("{}[admin]\ntoken = \"env:DOORWARD_TESTS_SECRET\"\n", source("env:DOORWARD_TESTS_OTHER"));
    assert!(warned(&admin, "\"hush-hush-hush-1\"") && !warned(&admin, "hush-hush-hush-1"), "of the API's token");
}

#[test]
fn a_bad_configuration_starts_nothing() {
    let configs = Cases::of("settings");
    let written = configs.written();
    for (name, _) in configs.iter() {
        let config = written.path().join(name);
        let folder = tempfile::tempdir().expect("a folder");
        if check(folder.path(), &config, &[]).status.success() {
            continue;
        }
        let output =
            doorward().arg("serve").arg("--config").arg(&config).current_dir(folder.path()).output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(78), "{name}: {said}");
        assert!(said.ends_with("nothing was started\n"), "{said}");
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 0, "no database either");
    }
}

#[test]
fn a_good_configuration_is_summed_up() {
    let folder = tempfile::tempdir().expect("a folder");
    let configs = Cases::of("settings").written();
    let output = check(folder.path(), &configs.path().join("good.toml"), &[]);
    assert_eq!(output.status.code(), Some(0));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("/webhooks/github") && said.contains("/webhooks/pitchpoint"), "{said}");
    assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 0, "checking leaves nothing behind");
}

#[test]
fn what_should_be_looked_at_is_logged_when_the_gateway_starts() {
    let folder = tempfile::tempdir().expect("a folder");
    let own = "title = \"Own\"\n[auth.basic]\n[event]\nid = { json = \"/id\" }\n";
    std::fs::create_dir(folder.path().join("own")).expect("a folder");
    std::fs::write(folder.path().join("own/own.toml"), own).expect("written");
    let file = format!(
        "{}verify = \"observe\"\n[sources.own]\nprofile = \"own\"\npath = \"/own\"\nsecrets = [\"plain:user:word\"]\n\
         deliver.upstream = {{ url = \"http://127.0.0.1:9/\" }}\n",
        Github::source("http://127.0.0.1:9/")
    );
    let directory = folder.path().join("own").display().to_string();
    let gateway = Gateway::spawn(folder.path(), &file, &[("DOORWARD__PROFILES", &directory)]);
    for (key, words) in [
        ("sources.github.verify", "what cannot be verified is delivered all the same"),
        ("auth.basic", "a secret that is sent along"),
    ] {
        let event = gateway.logged(key, |event| event["key"] == key);
        assert_eq!(event["level"], "WARN");
        assert!(event["message"].as_str().is_some_and(|message| message.contains(words)), "{event}");
    }
    let place = gateway.logged("the place", |event| event["key"] == "auth.basic")["place"].to_string();
    assert!(place.contains("own.toml:2"), "{place}");
}

#[test]
fn the_shipped_defaults_are_the_documented_ones() {
    let folder = tempfile::tempdir().expect("a folder");
    let defaults = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/doorward.toml");
    let output = check(folder.path(), &defaults, &[]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn variables_of_the_environment_go_over_the_file() {
    let upstream = Upstream::start();
    let folder = tempfile::tempdir().expect("a folder");
    let file = format!("[server]\nmax_body = \"1MiB\"\n{}allow = [\"203.0.113.7\"]\n", Github::source(&upstream.url()));
    let file = file.replace(SECRET, "another");
    let secrets = format!("plain:before, plain:{SECRET}");
    let variables = [
        ("DOORWARD__SERVER__MAX_BODY", "1KiB"),
        ("DOORWARD__SOURCES__GITHUB__ALLOW", "203.0.113.0/24,127.0.0.1"),
        ("DOORWARD__SOURCES__GITHUB__SECRETS", &secrets),
        ("DOORWARD__SOURCES__GITHUB__EVENTS", "push"),
    ];
    let gateway = Gateway::spawn(folder.path(), &file, &variables);
    assert_eq!(Github::delivery("1", vec![b'x'; 1024]).send(gateway.address()).status, 200);
    assert_eq!(Github::delivery("2", vec![b'x'; 1025]).send(gateway.address()).status, 413);
    let other = Github::delivery("3", "{}").set("X-GitHub-Event", "issues");
    assert_eq!(other.send(gateway.address()).text(), r#"{"received":true,"ignored":true}"#);
    assert_eq!(upstream.ids(), ["1"]);
    assert_eq!(gateway.metric(r#"doorward_secret_matches_total{secret="plain#2",source="github"}"#), 2.0);
}

#[test]
fn a_source_may_come_from_the_environment_alone() {
    let upstream = Upstream::start();
    let folder = tempfile::tempdir().expect("a folder");
    let secret = format!("plain:{SECRET}");
    let url = upstream.url();
    let variables = [
        ("DOORWARD__SOURCES__HUB__PROFILE", "github"),
        ("DOORWARD__SOURCES__HUB__PATH", "/webhooks/github"),
        ("DOORWARD__SOURCES__HUB__SECRETS", &secret),
        ("DOORWARD__SOURCES__HUB__DELIVER__UPSTREAM__URL", &url),
    ];
    let gateway = Gateway::spawn(folder.path(), "", &variables);
    assert_eq!(Github::delivery("1", "{}").send(gateway.address()).status, 200);
    assert_eq!(upstream.received()[0].header("doorward-source"), Some("hub"));
}

#[test]
fn problems_of_the_environment_name_the_variable() {
    let folder = tempfile::tempdir().expect("a folder");
    let bad = [
        ("DOORWARD__SERVER__MAXBODY", "1KiB", "did you mean \"max_body\"?"),
        ("DOORWARD__SERVER__MAX_BODY", "lots", "is not a size"),
        ("DOORWARD__SERVER__TRUSTED_PROXIES", "10.0.0.0/8,proxy", "\"proxy\" is not an address"),
        ("DOORWARD__NOWHERE", "1", "is not a setting"),
        ("DOORWARD__SERVER", "1", "is not a table"),
        ("DOORWARD__STORE__URL", "redis://:hush-hush@host:port", "is not a Redis address"),
        ("DOORWARD__SOURCES__GITHUB__SECRETS", "hush-hush", "is not a secret reference"),
        ("DOORWARD__SOURCES__GITHUB__DELIVER__UPSTREAM__TIMEOUT", "soon", "is not a duration"),
    ];
    let configs = Cases::of("settings").written();
    for (name, value, words) in bad {
        let output = check(folder.path(), &configs.path().join("good.toml"), &[(name, value)]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(78), "{name}: {said}");
        let line = said.lines().find(|line| line.contains(&format!("variable {name}: ")));
        assert!(line.is_some_and(|line| line.contains(words)), "{name}: {said}");
        assert!(!said.contains(HUSH), "{name}: {said}");
    }
}

#[test]
fn variables_that_kubernetes_sets_for_a_service_do_no_harm() {
    let folder = tempfile::tempdir().expect("a folder");
    let service = [
        ("DOORWARD_SERVICE_HOST", "10.96.0.7"),
        ("DOORWARD_SERVICE_PORT", "8080"),
        ("DOORWARD_PORT", "tcp://10.96.0.7:8080"),
        ("DOORWARD_PORT_8080_TCP_ADDR", "10.96.0.7"),
    ];
    let configs = Cases::of("settings").written();
    let output = check(folder.path(), &configs.path().join("good.toml"), &service);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn secrets_come_from_variables_and_files() {
    let upstream = Upstream::start();
    let folder = tempfile::tempdir().expect("a folder");
    // A final line break is what editors and `kubectl create secret` leave behind.
    std::fs::write(folder.path().join("secret"), format!("{SECRET}\n")).expect("written");
    for reference in ["env:DOORWARD_TESTS_SECRET", "file:secret"] {
        let sections = Github::source(&upstream.url()).replace(&format!("plain:{SECRET}"), reference);
        let gateway = Gateway::spawn(folder.path(), &sections, &[("DOORWARD_TESTS_SECRET", SECRET)]);
        assert_eq!(Github::delivery("1", "{}").send(gateway.address()).status, 200, "{reference}");
    }
}

#[test]
fn an_empty_secret_is_refused_wherever_it_comes_from() {
    let folder = tempfile::tempdir().expect("a folder");
    for content in ["", "\n", "\r\n"] {
        std::fs::write(folder.path().join("secret"), content).expect("written");
        for (reference, named) in [("env:DOORWARD_TESTS_SECRET", "DOORWARD_TESTS_SECRET"), ("file:secret", "secret")] {
            let file = Github::source("http://127.0.0.1:9/").replace(&format!("plain:{SECRET}"), reference);
            std::fs::write(folder.path().join("doorward.toml"), file).expect("written");
            let output = check(folder.path(), Path::new("doorward.toml"), &[("DOORWARD_TESTS_SECRET", "")]);
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(78), "{reference}");
            assert!(said.contains(&format!("{named} is empty")), "{reference}: {said}");
        }
    }
}

/// Checks a configuration in `folder`, with these variables in its environment.
fn check(folder: &Path, config: &Path, variables: &[(&str, &str)]) -> Output {
    let mut command = doorward();
    command.arg("check").arg("--config").arg(config).current_dir(folder).envs(variables.iter().copied());
    command.output().expect("it runs")
}

/// Everything that is said of a configuration in `folder`, and the exit code.
fn checked(folder: &Path, name: &str) -> String {
    let output = check(folder, &folder.join(name), &[]);
    let said = [output.stderr, output.stdout].concat();
    let said = String::from_utf8(said).expect("text").replace(&format!("{}/", folder.display()), "");
    format!("{said}exit {}\n", output.status.code().expect("a code"))
}
