//! The laws of placement: distinct nodes and zones, balance, few moves, one outcome everywhere.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use clinch_membership::{Placement, PlacementInput, PlacementNode, place};
use clinch_types::{NodeId, ShardId};
use proptest::prelude::*;

fn node(id: u64, zone: &str) -> PlacementNode {
    PlacementNode {
        id: NodeId(id),
        zone: zone.to_owned(),
        weight: 1,
        accepts: true,
        code_version: 0,
    }
}

fn input(shards: u32, nodes: Vec<PlacementNode>) -> PlacementInput {
    PlacementInput {
        shards,
        replicas: 3,
        nodes,
        current: BTreeMap::new(),
        leaders: BTreeMap::new(),
    }
}

/// The same cluster one step on: placed as before, perhaps with other nodes.
fn after(before: &Placement, shards: u32, nodes: Vec<PlacementNode>) -> PlacementInput {
    PlacementInput {
        current: before.replicas.clone(),
        leaders: before.leaders.clone(),
        ..input(shards, nodes)
    }
}

fn loads(placement: &Placement, nodes: &[PlacementNode]) -> BTreeMap<NodeId, usize> {
    let mut loads: BTreeMap<NodeId, usize> = nodes.iter().map(|node| (node.id, 0)).collect();
    for id in placement.replicas.values().flatten() {
        *loads.get_mut(id).expect("replicas are on nodes of the input") += 1;
    }
    loads
}

fn leads(placement: &Placement, nodes: &[PlacementNode]) -> BTreeMap<NodeId, usize> {
    let mut leads: BTreeMap<NodeId, usize> = nodes.iter().map(|node| (node.id, 0)).collect();
    for id in placement.leaders.values() {
        *leads.get_mut(id).expect("leaders are nodes of the input") += 1;
    }
    leads
}

fn min_max(counts: &BTreeMap<NodeId, usize>) -> (usize, usize) {
    let values = || counts.values().copied();
    (values().min().unwrap_or(0), values().max().unwrap_or(0))
}

/// Replicas on nodes that did not have them.
fn moved(before: &Placement, after: &Placement) -> usize {
    let gained = |(shard, nodes): (&ShardId, &Vec<NodeId>)| {
        let old = &before.replicas[shard];
        nodes.iter().filter(|node| !old.contains(node)).count()
    };
    after.replicas.iter().map(gained).sum()
}

/// Distinct nodes in order of id, as many as there can be; the leader is one of them.
fn check_shape(input: &PlacementInput, placement: &Placement) -> Result<(), TestCaseError> {
    let known: BTreeMap<NodeId, &PlacementNode> = input
        .nodes
        .iter()
        .filter(|node| node.weight > 0)
        .map(|node| (node.id, node))
        .collect();
    for (shard, nodes) in &placement.replicas {
        prop_assert!(nodes.is_sorted_by(|a, b| a < b), "shard {}: {:?}", shard, nodes);
        prop_assert!(nodes.iter().all(|node| known.contains_key(node)));
        prop_assert!(nodes.len() <= usize::from(input.replicas));
        prop_assert!(nodes.contains(&placement.leaders[shard]));
        let kept = |node: &NodeId| input.current.get(shard).is_some_and(|old| old.contains(node));
        for node in nodes {
            prop_assert!(
                known[node].accepts || kept(node),
                "node {} gained shard {}",
                node,
                shard
            );
        }
    }
    Ok(())
}

/// The most evenly a shard's replicas can be spread over the zones, as the sum of squares.
fn best_spread(nodes: &[PlacementNode], replicas: usize) -> usize {
    let mut room: BTreeMap<&str, usize> = BTreeMap::new();
    for node in nodes {
        *room.entry(&node.zone).or_default() += 1;
    }
    let mut used: BTreeMap<&str, usize> = room.keys().map(|&zone| (zone, 0)).collect();
    for _ in 0..replicas.min(nodes.len()) {
        let zone = room
            .iter()
            .filter(|(zone, room)| used[*zone] < **room)
            .min_by_key(|(zone, _)| used[*zone]);
        let (zone, _) = zone.expect("no more replicas than nodes");
        *used.get_mut(zone).expect("same zones") += 1;
    }
    used.values().map(|count| count * count).sum()
}

fn spread(nodes: &[PlacementNode], replicas: &[NodeId]) -> usize {
    let mut used: BTreeMap<&str, usize> = BTreeMap::new();
    for node in nodes.iter().filter(|node| replicas.contains(&node.id)) {
        *used.entry(&node.zone).or_default() += 1;
    }
    used.values().map(|count| count * count).sum()
}

/// Every size of cluster, not a sample: replicas and leaders within one of each other, and so within the ratios
/// promised; a join and a leave move what arithmetic asks for, and at most a tenth and two replicas more.
#[test]
fn clusters_of_3_to_50_nodes_are_even_and_change_with_few_moves() {
    for (shards, ratio_max) in [(64, 1.34), (256, 1.10)] {
        for count in 3..=50u64 {
            let nodes: Vec<_> = (1..=count).map(|id| node(id * 7, "")).collect();
            let placed = place(&input(shards, nodes.clone()));
            let (min, max) = min_max(&loads(&placed, &nodes));
            assert!(
                max - min <= 1,
                "{shards} shards on {count} nodes: {min} to {max} replicas"
            );
            assert!(
                max as f64 / min as f64 <= ratio_max,
                "{shards} on {count}: {max}/{min}"
            );
            let (min, max) = min_max(&leads(&placed, &nodes));
            assert!(
                max - min <= 1,
                "{shards} shards on {count} nodes: {min} to {max} leaders"
            );

            let mut more = nodes.clone();
            more.push(node(count * 7 + 3, ""));
            let joined = place(&after(&placed, shards, more.clone()));
            let (min, max) = min_max(&loads(&joined, &more));
            assert!(
                max - min <= 1,
                "{shards} shards, {count} nodes and one: {min} to {max}"
            );
            let ideal = loads(&joined, &more)[&NodeId(count * 7 + 3)];
            check_moves(
                moved(&placed, &joined),
                ideal,
                &format!("{shards} on {count}, join"),
            );

            // With three nodes and three replicas there is nowhere to go.
            if count > 3 {
                let gone = nodes[count as usize / 2].id;
                let fewer: Vec<_> = nodes.iter().filter(|node| node.id != gone).cloned().collect();
                let left = place(&after(&placed, shards, fewer.clone()));
                let (min, max) = min_max(&loads(&left, &fewer));
                assert!(
                    max - min <= 1,
                    "{shards} shards, {count} nodes less one: {min} to {max}"
                );
                let ideal = loads(&placed, &nodes)[&gone];
                check_moves(
                    moved(&placed, &left),
                    ideal,
                    &format!("{shards} on {count}, leave"),
                );
            }
        }
    }
}

fn check_moves(moved: usize, ideal: usize, what: &str) {
    let allowed = ideal + ideal / 10 + 2;
    assert!(
        ideal <= moved && moved <= allowed,
        "{what}: {moved} moves, ideal {ideal}"
    );
}

#[test]
fn what_is_well_placed_stays_where_it_is() {
    let nodes: Vec<_> = (1..=9)
        .map(|id| node(id, ["a", "b", "c"][id as usize % 3]))
        .collect();
    let placed = place(&input(64, nodes.clone()));
    assert_eq!(place(&after(&placed, 64, nodes)), placed);
}

#[test]
fn fewer_nodes_than_replicas_get_one_replica_each_and_one_more_node_gets_the_rest() {
    let placed = place(&input(16, vec![node(1, ""), node(2, "")]));
    assert!(
        placed
            .replicas
            .values()
            .all(|nodes| *nodes == [NodeId(1), NodeId(2)])
    );
    let grown = place(&after(&placed, 16, vec![node(1, ""), node(2, ""), node(3, "")]));
    assert!(
        grown
            .replicas
            .values()
            .all(|nodes| *nodes == [NodeId(1), NodeId(2), NodeId(3)])
    );
    assert_eq!(place(&input(16, Vec::new())), Placement::default());
}

#[test]
fn a_node_that_is_down_for_a_moment_moves_nothing_and_gets_nothing() {
    let mut nodes: Vec<_> = (1..=5).map(|id| node(id, "")).collect();
    let placed = place(&input(64, nodes.clone()));
    nodes[2].accepts = false;
    assert_eq!(place(&after(&placed, 64, nodes.clone())), placed);

    // It was down when two others went: what they had is shared by those that are up.
    let nodes: Vec<_> = nodes.into_iter().filter(|node| node.id.0 != 1).collect();
    let without = place(&after(&placed, 64, nodes.clone()));
    assert_eq!(
        loads(&without, &nodes)[&NodeId(3)],
        loads(
            &placed,
            &[node(1, ""), node(2, ""), node(3, ""), node(4, ""), node(5, "")]
        )[&NodeId(3)]
    );
    assert!(without.replicas.values().all(|nodes| nodes.len() == 3));
}

#[test]
fn new_zones_are_used_by_shards_that_were_placed_without_them() {
    let old: Vec<_> = (1..=4).map(|id| node(id, "a")).collect();
    let placed = place(&input(32, old));
    let nodes: Vec<_> = (1..=6)
        .map(|id| node(id, ["a", "b", "c"][(id as usize).saturating_sub(4)]))
        .collect();
    let spread_out = place(&after(&placed, 32, nodes.clone()));
    assert!(
        spread_out
            .replicas
            .values()
            .all(|replicas| spread(&nodes, replicas) == 3)
    );
}

#[test]
fn replicas_beyond_the_number_wanted_go_from_the_fullest_nodes() {
    let nodes: Vec<_> = (1..=5).map(|id| node(id, "")).collect();
    let mut five = input(40, nodes.clone());
    five.replicas = 5;
    let placed = place(&five);
    let three = place(&after(&placed, 40, nodes.clone()));
    assert!(three.replicas.values().all(|nodes| nodes.len() == 3));
    assert_eq!(moved(&placed, &three), 0);
    assert_eq!(min_max(&loads(&three, &nodes)), (24, 24));
}

#[test]
fn load_follows_weight_and_a_weightless_node_holds_nothing() {
    let mut nodes: Vec<_> = (1..=6).map(|id| node(id, "")).collect();
    nodes[0].weight = 3;
    nodes[1].weight = 0;
    let placed = place(&input(140, nodes.clone()));
    let loads = loads(&placed, &nodes);
    // 420 replicas over weights 3, 1, 1, 1, 1; the first would take 180, but there are only 140 shards.
    assert_eq!(loads[&NodeId(1)], 140);
    assert_eq!(loads[&NodeId(2)], 0);
    assert!((3..=6).all(|id| loads[&NodeId(id)] == 70));
}

fn nodes_strategy() -> impl Strategy<Value = Vec<PlacementNode>> {
    let one = (1u64..40, 0usize..4, 0u32..4, prop::bool::weighted(0.85));
    prop::collection::vec(one, 0..14).prop_map(|nodes| {
        let by_id: BTreeMap<u64, PlacementNode> = nodes
            .into_iter()
            .map(|(id, zone, weight, accepts)| {
                let zone = ["a", "b", "c", "d"][zone].to_owned();
                (
                    id,
                    PlacementNode {
                        id: NodeId(id),
                        zone,
                        weight,
                        accepts,
                        code_version: 0,
                    },
                )
            })
            .collect();
        by_id.into_values().collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// Whatever the cluster was before: the shape is right, nothing depends on the order of the input, and doing it
    /// again changes nothing.
    #[test]
    fn any_history_ends_in_a_sound_placement(
        history in prop::collection::vec((nodes_strategy(), 1u8..6), 1..5), shards in 1u32..40, seed in any::<u64>(),
    ) {
        let mut before = Placement::default();
        for (nodes, replicas) in history {
            let mut input = after(&before, shards, nodes);
            input.replicas = replicas;
            let placed = place(&input);
            check_shape(&input, &placed)?;
            let mut shuffled = input.clone();
            shuffle(&mut shuffled.nodes, seed);
            for nodes in shuffled.current.values_mut() {
                shuffle(nodes, seed);
            }
            prop_assert_eq!(&place(&shuffled), &placed);
            let again = PlacementInput { current: placed.replicas.clone(), leaders: placed.leaders.clone(), ..input };
            let settled = place(&again);
            prop_assert_eq!(&settled, &placed);
            before = placed;
        }
    }

    /// Each shard is spread over zones as evenly as the nodes allow.
    #[test]
    fn zones_are_used_as_evenly_as_they_can_be(
        zones in prop::collection::vec(0usize..5, 1..16), replicas in 1u8..6, shards in 1u32..50, gone in any::<prop::sample::Index>(),
    ) {
        let mut nodes: Vec<_> =
            zones.iter().enumerate().map(|(i, zone)| node(i as u64 + 1, ["a", "b", "c", "d", "e"][*zone])).collect();
        let mut first = input(shards, nodes.clone());
        first.replicas = replicas;
        let placed = place(&first);
        let best = best_spread(&nodes, usize::from(replicas));
        for (shard, on) in &placed.replicas {
            prop_assert_eq!(spread(&nodes, on), best, "shard {} on {:?}", shard, on);
        }
        // And again when one node goes.
        nodes.remove(gone.index(nodes.len()));
        let mut second = after(&placed, shards, nodes.clone());
        second.replicas = replicas;
        let best = best_spread(&nodes, usize::from(replicas));
        for (shard, on) in &place(&second).replicas {
            prop_assert_eq!(spread(&nodes, on), best, "shard {} on {:?}", shard, on);
        }
    }

    /// In zones of equal size balance is as good as without zones.
    #[test]
    fn equal_zones_cost_no_balance(per_zone in 1u64..6, zone_count in 3u64..6, shards in 1u32..100) {
        let nodes: Vec<_> = (0..per_zone * zone_count)
            .map(|id| node(id + 1, ["a", "b", "c", "d", "e"][(id % zone_count) as usize]))
            .collect();
        let placed = place(&input(shards, nodes.clone()));
        let (min, max) = min_max(&loads(&placed, &nodes));
        prop_assert!(max - min <= 1, "{} to {}", min, max);
        let (min, max) = min_max(&leads(&placed, &nodes));
        prop_assert!(max - min <= 1, "leaders {} to {}", min, max);
    }

    /// Joins and leaves one after the other, at any size, keep balance and stay near the least number of moves.
    #[test]
    fn churn_moves_little_more_than_it_must(
        start in 4u64..20, churn in prop::collection::vec(any::<prop::sample::Index>(), 1..12), many in any::<bool>(),
    ) {
        let shards = if many { 256 } else { 64 };
        let mut nodes: Vec<_> = (1..=start).map(|id| node(id, "")).collect();
        let mut placed = place(&input(shards, nodes.clone()));
        for (round, pick) in churn.into_iter().enumerate() {
            let before = loads(&placed, &nodes);
            let joins = nodes.len() < 5 || pick.index(2) == 0;
            let ideal_leave = if joins {
                nodes.push(node(1_000 + round as u64, ""));
                None
            } else {
                let gone = nodes.remove(pick.index(nodes.len()));
                Some(before[&gone.id])
            };
            let next = place(&after(&placed, shards, nodes.clone()));
            let loads = loads(&next, &nodes);
            let (min, max) = min_max(&loads);
            prop_assert!(max - min <= 1, "{} to {}", min, max);
            let ideal = ideal_leave.unwrap_or_else(|| loads[&nodes[nodes.len() - 1].id]);
            let allowed = ideal + ideal / 10 + 2;
            let moves = moved(&placed, &next);
            prop_assert!(moves <= allowed, "{} moves, ideal {}", moves, ideal);
            placed = next;
        }
    }
}

/// A fixed permutation per seed.
fn shuffle<T>(items: &mut [T], mut seed: u64) {
    for i in (1..items.len()).rev() {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        items.swap(i, (seed >> 33) as usize % (i + 1));
    }
}

/// What a placement is, in one number.
fn digest(placement: &Placement) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    for (shard, nodes) in &placement.replicas {
        let leader = placement.leaders[shard];
        for value in nodes
            .iter()
            .chain([&leader])
            .map(|node| node.0)
            .chain([u64::from(shard.0)])
        {
            hash = (hash ^ value).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    hash
}

fn fixed_case() -> u64 {
    let nodes: Vec<_> = (1..=11)
        .map(|id| node(id * id, ["a", "b", "c"][id as usize % 3]))
        .collect();
    let placed = place(&input(64, nodes.clone()));
    let fewer = nodes.into_iter().filter(|node| node.id.0 != 25).collect();
    digest(&place(&after(&placed, 64, fewer)))
}

const CHILD: &str = "CLINCH_PLACEMENT_CHILD";

/// Another process, with its own hash seeds and addresses, comes to the same placement; and so does another release.
#[test]
fn every_process_and_release_places_alike() {
    if std::env::var_os(CHILD).is_some() {
        println!("digest={:016x}", fixed_case());
        return;
    }
    let child = Command::new(std::env::current_exe().expect("the test knows its own path"))
        .args(["--exact", "every_process_and_release_places_alike", "--nocapture"])
        .env(CHILD, "1")
        .output()
        .expect("the test can start itself");
    let out = String::from_utf8_lossy(&child.stdout).into_owned();
    assert!(
        out.contains(&format!("digest={:016x}", fixed_case())),
        "the child said: {out}"
    );
    assert_eq!(fixed_case(), GOLDEN, "{:#x}", fixed_case());
}
const GOLDEN: u64 = 0xdece_8bf5_f7d2_0682;

#[test]
fn every_shard_is_placed_once() {
    let nodes: Vec<_> = (1..=4).map(|id| node(id, "")).collect();
    let placed = place(&input(1024, nodes));
    let expected: BTreeSet<ShardId> = (0..1024).map(ShardId).collect();
    assert!(placed.replicas.keys().eq(&expected) && placed.leaders.keys().eq(&expected));
}
