//! The record that says how far a group's data in the state store are.

use bincode::{Decode, Encode};
use clinch_types::codec;

use crate::raft::{LogId, StoredMembership};
use crate::wire::{LogIdWire, StoredMembershipWire, WireError};

/// How far a group has been applied.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Applied {
    /// The last entry whose effects are there.
    pub(crate) log_id: Option<LogId>,
    /// The last membership among them.
    pub(crate) membership: StoredMembership,
    /// Effects up to this index may be there as well, in part: nothing may be served before it is applied. Set by
    /// a snapshot, which is taken while writes go on, and by a checkpoint of more than one batch.
    pub(crate) fuzzy_end: Option<u64>,
}

#[derive(Debug, Encode, Decode)]
struct AppliedWire {
    log_id: Option<LogIdWire>,
    membership: StoredMembershipWire,
    fuzzy_end: Option<u64>,
}

impl Applied {
    pub(crate) fn encode(&self) -> Result<Vec<u8>, WireError> {
        let wire = AppliedWire {
            log_id: self.log_id.map(LogIdWire::from),
            membership: (&self.membership).into(),
            fuzzy_end: self.fuzzy_end,
        };
        Ok(codec::encode(&wire)?)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let wire: AppliedWire = codec::decode(bytes)?;
        Ok(Self {
            log_id: wire.log_id.map(LogId::from),
            membership: wire.membership.try_into()?,
            fuzzy_end: wire.fuzzy_end,
        })
    }

    /// The index of the last entry.
    pub(crate) fn index(&self) -> Option<u64> {
        self.log_id.map(|id| id.index)
    }

    /// Whether the data are those of one moment.
    pub(crate) fn is_whole(&self) -> bool {
        self.fuzzy_end
            .is_none_or(|end| self.index().is_some_and(|index| index >= end))
    }
}
