//! QUIC between Clinch nodes and clients: framed, multiplexed, mutually authenticated.
