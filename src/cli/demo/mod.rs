//! `doorward demo`: runs a gateway and a sample app on this machine, and sends requests as several providers.

mod app;
mod issuer;
mod trial;

use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;

use super::complain;
use super::runtime;
use super::say;
use super::serve::Signals;
use crate::base::limits::Limits;
use crate::config::Listener;
use crate::config::Log;
use crate::config::LogFormat;
use crate::config::Settings;
use crate::profile::Profiles;
use crate::server::Server;
use crate::telemetry;

use self::app::App;
use self::issuer::Issuer;
use self::trial::Trial;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// End after the table instead of serving until Ctrl-C; fails when a line of the table is not as it should be.
    #[arg(long)]
    once: bool,
}

/// The providers, in the order of the table.
const PROVIDERS: [&str; 7] = ["offergrid", "omnisales", "pitchpoint", "locallygrown", "stripe", "mailgun", "cimplify"];
/// The provider among them that sends JWTs.
const JWT_PROVIDER: &str = "pitchpoint";

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(code) => return code,
    };
    match runtime.block_on(demonstrate(arguments.once)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            complain("something is not as it should be: see the lines marked with !");
            ExitCode::FAILURE
        }
        Err(message) => {
            complain(&message);
            ExitCode::FAILURE
        }
    }
}

async fn demonstrate(once: bool) -> Result<bool, String> {
    let mut signals = Signals::new().map_err(|error| error.to_string())?;
    let folder = Folder::make()?;
    let app = App::start().await?;
    let profiles = Profiles::shipped();
    let issuer = Issuer::start(profiles.get(JWT_PROVIDER).ok_or("there is no profile with tokens")?).await?;
    let config = configure(&folder.0, app.address(), &issuer)?;
    let settings = Settings::load(&config).map_err(|problems| problems.to_string())?;
    let server = Server::start(settings, Limits::default()).await.map_err(|failure| failure.to_string())?;
    let gateway = server.listeners().first().and_then(Listener::tcp).ok_or("it listens nowhere")?;
    let trial = Trial { gateway, folder: &folder.0, app: &app, issuer: &issuer };
    let good = trial.run(&profiles, &PROVIDERS).await?;
    say("");
    say(&format_args!("gateway        http://{gateway}/webhooks/NAME"));
    say(&format_args!("metrics        http://{}/metrics", server.admin()));
    say(&format_args!("configuration  {}", config.display()));
    if !once {
        say("\nIt keeps serving, and logs every request here; end it with Ctrl-C. For example:\n");
        say(&format_args!("  curl -i -d '{{}}' http://{gateway}/webhooks/offergrid"));
        say(&format_args!("  curl -s http://{}/metrics | grep doorward_re\n", server.admin()));
        let (format, level) = (LogFormat::Text, tracing::Level::INFO);
        let _log = telemetry::start_log(&Log { format, level, unverified_burst: 0, unverified_rate: 0 });
        signals.next().await;
    }
    server.stop(signals.next()).await.map_err(|failure| failure.to_string())?;
    Ok(good)
}

/// A temporary folder, removed on drop.
struct Folder(PathBuf);

impl Folder {
    fn make() -> Result<Self, String> {
        let path = std::env::temp_dir().join(format!("doorward-demo-{}", std::process::id()));
        std::fs::create_dir_all(&path).map_err(|error| format!("cannot make {}: {error}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A folder that remains among the temporary ones does no harm.
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// Writes a secret for each provider and a configuration as a user would.
fn configure(folder: &Path, app: SocketAddr, issuer: &Issuer) -> Result<PathBuf, String> {
    let mut text = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
         [store]\nurl = \"sqlite:{}\"\n",
        folder.join("doorward.db").display()
    );
    for name in PROVIDERS {
        text.push_str(&format!("\n[sources.{name}]\nprofile = \"{name}\"\npath = \"/webhooks/{name}\"\n"));
        if name == JWT_PROVIDER {
            text.push_str(&format!(
                "params = {{ issuer = \"{0}\", audience = \"{1}\" }}\n",
                issuer.url(),
                issuer::AUDIENCE
            ));
        } else {
            let file = folder.join(name);
            let secret: [u8; 16] = random()?;
            write(&file, &const_hex::encode(secret))?;
            text.push_str(&format!("secrets = [\"file:{}\"]\n", file.display()));
        }
        text.push_str(&format!("deliver.upstream = {{ url = \"http://{app}/{name}\", timeout = \"4s\" }}\n"));
    }
    let path = folder.join("doorward.toml");
    write(&path, &text)?;
    Ok(path)
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))
}

fn random<const N: usize>() -> Result<[u8; N], String> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| error.to_string())?;
    Ok(bytes)
}
