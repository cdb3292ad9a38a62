//! Any text is a profile that can be shown, looked over and used, or is pointed into.
#![no_main]

use doorward::cli::profiles;
use doorward::profile::Profile;
use doorward::sign::Id;
use doorward_fuzz::now;
use doorward_fuzz::provider::Provider;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let profile = match Profile::parse(text) {
        Ok(profile) => profile,
        Err(message) => return pointed(text, &message),
    };
    for lint in profile.lints() {
        // What is usual may deserve a word and stand nowhere.
        let line = lint.config_path.line(text).unwrap_or(1);
        assert!((1..=text.lines().count()).contains(&line), "{}: line {line}", lint.config_path);
    }
    let shown = profiles::show("fuzz", &profile, text);
    let (_, source) = shown.split_once("\nA source for your configuration:\n\n").expect("a source");
    let (source, _) = source.split_once("\nThe profile itself:\n").expect("the profile");
    if let Err(error) = source.parse::<toml::Table>() {
        panic!("{error}\n{source}");
    }
    // What has no keys, or none that fit together, is used by nobody.
    let Ok(provider) = Provider::new(profile) else { return };
    if let Ok(parts) = provider.sign(None, None, (Id::Fresh(1), None, now()))
        && !provider.asks_others()
    {
        drop(provider.receive(parts, now()));
    }
});

/// The message begins with a place inside the text.
fn pointed(text: &str, message: &str) {
    let location = message.strip_prefix("line ").and_then(|rest| rest.split_once('\n')).map(|(location, _)| location);
    let (line, column) =
        location.and_then(|location| location.split_once(", column ")).unwrap_or_else(|| panic!("{message}"));
    let (line, column): (usize, usize) = (line.parse().expect("a number"), column.parse().expect("a number"));
    // At the end of a text that ends with a line, the next one begins.
    let lines: Vec<_> = text.split('\n').collect();
    assert!((1..=lines.len()).contains(&line), "{message}");
    assert!((1..=lines[line - 1].chars().count() + 1).contains(&column), "{message}");
}
