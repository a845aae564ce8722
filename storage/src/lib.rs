//! The durable bytes of one Clinch node: raft log, state machine store, snapshots.
