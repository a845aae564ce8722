//! The load generator of Clinch: open and closed loop, HDR histograms, results as data.
fn main() {}
