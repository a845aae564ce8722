//! Which raft group bytes belong to.

use std::fmt;

use clinch_types::ShardId;

/// A raft group of this node: the control group, or a shard's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(pub u32);

impl GroupId {
    /// The control group.
    pub const CONTROL: Self = Self(0);

    /// The group of a shard.
    pub const fn shard(shard: ShardId) -> Self {
        Self(shard.0.saturating_add(1))
    }
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.checked_sub(1) {
            None => f.write_str("control"),
            Some(shard) => write!(f, "shard-{shard}"),
        }
    }
}
