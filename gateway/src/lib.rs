//! The HTTP door of a Clinch node, speaking the Rivet Actors client protocol.
