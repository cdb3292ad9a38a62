//! From Criterion's figures to a table in Markdown.

use std::path::Path;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::ensure;
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

/// Prints what was measured: medians over the rounds, of the ratios too.
pub fn print(directory: &Path) -> Result<()> {
    println!("\n### Verifying a request, CPU time\n");
    println!("| scheme | 512 B, ns | × bare | 64 KiB, µs | × bare |");
    println!("|---|--:|--:|--:|--:|");
    for scheme in schemes::ALL {
        let [small, large] = SIZES.map(|size| directory.join(format!("{}-{size}", scheme.id)));
        if !small.exists() {
            continue;
        }
        let ((small, small_ratio), (large, large_ratio)) = (cell(&small)?, cell(&large)?);
        println!("| {} | {small:.0} | {small_ratio:.2} | {:.2} | {large_ratio:.2} |", scheme.title, large / 1000.0);
    }
    Ok(())
}

/// What Doorward takes, and as a multiple of what the primitive takes in the same round.
fn cell(directory: &Path) -> Result<(f64, f64)> {
    let (mut doorward, mut ratios) = (Vec::new(), Vec::new());
    for round in
        (0..).map(|round: u32| round.to_string()).take_while(|round| directory.join("bare").join(round).exists())
    {
        let took = estimate(&directory.join("doorward").join(&round))?;
        doorward.push(took);
        ratios.push(took / estimate(&directory.join("bare").join(&round))?);
    }
    ensure!(!ratios.is_empty(), "nothing was measured in {}", directory.display());
    Ok((median(doorward), median(ratios)))
}

fn estimate(directory: &Path) -> Result<f64> {
    let file = directory.join("new/estimates.json");
    let text = std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
    Ok(serde_json::from_slice::<Estimates>(&text)?.median.point_estimate)
}

/// The middle one of an odd number of figures.
fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
