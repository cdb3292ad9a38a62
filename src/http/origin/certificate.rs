//! Client certificates: the names in one that was verified, and the rule of a source that asks for some.

use x509_parser::extensions::GeneralName;

/// The alternative names (SAN) in a certificate whose issuer was verified.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CertificateNames {
    /// In lower case.
    dns: Vec<String>,
    uris: Vec<String>,
    emails: Vec<String>,
}

impl CertificateNames {
    /// The names in a certificate; none when it cannot be read.
    pub fn read(der: &[u8]) -> Self {
        let mut names = Self::default();
        let Ok((_, certificate)) = x509_parser::parse_x509_certificate(der) else { return names };
        let Ok(Some(alternative)) = certificate.subject_alternative_name() else { return names };
        for name in &alternative.value.general_names {
            if let GeneralName::DNSName(name) = name {
                names.dns.push(name.to_ascii_lowercase());
            } else if let GeneralName::URI(uri) = name {
                names.uris.push((*uri).to_owned());
            } else if let GeneralName::RFC822Name(email) = name {
                names.emails.push((*email).to_owned());
            }
        }
        names
    }
}

/// A name that a client certificate may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamePattern {
    /// This DNS name.
    Dns(String),
    /// Any DNS name with one more label in front of this.
    Wildcard(String),
    /// This URI, byte for byte.
    Uri(String),
    /// This e-mail address, byte for byte.
    Email(String),
}

impl NamePattern {
    /// Parses a DNS name, perhaps with `*` as its first label, a URI or an e-mail address.
    ///
    /// # Errors
    /// What is wrong with `text` and what would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.contains(':') && text.parse::<http::Uri>().is_ok() || text.starts_with("urn:") {
            return Ok(Self::Uri(text.to_owned()));
        }
        if let Some((user, host)) = text.split_once('@')
            && !user.is_empty()
            && is_dns(host)
        {
            return Ok(Self::Email(text.to_owned()));
        }
        match text.strip_prefix("*.") {
            Some(parent) if is_dns(parent) && parent.contains('.') => Ok(Self::Wildcard(parent.to_ascii_lowercase())),
            None if is_dns(text) => Ok(Self::Dns(text.to_ascii_lowercase())),
            _ => Err(format!(
                "{text:?} is not a DNS name such as \"hooks.bank.example\" or \"*.bank.example\", a URI or an e-mail address"
            )),
        }
    }

    fn matches(&self, names: &CertificateNames) -> bool {
        match self {
            Self::Dns(name) => names.dns.contains(name),
            Self::Wildcard(parent) => {
                let is_under = |name: &String| {
                    name.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && rest == parent)
                };
                names.dns.iter().any(is_under)
            }
            Self::Uri(uri) => names.uris.contains(uri),
            Self::Email(email) => names.emails.contains(email),
        }
    }
}

fn is_dns(text: &str) -> bool {
    let is_label = |label: &str| {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        (1..=63).contains(&label.len()) && label.bytes().all(fits)
    };
    text.len() <= 253 && text.split('.').all(is_label)
}

/// The names of which a client certificate has to have one.
#[derive(Debug, Clone)]
pub struct CertificateRule(Vec<NamePattern>);

impl CertificateRule {
    /// A rule with these names.
    pub fn new(names: Vec<NamePattern>) -> Self {
        Self(names)
    }

    /// Whether a certificate has one of the names.
    pub(super) fn matches(&self, names: &CertificateNames) -> bool {
        self.0.iter().any(|pattern| pattern.matches(names))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_a_whole_name_or_one_label_in_front_of_it() {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let names = |dns: &[&str], uris: &[&str], emails: &[&str]| CertificateNames {
            dns: texts(dns),
            uris: texts(uris),
            emails: texts(emails),
        };
        let matches = |pattern: &str, names: &CertificateNames| {
            NamePattern::parse(pattern).unwrap_or_else(|message| panic!("{message}")).matches(names)
        };
        let bank = names(&["hooks.bank.example"], &["spiffe://bank.example/hooks"], &["hooks@bank.example"]);
        for pattern in [
            "hooks.bank.example",
            "HOOKS.Bank.example",
            "*.bank.example",
            "spiffe://bank.example/hooks",
            "hooks@bank.example",
        ] {
            assert!(matches(pattern, &bank), "{pattern}");
        }
        for pattern in [
            "bank.example",
            "*.example.com",
            "other.bank.example",
            "*.hooks.bank.example",
            "spiffe://bank.example/hook",
            "spiffe://bank.example/Hooks",
            "urn:bank:hooks",
            "Hooks@bank.example",
            "other@bank.example",
        ] {
            assert!(!matches(pattern, &bank), "{pattern}");
        }
        for dns in ["bank.example", "a.b.bank.example", ".bank.example", "notbank.example", "hooks.bank.example.evil"] {
            assert!(!matches("*.bank.example", &names(&[dns], &[], &[])), "{dns}");
        }
        // A name of one kind is none of another.
        let mixed = names(&["spiffe"], &["hooks.bank.example", "a.bank.example"], &["hooks.bank.example"]);
        assert!(!matches("hooks.bank.example", &mixed) && !matches("*.bank.example", &mixed));
        for bad in
            ["", "*", "*.example", "*bank.example", "a.*.example", "*.*.example", "a..b", "a b", "@b.example", "a@"]
        {
            assert!(NamePattern::parse(bad).is_err(), "{bad:?}");
        }
    }
}
