//! What Doorward does with an event: the same authenticator that a source has.

use std::hint::black_box;
use std::time::Duration;
use std::time::Instant;

use anyhow::Result;
use anyhow::anyhow;
use doorward::auth::Authenticator;
use doorward::auth::KeySets;
use doorward::body::Inbound;
use doorward::settings::Judge;
use http::Uri;

use crate::event::Event;

/// A source that gets one event time and again.
pub struct Gateway<'e> {
    event: &'e Event,
    authenticator: Authenticator,
    inbound: Option<Inbound>,
}

impl<'e> Gateway<'e> {
    /// A source for the event, which is verified once: certificates are fetched by that.
    pub async fn new(event: &'e Event) -> Result<Self> {
        let mut gateway = Self { event, authenticator: authenticator(event)?, inbound: Some(inbound(event)) };
        gateway.verify(1).await?;
        Ok(gateway)
    }

    /// Verifies the event this many times.
    pub async fn verify(&mut self, times: u64) -> Result<Duration> {
        let mut inbound = self.inbound.take().unwrap_or_else(|| inbound(self.event));
        let begun = Instant::now();
        for _ in 0..times {
            let verified = self.authenticator.verify(inbound, self.event.at).await;
            let verified = verified.map_err(|rejected| anyhow!("not verified: {}", rejected.failure))?;
            inbound = black_box(verified).into_inbound();
        }
        let took = begun.elapsed();
        self.inbound = Some(inbound);
        Ok(took)
    }

    /// The same with an authenticator for each time that has seen nothing before.
    pub async fn verify_afresh(event: &Event, times: u64) -> Result<Duration> {
        let mut took = Duration::ZERO;
        for _ in 0..times {
            let (authenticator, inbound) = (authenticator(event)?, inbound(event));
            let begun = Instant::now();
            let verified = black_box(authenticator.verify(inbound, event.at).await);
            took += begun.elapsed();
            verified.map_err(|rejected| anyhow!("not verified: {}", rejected.failure))?;
        }
        Ok(took)
    }
}

fn authenticator(event: &Event) -> Result<Authenticator> {
    let judge = Judge::new(&event.profile, &event.secrets, &event.params, &mut KeySets::new());
    Ok(judge.map_err(|misfits| anyhow!("{misfits:?}"))?.authenticator)
}

fn inbound(event: &Event) -> Inbound {
    let request = &event.request;
    let target = Uri::from_static("/webhooks/bench");
    Inbound::recorded(request.method.clone(), target, request.headers.clone(), request.body.clone(), event.at)
}
