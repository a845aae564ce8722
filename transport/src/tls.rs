//! TLS and QUIC settings made from an identity.
//!
//! Invariant: both ends verify the other's certificate against the cluster's authority on every connection: no
//! resumption, no early data (replayable). A restarted process derives the same reset key from its private key, so
//! that it can tell the peers of its former life at once that their connections are gone.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use clinch_types::Clock;
use quinn::congestion::CubicConfig;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::crypto::{CryptoError, HmacKey};
use quinn::{
    ClientConfig, ConnectionId, ConnectionIdGenerator, EndpointConfig, MtuDiscoveryConfig, ServerConfig,
    TransportConfig as Quic, VarInt,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::crypto::tls13::{Hkdf, OkmBlock};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::time_provider::{DefaultTimeProvider, TimeProvider};
use rustls::version::TLS13;
use rustls_pki_types::{CertificateDer, UnixTime};

use crate::config::TransportConfig;
use crate::identity::name_in;
use crate::{CertBundle, Class, IdentityError, PeerId};

/// Carries the wire version: peers without a common one do not connect.
const ALPN: &[u8] = b"clinch/1";
/// Largest UDP payload received unless a larger MTU is configured, in bytes.
const UDP_PAYLOAD: u16 = 1472;

/// Everything quinn needs.
pub(crate) struct QuicConfigs {
    pub(crate) endpoint: EndpointConfig,
    pub(crate) server: ServerConfig,
    pub(crate) client: ClientConfig,
}

/// Turns settings and identity into QUIC's.
///
/// # Errors
/// `InvalidInput` when key and certificate do not fit or an authority cannot be used.
pub(crate) fn configs(config: &TransportConfig, identity: &CertBundle) -> io::Result<QuicConfigs> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let time: Arc<dyn TimeProvider> = match &config.certificate_clock {
        Some(clock) => Arc::new(ClockTime(clock.clone())),
        None => Arc::new(DefaultTimeProvider),
    };
    let mut roots = rustls::RootCertStore::empty();
    for root in &identity.roots {
        roots.add(root.clone()).map_err(invalid)?;
    }
    let roots = Arc::new(roots);

    let server = server_tls(&provider, time.clone(), roots.clone(), identity)?;
    let mut server =
        ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(server).map_err(invalid)?));
    let mut settings = quic(config)?;
    settings
        .max_concurrent_bidi_streams(VarInt::from_u32(Class::ALL.len() as u32 + config.exchanges_max))
        .max_concurrent_uni_streams(VarInt::from_u32(config.uni_streams_max));
    server.transport_config(Arc::new(settings));

    let client = client_tls(&provider, time, roots, identity)?;
    let mut client = ClientConfig::new(Arc::new(QuicClientConfig::try_from(client).map_err(invalid)?));
    let mut settings = quic(config)?;
    // The acceptor opens one stream towards the dialler: its welcome.
    settings
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(1));
    client.transport_config(Arc::new(settings));

    Ok(QuicConfigs {
        endpoint: endpoint(config, identity)?,
        server,
        client,
    })
}

fn server_tls(
    provider: &Arc<CryptoProvider>,
    time: Arc<dyn TimeProvider>,
    roots: Arc<rustls::RootCertStore>,
    identity: &CertBundle,
) -> io::Result<rustls::ServerConfig> {
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone())
        .build()
        .map_err(invalid)?;
    let mut tls = rustls::ServerConfig::builder_with_details(provider.clone(), time)
        .with_protocol_versions(&[&TLS13])
        .map_err(invalid)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![identity.certificate.clone()], identity.key.clone_key())
        .map_err(invalid)?;
    tls.alpn_protocols = vec![ALPN.to_vec()];
    tls.session_storage = Arc::new(NoServerSessionStorage {});
    tls.send_tls13_tickets = 0;
    Ok(tls)
}

fn client_tls(
    provider: &Arc<CryptoProvider>,
    time: Arc<dyn TimeProvider>,
    roots: Arc<rustls::RootCertStore>,
    identity: &CertBundle,
) -> io::Result<rustls::ClientConfig> {
    let mut tls = rustls::ClientConfig::builder_with_details(provider.clone(), time)
        .with_protocol_versions(&[&TLS13])
        .map_err(invalid)?
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![identity.certificate.clone()], identity.key.clone_key())
        .map_err(invalid)?;
    tls.alpn_protocols = vec![ALPN.to_vec()];
    tls.resumption = rustls::client::Resumption::disabled();
    Ok(tls)
}

/// Settings both directions share.
fn quic(config: &TransportConfig) -> io::Result<Quic> {
    let mut quic = Quic::default();
    let window = VarInt::from_u32(config.stream_window);
    // Large enough that only the streams' own windows ever hold a sender back: one slow stream must not stop others.
    let streams =
        Class::ALL.len() as u64 + u64::from(config.uni_streams_max) + u64::from(config.exchanges_max);
    quic.keep_alive_interval(Some(config.keep_alive))
        .max_idle_timeout(Some(config.idle_timeout.try_into().map_err(invalid)?))
        .stream_receive_window(window)
        .send_window(u64::from(config.stream_window).saturating_mul(streams.max(8)))
        // Nobody reads datagrams: they ask for an acknowledgement (see `Link`), and the oldest make room.
        .datagram_receive_buffer_size(Some(64))
        .congestion_controller_factory(Arc::new(CubicConfig::default()))
        .enable_segmentation_offload(config.segmentation_offload)
        .mtu_discovery_config(config.mtu_upper_bound.map(|bound| {
            let mut discovery = MtuDiscoveryConfig::default();
            discovery.upper_bound(bound);
            discovery
        }));
    Ok(quic)
}

fn endpoint(config: &TransportConfig, identity: &CertBundle) -> io::Result<EndpointConfig> {
    let mut endpoint = EndpointConfig::new(Arc::new(ResetKey::derive(identity)?));
    let seed = config.rng_seed;
    endpoint
        .cid_generator(move || {
            Box::new(ConnectionIds(
                seed.map_or_else(StdRng::from_os_rng, StdRng::from_seed),
            ))
        })
        .rng_seed(config.rng_seed)
        .max_udp_payload_size(config.mtu_upper_bound.unwrap_or(UDP_PAYLOAD).max(UDP_PAYLOAD))
        .map_err(invalid)?;
    Ok(endpoint)
}

/// Names connections at random. quinn's own default marks its names with a key drawn at each start, by which a
/// restarted endpoint would take the packets of its former life for noise, and stay silent instead of resetting them.
struct ConnectionIds(StdRng);

/// Bytes of a connection's name: enough that a guess does not hit.
const CONNECTION_ID_BYTES: usize = 8;

impl ConnectionIdGenerator for ConnectionIds {
    fn generate_cid(&mut self) -> ConnectionId {
        ConnectionId::new(&self.0.random::<[u8; CONNECTION_ID_BYTES]>())
    }

    fn cid_len(&self) -> usize {
        CONNECTION_ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// Signs reset tokens. Derived from the private key: stable over restarts, secret, of no use for anything else.
struct ResetKey {
    hkdf: &'static dyn Hkdf,
    key: OkmBlock,
}

impl ResetKey {
    fn derive(identity: &CertBundle) -> io::Result<Self> {
        let suite = TLS13_AES_128_GCM_SHA256
            .tls13()
            .ok_or_else(|| invalid("no TLS 1.3 cipher suite"))?;
        let hkdf = suite.hkdf_provider;
        let expander = hkdf.extract_from_secret(Some(b"clinch stateless reset"), identity.key.secret_der());
        Ok(Self {
            hkdf,
            key: expander.expand_block(&[b"reset tokens"]),
        })
    }
}

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        let tag = self.hkdf.hmac_sign(&self.key, data);
        let len = signature_out.len().min(tag.as_ref().len());
        signature_out[..len].copy_from_slice(&tag.as_ref()[..len]);
    }

    fn signature_len(&self) -> usize {
        32
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        let tag = self.hkdf.hmac_sign(&self.key, data);
        // Every byte is looked at, so that the time taken does not tell how many were right.
        let differ = tag
            .as_ref()
            .iter()
            .zip(signature)
            .fold(0, |seen, (a, b)| seen | (a ^ b));
        if differ == 0 && tag.as_ref().len() == signature.len() {
            Ok(())
        } else {
            Err(CryptoError)
        }
    }
}

/// Certificates judged by our clock.
struct ClockTime(Arc<dyn Clock>);

impl std::fmt::Debug for ClockTime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ClockTime")
    }
}

impl TimeProvider for ClockTime {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_millis(self.0.wall().0)))
    }
}

/// Who is at the other end of a connection whose certificate TLS has verified.
pub(crate) fn peer_of(connection: &quinn::Connection) -> Result<(String, PeerId), IdentityError> {
    let missing = || IdentityError::Certificate {
        reason: "the peer showed none".to_owned(),
    };
    let chain = connection.peer_identity().ok_or_else(missing)?;
    let chain = chain
        .downcast::<Vec<CertificateDer<'static>>>()
        .map_err(|_| missing())?;
    name_in(chain.first().ok_or_else(missing)?)
}

fn invalid(error: impl ToString) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, error.to_string())
}
