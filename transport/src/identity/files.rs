//! Where certificates and keys lie on disk.
//!
//! Invariant: a secret is never readable by others, not even for a moment: its mode is set when the file is made, and
//! a file is replaced whole or not at all.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::{IdentityError, PeerId};

/// The authority's certificate.
pub(super) const CA: &str = "ca.pem";
/// The authority's key.
pub(super) const CA_KEY: &str = "ca.key";
/// Mode of certificates.
pub(super) const PUBLIC: u32 = 0o644;
/// Mode of keys.
pub(super) const SECRET: u32 = 0o600;

/// File names of a peer's certificate and key.
pub(super) fn names(peer: &PeerId) -> (String, String) {
    let stem = match peer {
        PeerId::Node(id) => format!("node-{}", id.0),
        PeerId::Client(name) => format!("client-{name}"),
    };
    (format!("{stem}.pem"), format!("{stem}.key"))
}

fn failed(path: &Path) -> impl FnOnce(std::io::Error) -> IdentityError + '_ {
    |source| IdentityError::File {
        path: path.display().to_string(),
        source,
    }
}

pub(super) fn make_dir(dir: &Path) -> Result<(), IdentityError> {
    fs::create_dir_all(dir).map_err(failed(dir))
}

pub(super) fn read(path: &Path) -> Result<String, IdentityError> {
    fs::read_to_string(path).map_err(failed(path))
}

/// Replaces a file whole, with its final mode from the start.
pub(super) fn write(path: &Path, text: &str, mode: u32) -> Result<(), IdentityError> {
    let draft = path.with_extension("new");
    let written = (|| {
        // A draft left by a crash may have another mode.
        match fs::remove_file(&draft) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
        #[cfg(not(unix))]
        let _ = mode;
        let mut file = options.open(&draft)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&draft, path)
    })();
    written.map_err(failed(path))
}

/// PEM text of DER bytes.
pub(super) fn pem(label: &str, der: &[u8]) -> String {
    let body = BASE64_STANDARD.encode(der);
    let mut text = format!("-----BEGIN {label}-----\n");
    for start in (0..body.len()).step_by(64) {
        text.push_str(&body[start..body.len().min(start + 64)]);
        text.push('\n');
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}
