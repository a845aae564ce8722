//! What one process shows to prove who it is: its certificate, its key, and the authorities it trusts.
//!
//! Invariant: a bundle's name is the one in its certificate, parsed once.

use std::fmt;
use std::path::Path;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::files::{self, names};
use super::name::name_in;
use super::{IdentityError, PeerId};

/// A certificate with its key and the authorities to trust. Its `Debug` form does not show the key.
pub struct CertBundle {
    /// The authorities trusted; several while one is being replaced.
    pub(crate) roots: Vec<CertificateDer<'static>>,
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) key: PrivateKeyDer<'static>,
    cluster: String,
    peer: PeerId,
}

impl CertBundle {
    /// Puts a bundle together from PEM texts; `roots` may hold several certificates.
    ///
    /// # Errors
    /// When a text is no PEM of its kind, or the certificate carries no Clinch name.
    pub fn from_pem(roots: &str, certificate: &str, key: &str) -> Result<Self, IdentityError> {
        let bad = |what: &str, e: &dyn fmt::Display| IdentityError::Certificate {
            reason: format!("{what}: {e}"),
        };
        let roots = CertificateDer::pem_slice_iter(roots.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| bad("authorities", &e))?;
        if roots.is_empty() {
            return Err(bad("authorities", &"no certificate in the file"));
        }
        let certificate =
            CertificateDer::from_pem_slice(certificate.as_bytes()).map_err(|e| bad("certificate", &e))?;
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|e| bad("private key", &e))?;
        Self::new(roots, certificate, key)
    }

    pub(super) fn new(
        roots: Vec<CertificateDer<'static>>,
        certificate: CertificateDer<'static>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, IdentityError> {
        let (cluster, peer) = name_in(&certificate)?;
        Ok(Self {
            roots,
            certificate,
            key,
            cluster,
            peer,
        })
    }

    /// Reads `ca.pem`, `<peer>.pem` and `<peer>.key` of a directory.
    ///
    /// # Errors
    /// When a file is missing or wrong, or the certificate names somebody else.
    pub fn load(dir: &Path, peer: &PeerId) -> Result<Self, IdentityError> {
        let (certificate, key) = names(peer);
        let bundle = Self::load_files(&dir.join(files::CA), &dir.join(certificate), &dir.join(key))?;
        if bundle.peer != *peer {
            return Err(IdentityError::Certificate {
                reason: format!("it names {}, not {peer}", bundle.peer),
            });
        }
        Ok(bundle)
    }

    /// Reads a bundle from three PEM files.
    ///
    /// # Errors
    /// When a file is missing or wrong.
    pub fn load_files(roots: &Path, certificate: &Path, key: &Path) -> Result<Self, IdentityError> {
        Self::from_pem(
            &files::read(roots)?,
            &files::read(certificate)?,
            &files::read(key)?,
        )
    }

    /// Writes `ca.pem`, `<peer>.pem` and `<peer>.key` (mode 0600) into a directory, which is made if missing.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn save(&self, dir: &Path) -> Result<(), IdentityError> {
        let (certificate, key) = names(&self.peer);
        files::make_dir(dir)?;
        let roots: String = self
            .roots
            .iter()
            .map(|root| files::pem("CERTIFICATE", root))
            .collect();
        files::write(&dir.join(files::CA), &roots, files::PUBLIC)?;
        files::write(
            &dir.join(key),
            &files::pem(key_label(&self.key), self.key.secret_der()),
            files::SECRET,
        )?;
        files::write(
            &dir.join(certificate),
            &files::pem("CERTIFICATE", &self.certificate),
            files::PUBLIC,
        )
    }

    /// Who it names.
    pub fn peer(&self) -> &PeerId {
        &self.peer
    }

    /// The cluster it belongs to.
    pub fn cluster(&self) -> &str {
        &self.cluster
    }
}

fn key_label(key: &PrivateKeyDer<'_>) -> &'static str {
    match key {
        PrivateKeyDer::Pkcs1(_) => "RSA PRIVATE KEY",
        PrivateKeyDer::Sec1(_) => "EC PRIVATE KEY",
        // The enum is open; PKCS#8 is what we make ourselves.
        _ => "PRIVATE KEY",
    }
}

impl Clone for CertBundle {
    fn clone(&self) -> Self {
        Self {
            roots: self.roots.clone(),
            certificate: self.certificate.clone(),
            key: self.key.clone_key(),
            cluster: self.cluster.clone(),
            peer: self.peer.clone(),
        }
    }
}

impl fmt::Debug for CertBundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertBundle")
            .field("cluster", &self.cluster)
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}
