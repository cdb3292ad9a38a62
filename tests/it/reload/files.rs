//! What is read again because a file has changed: secrets, the configuration, profiles; and files that cannot be used.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use crate::harness::gateway::Gateway;
use crate::harness::gateway::in_process::InProcessGateway;
use crate::harness::gateway::reload::exchange_file;
use crate::harness::gateway::reload::quick_looks;
use crate::harness::provider::SECRET;
use crate::harness::provider::github::Github;
use crate::harness::provider::signing::hmac_hex;
use crate::harness::upstream::Upstream;
use crate::harness::wait_at_most;
use crate::harness::wait_until;

const OTHER: &str = "another secret of theirs";

/// A GitHub source whose secret is in this file.
fn with_secret_in(file: &str, upstream: &Upstream) -> String {
    Github::source(&upstream.url()).replace(&format!("plain:{SECRET}"), &format!("file:{file}"))
}

/// The status of an event that is signed with this secret.
fn status(gateway: std::net::SocketAddr, id: &str, secret: &str) -> u16 {
    let signed = format!("sha256={}", hmac_hex(secret, &[id.as_bytes()]));
    Github::delivery(id, id).set("X-Hub-Signature-256", &signed).send(gateway).status
}

#[test]
fn a_changed_secret_takes_effect_and_the_old_one_is_refused() {
    let upstream = Upstream::start();
    let folder = tempfile::tempdir().expect("a folder");
    let secret = folder.path().join("secret");
    fs::write(&secret, SECRET).expect("written");
    let sections = with_secret_in(secret.to_str().expect("a name"), &upstream);
    let gateway = InProcessGateway::start(&sections, quick_looks());
    assert_eq!(status(gateway.address(), "1", SECRET), 200);
    assert_eq!(status(gateway.address(), "2", OTHER), 401);
    fs::write(&secret, format!("{OTHER}\n")).expect("written");
    wait_until("the new secret", || status(gateway.address(), "3", OTHER) == 200);
    assert_eq!(status(gateway.address(), "4", SECRET), 401, "the old one");
    assert_eq!(upstream.ids(), ["1", "3"]);
    assert!(gateway.metric("doorward_config_last_reload_successful") == 1.0);
}

/// A volume as Kubernetes mounts it: files are links into `..data`, which is a link to the folder of the present content.
fn mount(volume: &Path, version: &str, files: &[(&str, &str)]) {
    fs::create_dir_all(volume.join(version)).expect("a folder");
    for (name, content) in files {
        fs::write(volume.join(version).join(name), content).expect("written");
        if !volume.join(name).exists() {
            symlink(Path::new("..data").join(name), volume.join(name)).expect("a link");
        }
    }
    symlink(version, volume.join("..data_tmp")).expect("a link");
    let before = fs::read_link(volume.join("..data")).ok();
    fs::rename(volume.join("..data_tmp"), volume.join("..data")).expect("renamed");
    if let Some(before) = before {
        fs::remove_dir_all(volume.join(before)).expect("removed");
    }
}

/// With the intervals that operators have.
#[test]
fn a_mounted_secret_and_a_mounted_configuration_are_exchanged_as_kubernetes_does_it() {
    let upstream = Upstream::start();
    let folder = tempfile::tempdir().expect("a folder");
    let (secrets, sources) = (folder.path().join("secrets"), folder.path().join("sources.d"));
    mount(&secrets, "..2026_01", &[("github", SECRET)]);
    mount(&sources, "..2026_01", &[("github.toml", &with_secret_in("secrets/github", &upstream))]);
    let gateway = Gateway::start_in(folder, "include = [\"sources.d/*.toml\"]\n");
    assert_eq!(status(gateway.address(), "1", SECRET), 200);
    mount(&secrets, "..2026_02", &[("github", OTHER)]);
    wait_until("the new secret", || status(gateway.address(), "2", OTHER) == 200);
    assert_eq!(status(gateway.address(), "3", SECRET), 401);
    let other = with_secret_in("secrets/github", &upstream)
        .replace("github]", "second]")
        .replace("github\"\nsecrets", "2\"\nsecrets");
    mount(
        &sources,
        "..2026_02",
        &[("github.toml", &with_secret_in("secrets/github", &upstream)), ("second.toml", &other)],
    );
    wait_until("the new source", || gateway.generation()["sources"] == 2);
    assert_eq!(gateway.reloads("failure"), 0.0);
    gateway.assert_no_panic("after two exchanges");
}

/// What somebody makes of a file.
enum Spoilt {
    Content(String),
    Nothing,
    Folder,
}

/// A gateway with a source whose secret and whose profile are in files.
struct World {
    folder: tempfile::TempDir,
    gateway: InProcessGateway,
    /// The files, with what they hold.
    files: [(PathBuf, String); 3],
    _upstream: Upstream,
}

impl World {
    fn start() -> Self {
        let (upstream, folder) = (Upstream::start(), tempfile::tempdir().expect("a folder"));
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("profiles")).expect("a folder");
        let profile =
            "title = \"Own\"\n[auth.token]\nfrom = { header = \"X-Token\" }\n[event]\nid = { unique = true }\n";
        let own = "[sources.own]\nprofile = \"own\"\npath = \"/own\"\nsecrets = [\"plain:own own own own\"]\n\
                   deliver.upstream = { url = \"http://127.0.0.1:9/\" }\n";
        let sections = format!(
            "profiles = '{}'\n{}{own}",
            at("profiles").display(),
            with_secret_in(at("secret").to_str().expect("a name"), &upstream)
        );
        fs::write(at("secret"), SECRET).expect("written");
        fs::write(at("profiles/own.toml"), profile).expect("written");
        let gateway = InProcessGateway::start(&sections, quick_looks());
        let config = gateway.folder().join("doorward.toml");
        let good = fs::read_to_string(&config).expect("a configuration");
        let files = [(config, good), (at("secret"), SECRET.to_owned()), (at("profiles/own.toml"), profile.to_owned())];
        Self { folder, gateway, files, _upstream: upstream }
    }

    /// Makes this of a file.
    fn spoil(&self, file: usize, spoilt: &Spoilt) {
        let path = &self.files[file].0;
        fs::remove_file(path).expect("removed");
        match spoilt {
            Spoilt::Content(text) => fs::write(path, text).expect("written"),
            Spoilt::Nothing => {}
            Spoilt::Folder => fs::create_dir(path).expect("a folder"),
        }
    }

    /// Makes it as it was.
    fn restore(&self, file: usize) {
        let (path, good) = &self.files[file];
        drop(fs::remove_dir(path));
        exchange_file(path, good);
    }

    /// Waits until it has read its configuration this many times with this outcome.
    #[track_caller]
    fn wait_for(&self, outcome: &str, count: f64) {
        let name = format!("doorward_config_reloads_total{{outcome=\"{outcome}\"}}");
        wait_until(&format!("{count} reloads with {outcome}"), || self.gateway.metric(&name) >= count);
    }
}

#[test]
fn files_that_cannot_be_used_change_nothing_and_are_reported() {
    let world = World::start();
    let [(_, config), _, (_, profile)] = &world.files;
    let cases = [
        ("half a configuration", 0, Spoilt::Content(config[..config.len() - 20].to_owned())),
        ("an emptied configuration", 0, Spoilt::Content(String::new())),
        ("no configuration", 0, Spoilt::Nothing),
        ("a configuration with a mistake", 0, Spoilt::Content(config.replace("path", "pth"))),
        ("an emptied secret", 1, Spoilt::Content(String::new())),
        ("no secret", 1, Spoilt::Nothing),
        ("a secret that cannot be read", 1, Spoilt::Folder),
        ("half a profile", 2, Spoilt::Content(profile[..40].to_owned())),
        ("an emptied profile", 2, Spoilt::Content(String::new())),
        ("no profile", 2, Spoilt::Nothing),
    ];
    let mut count = 0.0;
    for (what, file, spoilt) in cases {
        count += 1.0;
        world.spoil(file, &spoilt);
        world.wait_for("failure", count);
        assert!(world.gateway.metric("doorward_config_last_reload_successful") == 0.0, "{what}");
        assert_eq!(status(world.gateway.address(), what, SECRET), 200, "{what}");
        let said = world.gateway.api("/api/v1/generation").json();
        let problems = said["last_reload"]["problems"].as_array().expect("problems");
        assert!(problems.iter().any(|problem| problem["error"] == true), "{what}: {said}");
        world.restore(file);
        world.wait_for("success", count);
        assert!(world.gateway.metric("doorward_config_last_reload_successful") == 1.0, "{what}");
    }
    assert!(world.folder.path().exists());
}

/// Every state in between would be a good configuration.
#[test]
fn a_file_is_not_believed_while_it_is_written() {
    let upstream = Upstream::start();
    let limits = doorward::base::limits::Reload { look_every: Duration::from_secs(1), ..Default::default() };
    let limits = doorward::base::limits::Limits { reload: limits, ..Default::default() };
    let gateway = InProcessGateway::start(&Github::source(&upstream.url()), limits);
    let config = gateway.folder().join("doorward.toml");
    let mut file = fs::OpenOptions::new().append(true).open(&config).expect("a configuration");
    let begun = std::time::Instant::now();
    while begun.elapsed() < Duration::from_millis(3500) {
        file.write_all(b"# more\n").expect("written");
        std::thread::yield_now();
    }
    assert!(gateway.metric("doorward_config_reloads_total{outcome=\"success\"}") == 0.0);
    wait_at_most(Duration::from_secs(20), "the end of it", || {
        (gateway.metric("doorward_config_reloads_total{outcome=\"success\"}") == 1.0).then_some(())
    });
    assert!(gateway.metric("doorward_config_reloads_total{outcome=\"failure\"}") == 0.0);
}

#[test]
fn a_changed_profile_takes_effect() {
    let upstream = Upstream::start();
    let folder = tempfile::tempdir().expect("a folder");
    let profile = |header: &str| {
        format!(
            "title = \"Own\"\n[auth.token]\nfrom = {{ header = \"{header}\" }}\n[event]\nid = {{ unique = true }}\n"
        )
    };
    let file = folder.path().join("own.toml");
    fs::write(&file, profile("X-One")).expect("written");
    let sections = format!(
        "profiles = '{}'\n[sources.own]\nprofile = \"own\"\npath = \"/own\"\nsecrets = [\"plain:hush-hush-hush-hush\"]\n\
         deliver.upstream = {{ url = \"{}\" }}\n",
        folder.path().display(),
        upstream.url()
    );
    let gateway = InProcessGateway::start(&sections, quick_looks());
    let status = |header: &str| {
        let request =
            crate::harness::provider::delivery::request("POST", "/own", &[(header, "hush-hush-hush-hush")], "{}");
        request.send(gateway.address()).status
    };
    assert_eq!((status("X-One"), status("X-Two")), (200, 401));
    exchange_file(&file, &profile("X-Two"));
    wait_until("the new profile", || status("X-Two") == 200);
    assert_eq!(status("X-One"), 401);
}
