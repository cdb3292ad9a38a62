//! What Doorward does with an event: the same authenticator that a source has.

use std::hint::black_box;
use std::time::Duration;

use anyhow::Result;
use anyhow::anyhow;
use doorward::config::default_ttl;
use doorward::http::inbound::Inbound;
use doorward::verify::Authenticator;
use doorward::verify::KeySets;
use doorward::verify::Rejected;
use doorward::verify::compile::ReplayPolicy;
use doorward::verify::compile::RequestVerifier;
use http::Uri;
use tokio::runtime::Runtime;

use crate::clock::cpu_time;
use crate::event::Event;

/// A source that gets one event time and again.
pub struct Gateway<'e> {
    event: &'e Event,
    authenticator: Authenticator,
    inbound: Option<Inbound>,
}

impl<'e> Gateway<'e> {
    /// A source for the event, which is verified once: certificates are fetched by that.
    pub fn new(event: &'e Event, runtime: &Runtime) -> Result<Self> {
        let mut gateway = Self { event, authenticator: authenticator(event)?, inbound: Some(inbound(event)) };
        gateway.verify(runtime, 1)?;
        Ok(gateway)
    }

    /// Several that have seen nothing before.
    pub fn several(event: &'e Event, count: usize) -> Result<Vec<Self>> {
        let one = |_| Ok(Self { event, authenticator: authenticator(event)?, inbound: Some(inbound(event)) });
        (0..count).map(one).collect()
    }

    /// Verifies the event this many times; the CPU time of it.
    pub fn verify(&mut self, runtime: &Runtime, times: u64) -> Result<Duration> {
        let mut inbound = self.inbound.take().unwrap_or_else(|| inbound(self.event));
        let (took, inbound) = cpu_time(|| {
            runtime.block_on(async {
                for _ in 0..times {
                    let verified = self.authenticator.verify(inbound, self.event.at).await.map_err(refused)?;
                    inbound = black_box(verified).into_inbound();
                }
                anyhow::Ok(inbound)
            })
        });
        self.inbound = Some(inbound?);
        Ok(took)
    }

    /// The same with an authenticator for each time that has seen nothing before.
    pub fn verify_afresh(&self, runtime: &Runtime, times: u64) -> Result<Duration> {
        let mut took = Duration::ZERO;
        let mut left = times;
        while left > 0 {
            // A few at a time, so that reading the clock does not count.
            let count = left.min(32);
            left -= count;
            let fresh = (0..count).map(|_| Ok((authenticator(self.event)?, inbound(self.event))));
            let fresh = fresh.collect::<Result<Vec<_>>>()?;
            let verify = async |(authenticator, inbound): (Authenticator, Inbound)| {
                let verified = authenticator.verify(inbound, self.event.at).await;
                (authenticator, black_box(verified))
            };
            let mut verified = Vec::with_capacity(fresh.len());
            let work = async {
                for one in fresh {
                    verified.push(verify(one).await);
                }
            };
            took += cpu_time(|| runtime.block_on(work)).0;
            for (_, verified) in verified {
                verified.map_err(refused)?;
            }
        }
        Ok(took)
    }
}

#[expect(clippy::boxed_local, reason = "this is how it comes")]
fn refused(rejected: Box<Rejected>) -> anyhow::Error {
    anyhow!("not verified: {}", rejected.failure)
}

fn authenticator(event: &Event) -> Result<Authenticator> {
    let replays = ReplayPolicy::new(default_ttl().map_err(|message| anyhow!(message))?, None, &[]);
    let verifier = RequestVerifier::new(&event.profile, &event.secrets, &event.params, replays, &mut KeySets::new());
    Ok(verifier.map_err(|misfits| anyhow!("{misfits:?}"))?.authenticator)
}

fn inbound(event: &Event) -> Inbound {
    let request = &event.request;
    let target = Uri::from_static("/webhooks/bench");
    Inbound::recorded(request.method.clone(), target, request.headers.clone(), request.body.clone(), event.at)
}
