//! The programming model of Clinch: actors, contexts, calls, effects. No network, no Raft.
