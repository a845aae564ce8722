//! Who a process is: the cluster's certificate authority, the certificates it issues, and the names in them.
//!
//! Invariant: a peer is known by its certificate, never by its address. Every leaf carries exactly one Clinch name
//! and the fixed DNS name [`SERVER_NAME`] that diallers ask for.
//! Not here: TLS itself (`tls`), and whether a node is a member (the control group decides).

mod bundle;
mod ca;
mod files;
mod name;

pub use bundle::CertBundle;
pub use ca::ClusterCa;
pub use name::PeerId;
pub(crate) use name::name_in;

/// The DNS name in every certificate, asked for when dialling.
pub(crate) const SERVER_NAME: &str = "clinch";

/// Why a certificate, key or name cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A name with characters or a length that cannot go into certificates and file names.
    #[error("{what} name {name:?} is not 1 to 64 of a-z A-Z 0-9 . _ - (and no dot at the start)")]
    Name {
        /// Cluster or client.
        what: &'static str,
        /// What was given.
        name: String,
    },
    /// A host that is neither an IP address nor a DNS name.
    #[error("{host:?} is neither an IP address nor a host name")]
    Host {
        /// What was given.
        host: String,
    },
    /// A certificate that is not one of ours.
    #[error("not a Clinch certificate: {reason}")]
    Certificate {
        /// What is wrong with it.
        reason: String,
    },
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// Key generation, signing or encoding failed.
    #[error("certificate cannot be made: {0}")]
    Issue(#[from] rcgen::Error),
}
