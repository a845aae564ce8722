//! The socket seam under QUIC: production binds UDP sockets, a simulator passes its own.
//!
//! Not here: anything about connections. One socket serves both directions, accepting and dialling.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;

use quinn::{AsyncUdpSocket, Runtime, TokioRuntime};
use socket2::{Domain, Protocol, Socket, Type};

/// Addresses a name stands for, once resolved.
pub type Resolving = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;

/// Where UDP sockets and addresses come from.
pub trait Sockets: Send + Sync + 'static {
    /// Binds a socket to an address; called inside a tokio runtime.
    ///
    /// # Errors
    /// What the system says (address in use, not local, ...).
    fn bind(&self, address: SocketAddr) -> io::Result<Arc<dyn AsyncUdpSocket>>;

    /// Binds a socket for dialling only, to a port of the system's choice.
    ///
    /// # Errors
    /// As [`Sockets::bind`].
    fn bind_ephemeral(&self) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        // A host without IPv6 refuses the first.
        self.bind((Ipv6Addr::UNSPECIFIED, 0).into())
            .or_else(|_| self.bind((Ipv4Addr::UNSPECIFIED, 0).into()))
    }

    /// Resolves `host:port`, each time it is dialled: names may move.
    fn resolve(&self, address: &str) -> Resolving {
        let address = address.to_owned();
        Box::pin(async move { Ok(tokio::net::lookup_host(address).await?.collect()) })
    }
}

/// UDP sockets of the operating system.
#[derive(Debug, Clone)]
pub struct UdpSockets {
    /// Kernel buffer asked for in each direction, in bytes, as far as the system grants it. Default: 8 MiB.
    /// The usual 208 KiB is smaller than one burst, and an overflow is packet loss.
    pub buffer_bytes: usize,
}

impl Default for UdpSockets {
    fn default() -> Self {
        Self {
            buffer_bytes: 8 << 20,
        }
    }
}

impl Sockets for UdpSockets {
    fn bind(&self, address: SocketAddr) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        if address.is_ipv6() {
            // `[::]` serves IPv4 too; a system without that mode still gets its IPv6 socket.
            if let Err(error) = socket.set_only_v6(false) {
                tracing::debug!(%error, "no dual-stack socket");
            }
        }
        // Best effort: `net.core.rmem_max` may grant less, and QUIC copes with less, only slower.
        let granted = socket
            .set_recv_buffer_size(self.buffer_bytes)
            .and_then(|()| socket.set_send_buffer_size(self.buffer_bytes))
            .and_then(|()| Ok((socket.recv_buffer_size()?, socket.send_buffer_size()?)));
        match granted {
            Ok((receive, send)) => tracing::debug!(receive, send, wanted = self.buffer_bytes, "udp buffers"),
            Err(error) => tracing::warn!(%error, "udp buffers cannot be enlarged"),
        }
        socket.bind(&address.into())?;
        TokioRuntime.wrap_udp_socket(socket.into())
    }
}

impl fmt::Debug for dyn Sockets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sockets")
    }
}
