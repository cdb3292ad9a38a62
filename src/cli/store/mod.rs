//! `doorward store`: checks a store's file that no gateway uses, copies that of a running gateway, and imports what is
//! readable of a damaged one.

use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;
use serde_json::Value;
use serde_json::json;

use super::complain;
use super::count;
use super::events::client::Client;
use super::events::client::Gateway;
use super::runtime;
use super::say;
use crate::store::sqlite::check;

/// The timeout of a copy, which takes longer for a larger file.
const BACKUP_TIMEOUT: Duration = Duration::from_hours(24);

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Look for damage in a file that no gateway has open, and in the dedupe log beside it; exit with 1 if there is
    /// any.
    Check {
        /// The file, as in `store.url` behind `sqlite:`.
        path: PathBuf,
    },
    /// Copy the file and the dedupe log of a running gateway into a folder, under the same names; nothing is
    /// overwritten.
    Backup {
        /// The folder, as the gateway sees it. It has to be there and to have no file of these names.
        folder: PathBuf,
        #[command(flatten)]
        gateway: Gateway,
    },
    /// Import what a damaged file still says that the gateway has set aside, while it runs.
    Recover {
        /// Its name, such as store.db.damaged-20260102T030405Z; it stays beside the store's file.
        file: PathBuf,
        #[command(flatten)]
        gateway: Gateway,
    },
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let request = async {
        match &arguments.command {
            Command::Check { path } => check(path),
            Command::Backup { folder, gateway } => backup(folder, gateway).await,
            Command::Recover { file, gateway } => recover(file, gateway).await,
        }
    };
    match runtime().map(|runtime| runtime.block_on(request)) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(message)) => {
            complain(&message);
            ExitCode::FAILURE
        }
        Err(code) => code,
    }
}

fn check(path: &Path) -> Result<(), String> {
    let checked = check::check(path)?;
    let shown = path.display();
    checked.facts.iter().for_each(|fact| say(&format_args!("{shown}: {fact}")));
    checked.problems.iter().for_each(|problem| complain(&format_args!("{shown}: {problem}")));
    match checked.problems.len() {
        0 => {
            say(&format_args!("{shown}: good"));
            Ok(())
        }
        problems => Err(format!("{shown}: damaged, {}", count(problems, "problem"))),
    }
}

async fn backup(folder: &Path, gateway: &Gateway) -> Result<(), String> {
    // The gateway may have another working directory.
    let folder = std::path::absolute(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let client = Client::with_timeout(gateway, BACKUP_TIMEOUT)?;
    let done = client.post("/api/v1/store/backup", &json!({ "folder": folder })).await?;
    say(&format_args!("copied to {}", done.get("path").and_then(Value::as_str).unwrap_or_default()));
    Ok(())
}

async fn recover(file: &Path, gateway: &Gateway) -> Result<(), String> {
    let name = file.file_name().and_then(|name| name.to_str()).ok_or("write the name of the damaged file")?;
    let client = Client::new(gateway)?;
    let mut request = json!({ "file": name });
    let mut totals = [("imported", 0), ("present", 0), ("record_lost", 0), ("lost", 0)];
    loop {
        let done = match client.post("/api/v1/store/recover", &request).await {
            Ok(done) => done,
            Err(message) if totals.iter().all(|(_, total)| *total == 0) => return Err(message),
            Err(message) => {
                return Err(format!("{message}\nbefore that: {}\nthe same command goes on", summary(&totals)));
            }
        };
        for (name, total) in &mut totals {
            *total += done.get(*name).and_then(Value::as_u64).unwrap_or_default();
        }
        match (done.get("next").and_then(Value::as_str), &mut request) {
            (Some(next), Value::Object(members)) => drop(members.insert("cursor".to_owned(), Value::from(next))),
            _ => break,
        }
    }
    say(&summary(&totals));
    say(&format_args!("all of it is done; the file is kept as {}", name.replacen(".damaged-", ".recovered-", 1)));
    Ok(())
}

/// The numbers of messages by result.
fn summary(totals: &[(&str, u64)]) -> String {
    let words = |name: &str| match name {
        "imported" => "imported",
        "present" => "there already",
        "record_lost" => "imported as dead letters, since nothing is left of their deliveries",
        _ => "lost",
    };
    let parts = totals.iter().map(|(name, total)| format!("{total} {}", words(name)));
    format!("messages: {}", parts.collect::<Vec<_>>().join(", "))
}
