//! Files that a configuration includes.

use std::fs;

use serde_json::json;

use crate::harness::gateway::Gateway;
use crate::harness::gateway::doorward;
use crate::harness::provider::SECRET;
use crate::harness::provider::github::Github;
use crate::harness::upstream::Upstream;

fn source(name: &str, upstream: &str) -> String {
    Github::source(upstream).replace("github]", &format!("{name}]")).replace("/webhooks/github", &format!("/{name}"))
}

#[test]
fn sources_of_included_files_are_served_and_come_and_go_with_their_files() {
    let upstream = Upstream::start();
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join("sources.d").join(name);
    fs::create_dir(at("")).expect("a folder");
    fs::write(at("a.toml"), source("a", &upstream.url())).expect("written");
    fs::write(at(".hidden.toml"), "this is no TOML").expect("written");
    fs::write(at("b.toml.bak"), "nor is this").expect("written");
    let sections = format!("include = [\"sources.d/*.toml\"]\n{}", source("main", &upstream.url()));
    let config = folder.path().join("doorward.toml");
    let gateway = Gateway::spawn(folder.path(), &sections, &[]);
    let status = |name: &str, id: &str| Github::delivery(id, id).to(&format!("/{name}")).send(gateway.address()).status;
    assert_eq!((status("a", "1"), status("b", "2"), status("main", "3")), (200, 404, 200));
    fs::write(at("b.toml"), source("b", &upstream.url())).expect("written");
    let answer = gateway.ask_to_reload().json();
    assert_eq!((&answer["added"], &answer["changed"]), (&json!(["b"]), &json!([])), "{answer}");
    assert_eq!((status("a", "4"), status("b", "5")), (200, 200));
    fs::remove_file(at("a.toml")).expect("removed");
    gateway.wait_for_reloads("success", 2.0);
    assert_eq!((status("a", "6"), status("b", "7")), (404, 200), "without being asked");
    assert!(config.exists());
}

#[test]
fn what_is_wrong_with_included_files_is_said_with_its_place() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).expect("written");
    fs::create_dir(folder.path().join("d")).expect("a folder");
    let checked = |include: &str| {
        let file =
            format!("include = {include}\n{}[store]\nurl = \"memory:\"\n", source("main", "http://127.0.0.1:9/"));
        write("doorward.toml", &file);
        let output = doorward().arg("check").current_dir(folder.path()).output().expect("it runs");
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).expect("UTF-8"))
    };
    assert_eq!(checked("[\"d/*.toml\"]").0, Some(0), "none is there yet");
    for (text, words) in [
        ("", vec!["d/one.toml: is empty"]),
        ("[sources.", vec!["d/one.toml: line 1"]),
        ("[server]\nworkers = 1\n", vec!["d/one.toml:1: server: belongs into doorward.toml"]),
        (
            "[sources.a]\nprofile = \"githup\"\n",
            vec!["d/one.toml:2: sources.a.profile: there is no profile \"githup\""],
        ),
        (source("main", "http://127.0.0.1:9/").as_str(), vec!["d/one.toml:1: sources.main: is in doorward.toml:2 too"]),
    ] {
        write("d/one.toml", text);
        let (code, said) = checked("[\"d/*.toml\"]");
        assert_eq!(code, Some(78), "{text}: {said}");
        assert!(words.iter().all(|words| said.contains(words)), "{text}: {said}");
        assert!(!said.contains(SECRET), "{said}");
    }
    write("d/one.toml", &source("a", "http://127.0.0.1:9/"));
    write("d/two.toml", &source("a", "http://127.0.0.1:9/"));
    let (_, said) = checked("[\"d/*.toml\"]");
    assert!(said.contains("d/two.toml:1: sources.a: is in d/one.toml:1 too"), "{said}");
    assert_eq!(checked("[\"d/one.toml\", \"d/o*.toml\"]").0, Some(0), "a file is read once");
    for (include, words) in [
        ("[\"d/three.toml\"]", "there is no such file"),
        ("[\"d/[.toml\"]", "is not a pattern"),
        ("7", "is not a list"),
    ] {
        let (code, said) = checked(include);
        assert!(code == Some(78) && said.contains("doorward.toml:1: include: ") && said.contains(words), "{said}");
    }
}
