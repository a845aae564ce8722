//! Where the nodes of a local cluster listen.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};

use anyhow::{Context, ensure};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng};

/// QUIC ports lie so far above the gateway ports.
const QUIC_ABOVE: u16 = 1000;
/// Free ports are looked for below the range from which the system takes ports for outgoing connections: one of those
/// could hold the port of a node that is down for a moment.
const FREE: std::ops::Range<u16> = 12_000..32_000;

/// How ports are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ports {
    /// Gateways on this port and the following ones, QUIC 1,000 above.
    Base(u16),
    /// Any that are free; a folder that was started before keeps those it had.
    Auto,
}

/// Where one node listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) gateway: SocketAddr,
    pub(super) address: SocketAddr,
}

impl Place {
    /// The addresses of the gateway: `localhost` is either of two, where the machine has both.
    pub(super) fn gateways(self) -> Vec<SocketAddr> {
        let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, self.gateway.port()));
        let also = TcpListener::bind(v6).is_ok().then_some(v6);
        [self.gateway].into_iter().chain(also).collect()
    }
}

impl Ports {
    /// The place of the node with this index, from 0; `old` is where it was before.
    ///
    /// # Errors
    /// When the ports are taken, out of range, or not those its cluster knows it by.
    pub(super) fn place(self, index: u16, old: Option<Place>) -> anyhow::Result<Place> {
        let place = match (self, old) {
            (Self::Auto, Some(old)) => old,
            (Self::Auto, None) => free()?,
            (Self::Base(base), old) => {
                let fits = base > 0
                    && base
                        .checked_add(QUIC_ABOVE)
                        .and_then(|b| b.checked_add(index))
                        .is_some();
                ensure!(
                    fits,
                    "base port {base} leaves no room for the ports of all nodes below 65,536"
                );
                let place = Place {
                    gateway: local(base + index),
                    address: local(base + QUIC_ABOVE + index),
                };
                if let Some(old) = old {
                    // The others look for a node where it was: were all to move, nobody would find anybody.
                    ensure!(
                        old == place,
                        "this folder's cluster was made with base port {}, it cannot move to {base}",
                        old.gateway.port().saturating_sub(index),
                    );
                }
                place
            }
        };
        check(place)?;
        Ok(place)
    }
}

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// Says by whom a node would be refused its port, before it is started and dies of it.
fn check(place: Place) -> anyhow::Result<()> {
    TcpListener::bind(place.gateway)
        .with_context(|| format!("port {} (TCP) for a gateway", place.gateway.port()))?;
    UdpSocket::bind(place.address)
        .with_context(|| format!("port {} (UDP) for a node", place.address.port()))?;
    Ok(())
}

fn free() -> anyhow::Result<Place> {
    let mut rng = StdRng::from_os_rng();
    for _ in 0..1000 {
        let port = rng.random_range(FREE);
        let place = Place {
            gateway: local(port),
            address: local(port),
        };
        if check(place).is_ok() {
            return Ok(place);
        }
    }
    anyhow::bail!("no free port found between {} and {}", FREE.start, FREE.end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_keeps_its_ports() {
        let old = Ports::Auto.place(0, None).unwrap();
        assert_eq!(Ports::Auto.place(0, Some(old)).unwrap(), old);
        let error = Ports::Base(11_000).place(0, Some(old)).unwrap_err().to_string();
        assert!(error.contains("cannot move to 11000"), "{error}");
    }

    #[test]
    fn a_taken_port_is_named() {
        let place = Ports::Auto.place(0, None).unwrap();
        let _taken = TcpListener::bind(place.gateway).unwrap();
        let error = Ports::Auto.place(0, Some(place)).unwrap_err();
        assert!(
            error.to_string().contains(&place.gateway.port().to_string()),
            "{error}"
        );
        assert!(Ports::Base(65_000).place(0, None).is_err());
    }
}
