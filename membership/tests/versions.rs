//! The laws of leaders while nodes run different code: the newest leads, and nothing else changes.

use std::collections::BTreeMap;

use clinch_membership::placement::lead;
use clinch_membership::{
    ClusterState, Command, NodeRecord, NodeState, Placement, PlacementInput, PlacementNode, Settings, place,
};
use clinch_types::{ClusterId, Incarnation, NodeId, RegionId, ShardId, WallMs};
use proptest::prelude::*;

fn node(id: u64, code_version: u32) -> PlacementNode {
    PlacementNode {
        id: NodeId(id),
        zone: String::new(),
        weight: 1,
        accepts: true,
        code_version,
    }
}

fn input(shards: u32, before: &Placement, nodes: Vec<PlacementNode>) -> PlacementInput {
    PlacementInput {
        shards,
        replicas: 3,
        nodes,
        current: before.replicas.clone(),
        leaders: before.leaders.clone(),
    }
}

fn leads(leaders: &BTreeMap<ShardId, NodeId>) -> BTreeMap<NodeId, usize> {
    let mut counts = BTreeMap::new();
    for leader in leaders.values() {
        *counts.entry(*leader).or_default() += 1;
    }
    counts
}

/// Nodes with versions 0 to 2, some of which do not accept anything at the moment.
fn nodes() -> impl Strategy<Value = Vec<PlacementNode>> {
    prop::collection::vec((0u32..3, prop::bool::weighted(0.85)), 1..9).prop_map(|nodes| {
        let node = |(id, (version, accepts)): (u64, (u32, bool))| PlacementNode {
            accepts,
            ..node(id, version)
        };
        (1..).zip(nodes).map(node).collect()
    })
}

proptest! {
    /// Whatever came before: no shard is led by older code than that of a replica that accepts, the same question has the
    /// same answer in any order, and asking again changes nothing.
    #[test]
    fn no_shard_is_led_by_older_code_than_another_replica_has_that_is_up(
        history in prop::collection::vec(nodes(), 1..5), shards in 1u32..40,
    ) {
        let mut before = Placement::default();
        for nodes in history {
            let asked = input(shards, &before, nodes.clone());
            let placed = place(&asked);
            let of = |id: &NodeId| nodes.iter().find(|node| node.id == *id).expect("a known node");
            for (shard, replicas) in &placed.replicas {
                let leader = of(&placed.leaders[shard]);
                let newer = replicas.iter().map(of).find(|n| n.accepts && n.code_version > leader.code_version);
                prop_assert!(newer.is_none(), "shard {} is led by {:?}, and there is {:?}", shard, leader, newer);
            }
            let mut turned = asked.clone();
            turned.nodes.reverse();
            prop_assert_eq!(&place(&turned), &placed);
            let again = input(shards, &placed, nodes);
            prop_assert_eq!(&lead(&again), &placed.leaders);
            prop_assert_eq!(&place(&again), &placed);
            before = placed;
        }
    }

    /// With one version everywhere it does not matter which.
    #[test]
    fn without_a_difference_versions_change_nothing(
        history in prop::collection::vec(nodes(), 1..5), shards in 1u32..40, version in 1u32..9,
    ) {
        let mut before = Placement::default();
        for mut nodes in history {
            nodes.iter_mut().for_each(|node| node.code_version = 0);
            let without = place(&input(shards, &before, nodes.clone()));
            nodes.iter_mut().for_each(|node| node.code_version = version);
            prop_assert_eq!(&place(&input(shards, &before, nodes)), &without);
            before = without;
        }
    }
}

#[test]
fn an_upgrade_moves_leaders_to_new_code_only_and_ends_as_even_as_it_began() {
    let of = |versions: [u32; 3]| {
        (1..)
            .zip(versions)
            .map(|(id, version)| node(id, version))
            .collect::<Vec<_>>()
    };
    let first = place(&input(16, &Placement::default(), of([1, 1, 1])));
    let mut before = first.clone();
    for (versions, led) in [
        ([2, 1, 1], vec![16]),
        ([2, 2, 1], vec![8, 8]),
        ([2, 2, 2], vec![6, 5, 5]),
    ] {
        let placed = place(&input(16, &before, of(versions)));
        assert_eq!(placed.replicas, first.replicas, "replicas stay");
        for (shard, leader) in &placed.leaders {
            let (from, to) = (before.leaders[shard].0 as usize - 1, leader.0 as usize - 1);
            assert!(
                versions[from] <= versions[to],
                "shard {shard} would move to older code"
            );
        }
        let mut counts: Vec<usize> = leads(&placed.leaders).into_values().collect();
        counts.sort_unstable_by(|a, b| b.cmp(a));
        assert_eq!(counts, led, "{versions:?}");
        before = placed;
    }
}

fn record(id: u64, incarnation: u64, code_version: u32) -> NodeRecord {
    NodeRecord {
        id: NodeId(id),
        storage_id: u128::from(id),
        incarnation: Incarnation(incarnation),
        address: format!("10.0.0.{id}:7420"),
        gateway: None,
        zone: String::new(),
        region: RegionId(0),
        code_version,
        capacity: 1,
        state: NodeState::Up,
        actor_types: Vec::new(),
    }
}

#[test]
fn leaders_are_due_when_a_node_comes_back_with_newer_code_and_not_when_it_is_down() {
    let state = ClusterState::new(ClusterId(1), "test", RegionId(0), Settings::default(), WallMs(1));
    let mut state = state.expect("sound settings");
    assert!(state.leaders_due().is_empty(), "nothing is placed");
    for id in 1..=3 {
        state = state
            .apply(Command::Join {
                record: record(id, 1, 0),
            })
            .expect("it joins");
    }
    state = state.apply(Command::PlaceInitial).expect("three nodes are up");
    assert!(state.leaders_due().is_empty(), "as it was placed");
    let down = |state: &ClusterState, node| {
        let (node, incarnation, state_of) = (NodeId(node), None, NodeState::Down);
        let command = Command::SetNodeState {
            node,
            incarnation,
            state: state_of,
        };
        state.apply(command).expect("a node may fall silent")
    };
    assert!(down(&state, 2).leaders_due().is_empty(), "a reboot moves nothing");

    let back = Command::Join {
        record: record(2, 2, 1),
    };
    let upgraded = state.apply(back).expect("it comes back");
    let due = upgraded.leaders_due();
    assert!(
        due.values()
            .all(|at| at.leader == NodeId(2) && at.replicas.len() == 3)
    );
    let owned = upgraded
        .shards
        .values()
        .filter(|at| at.leader == NodeId(2))
        .count();
    assert_eq!(due.len() + owned, 16);
    let base = upgraded.version;
    let led = upgraded
        .apply(Command::SetDesired { base, shards: due })
        .expect("a sound plan");
    assert!(led.leaders_due().is_empty());
    assert!(down(&led, 2).leaders_due().is_empty(), "it may be back soon");
}
