//! Measures each scheme with Criterion: Doorward and the bare primitive in turn, several rounds, as the speed of a
//! machine changes over minutes.

use std::hint::black_box;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::ensure;
use criterion::BenchmarkId;
use criterion::Criterion;
use tokio::runtime::Builder;
use tokio::runtime::Runtime;

use crate::clock::cpu_time;
use crate::event::Event;
use crate::gateway::Gateway;
use crate::schemes;
use crate::schemes::Scheme;

/// The bodies, in bytes.
pub const SIZES: [usize; 2] = [512, 64 * 1024];

/// Measures them all.
pub fn all(directory: &Path, quick: bool, only: &str) -> Result<()> {
    let (rounds, time) = if quick { (3, 100) } else { (7, 250) };
    let mut criterion = Criterion::default()
        .output_directory(directory)
        .without_plots()
        .sample_size(10)
        .nresamples(1000)
        .warm_up_time(Duration::from_millis(time / 2))
        .measurement_time(Duration::from_millis(time));
    // Like the gateway's workers, each of which is one thread.
    let runtime = Builder::new_current_thread().enable_all().build()?;
    for scheme in schemes::ALL.iter().filter(|scheme| scheme.id.contains(only)) {
        for size in SIZES {
            one(&mut criterion, &runtime, scheme, (size, rounds))
                .with_context(|| format!("{}, {size} bytes", scheme.id))?;
        }
    }
    Ok(())
}

fn one(criterion: &mut Criterion, runtime: &Runtime, scheme: &Scheme, (size, rounds): (usize, u32)) -> Result<()> {
    let event = Event::new(scheme, size, None)?;
    ensure!(event.request.body.len() == size, "the body has {} bytes", event.request.body.len());
    let mut gateway = Gateway::new(&event, runtime)?;
    let bare = (scheme.bare)(&event)?;
    ensure!(bare(), "the primitive alone does not verify it");
    let mut failed = None;
    let mut group = criterion.benchmark_group(format!("{}-{size}", scheme.id));
    for round in 0..rounds {
        group.bench_function(BenchmarkId::new("doorward", round), |bencher| {
            bencher.iter_custom(|times| {
                let took = match scheme.afresh {
                    true => gateway.verify_afresh(runtime, times),
                    false => gateway.verify(runtime, times),
                };
                took.unwrap_or_else(|error| {
                    failed = Some(error);
                    Duration::MAX
                })
            });
        });
        group.bench_function(BenchmarkId::new("bare", round), |bencher| {
            bencher.iter_custom(|times| cpu_time(|| (0..times).filter(|_| black_box(bare())).count()).0);
        });
    }
    group.finish();
    failed.map_or(Ok(()), Err)
}
