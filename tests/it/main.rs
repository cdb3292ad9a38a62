//! Doorward from outside: the real binary, real sockets, real stores, real keys.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::string_slice,
    clippy::disallowed_methods,
    clippy::print_stderr,
    unreachable_pub,
    reason = "a test may fail, and not every test needs everything of the harness"
)]

mod harness;

mod admin;
mod answers;
mod api;
mod batches;
mod bodies;
mod bodies_framing;
mod bodies_json;
mod captures;
mod captures_tools;
mod certificates;
mod certificates_kept;
mod cli;
mod clock;
mod content_codings;
mod conformance;
mod credentials;
mod damage;
mod damage_anywhere;
mod dedupe_log;
mod dedupe_log_files;
mod disk;
mod disk_errors;
mod disk_full;
mod disk_power;
mod disk_stalls;
mod documents;
mod drain;
mod events;
mod explain;
mod explain_mistakes;
mod explain_source;
mod fixtures;
mod growth;
mod handshakes;
mod handshakes_oracle;
mod handshakes_refused;
mod handshakes_unsigned;
mod handshakes_visit;
mod journey;
mod journey_answers;
mod journey_headers;
mod journey_log;
mod journey_paths;
mod keys;
mod keys_kept;
mod kill;
mod kill_redis;
mod layering;
mod limits;
mod observe;
mod once;
mod origin;
mod probe;
mod profiles;
mod queries;
mod queue;
mod queue_redis;
mod queue_redis_faults;
mod queue_redis_ledger;
mod queue_upstreams;
mod readings;
mod redis;
mod redis_cluster;
mod redis_durable;
mod redis_sentinel;
mod redis_store;
mod redis_store_admin;
mod redis_store_faults;
mod redis_tls;
mod refusals;
mod refusals_tokens;
mod replays;
mod replays_times;
mod replicas;
mod restart;
mod schemes_canonical;
mod schemes_combined;
mod schemes_identity;
mod schemes_keys;
mod schemes_tokens;
mod settings;
mod shares;
mod sign;
mod sign_send;
mod slow;
mod store_files;
mod strangers;
mod stream;
mod supervision;
mod terminal;
mod unreadable;
mod upstreams;
