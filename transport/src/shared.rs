//! What all parts of one transport share.

use std::collections::BTreeMap;
use std::sync::Arc;

use clinch_types::NodeId;
use parking_lot::{Mutex, RwLock};
use rand::rngs::StdRng;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::TransportConfig;
use crate::inbound::Handler;
use crate::link::Link;
use crate::meters::Meters;
use crate::peer::Peer;
use crate::{PeerId, Sockets};

/// The parts of a transport that its handle and its tasks use.
pub(crate) struct Shared {
    pub(crate) config: TransportConfig,
    pub(crate) endpoint: quinn::Endpoint,
    pub(crate) cluster: String,
    pub(crate) identity: PeerId,
    pub(crate) sockets: Arc<dyn Sockets>,
    pub(crate) handler: Arc<dyn Handler>,
    pub(crate) tracker: TaskTracker,
    pub(crate) stop: CancellationToken,
    pub(crate) rng: Mutex<StdRng>,
    pub(crate) meters: Meters,
    pub(crate) nodes: RwLock<BTreeMap<NodeId, Arc<Peer>>>,
    /// The links that are up, of those nodes: what a call finds with one look.
    pub(crate) links: RwLock<BTreeMap<NodeId, Arc<Link>>>,
    /// Peers known by address only.
    pub(crate) seeds: Mutex<BTreeMap<String, Arc<Peer>>>,
}
