//! Each shard's preference order among the nodes, from a consistent hash ring.
//!
//! Invariant: the order depends on node ids and weights only, in every process and release.
//! `hashring` has no virtual nodes and hashes through `std::hash::Hash`, whose bytes are not promised; so points
//! are hashed here with xxh3 to one `u64`, and the ring's hasher passes that `u64` through.
//! Not here: balance. A walk of the ring alone gives some nodes eleven times what it gives others.

use std::hash::{BuildHasher, Hash, Hasher};

use clinch_types::NodeId;
use hashring::HashRing;
use xxhash_rust::xxh3::xxh3_64;

/// Points of an average node: more even out the order a little, and cost time on every placement.
const POINTS: u64 = 128;
/// Points of all nodes together, about: beyond 128 nodes each gets fewer, because a walk may visit them all.
const POINTS_TOTAL: u64 = 16_384;
/// Most points of one node, so that one heavy node among many light ones cannot make the ring huge.
const POINTS_MAX: u64 = 2_048;

/// A point of the ring: whose it is, and where.
#[derive(Debug, Clone, Copy)]
struct Point {
    at: u64,
    /// Index into the nodes the ring was made of.
    node: usize,
}

impl Hash for Point {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.at);
    }
}

/// Hands a `u64` through unchanged: what it is given is hashed already.
#[derive(Clone, Copy, Default)]
struct PassThrough(u64);

impl Hasher for PassThrough {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        // Only `write_u64` is called; anything else still hashes to something stable.
        self.0 = xxh3_64(bytes);
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

impl BuildHasher for PassThrough {
    type Hasher = Self;

    fn build_hasher(&self) -> Self {
        Self::default()
    }
}

/// For each shard, how early each node comes on the ring behind the shard's point: `ranks[shard][node]`, where
/// the node is an index into `nodes`. Nodes of weight 0 come last.
///
/// `nodes` must be sorted by id.
pub(crate) fn ranks(shards: u32, nodes: &[(NodeId, u32)]) -> Vec<Vec<usize>> {
    let mut points: Vec<Point> = nodes
        .iter()
        .zip(point_counts(nodes))
        .enumerate()
        .flat_map(|(node, (&(id, _), count))| {
            (0..count).map(move |i| Point {
                at: hash(b'n', id.0, i),
                node,
            })
        })
        .collect();
    // Points that collide keep the order they are added in, so that order must not depend on anything else.
    points.sort_by_key(|point| (point.at, point.node));
    let len = points.len();
    let mut ring = HashRing::with_hasher(PassThrough::default());
    ring.batch_add(points);
    (0..shards)
        .map(|shard| {
            let at = hash(b's', u64::from(shard), 0);
            first_seen(walk(&ring, at).take(len), nodes.len())
        })
        .collect()
}

/// The nodes of the points from `at` on, round and round. One point after the other, because the ring's own
/// `get_with_replicas` copies the whole ring, and a few hundred points mostly show every node.
fn walk(ring: &HashRing<Point, PassThrough>, at: u64) -> impl Iterator<Item = usize> {
    let mut next = at;
    std::iter::from_fn(move || {
        let point = ring.get(&next)?;
        next = point.at.wrapping_add(1);
        Some(point.node)
    })
}

/// Points in proportion to weight, [`POINTS`] on average up to 128 nodes; at least one for a node that may hold shards.
fn point_counts(nodes: &[(NodeId, u32)]) -> impl Iterator<Item = u64> {
    let total: u64 = nodes.iter().map(|&(_, weight)| u64::from(weight)).sum();
    let bearing = nodes.iter().filter(|&&(_, weight)| weight > 0).count() as u64;
    let average = (POINTS_TOTAL / bearing.max(1)).clamp(1, POINTS);
    nodes.iter().map(move |&(_, weight)| match u64::from(weight) {
        0 => 0,
        weight => (average * weight * bearing / total).clamp(1, POINTS_MAX),
    })
}

/// The place of each of `count` nodes in a walk that may repeat them; those not met come last, in order.
fn first_seen(walk: impl Iterator<Item = usize>, count: usize) -> Vec<usize> {
    let mut ranks = vec![usize::MAX; count];
    let mut seen = 0;
    for node in walk.chain(0..count) {
        if ranks[node] == usize::MAX {
            ranks[node] = seen;
            seen += 1;
        }
        if seen == count {
            break;
        }
    }
    ranks
}

fn hash(kind: u8, id: u64, i: u64) -> u64 {
    let mut bytes = [kind; 17];
    bytes[1..9].copy_from_slice(&id.to_le_bytes());
    bytes[9..].copy_from_slice(&i.to_le_bytes());
    xxh3_64(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(ids: &[u64]) -> Vec<(NodeId, u32)> {
        ids.iter().map(|&id| (NodeId(id), 1)).collect()
    }

    #[test]
    fn every_node_has_one_rank_per_shard() {
        for ranks in ranks(32, &nodes(&[1, 2, 3, 9, 100])) {
            let mut sorted = ranks;
            sorted.sort_unstable();
            assert_eq!(sorted, [0, 1, 2, 3, 4]);
        }
        assert_eq!(ranks(2, &nodes(&[7])), [[0], [0]]);
        assert_eq!(ranks(2, &[]), [[0usize; 0], [0; 0]]);
    }

    #[test]
    fn one_more_node_does_not_change_the_order_of_the_others() {
        let (few, many) = (ranks(64, &nodes(&[1, 2, 3])), ranks(64, &nodes(&[1, 2, 3, 4])));
        for (few, many) in few.iter().zip(&many) {
            let mut order = [0, 1, 2];
            order.sort_by_key(|&node| many[node]);
            assert_eq!(order.map(|node| few[node]), [0, 1, 2]);
        }
    }

    #[test]
    fn a_heavy_node_comes_first_more_often_and_a_weightless_one_last() {
        let ranks = ranks(400, &[(NodeId(1), 1), (NodeId(2), 0), (NodeId(3), 3)]);
        let first = |node: usize| ranks.iter().filter(|ranks| ranks[node] == 0).count();
        assert!(first(2) > 2 * first(0), "{} and {}", first(2), first(0));
        assert!(ranks.iter().all(|ranks| ranks[1] == 2));
    }

    /// A change here moves replicas of clusters that exist at their next rebalance.
    #[test]
    fn the_preference_order_never_changes() {
        let order: Vec<Vec<usize>> = ranks(4, &nodes(&[1, 2, 3, 4, 5]));
        assert_eq!(order, GOLDEN);
    }
    const GOLDEN: [[usize; 5]; 4] = [[0, 4, 2, 1, 3], [3, 4, 2, 1, 0], [4, 0, 3, 2, 1], [3, 4, 2, 0, 1]];
}
