//! Measures each scheme with Criterion: Doorward and the bare primitive right after one another.

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

use crate::event::Event;
use crate::gateway::Gateway;
use crate::schemes;
use crate::schemes::Scheme;

/// The bodies, in bytes.
pub const SIZES: [usize; 2] = [512, 64 * 1024];

/// Measures them all.
pub fn all(directory: &Path, quick: bool, only: &str) -> Result<()> {
    let (warmup, time) = if quick { (100, 300) } else { (500, 2000) };
    let mut criterion = Criterion::default()
        .output_directory(directory)
        .without_plots()
        .sample_size(if quick { 10 } else { 50 })
        .warm_up_time(Duration::from_millis(warmup))
        .measurement_time(Duration::from_millis(time));
    // The gateway's workers have one thread each, too.
    let runtime = Builder::new_current_thread().enable_all().build()?;
    for scheme in schemes::ALL.iter().filter(|scheme| scheme.id.contains(only)) {
        for size in SIZES {
            one(&mut criterion, &runtime, scheme, size).with_context(|| format!("{}, {size} bytes", scheme.id))?;
        }
    }
    Ok(())
}

fn one(criterion: &mut Criterion, runtime: &Runtime, scheme: &Scheme, size: usize) -> Result<()> {
    let event = Event::new(scheme, size)?;
    ensure!(event.request.body.len() == size, "the body has {} bytes", event.request.body.len());
    let mut gateway = runtime.block_on(Gateway::new(&event))?;
    let bare = (scheme.bare)(&event)?;
    ensure!(bare(), "the primitive alone does not verify it");
    let mut failed = None;
    let mut group = criterion.benchmark_group(scheme.id);
    group.bench_function(BenchmarkId::new("doorward", size), |bencher| {
        bencher.iter_custom(|times| {
            let took = match scheme.afresh {
                true => runtime.block_on(Gateway::verify_afresh(&event, times)),
                false => runtime.block_on(gateway.verify(times)),
            };
            took.unwrap_or_else(|error| {
                failed = Some(error);
                Duration::MAX
            })
        });
    });
    group.bench_function(BenchmarkId::new("bare", size), |bencher| bencher.iter(|| black_box(bare())));
    group.finish();
    failed.map_or(Ok(()), Err)
}
