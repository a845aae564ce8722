//! A node for one program alone: no configuration, no certificates to make, nothing to install.
//!
//! It is a whole node, durable and with every guarantee that one node alone can give; replication begins when others join,
//! which takes a configuration ([`NodeConfig`]).
//! Not here: starting the node (`node`), the folders of the `clinch` program (`cli`).

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clinch_types::NodeId;
use tempfile::TempDir;

use crate::cli::local;
use crate::{ClusterConfig, Node, NodeBuilder, NodeConfig};

/// Time until the only node must serve: it waits for nobody, but has its data to read.
const READY_MAX: Duration = Duration::from_secs(60);

/// A node of this process alone. Dereferences to [`Node`].
pub struct LocalNode {
    node: Node,
    /// Its data, when they end with it.
    dir: Option<TempDir>,
}

impl LocalNode {
    /// With data in `dir`, or in a new folder that is deleted at the end.
    pub(crate) async fn start(
        dir: Option<&Path>,
        build: impl FnOnce(NodeConfig) -> NodeBuilder,
    ) -> anyhow::Result<Self> {
        let (path, dir) = match dir {
            Some(dir) => (std::path::absolute(dir)?, None),
            None => {
                let dir = TempDir::with_prefix("clinch-").context("a folder for the data of a local node")?;
                (dir.path().to_owned(), Some(dir))
            }
        };
        let node = build(NodeConfig::embedded(path)?).start().await?;
        node.ready(READY_MAX).await?;
        Ok(Self { node, dir })
    }

    /// Stops it; see [`Node::stop`]. Temporary data are deleted.
    pub async fn stop(self) {
        self.node.stop().await;
        drop(self.dir);
    }
}

impl Deref for LocalNode {
    type Target = Node;

    fn deref(&self) -> &Node {
        &self.node
    }
}

impl NodeConfig {
    /// The configuration of a node alone, with its data and certificates in `dir`, without a gateway. Certificates are
    /// made if there are none. It listens on this machine only, for Rust clients.
    ///
    /// # Errors
    /// When the folder cannot be written, or holds certificates that do not fit.
    pub fn embedded(dir: impl Into<PathBuf>) -> anyhow::Result<Self> {
        let (dir, node) = (dir.into(), NodeId(1));
        let certs = dir.join("certs");
        let authority = local::ensure_authority(&certs, "embedded")?;
        local::ensure_node(&certs, &authority, node)?;
        local::ensure_client(&certs, &authority, local::CLIENT)?;
        Ok(Self {
            node,
            data_dir: dir.join("data"),
            cert_dir: certs,
            listen: free_address()?,
            advertise: None,
            gateway: Vec::new(),
            zone: String::new(),
            region: Default::default(),
            capacity: 1,
            code_version: 0,
            cluster: ClusterConfig {
                bootstrap: true,
                replicas: 1,
                ..ClusterConfig::default()
            },
            raft: Default::default(),
            proposer: Default::default(),
            storage: Default::default(),
            tokens: Vec::new(),
            http: Default::default(),
            insecure: false,
            expose_errors: false,
        })
    }
}

/// A port of this machine that nobody uses at the moment.
fn free_address() -> anyhow::Result<SocketAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).context("a free port for a local node")?;
    Ok(socket.local_addr()?)
}
