//! Histories that once were not kept, each with the one thing that went wrong.
