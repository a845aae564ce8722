//! Who is in a Clinch cluster, who is alive, and which shard is where: pure data and transitions.
