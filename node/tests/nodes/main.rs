//! Whole nodes in one process: one program for all of these tests, since each links the whole product.

mod common;

mod bad_input;
mod beside;
mod cluster;
mod connections;
mod durability;
mod embedded;
mod exposed;
mod followers;
mod guarantees;
mod inspector;
mod inspector_token;
mod kv_limit;
mod leaving;
mod lifecycle;
mod limits;
mod outbox;
mod queues;
mod raw_client;
mod raw_http;
mod repeated;
mod rollback;
mod rules;
mod schedules;
mod stale;
mod status;
mod streams;
mod turns;
mod upgrade;
mod warnings;
