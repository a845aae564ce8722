//! TLS on the gateway's own port: HTTP/2 and HTTP/1.1 by ALPN, as browsers want them.
//!
//! Invariant: with a certificate nobody but this machine itself is answered in the clear. Tools beside the node go on
//! speaking plain HTTP to it; whoever comes over a network and does so is told, and closed.
//! Not here: TLS between nodes (`transport`), which has certificates of its own.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;

use crate::config::GatewayConfig;

/// First byte of every TLS connection; no method of HTTP begins with it.
const HANDSHAKE: u8 = 0x16;

/// What plain HTTP from elsewhere gets.
const TLS_NEEDED: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n\
connection: close\r\ncontent-length: 98\r\n\r\n\
{\"group\":\"guard\",\"code\":\"tls_required\",\"message\":\"Plain HTTP was sent to a port that wants https\"}";

/// Why a gateway has no TLS although it should.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is missing, or holds nothing of its kind in PEM.
    #[error("{}: {reason}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why it cannot be used.
        reason: String,
    },
    /// Certificate and key do not go together, or neither can be used.
    #[error("the gateway's certificate {} and key {} are refused: {reason}", cert.display(), key.display())]
    Pair {
        /// File of the certificates.
        cert: PathBuf,
        /// File of the key.
        key: PathBuf,
        /// Why.
        reason: String,
    },
}

/// TLS for [`serve`](crate::serve), ready to accept.
#[derive(Clone)]
pub struct Tls(TlsAcceptor);

impl Tls {
    /// Reads the files of a configuration; `None` when it names none.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn load(config: &GatewayConfig) -> Result<Option<Self>, TlsError> {
        let (Some(cert), Some(key)) = (&config.cert, &config.key) else {
            return Ok(None);
        };
        let chain: Vec<_> = CertificateDer::pem_file_iter(cert)
            .and_then(Iterator::collect)
            .map_err(|error| unusable(cert, &error))?;
        if chain.is_empty() {
            return Err(unusable(cert, &"there is no certificate in it"));
        }
        let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| unusable(key, &error))?;
        let refused = |error: tokio_rustls::rustls::Error| TlsError::Pair {
            cert: cert.clone(),
            key: key.clone(),
            reason: error.to_string(),
        };
        let mut server = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(refused)?
            .with_no_client_auth()
            .with_single_cert(chain, secret)
            .map_err(refused)?;
        // WebSockets come as upgrades of HTTP/1.1 on a second connection, so both are always offered.
        server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Some(Self(TlsAcceptor::from(Arc::new(server)))))
    }

    /// What the client began: TLS, or plain HTTP from this machine. `Err` when the connection has no use.
    pub(crate) async fn accept(&self, mut stream: TcpStream) -> io::Result<Accepted> {
        let mut first = [0];
        if stream.peek(&mut first).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if first[0] == HANDSHAKE {
            let stream = self.0.accept(stream).await?;
            return Ok(Accepted::Tls(Box::new(stream)));
        }
        if stream.peer_addr()?.ip().is_loopback() {
            return Ok(Accepted::Plain(stream));
        }
        stream.write_all(TLS_NEEDED).await?;
        Err(io::Error::other("plain HTTP from elsewhere"))
    }
}

/// A connection whose first byte has been seen.
pub(crate) enum Accepted {
    Plain(TcpStream),
    Tls(Box<tokio_rustls::server::TlsStream<TcpStream>>),
}

fn unusable(path: &Path, reason: &dyn std::fmt::Display) -> TlsError {
    TlsError::File {
        path: path.to_owned(),
        reason: reason.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_refusal_of_plain_http_has_the_length_it_says() {
        let text = std::str::from_utf8(TLS_NEEDED).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(
            head.contains(&format!("content-length: {}", body.len())),
            "{}",
            body.len()
        );
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["code"], "tls_required");
    }

    #[test]
    fn a_file_without_a_certificate_is_named() {
        let config = GatewayConfig {
            cert: Some("/nowhere/gateway.pem".into()),
            key: Some("/nowhere/gateway.key".into()),
            ..GatewayConfig::default()
        };
        let error = Tls::load(&config)
            .err()
            .map(|e| e.to_string())
            .unwrap_or_default();
        assert!(error.contains("/nowhere/gateway.pem"), "{error}");
        assert!(Tls::load(&GatewayConfig::default()).unwrap().is_none());
    }
}
