//! Options that the commands `explain`, `sign` and `send` share: a profile, secrets and parameters.

use std::path::PathBuf;

use super::profiles;
use super::warn_of_plain_secret;
use crate::base::secret::Secret;
use crate::base::secret::SecretRef;
use crate::extract::params;
use crate::extract::params::Params;
use crate::profile::Profile;
use crate::profile::Profiles;

#[derive(Debug, clap::Args)]
pub(super) struct ProviderOptions {
    /// The provider, as `doorward profiles` lists it.
    // `explain` does without it where a source has one.
    #[arg(long, value_name = "NAME", required = true)]
    profile: Option<String>,
    /// A secret as in `secrets` of the source: `env:NAME` or `file:PATH`; or, for trials, the text itself, which the
    /// list of processes and the shell's history show.
    #[arg(long, value_name = "SECRET")]
    pub(super) secret: Vec<String>,
    /// A parameter as in `params` of the source; for one that is secret, `env:NAME` or `file:PATH` as its value.
    #[arg(long = "param", value_name = "NAME=VALUE", value_parser = param)]
    params: Vec<(String, String)>,
    /// A directory with more profiles, as `profiles` in the configuration.
    #[arg(long, value_name = "DIRECTORY")]
    directory: Option<PathBuf>,
}

fn param(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write it as NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

impl ProviderOptions {
    /// The shipped profiles, and those of the directory.
    ///
    /// # Errors
    /// What is wrong with the files of the directory.
    pub(super) fn profiles(&self) -> Result<Profiles, String> {
        profiles::load(self.directory.as_deref()).map_err(|problems| problems.to_string())
    }

    /// The profile that is named.
    ///
    /// # Errors
    /// There is no profile of this name; with similar names.
    pub(super) fn profile<'p>(&self, profiles: &'p Profiles) -> Result<&'p Profile, String> {
        let name = self.profile.as_deref().unwrap_or_default();
        profiles.get(name).ok_or_else(|| profiles::unknown(name, profiles))
    }

    /// The complete parameters. `address` is the value of the parameter `url` where that is needed and not given.
    ///
    /// # Errors
    /// The parameters that are missing, with their descriptions.
    pub(super) fn params(&self, profile: &Profile, address: Option<&str>) -> Result<Params, String> {
        let mut params: Vec<_> = self.params.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
        if let Some(address) = address
            && self.lacks_url(profile)
        {
            let bare = address.split(['?', '#']).next().unwrap_or(address);
            params.push(("url", if profile.signs_query() { bare } else { address }.to_owned()));
        }
        params::complete(profile, &params).map_err(|wrong| {
            let line = |(name, message): (String, String)| format!("--param {name}=… {message}");
            wrong.into_iter().map(line).collect::<Vec<_>>().join("\n")
        })
    }

    /// Whether the profile needs the parameter `url`, and it is not given.
    pub(super) fn lacks_url(&self, profile: &Profile) -> bool {
        profile.params.contains_key("url") && !self.params.iter().any(|(name, _)| *name == "url")
    }

    /// Loads the secrets.
    ///
    /// # Errors
    /// A secret cannot be loaded, or is empty.
    pub(super) fn secrets(&self, profile: &Profile) -> Result<Vec<Secret>, String> {
        secrets("--secret", &self.secret, profile)
    }

    /// The message that secrets are missing, with their descriptions.
    pub(super) fn missing_secrets(profile: &Profile) -> String {
        let mut about: Vec<_> = profile.keys().filter_map(|key| key.about.as_deref()).collect();
        about.dedup();
        format!("--secret is missing: {}; write --secret env:NAME or file:PATH", about.join(", or "))
    }
}

/// Loads the secrets of an option. Warns of those that are written in the arguments, unless they are public keys.
///
/// # Errors
/// A secret cannot be loaded, or is empty.
pub(super) fn secrets(option: &str, texts: &[String], profile: &Profile) -> Result<Vec<Secret>, String> {
    let mut secrets = Vec::with_capacity(texts.len());
    let mut has_plain = false;
    for text in texts {
        let reference = SecretRef::parse(text);
        has_plain |= !matches!(reference, Ok(SecretRef::Env(_) | SecretRef::File(_)));
        let secret = match reference {
            Ok(reference) => reference.load(),
            Err(_text_itself) => Secret::new(text.as_bytes()),
        };
        secrets.push(secret.map_err(|message| format!("{option}: {message}"))?);
    }
    if has_plain && !profile.keys_are_public() {
        warn_of_plain_secret(option);
    }
    Ok(secrets)
}
