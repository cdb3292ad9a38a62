//! Verification: signatures, tokens, the keys and certificates for them, and what a signature covers.

mod authentication_failures;
mod certificate_limits;
mod certificates;
mod event_identity;
mod issuer_tokens;
mod jwks;
mod jwks_limits;
mod observe_mode;
mod public_keys;
mod scheme_selection;
mod signed_text_ambiguity;
mod signed_times;
mod signed_values;
mod tokens;
