//! UDP sockets of a machine, as QUIC wants them.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use clinch_transport::{Resolving, Sockets};
use parking_lot::Mutex;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};

use crate::net::{Inbox, Net};

/// Where the sockets of one machine come from.
#[derive(Clone)]
pub struct MachineSockets {
    pub(crate) net: Arc<Mutex<Net>>,
    pub(crate) ip: IpAddr,
}

impl fmt::Debug for MachineSockets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MachineSockets")
            .field("ip", &self.ip)
            .finish_non_exhaustive()
    }
}

impl Sockets for MachineSockets {
    /// The address of the machine is its own, whatever was asked; the port is as asked.
    fn bind(&self, address: SocketAddr) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        let (address, inbox) = self.net.lock().bind(self.ip, address.port())?;
        Ok(Arc::new(Socket {
            net: self.net.clone(),
            address,
            inbox,
        }))
    }

    fn resolve(&self, address: &str) -> Resolving {
        let parsed = address
            .parse::<SocketAddr>()
            .map(|address| vec![address])
            .map_err(|_| {
                io::Error::new(
                    io::ErrorKind::NotFound,
                    format!("{address}: names are not simulated"),
                )
            });
        Box::pin(std::future::ready(parsed))
    }
}

struct Socket {
    net: Arc<Mutex<Net>>,
    address: SocketAddr,
    inbox: Arc<Mutex<Inbox>>,
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// The network takes packets at any time: what it cannot carry it loses.
#[derive(Debug)]
struct AlwaysWritable;

impl UdpPoller for AlwaysWritable {
    fn poll_writable(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AlwaysWritable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let bytes = Bytes::copy_from_slice(transmit.contents);
        self.net.lock().send(self.address, transmit.destination, bytes);
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut inbox = self.inbox.lock();
        let mut count = 0;
        for (buf, meta) in bufs.iter_mut().zip(meta) {
            let Some((from, bytes)) = inbox.packets.pop_front() else {
                break;
            };
            let len = bytes.len().min(buf.len());
            buf[..len].copy_from_slice(&bytes[..len]);
            *meta = RecvMeta {
                addr: from,
                len,
                stride: len,
                ecn: None,
                dst_ip: None,
            };
            count += 1;
        }
        if count > 0 {
            return Poll::Ready(Ok(count));
        }
        inbox.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}
