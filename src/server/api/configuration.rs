//! What the API does and answers about the configuration.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::Response;
use http::StatusCode;
use http::header;
use http_body_util::Full;
use prometheus::IntGauge;
use serde_json::Value;
use serde_json::json;

use super::Api;
use super::answer;
use super::route::Configuration;
use crate::base::problem::Problem;
use crate::base::problem::Problems;
use crate::base::problem::Severity;
use crate::base::time::Moment;
use crate::gateway::Metrics;
use crate::server::generation::Generation;
use crate::server::reload::Reloaded;
use crate::server::reload::Status;
use crate::source::Source;
use crate::source::SourceSecret;
use crate::source::reply;

impl Api {
    /// Answers what is asked about the configuration, which needs no store.
    pub(super) async fn configuration(&self, asked: Configuration, peer: SocketAddr) -> Response<Full<Bytes>> {
        let generation = self.shared.current.load_full();
        match asked {
            Configuration::Generation => answer(&status(&generation, &self.reloader.status())),
            Configuration::Secrets => answer(&secrets(&generation, &self.shared.metrics.gateway, Moment::now())),
            Configuration::Reload => self.reload(peer).await,
        }
    }

    /// Reads the configuration again.
    async fn reload(&self, peer: SocketAddr) -> Response<Full<Bytes>> {
        tracing::info!(%peer, "asked through the API to read the configuration again");
        match self.reloader.reload().await {
            Ok(done) => answer(&reloaded(&done)),
            Err(problems) => {
                let mut response = answer(&refused(&problems));
                *response.status_mut() = StatusCode::UNPROCESSABLE_ENTITY;
                response.headers_mut().insert(header::CONTENT_TYPE, reply::PROBLEM);
                response
            }
        }
    }
}

/// The generation in use, and what came of the last reload.
fn status(generation: &Generation, status: &Status) -> Value {
    let left_out: Vec<_> = generation.settings.skipped.iter().map(|skipped| skipped.name.as_str()).collect();
    let last = status.last.as_ref().map(|(at, failed)| {
        json!({
            "at": at.rfc3339().to_string(),
            "successful": failed.is_none(),
            "problems": failed.as_ref().map(problems).unwrap_or_default(),
        })
    });
    json!({
        "generation": generation.number,
        "since": status.since.rfc3339().to_string(),
        "sources": generation.settings.sources.len(),
        "left_out": left_out,
        "restart_needed": status.restart_needed,
        "last_reload": last,
    })
}

/// The secrets of all sources, with what they have proved since the gateway knows them.
fn secrets(generation: &Generation, metrics: &Metrics, now: Moment) -> Value {
    let idle = |time: &IntGauge| u64::try_from(now.unix().saturating_sub(time.get())).unwrap_or_default();
    let secret = |SourceSecret { label, proofs, .. }: &SourceSecret| json!({ "secret": label, "matches": proofs.count(), "idle_seconds": proofs.idle_seconds(now) });
    let source = |source: &Arc<Source>| {
        let of_source = metrics.for_source(source.name.as_str(), &source.secrets);
        let secrets: Vec<_> = source.secrets.iter().map(secret).collect();
        let silent = of_source.last_event.as_ref().map(idle);
        json!({ "source": source.name.as_str(), "silent_seconds": silent, "secrets": secrets })
    };
    json!({ "sources": generation.settings.sources.iter().map(source).collect::<Vec<_>>() })
}

/// A configuration that is in use now.
fn reloaded(reloaded: &Reloaded) -> Value {
    json!({
        "generation": reloaded.generation,
        "added": reloaded.difference.added,
        "changed": reloaded.difference.changed,
        "removed": reloaded.difference.removed,
        "warnings": problems(&reloaded.warnings),
        "restart_needed": reloaded.restart_needed,
    })
}

/// A configuration that is not used.
fn refused(found: &Problems) -> Value {
    json!({
        "type": "about:blank",
        "title": "Unprocessable Entity",
        "status": 422,
        "detail": "the configuration has problems and is not used: the gateway goes on with the one before",
        "problems": problems(found),
    })
}

fn problems(problems: &Problems) -> Vec<Value> {
    let problem = |problem: &Problem| {
        let is_error = problem.severity == Severity::Error;
        json!({ "place": problem.place, "key": problem.key, "message": problem.message, "error": is_error })
    };
    problems.iter().map(problem).collect()
}
