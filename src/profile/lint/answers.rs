//! Warnings about answers that lose events: providers disable the endpoint, or do not retry.

use crate::profile::ConfigPath;
use crate::profile::Finding;
use crate::profile::Profile;
use crate::profile::Status;

pub(super) fn lints(profile: &Profile) -> Vec<Finding> {
    let mut lints = statuses(profile);
    lints.extend(retries(profile));
    lints
}

fn statuses(profile: &Profile) -> Vec<Finding> {
    let statuses = [
        ("refused", profile.answers.refused.status),
        ("malformed", profile.answers.malformed),
        ("too_large", profile.answers.too_large),
    ];
    let mut lints = Vec::new();
    for (key, status) in statuses {
        if let Some(status @ (404 | 410)) = status.map(Status::code) {
            lints.push(Finding::new(
                ConfigPath::to(["answers", key]),
                format!("is {status}, which tells several providers that the endpoint is gone: they disable it"),
            ));
        }
    }
    let accepted = profile.answers.accepted.status.map_or(200, Status::code);
    if profile.facts.retried.as_ref().is_some_and(|retried| retried.contains(accepted)) {
        lints.push(Finding::new(
            ConfigPath::to(["answers", "accepted"]),
            format!("is {accepted}, on which the provider tries again: it takes the event for lost"),
        ));
    }
    lints
}

fn retries(profile: &Profile) -> Option<Finding> {
    let retry = profile.answers.retry.map(Status::code);
    let (config_path, facts) = (ConfigPath::to(["answers", "retry"]), ConfigPath::to(["facts", "retried"]));
    let Some(retried) = &profile.facts.retried else {
        let status = retry.filter(|status| *status < 500)?;
        return Some(Finding::new(
            config_path,
            format!(
                "is {status}: to many providers every 4xx is final; facts.retried says on what this one tries again"
            ),
        ));
    };
    if retried.is_nothing() {
        return Some(Finding::new(
            facts,
            "is empty: the provider tries nothing again, and what cannot be taken at once has to be sent again by hand",
        ));
    }
    let lost = |status: &u16| !retried.contains(*status);
    match retry {
        Some(status) if lost(&status) => Some(Finding::new(
            config_path,
            format!(
                "is {status}, on which the provider does not try again (it does on {retried}): such events are lost"
            ),
        )),
        Some(_) => None,
        None => [503, 502, 504].into_iter().find(lost).map(|status| {
            Finding::new(
                facts,
                format!(
                    "does not have {status}, with which the gateway asks for another attempt: such events are lost; \
                     write answers.retry with a status that is tried again"
                ),
            )
        }),
    }
}
