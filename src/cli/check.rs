//! `doorward check`: reports all problems of the configuration without starting anything.

use std::process::ExitCode;

use super::ConfigFile;
use super::count;
use super::say;
use super::warn;

pub(super) fn run(file: &ConfigFile) -> ExitCode {
    let settings = match file.load() {
        Ok(settings) => settings,
        Err(code) => return code,
    };
    warn(&settings.warnings);
    let warnings = settings.warnings.iter().count();
    let sources = count(settings.sources.len(), "source");
    say(&format_args!("{}: good, {sources}, {}", file.config.display(), count(warnings, "warning")));
    for source in &settings.sources {
        say(&format_args!("  {:<20} {}{}", source.name.as_str(), source.hosts.join(","), source.path));
    }
    ExitCode::SUCCESS
}
