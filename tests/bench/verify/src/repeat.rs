//! Verifies and measures nothing: a profiler does. Two runs that make as many ready differ in what is verified alone.

use std::path::Path;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::ensure;
use tokio::runtime::Builder;

use crate::event::Event;
use crate::gateway::Gateway;
use crate::schemes;

/// Verifies events of one scheme; of those whose every request is the first that a gateway sees, one with each gateway.
pub fn verify(scheme: &str, size: usize, times: usize, ready: usize, rsa: &Path) -> Result<()> {
    let rsa = std::fs::read_to_string(rsa).with_context(|| format!("cannot read {}", rsa.display()))?;
    ensure!(times <= ready, "{times} are to be verified, and {ready} are ready");
    let scheme = schemes::ALL.iter().find(|known| known.id == scheme).context("there is no such scheme")?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let event = Event::new(scheme, size, Some(&rsa))?;
    let fresh = scheme.afresh.then(|| Gateway::several(&event, ready)).transpose()?;
    let mut gateway = Gateway::new(&event, &runtime)?;
    match fresh {
        Some(fresh) => fresh.into_iter().take(times).try_for_each(|mut gateway| gateway.verify(&runtime, 1).map(drop)),
        None => gateway.verify(&runtime, times as u64).map(drop),
    }
}
