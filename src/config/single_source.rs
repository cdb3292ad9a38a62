//! Reads the settings of one source, for commands that verify requests without a gateway. (`impl Settings` here,
//! because `mod.rs` would be too long.)

use std::path::Path;
use std::time::Duration;

use super::Files;
use super::Layers;
use super::Report;
use super::Section;
use super::Settings;
use super::SharedLimits;
use super::profiles::profiles;
use super::route;
use super::secrets;
use super::section::duration;
use super::section::size;
use super::section::word;
use super::source::SourceContext;
use super::source::complete;
use crate::base::problem::Problems;
use crate::base::problem::Severity;
use crate::base::problem::closest;
use crate::base::secret::Secret;
use crate::extract::params::Params;
use crate::profile::Profile;

/// The settings by which the requests of one source are verified.
#[derive(Debug)]
pub struct SingleSource {
    /// The profile of its provider.
    pub profile: Profile,
    /// Its secrets, in their order.
    pub secrets: Vec<Secret>,
    /// Its parameters, complete.
    pub params: Params,
    /// The path of its endpoint.
    pub path: String,
    /// The largest body that the gateway takes, in bytes.
    pub max_body: usize,
    /// How long events are remembered.
    pub ttl: Duration,
    /// Whether requests that cannot be verified are delivered all the same.
    pub observe: bool,
}

impl Settings {
    /// Reads the source of this name from the layers that [`Settings::load`] reads. Problems of other sources, such as
    /// a secret that is not available here, do not matter.
    ///
    /// # Errors
    /// All problems of that source, or that there is none of this name.
    pub fn load_source(path: &Path, name: &str) -> Result<SingleSource, Problems> {
        let files = Files::default();
        let layers = Layers::read(path, &files)?;
        let report = Report::new(&layers, &files);
        let source = single_source(Section::root(layers.root(), &report), name, &report);
        let problems = report.into_problems();
        source.filter(|_| !problems.is_fatal()).ok_or(problems)
    }
}

fn single_source(mut root: Section<'_>, name: &str, report: &Report<'_>) -> Option<SingleSource> {
    let (profiles, _) = profiles(&mut root, report);
    let max_body = root.section("server").and_then(|mut server| server.required("max_body", size));
    let ttl = root.section("store").and_then(|mut store| store.required("ttl", duration));
    let sources = root.section("sources")?;
    let mut named = sources.subsections();
    let Some(at) = named.iter().position(|(known, _)| *known == name) else {
        let names: Vec<_> = named.iter().map(|(known, _)| *known).collect();
        sources.error("", unknown(name, &names));
        return None;
    };
    let (_, mut section) = named.swap_remove(at);
    let shares = SharedLimits::with_max_body(max_body?);
    let context = SourceContext::new(&profiles, &shares, None, true);
    let profile = section.required("profile", |name| context.profile(name));
    let path = section.required("path", route::path);
    let secrets = secrets::secrets(&mut section, profile, Severity::Error).ok();
    let observe = section.optional("verify", word(&[("enforce", false), ("observe", true)]));
    let max_body = context.max_body(&mut section, profile);
    let params = section.subsection("params").map(Section::texts).unwrap_or_default();
    let params = complete(profile?, &section, &params);
    let (_, secrets) = secrets?;
    Some(SingleSource {
        profile: profile?.clone(),
        secrets,
        params: params?,
        path: path?,
        max_body,
        ttl: ttl?,
        observe: observe == Some(true),
    })
}

fn unknown(name: &str, names: &[&str]) -> String {
    let all = match names {
        [] => "there are none".to_owned(),
        names => format!("there are {}", names.join(", ")),
    };
    match closest(name, names.iter().copied()) {
        Some(known) => format!("has no source {name:?}; did you mean {known:?}? {all}"),
        None => format!("has no source {name:?}; {all}"),
    }
}
