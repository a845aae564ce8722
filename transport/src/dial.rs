//! One attempt to connect: resolve, handshake, check who answered, wait for its welcome.
//!
//! Invariant: a link is given out only after the acceptor has verified *us* too. In TLS 1.3 the dialler finishes
//! first; a request sent before the acceptor's verdict would be "perhaps done" although it never could be.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::time::timeout;

use crate::accept::WELCOME;
use crate::close;
use crate::identity::SERVER_NAME;
use crate::link::Link;
use crate::shared::Shared;
use crate::tls::peer_of;
use crate::{Dest, PeerId};

/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 4;

/// Connects to a destination.
///
/// # Errors
/// What stood in the way, in words.
pub(crate) async fn dial(shared: &Arc<Shared>, dest: &Dest, address: &str) -> Result<Arc<Link>, String> {
    let limit = shared.config.dial_timeout;
    let resolved = timeout(limit, shared.sockets.resolve(address))
        .await
        .map_err(|_| format!("{address} did not resolve within {limit:?}"))?
        .map_err(|e| format!("{address} does not resolve: {e}"))?;
    let local = shared
        .endpoint
        .local_addr()
        .map_err(|e| format!("our socket is gone: {e}"))?;
    // An IPv6 socket reaches IPv4 too, not the other way round.
    let mut usable: Vec<SocketAddr> = resolved
        .into_iter()
        .filter(|found| local.is_ipv6() || found.is_ipv4())
        .collect();
    usable.truncate(ADDRESSES_MAX);
    if usable.is_empty() {
        return Err(format!("{address} has no address that {local} can reach"));
    }
    let each = limit / usable.len() as u32;
    let mut last = String::new();
    for found in usable {
        match timeout(each, connect(shared, dest, found)).await {
            Ok(Ok(link)) => return Ok(link),
            Ok(Err(reason)) => last = format!("{found}: {reason}"),
            Err(_) => last = format!("{found} did not answer within {each:?}"),
        }
    }
    Err(last)
}

async fn connect(shared: &Arc<Shared>, dest: &Dest, address: SocketAddr) -> Result<Arc<Link>, String> {
    let connecting = shared
        .endpoint
        .connect(address, SERVER_NAME)
        .map_err(|e| e.to_string())?;
    let connection = connecting.await.map_err(|e| close::describe(&e))?;
    match verify(shared, dest, &connection) {
        Ok(peer) => {
            welcomed(&connection).await?;
            Ok(Arc::new(Link::new(connection, peer)))
        }
        Err(reason) => {
            connection.close(close::WRONG_PEER, reason.as_bytes());
            Err(reason)
        }
    }
}

/// Checks that the certificate names whom we meant.
fn verify(shared: &Shared, dest: &Dest, connection: &quinn::Connection) -> Result<PeerId, String> {
    let (cluster, peer) = peer_of(connection).map_err(|e| e.to_string())?;
    if cluster != shared.cluster {
        return Err(format!(
            "it belongs to cluster {cluster}, we to {}",
            shared.cluster
        ));
    }
    match dest {
        Dest::Node(id) if peer != PeerId::Node(*id) => Err(format!("{peer} answers there, not node {id}")),
        Dest::Address(_) if peer.node().is_none() => Err(format!("{peer} answers there, which is no node")),
        Dest::Node(_) | Dest::Address(_) => Ok(peer),
    }
}

/// Waits for the acceptor's word that it has verified us.
async fn welcomed(connection: &quinn::Connection) -> Result<(), String> {
    let lost = |e| close::describe(&e);
    let mut stream = connection.accept_uni().await.map_err(lost)?;
    let words = match stream.read_to_end(WELCOME.len()).await {
        Ok(words) => words,
        // The connection's own end says more than the stream's.
        Err(error) => {
            return Err(connection
                .close_reason()
                .map_or_else(|| error.to_string(), |e| close::describe(&e)));
        }
    };
    if words != WELCOME {
        connection.close(close::MALFORMED, b"no welcome of wire version 1");
        return Err("it greets in a form of another release".to_owned());
    }
    Ok(())
}
