//! Handshakes: the requests by which a provider checks an endpoint.

mod refused;
mod responses;
mod signing_oracle;
mod subscription_confirmation;
mod unsigned;
