//! The way of an event through the gateway to an upstream, and of the response back to the provider.

mod credentials;
mod delivery;
mod headers;
mod provider_responses;
mod request_log;
mod upstream_failures;
mod upstream_protocol;
mod upstream_responses;
mod upstream_tls;
mod upstream_unix;
