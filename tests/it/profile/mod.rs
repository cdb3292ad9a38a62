//! Profiles: errors in them, and the recorded deliveries that each shipped one accepts or refuses.

mod errors;
mod recorded_deliveries;
