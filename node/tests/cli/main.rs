//! The program `clinch`, as processes: one program for all of these tests, since each links the whole product.

mod cli_support;

mod cli_cluster;
mod cli_commands;
mod cli_demo;
mod cli_dev;
mod cli_doctor;
mod cli_http;
#[cfg(feature = "otlp")]
mod cli_otlp;
mod cli_refusals;
mod cli_rolling;
