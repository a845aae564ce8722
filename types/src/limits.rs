//! Limits that more than one crate checks. Every error that reports one names the value and the limit.

/// Longest key component, in bytes.
pub const KEY_COMPONENT_MAX: usize = 128;
/// Longest serialized key, in bytes.
pub const KEY_MAX: usize = 1024;
/// Longest actor name, in characters.
pub const ACTOR_NAME_MAX: usize = 64;
/// Longest action, event or schedule name, in bytes.
pub const ACTION_NAME_MAX: usize = 128;
/// Longest namespace name, in bytes.
pub const NAMESPACE_MAX: usize = 64;
/// Largest input of a new actor, encoded, in bytes.
pub const INPUT_MAX: usize = 4 << 20;
/// Largest encoded argument list, in bytes.
pub const ARGS_MAX: usize = 1 << 20;
/// Largest encoded reply, in bytes.
pub const REPLY_MAX: usize = 1 << 20;
/// Largest encoded state, in bytes.
pub const STATE_MAX: usize = 8 << 20;
/// Encoded state size at which a warning is logged, in bytes.
pub const STATE_WARN: usize = 256 << 10;
/// Longest KV key, in bytes.
pub const KV_KEY_MAX: usize = 2 << 10;
/// Largest KV value, in bytes.
pub const KV_VALUE_MAX: usize = 128 << 10;
/// Most keys in one KV batch.
pub const KV_BATCH_KEYS_MAX: usize = 128;
/// Most bytes (keys and values) in one KV batch.
pub const KV_BATCH_BYTES_MAX: usize = 976 << 10;
/// Largest sum of all KV keys and values of one actor, in bytes, unless its `kv_max` says otherwise.
pub const KV_MAX: usize = 10 << 30;
/// Longest name of a queue, in bytes.
pub const QUEUE_NAME_MAX: usize = 128;
/// Largest message of a durable queue, encoded, in bytes.
pub const QUEUE_MESSAGE_MAX: usize = 64 << 10;
/// Messages in all durable queues of one actor.
pub const QUEUE_MESSAGES_MAX: usize = 1000;
/// Schedules of one actor.
pub const SCHEDULES_MAX: usize = 1000;
/// One-way sends of one actor that have not arrived yet.
pub const OUTBOX_MAX: usize = 1000;
/// Connections of one actor.
pub const CONNS_MAX: usize = 10_000;
/// Largest encoded parameters of a connection, in bytes.
pub const PARAMS_MAX: usize = 4 << 10;
/// Largest encoded state of a connection, in bytes.
pub const CONN_STATE_MAX: usize = 64 << 10;
/// Events that one connection may subscribe to.
pub const SUBSCRIPTIONS_MAX: usize = 256;
/// Largest name of an event, in bytes.
pub const EVENT_NAME_MAX: usize = 128;
/// Bytes of the headers that go along with a call, names and values.
pub const HEADERS_MAX: usize = 16 << 10;
/// Largest message of a raw WebSocket, in bytes.
pub const RAW_MESSAGE_MAX: usize = 1 << 20;
/// Largest body of a raw HTTP request, in bytes, unless the actor's `request_body_max` says otherwise.
pub const HTTP_BODY_MAX: usize = 20 << 20;
/// Largest body of a raw HTTP request that is read whole into memory, in bytes.
pub const HTTP_WHOLE_MAX: usize = 4 << 20;
/// Largest piece of a body that is handed on at once, in bytes.
pub const HTTP_PIECE_MAX: usize = 64 << 10;
/// Longest path and query of a raw request, in bytes.
pub const URI_MAX: usize = 8 << 10;
/// Calls that may wait for one actor.
pub const ACTOR_QUEUE_MAX: usize = 1024;
/// Longest chain of actors calling each other.
pub const CHAIN_MAX: usize = 64;
/// Largest frame between nodes, or between a client and a node, in bytes: one input plus its header.
pub const FRAME_MAX: usize = 16 << 20;
/// Most actors in one page of a listing.
pub const LIST_MAX: u32 = 1000;
/// Most turns in one answer about an actor's latest turns.
pub const TURNS_MAX: u32 = 1000;
