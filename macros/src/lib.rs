//! The attribute and derive macros of Clinch.
