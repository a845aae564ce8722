//! Bounds of the cluster state. Together they keep its encoded form below one frame
//! ([`clinch_types::limits::FRAME_MAX`]); a test builds the largest state and checks it.

/// Longest cluster name, in bytes.
pub const CLUSTER_NAME_MAX: usize = 64;
/// Most nodes that are in the cluster at a time.
pub const NODES_MAX: usize = 1_000;
/// Most nodes a cluster can ever have seen: an id is never forgotten, because it must never be used again.
pub const NODES_EVER_MAX: usize = 10_000;
/// Longest QUIC address (`host:port`), in bytes: a DNS name and a port.
pub const ADDRESS_MAX: usize = 262;
/// Longest base URL of a gateway, in bytes.
pub const GATEWAY_MAX: usize = 512;
/// Longest zone name, in bytes.
pub const ZONE_MAX: usize = 64;
/// All actor type names of one node together, in bytes, counting 8 more for each.
pub const ACTOR_TYPES_BYTES_MAX: usize = 8 << 10;
/// Greatest weight of a node; 0 is a node that holds no shards.
pub const CAPACITY_MAX: u32 = 1_000;
/// Most shards: one slot each.
pub const SHARDS_MAX: u32 = clinch_types::Slot::COUNT as u32;
/// Most replicas of a shard: more voters cost latency and guard against nothing that seven do not.
pub const REPLICAS_MAX: u8 = 7;
/// Most namespaces.
pub const NAMESPACES_MAX: usize = 4_000;
/// Most tokens.
pub const TOKENS_MAX: usize = 4_000;
/// Longest token id, in bytes.
pub const TOKEN_ID_MAX: usize = 64;
