//! Durable, addressable actors: your binary is the cluster.
