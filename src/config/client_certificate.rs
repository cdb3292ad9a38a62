//! Reads `client_certificate` of a source.

use super::section::Section;
use crate::http::origin::CertificateRule;
use crate::http::origin::NamePattern;

/// The client certificate that a source requires. `asked` tells whether a listener asks for certificates.
pub(super) fn rule(section: &mut Section<'_>, asked: bool) -> Option<CertificateRule> {
    let mut rule = section.subsection("client_certificate")?;
    let names = rule.list("san", NamePattern::parse);
    if names.is_empty() {
        rule.error("san", "names nobody: list names that a certificate may have, such as [\"*.bank.example\"]");
    }
    if !asked {
        rule.error(
            "",
            "cannot be shown: no listener asks for certificates; set tls.client_ca of one under server.listeners",
        );
    }
    rule.finish();
    Some(CertificateRule::new(names))
}
