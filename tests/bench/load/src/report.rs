//! From the lines of many runs to tables in Markdown.

use std::path::Path;

use anyhow::Context;
use anyhow::Result;
use anyhow::ensure;
use serde::Deserialize;
use serde::Serialize;

/// The proxy the others are compared with.
const BASELINE: &str = "nginx";

/// What one run found out.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Line {
    pub proxy: String,
    pub round: u32,
    pub body: usize,
    pub connections: usize,
    /// How many ids the proxy remembered when it was measured, where that is the question.
    pub remembered: Option<u64>,
    pub requests: u64,
    /// Answers other than 200, also those of the warm-up.
    pub errors: u64,
    pub seconds: f64,
    pub per_second: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    pub p999_us: f64,
    /// Requests that were due each second, where that was given.
    pub rate: Option<f64>,
    /// Deliveries from the first request to the last delivery, where they come behind the answers.
    pub delivered_per_second: Option<f64>,
    /// The 99th percentile of the disk's own `fdatasync` at that time, where it matters.
    pub disk_p99_us: Option<f64>,
    /// CPU time of the proxy per request.
    pub cpu_us: f64,
    /// CPU time per request of what works for the proxy, such as its Redis, where that was given.
    pub server_cpu_us: Option<f64>,
    /// Bytes of the proxy's store on disk, where it has files.
    pub store_bytes: Option<u64>,
    pub rss_before_kib: u64,
    pub rss_after_kib: u64,
    pub rss_peak_kib: u64,
}

/// The middle of some numbers.
pub fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    let middle = numbers.len() / 2;
    match numbers.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => numbers[middle],
        _ => f64::midpoint(numbers[middle - 1], numbers[middle]),
    }
}

/// The lines of one proxy in one cell, in the order of the rounds.
struct Cell<'a> {
    all: &'a [Line],
    lines: Vec<&'a Line>,
}

impl Cell<'_> {
    fn median(&self, value: impl Fn(&Line) -> f64) -> f64 {
        median(self.lines.iter().map(|line| value(line)).collect())
    }

    /// CPU per request, as a multiple of what the baseline took in the same round. Machines get faster and slower over
    /// minutes; within a round they hardly do.
    fn ratios(&self) -> Vec<f64> {
        let baseline = |of: &Line| self.all.iter().find(|line| line.proxy == BASELINE && same_round(line, of));
        self.lines.iter().filter_map(|line| Some(line.cpu_us / baseline(line)?.cpu_us)).collect()
    }

    fn mib(&self, value: impl Fn(&Line) -> u64, which: impl Fn(Vec<u64>) -> Option<u64>) -> f64 {
        which(self.lines.iter().map(|line| value(line)).collect()).unwrap_or_default() as f64 / 1024.0
    }
}

fn same_round(one: &Line, other: &Line) -> bool {
    let cell = |line: &Line| (line.round, line.body, line.connections, line.remembered, line.rate.is_some());
    cell(one) == cell(other)
}

/// The lines of `all` that agree in `key`, in the order in which they appear.
fn cells<K: PartialEq>(all: &[Line], key: impl Fn(&Line) -> K) -> Vec<Cell<'_>> {
    let mut keys = Vec::new();
    for line in all {
        let found = key(line);
        if !keys.contains(&found) {
            keys.push(found);
        }
    }
    keys.iter().map(|wanted| Cell { all, lines: all.iter().filter(|line| key(line) == *wanted).collect() }).collect()
}

/// Prints the tables of a file with one [`Line`] a line.
pub fn print(file: &Path) -> Result<()> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let all = text
        .lines()
        .map(|line| serde_json::from_str(line).with_context(|| format!("not a line of a run: {line}")))
        .collect::<Result<Vec<Line>>>()?;
    let (queued, rest): (Vec<_>, Vec<_>) = all.into_iter().partition(|line| line.disk_p99_us.is_some());
    let (flat, matrix): (Vec<_>, Vec<_>) = rest.into_iter().partition(|line| line.remembered.is_some());
    print_matrix(&matrix);
    print_flat(&flat);
    print_queued(&queued);
    let errors: u64 = flat.iter().chain(&matrix).chain(&queued).map(|line| line.errors).sum();
    ensure!(errors == 0, "{errors} answers were not 200");
    Ok(())
}

fn print_matrix(all: &[Line]) {
    let mut body = None;
    for cell in cells(all, |line| (line.body, line.connections, line.proxy.clone())) {
        let line = cell.lines[0];
        if body != Some(line.body) {
            body = Some(line.body);
            println!("\n### Bodies of {}\n", size(line.body));
            println!(
                "| proxy | connections | requests/s | p50 ms | p99 ms | p99.9 ms | CPU µs/request | × {BASELINE} \
                 | (rounds) | RSS MiB idle | after | peak |"
            );
            println!("|---|--:|--:|--:|--:|--:|--:|--:|:-:|--:|--:|--:|");
        }
        let ratios = cell.ratios();
        println!(
            "| {} | {} | {:.0} | {:.3} | {:.3} | {:.3} | {:.1} | {:.2} | {} | {:.1} | {:.1} | {:.1} |",
            line.proxy,
            line.connections,
            cell.median(|line| line.per_second),
            cell.median(|line| line.p50_us / 1000.0),
            cell.median(|line| line.p99_us / 1000.0),
            cell.median(|line| line.p999_us / 1000.0),
            cell.median(|line| line.cpu_us),
            median(ratios.clone()),
            range(&ratios),
            cell.mib(|line| line.rss_before_kib, |values| values.first().copied()),
            cell.mib(|line| line.rss_after_kib, |values| values.last().copied()),
            cell.mib(|line| line.rss_peak_kib, |values| values.into_iter().max()),
        );
    }
}

fn print_flat(all: &[Line]) {
    for (index, cell) in cells(all, |line| (line.remembered, line.proxy.clone())).iter().enumerate() {
        let line = cell.lines[0];
        if index == 0 {
            println!("\n### By remembered ids ({}, {} connections)\n", size(line.body), line.connections);
            println!(
                "| proxy | ids at start | at end | CPU µs/request | × {BASELINE} | (rounds) | RSS MiB | disk MiB |"
            );
            println!("|---|--:|--:|--:|--:|:-:|--:|--:|");
        }
        if line.proxy == BASELINE {
            continue;
        }
        let ratios = cell.ratios();
        let start = line.remembered.unwrap_or_default();
        println!(
            "| {} | {start} | {} | {:.1} | {:.2} | {} | {:.1} | {} |",
            line.proxy,
            start + line.requests,
            cell.median(|line| line.cpu_us),
            median(ratios.clone()),
            range(&ratios),
            cell.mib(|line| line.rss_after_kib, |values| values.last().copied()),
            match line.store_bytes {
                Some(_) => format!(
                    "{:.1}",
                    cell.mib(|line| line.store_bytes.unwrap_or(0) / 1024, |values| values.into_iter().max())
                ),
                None => String::new(),
            },
        );
    }
    if !all.is_empty() {
        println!("\nThe fewer ids, the shorter the run that can be measured: the first rows are the noisiest.");
    }
}

fn print_queued(all: &[Line]) {
    for (index, cell) in
        cells(all, |line| (line.connections, line.rate.is_some(), line.proxy.clone())).iter().enumerate()
    {
        let line = cell.lines[0];
        if index == 0 {
            println!("\n### Queues ({})\n", size(line.body));
            println!(
                "| proxy | connections | load | acknowledged/s | delivered/s | p50 ms | p99 ms | disk's fdatasync p99 ms \
                 | CPU µs/event | × {BASELINE} | (rounds) | Redis CPU µs/event | RSS MiB peak |"
            );
            println!("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|:-:|--:|--:|");
        }
        let ratios = cell.ratios();
        println!(
            "| {} | {} | {} | {:.0} | {:.0} | {:.3} | {:.3} | {:.3} | {:.1} | {:.2} | {} | {} | {:.1} |",
            line.proxy,
            line.connections,
            line.rate.map_or_else(|| "full".to_owned(), |_| "half".to_owned()),
            cell.median(|line| line.per_second),
            cell.median(|line| line.delivered_per_second.unwrap_or(line.per_second)),
            cell.median(|line| line.p50_us / 1000.0),
            cell.median(|line| line.p99_us / 1000.0),
            cell.median(|line| line.disk_p99_us.unwrap_or(f64::NAN) / 1000.0),
            cell.median(|line| line.cpu_us),
            median(ratios.clone()),
            range(&ratios),
            line.server_cpu_us.map_or_else(String::new, |_| {
                format!("{:.1}", cell.median(|line| line.server_cpu_us.unwrap_or(f64::NAN)))
            }),
            cell.mib(|line| line.rss_peak_kib, |values| values.into_iter().max()),
        );
    }
}

fn range(numbers: &[f64]) -> String {
    let least = numbers.iter().copied().fold(f64::INFINITY, f64::min);
    let most = numbers.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    format!("{least:.2}–{most:.2}")
}

fn size(bytes: usize) -> String {
    if bytes.is_multiple_of(1024) { format!("{} KiB", bytes / 1024) } else { format!("{bytes} bytes") }
}
