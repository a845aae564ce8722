//! Which replica of each shard should lead: one with the newest code, and so that no node leads more than its share.

use std::cmp::Reverse;

use crate::augment::improving_path;
use crate::placement::PlacementNode;
use crate::quota::Quotas;

/// Chooses a leader for each shard out of its set of node indices; `None` only for an empty set.
///
/// A replica whose code is older than that of another one that accepts does not lead. Beyond that a current leader stays
/// unless moving it evens things out, and a node that does not accept keeps what it leads and is given nothing, unless a
/// shard has no other node.
pub(crate) fn assign(
    sets: &[Vec<usize>],
    current: impl Fn(usize) -> Option<usize>,
    nodes: &[PlacementNode],
) -> Vec<Option<usize>> {
    let shards = sets.len() as u64;
    let weights: Vec<u32> = nodes.iter().map(|node| node.weight).collect();
    let quotas = Quotas::split(shards, shards, &weights);
    let mut leads = vec![0u64; nodes.len()];
    let may_lead = |shard: usize, node: usize| {
        sets[shard].contains(&node) && nodes[node].code_version >= newest(&sets[shard], nodes)
    };
    let mut leaders: Vec<Option<usize>> = (0..sets.len())
        .map(|shard| current(shard).filter(|node| may_lead(shard, *node)))
        .collect();
    for &leader in leaders.iter().flatten() {
        leads[leader] += 1;
    }
    for (set, leader) in sets.iter().zip(&mut leaders) {
        if leader.is_none() {
            *leader = set.iter().copied().min_by_key(|&node| {
                let version = Reverse(nodes[node].code_version);
                (
                    !nodes[node].accepts,
                    version,
                    quotas.excess(node, leads[node]),
                    node,
                )
            });
            if let Some(leader) = *leader {
                leads[leader] += 1;
            }
        }
    }
    loop {
        let excess: Vec<i64> = (0..nodes.len())
            .map(|node| quotas.excess(node, leads[node]))
            .collect();
        let mut led = vec![Vec::new(); nodes.len()];
        for (shard, leader) in leaders.iter().enumerate() {
            if let Some(leader) = leader {
                led[*leader].push(shard);
            }
        }
        // A node is met once on a path and a shard has one leader, so no shard is met twice.
        let path = improving_path(&excess, quotas.one(), |from, to, _| {
            if !nodes[from].accepts || !nodes[to].accepts {
                return None;
            }
            led[from].iter().copied().find(|&shard| may_lead(shard, to))
        });
        let Some(path) = path else {
            return leaders;
        };
        for hop in path {
            leaders[hop.shard] = Some(hop.to);
            leads[hop.from] -= 1;
            leads[hop.to] += 1;
        }
    }
}

/// The newest code among the nodes of a set that accept.
fn newest(set: &[usize], nodes: &[PlacementNode]) -> u32 {
    let accepting = set.iter().filter(|&&node| nodes[node].accepts);
    accepting.map(|&node| nodes[node].code_version).max().unwrap_or(0)
}
