//! Which replica of each shard should lead, so that no node leads more than its share.

use crate::augment::improving_path;
use crate::quota::Quotas;

/// Chooses a leader for each shard out of its set of node indices; `None` only for an empty set.
///
/// A current leader stays unless moving it evens things out. A node that does not accept keeps what it leads and
/// is given nothing, unless a shard has no other node.
pub(crate) fn assign(
    sets: &[Vec<usize>],
    current: impl Fn(usize) -> Option<usize>,
    weights: &[u32],
    accepts: &[bool],
) -> Vec<Option<usize>> {
    let shards = sets.len() as u64;
    let quotas = Quotas::split(shards, shards, weights);
    let mut leads = vec![0u64; weights.len()];
    let mut leaders: Vec<Option<usize>> = sets
        .iter()
        .enumerate()
        .map(|(shard, set)| current(shard).filter(|node| set.contains(node)))
        .collect();
    for &leader in leaders.iter().flatten() {
        leads[leader] += 1;
    }
    for (set, leader) in sets.iter().zip(&mut leaders) {
        if leader.is_none() {
            *leader = set
                .iter()
                .copied()
                .min_by_key(|&node| (!accepts[node], quotas.excess(node, leads[node]), node));
            if let Some(leader) = *leader {
                leads[leader] += 1;
            }
        }
    }
    loop {
        let excess: Vec<i64> = (0..weights.len())
            .map(|node| quotas.excess(node, leads[node]))
            .collect();
        let mut led = vec![Vec::new(); weights.len()];
        for (shard, leader) in leaders.iter().enumerate() {
            if let Some(leader) = leader {
                led[*leader].push(shard);
            }
        }
        // A node is met once on a path and a shard has one leader, so no shard is met twice.
        let path = improving_path(&excess, quotas.one(), |from, to, _| {
            if !accepts[from] || !accepts[to] {
                return None;
            }
            led[from].iter().copied().find(|&shard| sets[shard].contains(&to))
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
