//! What lies in the folder of a local cluster: certificates, and per node a configuration, data and a log.
//!
//! Invariant: what is there is kept. An authority or certificate is made once; ports stay what the cluster knows.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use clinch_transport::{CertBundle, ClusterCa, PeerId};
use clinch_types::{Clock as _, NodeId};
use toml::Table;

use super::ports::Place;
use super::{CLIENT, LocalOptions};
use crate::{NodeConfig, SystemClock};

/// The cluster's name, in its certificates.
const NAME: &str = "local";

pub(super) fn cert_dir(dir: &Path) -> PathBuf {
    dir.join("certs")
}

fn node_dir(dir: &Path, node: NodeId) -> PathBuf {
    dir.join(format!("node-{node}"))
}

pub(super) fn config(dir: &Path, node: NodeId) -> PathBuf {
    node_dir(dir, node).join("clinch.toml")
}

pub(super) fn log(dir: &Path, node: NodeId) -> PathBuf {
    node_dir(dir, node).join("node.log")
}

/// What a folder is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One node in this process: `clinch dev`.
    Dev,
    /// A local cluster: `clinch up`.
    Local,
}

/// Makes the folder if need be, and refuses one that is used for something else.
pub(crate) fn claim(dir: &Path, kind: Kind) -> anyhow::Result<()> {
    let what = || format!("folder {}", dir.display());
    std::fs::create_dir_all(dir).with_context(what)?;
    let (own, other, made_by) = match kind {
        Kind::Dev => ("data", "node-1", "`clinch up`"),
        Kind::Local => ("node-1", "data", "`clinch dev`"),
    };
    let mut names = std::fs::read_dir(dir)
        .with_context(what)?
        .map(|entry| Ok(entry?.file_name()));
    let names: Vec<_> = names
        .by_ref()
        .collect::<std::io::Result<_>>()
        .with_context(what)?;
    let has = |name: &str| names.iter().any(|n| n == name);
    ensure!(
        !has(other),
        "folder {} was made by {made_by}: give another one with --dir",
        dir.display()
    );
    ensure!(
        names.is_empty() || has("certs") || has(own),
        "folder {} is not empty and was not made by clinch: give another one with --dir",
        dir.display()
    );
    Ok(())
}

/// The authority of a folder of certificates, made if there is none.
pub(crate) fn ensure_authority(certs: &Path, cluster: &str) -> anyhow::Result<ClusterCa> {
    let made = match certs.join("ca.key").exists() {
        true => ClusterCa::load(certs),
        false => ClusterCa::generate(cluster, SystemClock.wall()).and_then(|ca| ca.save(certs).map(|()| ca)),
    };
    made.with_context(|| format!("certificate authority in {}", certs.display()))
}

pub(crate) fn ensure_node(certs: &Path, ca: &ClusterCa, node: NodeId) -> anyhow::Result<()> {
    let issue = || ca.issue_node(node, &["127.0.0.1".into(), "::1".into(), "localhost".into()]);
    ensure_bundle(certs, &format!("node-{node}"), &PeerId::Node(node), issue)
}

pub(crate) fn ensure_client(certs: &Path, ca: &ClusterCa, name: &str) -> anyhow::Result<()> {
    ensure_bundle(
        certs,
        &format!("client-{name}"),
        &PeerId::Client(name.into()),
        || ca.issue_client(name),
    )
}

fn ensure_bundle(
    certs: &Path,
    stem: &str,
    peer: &PeerId,
    issue: impl FnOnce() -> Result<CertBundle, clinch_transport::IdentityError>,
) -> anyhow::Result<()> {
    // The certificate is written last, so it is there only when its key is.
    if certs.join(format!("{stem}.pem")).exists() {
        CertBundle::load(certs, peer).with_context(|| format!("certificate of {peer}"))?;
        return Ok(());
    }
    issue()
        .and_then(|bundle| bundle.save(certs))
        .with_context(|| format!("certificate for {peer}"))
}

/// Writes what is missing; tells where each node listens.
pub(super) fn prepare(options: &LocalOptions) -> anyhow::Result<BTreeMap<NodeId, Place>> {
    let dir = &options.dir;
    claim(dir, Kind::Local)?;
    let nodes: Vec<NodeId> = (1..=u64::from(options.nodes)).map(NodeId).collect();
    let left_out = config(dir, NodeId(u64::from(options.nodes) + 1));
    ensure!(
        !left_out.exists(),
        "the cluster in {} has more than {} nodes: a node cannot be left out",
        dir.display(),
        options.nodes
    );
    let certs = cert_dir(dir);
    let ca = ensure_authority(&certs, NAME)?;
    ensure_client(&certs, &ca, CLIENT)?;
    let mut places = BTreeMap::new();
    for (index, &node) in (0u16..).zip(&nodes) {
        ensure_node(&certs, &ca, node)?;
        let old = old_place(&config(dir, node))?;
        places.insert(node, options.ports.place(index, old)?);
    }
    for &node in &nodes {
        let path = config(dir, node);
        let table = node_config(options, node, &places)?;
        let text = format!("# Written by `clinch up` at each start: changes made here are lost.\n{table}");
        std::fs::create_dir_all(node_dir(dir, node)).with_context(|| format!("folder of node {node}"))?;
        std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(places)
}

/// Where a node listened when its configuration was written, if it was.
fn old_place(path: &Path) -> anyhow::Result<Option<Place>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
    };
    let config: NodeConfig = toml::from_str(&text).with_context(|| format!("reading {}", path.display()))?;
    let gateway = config.gateway.first().copied();
    Ok(gateway.map(|gateway| Place {
        gateway,
        address: config.listen,
    }))
}

fn node_config(
    options: &LocalOptions,
    node: NodeId,
    places: &BTreeMap<NodeId, Place>,
) -> anyhow::Result<Table> {
    let place = places[&node];
    let text = |value: String| toml::Value::String(value);
    let path = |path: PathBuf| match path.into_os_string().into_string() {
        Ok(path) => Ok(toml::Value::String(path)),
        Err(path) => Err(anyhow::anyhow!("the path {} is not UTF-8", path.display())),
    };
    let mut cluster = Table::new();
    if node == NodeId(1) {
        let replicas = options.replicas.unwrap_or(options.nodes.min(3) as u8);
        cluster.insert("bootstrap".into(), true.into());
        cluster.insert("name".into(), text(NAME.into()));
        cluster.insert("expect-nodes".into(), i64::from(options.nodes).into());
        cluster.insert("shards".into(), i64::from(options.shards).into());
        cluster.insert("replicas".into(), i64::from(replicas).into());
    } else {
        let others = places
            .iter()
            .filter(|(id, _)| **id != node)
            .map(|(_, place)| text(place.address.to_string()));
        cluster.insert("join".into(), others.collect::<Vec<_>>().into());
    }
    let mut table = Table::new();
    let id = i64::try_from(node.0).context("node id")?;
    table.insert("node".into(), id.into());
    table.insert(
        "data-dir".into(),
        path(node_dir(&options.dir, node).join("data"))?,
    );
    table.insert("cert-dir".into(), path(cert_dir(&options.dir))?);
    table.insert("listen".into(), text(place.address.to_string()));
    let gateways = place
        .gateways()
        .into_iter()
        .map(|gateway| text(gateway.to_string()));
    table.insert("gateway".into(), gateways.collect::<Vec<_>>().into());
    table.insert("cluster".into(), cluster.into());
    merge(&mut table, &options.settings);
    let config: NodeConfig = table
        .clone()
        .try_into()
        .with_context(|| format!("configuration of node {node}"))?;
    config
        .validate()
        .with_context(|| format!("configuration of node {node}"))?;
    Ok(table)
}

/// Lays settings over others: tables are merged, everything else is replaced.
pub(crate) fn merge(under: &mut Table, over: &Table) {
    for (name, value) in over {
        match (under.get_mut(name), value) {
            (Some(toml::Value::Table(under)), toml::Value::Table(over)) => merge(under, over),
            _ => drop(under.insert(name.clone(), value.clone())),
        }
    }
}
