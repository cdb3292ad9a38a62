//! The profiles that are compiled in: one line for each file of `config/providers`. A test checks that none is missing.

macro_rules! shipped {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../config/providers/", $name, ".toml")))),*]
    };
}

/// Name and text of every shipped profile.
pub(super) const FILES: &[(&str, &str)] = shipped![
    "adyen",
    "adyen-platform",
    "auth0",
    "aws-sns",
    "azure-devops",
    "azure-event-grid",
    "bitbucket",
    "braintree",
    "calendly",
    "cimplify",
    "circleci",
    "clerk",
    "cloudevents",
    "cloudflare-stream",
    "coinbase-commerce",
    "discord",
    "docusign",
    "dropbox",
    "gitea",
    "github",
    "gitlab",
    "google-pubsub",
    "hubspot",
    "hugging-face",
    "intercom",
    "jira",
    "klaviyo",
    "launchdarkly",
    "lemon-squeezy",
    "linear",
    "locallygrown",
    "mailgun",
    "meta",
    "microsoft-graph",
    "mux",
    "notion",
    "offergrid",
    "okta",
    "omnisales",
    "openai",
    "paddle",
    "pagerduty",
    "paypal",
    "paystack",
    "pitchpoint",
    "plaid",
    "polar",
    "razorpay",
    "resend",
    "sendgrid",
    "sentry",
    "shopify",
    "slack",
    "square",
    "standard-webhooks",
    "stream-chat",
    "stripe",
    "svix",
    "tebex",
    "telegram",
    "trello",
    "twilio",
    "twitch",
    "typeform",
    "vercel",
    "woocommerce",
    "workos",
    "x",
    "xero",
    "zendesk",
    "zoom",
];

#[cfg(test)]
mod tests {
    use super::FILES;

    #[test]
    fn every_file_of_config_providers_is_shipped() {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/config/providers");
        let mut found: Vec<_> = std::fs::read_dir(directory)
            .expect("the directory")
            .map(|entry| entry.expect("an entry").path().file_stem().expect("a name").to_string_lossy().into_owned())
            .collect();
        found.sort();
        assert_eq!(found, FILES.iter().map(|(name, _)| *name).collect::<Vec<_>>());
    }
}
