//! Where each shard's replicas and its leader should be.
//!
//! Sticky and bounded: start from where the replicas are, drop what is on nodes that are gone, fill the gaps in
//! each shard's preference order, even out with as few moves as can be, then choose leaders.
//! Invariants: replicas of a shard are on distinct nodes, and spread over zones as evenly as the nodes allow; with
//! equal weights and room in the zones, no two nodes differ by more than one replica; no shard is led by a replica with
//! older code than another one that accepts, and within that leaders are as even as the replicas allow; the result
//! depends on the content of the input only, not on its order.
//! Not here: the steps that lead there (`moves`).

use std::collections::BTreeMap;

use clinch_types::{NodeId, ShardId};

use crate::augment::{Hop, improving_path};
use crate::quota::Quotas;
use crate::{leaders, ring};

/// A node as a place for replicas.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PlacementNode {
    /// Who.
    pub id: NodeId,
    /// What fails together with it.
    pub zone: String,
    /// Its share relative to others; 0 holds nothing.
    pub weight: u32,
    /// Whether it may be given replicas. One that may not keeps what it has (it is down for a moment, perhaps):
    /// nothing moves from it and nothing to it.
    pub accepts: bool,
    /// Version of its code. While versions differ, shards are led by the newest of their replicas that accept.
    pub code_version: u32,
}

/// What placement is decided from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacementInput {
    /// Number of shards: the shards are 0 to this.
    pub shards: u32,
    /// Replicas wanted per shard; fewer when there are fewer nodes.
    pub replicas: u8,
    /// The nodes that may hold replicas, in any order. A replica on any other node is moved.
    pub nodes: Vec<PlacementNode>,
    /// Where replicas should have been until now; empty the first time.
    pub current: BTreeMap<ShardId, Vec<NodeId>>,
    /// Who should have led until now; may be empty.
    pub leaders: BTreeMap<ShardId, NodeId>,
}

/// Where replicas and leaders should be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Placement {
    /// Each shard's nodes, in order of id. A shard is missing only when no node could take it.
    pub replicas: BTreeMap<ShardId, Vec<NodeId>>,
    /// Each shard's preferred leader, one of its replicas.
    pub leaders: BTreeMap<ShardId, NodeId>,
}

/// Places all shards.
pub fn place(input: &PlacementInput) -> Placement {
    let mut board = Board::new(input);
    board.fill_gaps();
    board.spread_zones();
    board.even_out();
    let current = |shard: usize| {
        let leader = input.leaders.get(&shard_id(shard))?;
        board.index_of(*leader)
    };
    let leaders = leaders::assign(&board.sets, current, &board.nodes);
    let mut placement = Placement::default();
    for (shard, (set, leader)) in board.sets.iter().zip(leaders).enumerate() {
        if let Some(leader) = leader {
            let replicas = set.iter().map(|&node| board.nodes[node].id).collect();
            placement.replicas.insert(shard_id(shard), replicas);
            placement.leaders.insert(shard_id(shard), board.nodes[leader].id);
        }
    }
    placement
}

/// Chooses leaders as [`place`] does, of replicas that stay where they are; without shards that have none.
pub fn lead(input: &PlacementInput) -> BTreeMap<ShardId, NodeId> {
    let nodes = sorted(&input.nodes);
    let index_of = |id: &NodeId| nodes.binary_search_by_key(id, |node| node.id).ok();
    let set_of = |shard: usize| {
        let replicas = input.current.get(&shard_id(shard)).into_iter().flatten();
        let mut set: Vec<usize> = replicas.filter_map(index_of).collect();
        set.sort_unstable();
        set
    };
    let sets: Vec<Vec<usize>> = (0..input.shards as usize).map(set_of).collect();
    let current = |shard: usize| index_of(input.leaders.get(&shard_id(shard))?);
    let leaders = leaders::assign(&sets, current, &nodes);
    let led = leaders.into_iter().enumerate();
    led.filter_map(|(shard, leader)| Some((shard_id(shard), nodes[leader?].id)))
        .collect()
}

/// The nodes that can hold anything, each once, in order of id.
fn sorted(nodes: &[PlacementNode]) -> Vec<PlacementNode> {
    let mut nodes: Vec<PlacementNode> = nodes.iter().filter(|node| node.weight > 0).cloned().collect();
    nodes.sort();
    nodes.dedup_by_key(|node| node.id);
    nodes
}

/// The state of a placement while it is worked out. Nodes and shards are indices; nodes are in order of id.
struct Board {
    nodes: Vec<PlacementNode>,
    /// Node → zone, as an index.
    zones: Vec<usize>,
    /// Shard → node → how early it comes in the shard's preference order.
    ranks: Vec<Vec<usize>>,
    quotas: Quotas,
    /// Shard → its nodes, sorted.
    sets: Vec<Vec<usize>>,
    /// Node → number of replicas.
    loads: Vec<u64>,
    /// Replicas of each shard, as far as there are nodes.
    replicas: usize,
}

impl Board {
    fn new(input: &PlacementInput) -> Self {
        let nodes = sorted(&input.nodes);
        let mut names: Vec<&str> = nodes.iter().map(|node| node.zone.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        let zones = nodes
            .iter()
            .map(|node| names.partition_point(|name| *name < node.zone.as_str()))
            .collect();
        let weights: Vec<u32> = nodes.iter().map(|node| node.weight).collect();
        let weighted: Vec<(NodeId, u32)> = nodes.iter().map(|node| (node.id, node.weight)).collect();
        let replicas = usize::from(input.replicas).min(nodes.len());
        let shards = u64::from(input.shards);
        let mut board = Self {
            zones,
            ranks: ring::ranks(input.shards, &weighted),
            quotas: Quotas::split(shards * replicas as u64, shards, &weights),
            sets: vec![Vec::new(); input.shards as usize],
            loads: vec![0; nodes.len()],
            nodes,
            replicas,
        };
        for shard in 0..board.sets.len() {
            for id in input.current.get(&shard_id(shard)).into_iter().flatten() {
                if let Some(node) = board.index_of(*id) {
                    board.put(shard, node);
                }
            }
        }
        for shard in 0..board.sets.len() {
            board.trim(shard);
        }
        board
    }

    fn index_of(&self, id: NodeId) -> Option<usize> {
        self.nodes.binary_search_by_key(&id, |node| node.id).ok()
    }

    fn put(&mut self, shard: usize, node: usize) {
        if let Err(at) = self.sets[shard].binary_search(&node) {
            self.sets[shard].insert(at, node);
            self.loads[node] += 1;
        }
    }

    fn take(&mut self, shard: usize, node: usize) {
        if let Ok(at) = self.sets[shard].binary_search(&node) {
            self.sets[shard].remove(at);
            self.loads[node] -= 1;
        }
    }

    fn excess(&self, node: usize) -> i64 {
        self.quotas.excess(node, self.loads[node])
    }

    /// How many replicas of a shard are in a zone.
    fn in_zone(&self, shard: usize, zone: usize) -> usize {
        self.sets[shard]
            .iter()
            .filter(|&&node| self.zones[node] == zone)
            .count()
    }

    /// Takes away replicas beyond the number wanted, first where zones or nodes are fullest.
    fn trim(&mut self, shard: usize) {
        while self.sets[shard].len() > self.replicas {
            let surplus = self.sets[shard].iter().copied().max_by_key(|&node| {
                let zone = self.in_zone(shard, self.zones[node]);
                (zone, self.excess(node), self.ranks[shard][node])
            });
            let Some(node) = surplus else { return };
            self.take(shard, node);
        }
    }

    /// Gives each shard the replicas it lacks: to the least used zone, there to a node below its share, among
    /// those to the one the shard prefers.
    fn fill_gaps(&mut self) {
        for shard in 0..self.sets.len() {
            while self.sets[shard].len() < self.replicas {
                let best = (0..self.nodes.len())
                    .filter(|&node| self.may_gain(shard, node))
                    .min_by_key(|&node| {
                        let load = self.loads[node];
                        let over = if load < self.quotas.floor(node) {
                            (0, 0)
                        } else if load < self.quotas.ceil(node) {
                            (1, 0)
                        } else {
                            (2, self.excess(node))
                        };
                        (
                            self.in_zone(shard, self.zones[node]),
                            over,
                            self.ranks[shard][node],
                        )
                    });
                let Some(node) = best else { break };
                self.put(shard, node);
            }
        }
    }

    fn may_gain(&self, shard: usize, node: usize) -> bool {
        self.nodes[node].accepts && self.sets[shard].binary_search(&node).is_err()
    }

    /// Moves replicas out of zones that hold more of a shard than they must: zones may have come since.
    fn spread_zones(&mut self) {
        for shard in 0..self.sets.len() {
            while let Some((from, to)) = self.zone_repair(shard) {
                self.take(shard, from);
                self.put(shard, to);
            }
        }
    }

    fn zone_repair(&self, shard: usize) -> Option<(usize, usize)> {
        let zone_of = |node: usize| self.in_zone(shard, self.zones[node]);
        let from = self.sets[shard]
            .iter()
            .copied()
            .filter(|&node| self.nodes[node].accepts)
            .max_by_key(|&node| (zone_of(node), self.excess(node), self.ranks[shard][node]))?;
        let to = (0..self.nodes.len())
            .filter(|&node| self.may_gain(shard, node))
            .min_by_key(|&node| (zone_of(node), self.excess(node), self.ranks[shard][node]))?;
        (zone_of(to) + 1 < zone_of(from)).then_some((from, to))
    }

    /// While two nodes differ by more than one, moves a replica from the fullest to the emptiest; through nodes
    /// between them where zones allow no direct move.
    fn even_out(&mut self) {
        loop {
            let excess: Vec<i64> = (0..self.nodes.len()).map(|node| self.excess(node)).collect();
            let mut held = vec![Vec::new(); self.nodes.len()];
            for (shard, set) in self.sets.iter().enumerate() {
                for &node in set {
                    held[node].push(shard);
                }
            }
            let movable = |from: usize, to: usize, used: &[Hop]| {
                if !self.nodes[from].accepts || !self.nodes[to].accepts {
                    return None;
                }
                held[from]
                    .iter()
                    .copied()
                    .filter(|&shard| self.may_move(shard, from, to))
                    .filter(|&shard| used.iter().all(|hop| hop.shard != shard))
                    .min_by_key(|&shard| (self.ranks[shard][to], shard))
            };
            let Some(path) = improving_path(&excess, self.quotas.one(), movable) else {
                return;
            };
            for hop in path {
                self.take(hop.shard, hop.from);
                self.put(hop.shard, hop.to);
            }
        }
    }

    /// Whether a replica may move without sharing a zone with more of its shard than before.
    fn may_move(&self, shard: usize, from: usize, to: usize) -> bool {
        let (from, to_zone) = (self.zones[from], self.zones[to]);
        self.may_gain(shard, to)
            && (from == to_zone || self.in_zone(shard, to_zone) < self.in_zone(shard, from))
    }
}

fn shard_id(index: usize) -> ShardId {
    // Indices come from `PlacementInput::shards`, a u32.
    ShardId(index as u32)
}
