//! What the disk itself takes for what a durable store asks of it.

use std::fs::File;
use std::io::ErrorKind;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use anyhow::Context;
use anyhow::Result;
use hdrhistogram::Histogram;

/// As many writes as give a 99th percentile that means something.
const WRITES: usize = 2000;
/// Bytes of one write: about what some tens of small events are together.
const BYTES: usize = 64 * 1024;

/// Bytes of a SQLite file and of those beside it: its log, and the dedupe log.
pub fn bytes(store: &Path) -> Result<u64> {
    let (folder, name) = (store.parent().unwrap_or(Path::new(".")), store.file_name().unwrap_or_default());
    let failed = || format!("cannot look at {}", folder.display());
    let mut sum = 0;
    for entry in std::fs::read_dir(folder).with_context(failed)? {
        let entry = entry.with_context(failed)?;
        if !entry.file_name().as_encoded_bytes().starts_with(name.as_encoded_bytes()) {
            continue;
        }
        match entry.metadata() {
            Ok(file) => sum += file.len(),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(failed),
        }
    }
    Ok(sum)
}

/// The 50th and 99th percentile of appending and `fdatasync` in this folder, in microseconds.
pub fn sync(folder: &Path) -> Result<(f64, f64)> {
    let path = folder.join("disk-probe");
    let mut file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    let mut latency = Histogram::<u64>::new_with_bounds(1, 100_000_000, 3).context("bounds of the histogram")?;
    let bytes = vec![b'x'; BYTES];
    for _ in 0..WRITES {
        file.write_all(&bytes).context("cannot write")?;
        let begun = Instant::now();
        file.sync_data().context("cannot sync")?;
        latency.saturating_record(begun.elapsed().as_nanos() as u64 / 100);
    }
    std::fs::remove_file(&path).context("cannot remove the probe")?;
    Ok((latency.value_at_quantile(0.5) as f64 / 10.0, latency.value_at_quantile(0.99) as f64 / 10.0))
}
