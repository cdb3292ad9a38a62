//! Disks that fail, fill up, stall, or lose their power.

mod failures;
mod full;
mod io_errors;
mod power_loss;
mod stalls;
