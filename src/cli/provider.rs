//! The options that commands share which sign or verify like a provider: the profile, and the secrets and parameters of
//! a source.

use std::path::PathBuf;

use super::profiles;
use super::warn_of_text;
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
    /// That there is none, and which may be meant.
    pub(super) fn profile<'p>(&self, profiles: &'p Profiles) -> Result<&'p Profile, String> {
        let name = self.profile.as_deref().unwrap_or_default();
        profiles.get(name).ok_or_else(|| profiles::unknown(name, profiles))
    }

    /// All parameters; where the address is signed and none is given, `address` is it.
    ///
    /// # Errors
    /// Those that are missing, and what each is.
    pub(super) fn params(&self, profile: &Profile, address: Option<&str>) -> Result<Params, String> {
        let mut given: Vec<_> = self.params.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
        if let Some(address) = address
            && self.lacks_url(profile)
        {
            let bare = address.split(['?', '#']).next().unwrap_or(address);
            given.push(("url", if profile.signs_query() { bare } else { address }.to_owned()));
        }
        params::complete(profile, &given).map_err(|wrong| {
            let line = |(name, message): (String, String)| format!("--param {name}=… {message}");
            wrong.into_iter().map(line).collect::<Vec<_>>().join("\n")
        })
    }

    /// Whether the profile needs the address, and none is given.
    pub(super) fn lacks_url(&self, profile: &Profile) -> bool {
        profile.params.contains_key("url") && !self.params.iter().any(|(name, _)| *name == "url")
    }

    /// The secrets, read from where they are.
    ///
    /// # Errors
    /// What cannot be read, or is empty.
    pub(super) fn secrets(&self, profile: &Profile) -> Result<Vec<Secret>, String> {
        secrets("--secret", &self.secret, profile)
    }

    /// What the profile's secrets are, for the message that they are missing.
    pub(super) fn about_secrets(profile: &Profile) -> String {
        let mut about: Vec<_> = profile.keys().filter_map(|key| key.about.as_deref()).collect();
        about.dedup();
        format!("--secret is missing: {}; write --secret env:NAME or file:PATH", about.join(", or "))
    }
}

/// The secrets that an option gives. Warns of those that others can see, unless they are public.
///
/// # Errors
/// What cannot be read, or is empty.
pub(super) fn secrets(option: &str, texts: &[String], profile: &Profile) -> Result<Vec<Secret>, String> {
    let mut secrets = Vec::with_capacity(texts.len());
    let mut seen = false;
    for text in texts {
        let reference = SecretRef::parse(text);
        seen |= !matches!(reference, Ok(SecretRef::Env(_) | SecretRef::File(_)));
        let secret = match reference {
            Ok(reference) => reference.load(),
            Err(_text_itself) => Secret::new(text.as_bytes()),
        };
        secrets.push(secret.map_err(|message| format!("{option}: {message}"))?);
    }
    if seen && !profile.keys_are_public() {
        warn_of_text(option);
    }
    Ok(secrets)
}
