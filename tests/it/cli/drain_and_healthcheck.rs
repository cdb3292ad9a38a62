//! `doorward drain` and `doorward healthcheck`, as hooks and probes run them: without a shell.

use std::net::TcpListener;
use std::path::Path;
use std::process::Output;

use crate::harness::gateway::Gateway;
use crate::harness::gateway::api::TOKEN;
use crate::harness::gateway::doorward;
use crate::harness::provider::github::Github;
use crate::harness::upstream::Upstream;

/// Runs a command in a folder.
fn run(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = doorward();
    command.args(arguments).current_dir(folder).env("TOKEN", TOKEN).output().expect("it runs")
}

/// Its exit status and what it said.
#[track_caller]
fn told(output: &Output) -> (i32, String) {
    let said = [&output.stdout[..], &output.stderr[..]].concat();
    (output.status.code().expect("a status"), String::from_utf8(said).expect("text"))
}

#[test]
fn a_gateway_is_asked_where_its_configuration_says() {
    let upstream = Upstream::start();
    let folder = tempfile::tempdir().expect("a folder");
    let port = crate::harness::free_port();
    let sections = format!("{}[admin]\nlisten = \"0.0.0.0:{port}\"\n", Github::source(&upstream.url()));
    let gateway = Gateway::spawn(folder.path(), &sections, &[]);
    let check = |more: &[&str]| told(&run(folder.path(), &[&["healthcheck"], more].concat()));
    assert_eq!(check(&[]), (0, "ok\n".to_owned()));
    assert_eq!(check(&["--live"]), (0, "ok\n".to_owned()));
    assert_eq!(told(&run(folder.path(), &["drain", "--wait", "1ms"])), (0, "ok\n".to_owned()));
    assert_eq!(gateway.admin("/readyz").status, 503);
    let (status, said) = check(&[]);
    assert_eq!((status, said.starts_with("draining (503 from http://127.0.0.1:")), (1, true), "{said}");
    assert_eq!(check(&["--live"]).0, 0, "it lives nevertheless");
    let event = gateway.logged("who asked", |event| event["level"] == "INFO" && event["time"].is_string());
    assert!(event["peer"].as_str().expect("an address").starts_with("127.0.0.1:"), "{event}");
    drop(gateway.kill());
    let (status, said) = check(&["--config", "doorward.toml"]);
    assert_eq!((status, said.contains("is the gateway running")), (1, true), "{said}");
}

#[test]
fn an_address_alone_needs_no_configuration() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&Github::source(&upstream.url()));
    let nowhere = tempfile::tempdir().expect("a folder");
    let url = format!("http://{}", gateway.admin_address());
    assert_eq!(told(&run(nowhere.path(), &["healthcheck", "--url", &url])).0, 0);
    assert_eq!(told(&run(nowhere.path(), &["drain", "--url", &url, "--token", "env:TOKEN"])).0, 0);
    assert_eq!(told(&run(nowhere.path(), &["healthcheck", "--url", &url])).0, 1);
    let (status, said) = told(&run(nowhere.path(), &["healthcheck"]));
    assert_eq!((status, said.contains("--config FILE")), (1, true), "{said}");
    assert_eq!(told(&run(nowhere.path(), &["healthcheck", "--url", "nonsense"])).0, 1);
    let (status, said) = told(&run(nowhere.path(), &["drain", "--wait", "soon"]));
    assert_eq!((status, said.contains("write a duration such as")), (2, true), "{said}");
    let url = format!("http://{}", gateway.address());
    let (status, said) = told(&run(nowhere.path(), &["healthcheck", "--url", &url]));
    assert_eq!((status, said.contains("is this the gateway's admin port?")), (1, true), "{said}");
}

#[test]
fn a_probe_needs_no_token_and_a_drain_the_configured_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let silent = TcpListener::bind("127.0.0.1:0").expect("an address");
    let port = silent.local_addr().expect("an address").port();
    drop(silent);
    let admin = format!("[admin]\nlisten = \"127.0.0.1:{port}\"\ntoken = \"env:NO_SUCH_TOKEN\"\n");
    std::fs::write(folder.path().join("doorward.toml"), admin).expect("a configuration");
    let (status, said) = told(&run(folder.path(), &["healthcheck"]));
    assert_eq!((status, said.contains("is the gateway running")), (1, true), "{said}");
    let (status, said) = told(&run(folder.path(), &["drain"]));
    assert_eq!((status, said.contains("NO_SUCH_TOKEN is not set")), (1, true), "{said}");
    std::fs::write(folder.path().join("doorward.toml"), "[admin]\nlisten = \"9090\"\n").expect("a configuration");
    let (status, said) = told(&run(folder.path(), &["healthcheck"]));
    assert_eq!((status, said.contains("admin.listen: \"9090\" is not an address")), (1, true), "{said}");
}

#[test]
fn a_gateway_that_does_not_answer_is_not_waited_for() {
    // Nobody accepts: the kernel takes the connection, and that is all.
    let silent = TcpListener::bind("127.0.0.1:0").expect("an address");
    let url = format!("http://{}", silent.local_addr().expect("an address"));
    let folder = tempfile::tempdir().expect("a folder");
    let (status, said) = told(&run(folder.path(), &["healthcheck", "--url", &url, "--timeout", "100ms"]));
    assert_eq!((status, said.contains("there is no answer")), (1, true), "{said}");
}
