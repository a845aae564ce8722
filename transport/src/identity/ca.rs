//! The cluster's certificate authority.
//!
//! Invariant: its key never leaves the directory it is saved in, and every certificate it issues carries one name of
//! its own cluster. Certificates live as long as the authority: membership, not expiry, decides who takes part.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use clinch_types::{NodeId, WallMs};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType, string::Ia5String,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::name::{check_name, uri};
use super::{CertBundle, IdentityError, PeerId, SERVER_NAME, files};

/// How long an authority lives: ten years.
const LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// How far other clocks may be behind the one that made the authority: a day.
const CLOCK_SKEW_MS: u64 = 24 * 3600 * 1000;
/// Separates the fixed words in the authority's subject from the cluster's name.
const SUBJECT_PREFIX: &str = "clinch authority of ";

/// A certificate authority for one cluster. Its `Debug` form does not show the key.
pub struct ClusterCa {
    cluster: String,
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
    /// When its certificates begin and end to be valid, in seconds since 1970.
    validity: (i64, i64),
}

impl std::fmt::Debug for ClusterCa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClusterCa")
            .field("cluster", &self.cluster)
            .finish_non_exhaustive()
    }
}

impl ClusterCa {
    /// Makes a new authority, valid from a day before `now` for ten years.
    ///
    /// # Errors
    /// For a name that cannot go into certificates.
    pub fn generate(cluster: &str, now: WallMs) -> Result<Self, IdentityError> {
        check_name("cluster", cluster)?;
        let from = i64::try_from(now.0.saturating_sub(CLOCK_SKEW_MS) / 1000).unwrap_or(i64::MAX);
        let validity = (from, from.saturating_add(LIFE.as_secs() as i64));
        let key = KeyPair::generate()?;
        let mut params = params(validity, &format!("{SUBJECT_PREFIX}{cluster}"))?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?.der().clone();
        Self::new(certificate, key)
    }

    fn new(certificate: CertificateDer<'static>, key: KeyPair) -> Result<Self, IdentityError> {
        let bad = |reason: String| IdentityError::Certificate { reason };
        let (cluster, validity) = {
            let (_, parsed) = x509_parser::parse_x509_certificate(&certificate)
                .map_err(|e| bad(format!("the authority's does not parse: {e}")))?;
            if parsed.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
                return Err(bad(
                    "the authority's key belongs to another certificate".to_owned()
                ));
            }
            let cluster = parsed
                .subject()
                .iter_common_name()
                .find_map(|name| name.as_str().ok()?.strip_prefix(SUBJECT_PREFIX))
                .ok_or_else(|| bad("it is not the certificate of a Clinch authority".to_owned()))?;
            check_name("cluster", cluster)?;
            let validity = parsed.validity();
            (
                cluster.to_owned(),
                (validity.not_before.timestamp(), validity.not_after.timestamp()),
            )
        };
        let issuer = Issuer::from_ca_cert_der(&certificate, key)?;
        Ok(Self {
            cluster,
            certificate,
            issuer,
            validity,
        })
    }

    /// Reads `ca.pem` and `ca.key` of a directory.
    ///
    /// # Errors
    /// When a file is missing, or is not what [`ClusterCa::save`] wrote.
    pub fn load(dir: &Path) -> Result<Self, IdentityError> {
        let certificate = CertificateDer::from_pem_slice(files::read(&dir.join(files::CA))?.as_bytes())
            .map_err(|e| IdentityError::Certificate {
                reason: format!("{}: {e}", files::CA),
            })?;
        let key = KeyPair::from_pem(&files::read(&dir.join(files::CA_KEY))?)?;
        Self::new(certificate, key)
    }

    /// Writes `ca.pem` and `ca.key` (mode 0600) into a directory, which is made if missing.
    ///
    /// # Errors
    /// When a file cannot be written, or another authority's key is there already.
    pub fn save(&self, dir: &Path) -> Result<(), IdentityError> {
        files::make_dir(dir)?;
        let key = dir.join(files::CA_KEY);
        // Overwriting an authority locks every member of its cluster out for ever.
        match files::read(&key) {
            Ok(text) if text == self.issuer.key().serialize_pem() => {}
            Err(IdentityError::File { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {}
            Ok(_) | Err(_) => {
                let source =
                    std::io::Error::new(std::io::ErrorKind::AlreadyExists, "holds another authority's key");
                return Err(IdentityError::File {
                    path: key.display().to_string(),
                    source,
                });
            }
        }
        files::write(&key, &self.issuer.key().serialize_pem(), files::SECRET)?;
        files::write(
            &dir.join(files::CA),
            &files::pem("CERTIFICATE", &self.certificate),
            files::PUBLIC,
        )
    }

    /// The cluster it belongs to.
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// A certificate for a node. `hosts` (host names or IP addresses) are recorded; peers do not check them.
    ///
    /// # Errors
    /// For a host that is neither.
    pub fn issue_node(&self, node: NodeId, hosts: &[String]) -> Result<CertBundle, IdentityError> {
        self.issue(&PeerId::Node(node), hosts)
    }

    /// A certificate for a client or tool.
    ///
    /// # Errors
    /// For a name that cannot go into certificates.
    pub fn issue_client(&self, name: &str) -> Result<CertBundle, IdentityError> {
        check_name("client", name)?;
        self.issue(&PeerId::Client(name.to_owned()), &[])
    }

    fn issue(&self, peer: &PeerId, hosts: &[String]) -> Result<CertBundle, IdentityError> {
        let mut params = params(self.validity, &peer.to_string())?;
        params.subject_alt_names = vec![
            SanType::URI(Ia5String::try_from(uri(&self.cluster, peer))?),
            SanType::DnsName(Ia5String::try_from(SERVER_NAME)?),
        ];
        for host in hosts {
            params.subject_alt_names.push(host_name(host)?);
        }
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = match peer {
            PeerId::Node(_) => vec![
                ExtendedKeyUsagePurpose::ServerAuth,
                ExtendedKeyUsagePurpose::ClientAuth,
            ],
            // A stolen client certificate must not serve anybody.
            PeerId::Client(_) => vec![ExtendedKeyUsagePurpose::ClientAuth],
        };
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?.der().clone();
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        CertBundle::new(vec![self.certificate.clone()], certificate, key)
    }
}

fn params(validity: (i64, i64), subject: &str) -> Result<CertificateParams, IdentityError> {
    let mut params = CertificateParams::new(Vec::new())?;
    // rcgen's own date type is not nameable from here, but it adds durations.
    let at = |seconds: i64| {
        let seconds = u64::try_from(seconds).unwrap_or(0).min(LAST_SECOND);
        rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds)
    };
    params.not_before = at(validity.0);
    params.not_after = at(validity.1);
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, subject);
    Ok(params)
}

/// The last second certificates can express, 9999-12-31T23:59:59Z: a wild clock must not panic.
const LAST_SECOND: u64 = 253_402_300_799;

fn host_name(host: &str) -> Result<SanType, IdentityError> {
    let bad = || IdentityError::Host {
        host: host.chars().take(255).collect(),
    };
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(ip));
    }
    match rustls_pki_types::DnsName::try_from(host) {
        Ok(name) => Ok(SanType::DnsName(
            Ia5String::try_from(name.as_ref()).map_err(|_| bad())?,
        )),
        Err(_) => Err(bad()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: WallMs = WallMs(1_800_000_000_000);

    #[test]
    fn an_authority_and_its_bundles_survive_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let ca = ClusterCa::generate("prod", NOW).unwrap();
        ca.save(dir.path()).unwrap();
        let again = ClusterCa::load(dir.path()).unwrap();
        assert_eq!((again.cluster(), again.validity), ("prod", ca.validity));
        for bundle in [
            again.issue_node(NodeId(7), &["h1".into(), "::1".into()]),
            again.issue_client("tool.a"),
        ] {
            let bundle = bundle.unwrap();
            bundle.save(dir.path()).unwrap();
            let loaded = CertBundle::load(dir.path(), bundle.peer()).unwrap();
            assert_eq!((loaded.peer(), loaded.cluster()), (bundle.peer(), "prod"));
            assert_eq!(
                (loaded.certificate, loaded.key, loaded.roots),
                (bundle.certificate, bundle.key, bundle.roots)
            );
        }
        // Saving a bundle rewrote ca.pem: it must still be the authority's.
        ClusterCa::load(dir.path()).unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn keys_are_readable_by_their_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let ca = ClusterCa::generate("prod", NOW).unwrap();
        ca.save(dir.path()).unwrap();
        ca.issue_node(NodeId(7), &[]).unwrap().save(dir.path()).unwrap();
        for key in ["ca.key", "node-7.key"] {
            let mode = std::fs::metadata(dir.path().join(key))
                .unwrap()
                .permissions()
                .mode();
            assert_eq!(mode & 0o777, 0o600, "{key}");
        }
    }

    #[test]
    fn a_second_authority_does_not_overwrite_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let ca = ClusterCa::generate("prod", NOW).unwrap();
        ca.save(dir.path()).unwrap();
        ca.save(dir.path()).unwrap();
        assert!(
            ClusterCa::generate("prod", NOW)
                .unwrap()
                .save(dir.path())
                .is_err()
        );
        assert_eq!(ClusterCa::load(dir.path()).unwrap().certificate, ca.certificate);
    }

    #[test]
    fn names_hosts_and_clocks_that_cannot_be_certified_are_refused_or_bounded() {
        for name in ["", "a/b", ".hidden", &"x".repeat(65)] {
            assert!(
                matches!(ClusterCa::generate(name, NOW), Err(IdentityError::Name { .. })),
                "{name}"
            );
        }
        let ca = ClusterCa::generate("prod", NOW).unwrap();
        assert!(matches!(ca.issue_client("a b"), Err(IdentityError::Name { .. })));
        assert!(matches!(
            ca.issue_node(NodeId(1), &["not a host".into()]),
            Err(IdentityError::Host { .. })
        ));
        ClusterCa::generate("prod", WallMs(u64::MAX)).unwrap();
        ClusterCa::generate("prod", WallMs(0)).unwrap();
    }

    #[test]
    fn a_key_of_another_authority_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        ClusterCa::generate("prod", NOW)
            .unwrap()
            .save(dir.path())
            .unwrap();
        let other = KeyPair::generate().unwrap().serialize_pem();
        std::fs::write(dir.path().join("ca.key"), other).unwrap();
        assert!(matches!(
            ClusterCa::load(dir.path()),
            Err(IdentityError::Certificate { .. })
        ));
    }
}
