//! Names in certificates: `clinch://<cluster>/node/<id>` and `clinch://<cluster>/client/<name>`.
//!
//! Invariant: a name parses only if it is exactly what we would have written, so two spellings of one peer cannot exist.

use std::fmt;

use clinch_types::NodeId;
use rustls_pki_types::CertificateDer;

use super::IdentityError;

const SCHEME: &str = "clinch://";
/// Longest cluster or client name, in bytes; both become part of file names and certificates.
const NAME_MAX: usize = 64;

/// Who is at the other end of a connection, as its certificate says.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PeerId {
    /// A node of the cluster.
    Node(NodeId),
    /// A client or tool.
    Client(String),
}

impl PeerId {
    /// The node, if it is one.
    pub fn node(&self) -> Option<NodeId> {
        match self {
            Self::Node(id) => Some(*id),
            Self::Client(_) => None,
        }
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(id) => write!(f, "node {id}"),
            Self::Client(name) => write!(f, "client {name}"),
        }
    }
}

/// Checks a cluster or client name: 1 to 64 of `a-z A-Z 0-9 . _ -`, not starting with a dot.
pub(super) fn check_name(what: &'static str, name: &str) -> Result<(), IdentityError> {
    let fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    if name.is_empty() || name.len() > NAME_MAX || name.starts_with('.') || !name.bytes().all(fine) {
        return Err(IdentityError::Name {
            what,
            name: name.chars().take(NAME_MAX).collect(),
        });
    }
    Ok(())
}

/// The URI a certificate carries for this peer.
pub(super) fn uri(cluster: &str, peer: &PeerId) -> String {
    match peer {
        PeerId::Node(id) => format!("{SCHEME}{cluster}/node/{}", id.0),
        PeerId::Client(name) => format!("{SCHEME}{cluster}/client/{name}"),
    }
}

/// Reads [`uri`] back: the cluster and the peer.
pub(super) fn parse_uri(text: &str) -> Option<(String, PeerId)> {
    let mut parts = text.strip_prefix(SCHEME)?.split('/');
    let (cluster, kind, name) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || check_name("cluster", cluster).is_err() {
        return None;
    }
    let peer = match kind {
        "node" => PeerId::Node(NodeId(name.parse().ok()?)),
        "client" => {
            check_name("client", name).ok()?;
            PeerId::Client(name.to_owned())
        }
        _ => return None,
    };
    // `+7` and `007` parse as numbers, but are not how we write them.
    (uri(cluster, &peer) == text).then(|| (cluster.to_owned(), peer))
}

/// The one Clinch name in a certificate.
///
/// # Errors
/// When the certificate does not parse, or carries none or several Clinch names.
pub(crate) fn name_in(certificate: &CertificateDer<'_>) -> Result<(String, PeerId), IdentityError> {
    use x509_parser::extensions::GeneralName;
    let bad = |reason: String| IdentityError::Certificate { reason };
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate)
        .map_err(|e| bad(format!("it does not parse: {e}")))?;
    let names = parsed
        .subject_alternative_name()
        .map_err(|e| bad(format!("its names do not parse: {e}")))?
        .ok_or_else(|| bad("it names nobody".to_owned()))?;
    let mut found = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => parse_uri(uri),
        _ => None,
    });
    let first = found
        .next()
        .ok_or_else(|| bad("it carries no name like clinch://cluster/node/1".to_owned()))?;
    if found.next().is_some() {
        return Err(bad("it carries more than one Clinch name".to_owned()));
    }
    Ok(first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_name_in_any_other_spelling_is_refused() {
        let ok = Some(("prod".to_owned(), PeerId::Node(NodeId(7))));
        assert_eq!(parse_uri("clinch://prod/node/7"), ok);
        for text in [
            "clinch://prod/node/+7",
            "clinch://prod/node/07",
            "clinch://prod/node/7/",
            "clinch://prod/node/",
            "clinch://prod/nodes/7",
            "clinch:///node/7",
            "clinch://prod/client/..",
            "clinch://prod/client/a b",
            "spiffe://prod/node/7",
        ] {
            assert_eq!(parse_uri(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_name_survives_its_uri(cluster in "[a-z][a-z0-9-]{0,20}", id in any::<u64>(), client in "[A-Za-z0-9_-]{1,64}") {
            for peer in [PeerId::Node(NodeId(id)), PeerId::Client(client)] {
                prop_assert_eq!(parse_uri(&uri(&cluster, &peer)), Some((cluster.clone(), peer)));
            }
        }

        #[test]
        fn arbitrary_certificates_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = name_in(&CertificateDer::from(bytes));
        }
    }
}
