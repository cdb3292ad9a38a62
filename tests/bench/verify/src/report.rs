//! From Criterion's figures to a table in Markdown.

use std::path::Path;

use anyhow::Context as _;
use anyhow::Result;
use serde::Deserialize;

use crate::measure::SIZES;
use crate::schemes;

/// What Criterion writes down of one benchmark, in nanoseconds.
#[derive(Deserialize)]
struct Estimates {
    median: Estimate,
}

#[derive(Deserialize)]
struct Estimate {
    point_estimate: f64,
}

/// Prints what was measured.
pub fn print(directory: &Path) -> Result<()> {
    println!("\n### Verifying a request\n");
    println!("| scheme | 512 B, ns | × bare | 64 KiB, µs | × bare |");
    println!("|---|--:|--:|--:|--:|");
    for scheme in schemes::ALL.iter().filter(|scheme| directory.join(scheme.id).exists()) {
        let [small, large] = SIZES.map(|size| {
            let median = |of: &str| median(&directory.join(scheme.id).join(of).join(size.to_string()));
            median("doorward").and_then(|doorward| Ok((doorward, doorward / median("bare")?)))
        });
        let ((small, small_ratio), (large, large_ratio)) = (small?, large?);
        println!("| {} | {small:.0} | {small_ratio:.2} | {:.2} | {large_ratio:.2} |", scheme.title, large / 1000.0);
    }
    Ok(())
}

fn median(directory: &Path) -> Result<f64> {
    let file = directory.join("new/estimates.json");
    let text = std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
    Ok(serde_json::from_slice::<Estimates>(&text)?.median.point_estimate)
}
