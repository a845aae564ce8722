//! The laws of moving: no step endangers a shard, whatever fails meanwhile; once all answer, all shards arrive.

use std::collections::{BTreeMap, BTreeSet};

use clinch_membership::moves::{MoveLimits, MovesInput, NodeView, ShardView, Step, Waiting, plan};
use clinch_types::{NodeId, ShardId};
use proptest::prelude::*;

fn ids(ids: &[u64]) -> BTreeSet<NodeId> {
    ids.iter().map(|&id| NodeId(id)).collect()
}

/// Nodes 1 to `count`, all of one version; those of `down` do not answer.
fn nodes(count: u64, down: &[u64]) -> BTreeMap<NodeId, NodeView> {
    let view = |id| NodeView {
        alive: !down.contains(&id),
        code_version: 1,
    };
    (1..=count).map(|id| (NodeId(id), view(id))).collect()
}

fn view(voters: &[u64], desired: &[u64], leader: u64) -> ShardView {
    ShardView {
        desired: ids(desired),
        preferred: NodeId(desired[0]),
        voters: ids(voters),
        leader: Some(NodeId(leader)),
        ..ShardView::default()
    }
}

fn input(shards: Vec<ShardView>, nodes: BTreeMap<NodeId, NodeView>) -> MovesInput {
    MovesInput {
        shards: (0..).map(ShardId).zip(shards).collect(),
        nodes,
        limits: MoveLimits::default(),
    }
}

fn alive(input: &MovesInput, nodes: &BTreeSet<NodeId>) -> usize {
    nodes
        .iter()
        .filter(|node| input.nodes.get(node).is_some_and(|view| view.alive))
        .count()
}

/// What must hold of any step, told from outside.
fn check_step(input: &MovesInput, shard: ShardId, step: &Step) -> Result<(), TestCaseError> {
    let view = &input.shards[&shard];
    let answers = |node: &NodeId| input.nodes.get(node).is_some_and(|view| view.alive);
    prop_assert!(
        2 * alive(input, &view.voters) > view.voters.len(),
        "{:?} without a majority",
        step
    );
    prop_assert!(!view.changing, "{:?} during another change", step);
    match step {
        Step::AddLearner { node } => {
            prop_assert!(view.desired.contains(node) && answers(node));
            prop_assert!(!view.voters.contains(node) && !view.learners.contains_key(node));
        }
        Step::ChangeVoters { voters } => {
            prop_assert!(voters != &view.voters);
            prop_assert!(
                2 * alive(input, voters) > voters.len(),
                "{:?} is no majority",
                voters
            );
            prop_assert!(
                view.leader.is_some_and(|leader| voters.contains(&leader)),
                "takes the leader away"
            );
            let wanted = alive(input, &view.voters).min(view.desired.len());
            prop_assert!(alive(input, voters) >= wanted, "{:?} answers with fewer", voters);
            for node in voters.difference(&view.voters) {
                prop_assert!(
                    view.learners.get(node) == Some(&true) && answers(node),
                    "{} is not ready",
                    node
                );
                prop_assert!(view.desired.contains(node));
            }
            for node in view.voters.difference(voters) {
                prop_assert!(!view.desired.contains(node), "{} is wanted", node);
            }
        }
        Step::TransferLeader { to } => {
            prop_assert!(view.voters.contains(to) && view.desired.contains(to) && answers(to));
            prop_assert!(view.leader != Some(*to));
        }
        Step::RemoveLearner { node } => {
            prop_assert!(view.learners.contains_key(node) && !view.desired.contains(node));
        }
    }
    if let (Step::AddLearner { node } | Step::TransferLeader { to: node }, Some(leader)) = (step, view.leader)
    {
        let version = |node: &NodeId| input.nodes[node].code_version;
        prop_assert!(version(node) >= version(&leader), "from newer to older code");
    }
    Ok(())
}

/// Learners that catch up, per node that receives and per node that sends.
fn check_limits(input: &MovesInput) -> Result<(), TestCaseError> {
    let (mut incoming, mut outgoing) = (BTreeMap::new(), BTreeMap::new());
    for view in input.shards.values() {
        for (&node, &caught_up) in &view.learners {
            if !caught_up {
                *incoming.entry(node).or_insert(0) += 1;
                *outgoing.entry(view.leader.expect("nothing failed")).or_insert(0) += 1;
            }
        }
    }
    prop_assert!(
        incoming.values().all(|count| *count <= input.limits.incoming_max),
        "{:?}",
        incoming
    );
    prop_assert!(
        outgoing.values().all(|count| *count <= input.limits.outgoing_max),
        "{:?}",
        outgoing
    );
    Ok(())
}

fn carry_out(view: &mut ShardView, step: Step) {
    match step {
        Step::AddLearner { node } => {
            view.learners.insert(node, false);
        }
        Step::ChangeVoters { voters } => {
            view.learners.retain(|node, _| !voters.contains(node));
            view.voters = voters;
        }
        Step::TransferLeader { to } => view.leader = Some(to),
        Step::RemoveLearner { node } => {
            view.learners.remove(&node);
        }
    }
}

/// Elections: a leader that does not answer is followed by a voter that does, if a majority answers.
fn elect(input: &mut MovesInput, pick: usize) {
    let nodes = input.nodes.clone();
    let answers = |node: &NodeId| nodes.get(node).is_some_and(|view| view.alive);
    for view in input.shards.values_mut() {
        if view
            .leader
            .as_ref()
            .is_some_and(|leader| answers(leader) && view.voters.contains(leader))
        {
            continue;
        }
        let able: Vec<NodeId> = view.voters.iter().copied().filter(|node| answers(node)).collect();
        view.leader = (2 * able.len() > view.voters.len()).then(|| able[pick % able.len()]);
    }
}

fn shards_strategy(nodes: u64) -> impl Strategy<Value = Vec<ShardView>> {
    let set = || prop::collection::btree_set((1..=nodes).prop_map(NodeId), 1..6);
    let shard = (
        set(),
        set(),
        any::<prop::sample::Index>(),
        any::<prop::sample::Index>(),
    );
    prop::collection::vec(shard, 1..8).prop_map(|shards| {
        let one = |(voters, desired, leader, preferred): (
            BTreeSet<NodeId>,
            BTreeSet<NodeId>,
            prop::sample::Index,
            prop::sample::Index,
        )| {
            let nth = |set: &BTreeSet<NodeId>, at: prop::sample::Index| {
                set.iter().copied().nth(at.index(set.len()))
            };
            ShardView {
                preferred: nth(&desired, preferred).expect("not empty"),
                leader: nth(&voters, leader),
                desired,
                voters,
                ..ShardView::default()
            }
        };
        shards.into_iter().map(one).collect()
    })
}

/// One round of the world: who fails or recovers, which learners catch up, whose elections end how.
#[derive(Debug, Clone)]
struct Round {
    flips: Vec<u64>,
    catch_up: bool,
    change_drags_on: bool,
    pick: usize,
}

fn rounds() -> impl Strategy<Value = Vec<Round>> {
    let round = (
        prop::collection::vec(1u64..10, 0..3),
        any::<bool>(),
        prop::bool::weighted(0.2),
        0usize..8,
    );
    let round = round.prop_map(|(flips, catch_up, change_drags_on, pick)| Round {
        flips,
        catch_up,
        change_drags_on,
        pick,
    });
    prop::collection::vec(round, 0..30)
}

fn catch_up(input: &mut MovesInput) {
    for view in input.shards.values_mut() {
        view.learners.values_mut().for_each(|caught_up| *caught_up = true);
    }
}

proptest! {
    /// Nodes come and go, learners are slow, changes drag on, plans are carried out in part: every step is safe.
    /// Then all answer: within a bounded number of rounds all shards are where they should be, and led as they should.
    #[test]
    fn no_step_endangers_a_shard_and_all_arrive_in_the_end(shards in shards_strategy(9), rounds in rounds()) {
        let mut input = input(shards, nodes(9, &[]));
        for round in rounds {
            for id in &round.flips {
                let node = input.nodes.get_mut(&NodeId(*id)).expect("ids are 1 to 9");
                node.alive = !node.alive;
            }
            elect(&mut input, round.pick);
            if round.catch_up {
                catch_up(&mut input);
            }
            let plan = plan(&input);
            for (i, (shard, step)) in plan.steps.into_iter().enumerate() {
                prop_assert!(!plan.waiting.contains_key(&shard));
                check_step(&input, shard, &step)?;
                // Some steps are lost: the driver may have crashed.
                if (i + round.pick) % 3 > 0 {
                    carry_out(input.shards.get_mut(&shard).expect("planned"), step);
                }
            }
            for view in input.shards.values_mut() {
                view.changing = round.change_drags_on;
            }
        }
        input.nodes.values_mut().for_each(|node| node.alive = true);
        input.shards.values_mut().for_each(|view| view.changing = false);
        elect(&mut input, 0);
        // Per shard at most: 5 learners added and 5 dropped, 4 changes of voters, 2 transfers; one shard at a time.
        let enough = 20 * input.shards.len();
        for _ in 0..enough {
            let plan = plan(&input);
            if plan.is_done() {
                break;
            }
            for (shard, step) in plan.steps {
                check_step(&input, shard, &step)?;
                carry_out(input.shards.get_mut(&shard).expect("planned"), step);
            }
            catch_up(&mut input);
        }
        prop_assert!(plan(&input).is_done(), "{:?}", plan(&input));
        for view in input.shards.values() {
            prop_assert_eq!(&view.voters, &view.desired);
            prop_assert_eq!(view.leader, Some(view.preferred));
            prop_assert!(view.learners.is_empty());
        }
    }

    /// While nothing fails, no node takes in or sends out more than the limits say.
    #[test]
    fn no_node_is_given_more_to_copy_than_its_limit(shards in shards_strategy(6), slow in 1usize..5) {
        let mut input = input(shards, nodes(6, &[]));
        for round in 0..200 {
            for (shard, step) in plan(&input).steps {
                carry_out(input.shards.get_mut(&shard).expect("planned"), step);
            }
            check_limits(&input)?;
            if round % slow == 0 {
                catch_up(&mut input);
            }
        }
        prop_assert!(plan(&input).is_done());
    }
}

/// Carries the plan out round by round and returns the steps of shard 0.
fn run(mut input: MovesInput) -> Vec<Step> {
    let mut steps = Vec::new();
    for _ in 0..20 {
        let plan = plan(&input);
        for (shard, step) in plan.steps {
            if shard == ShardId(0) {
                steps.push(step.clone());
            }
            carry_out(input.shards.get_mut(&shard).expect("planned"), step);
        }
        catch_up(&mut input);
    }
    assert!(plan(&input).is_done());
    steps
}

#[test]
fn a_replica_moves_by_learning_first_then_voting_in_place_of_the_old_one() {
    let steps = run(input(vec![view(&[1, 2, 3], &[1, 2, 4], 1)], nodes(4, &[])));
    let voters = ids(&[1, 2, 4]);
    assert_eq!(
        steps,
        [
            Step::AddLearner { node: NodeId(4) },
            Step::ChangeVoters { voters }
        ]
    );
}

#[test]
fn an_owner_that_is_to_go_hands_over_to_the_preferred_leader_before_it_goes() {
    let mut shard = view(&[1, 2, 3], &[2, 3, 4], 1);
    shard.preferred = NodeId(3);
    let steps = run(input(vec![shard], nodes(4, &[])));
    assert_eq!(
        steps,
        [
            Step::AddLearner { node: NodeId(4) },
            Step::TransferLeader { to: NodeId(3) },
            Step::ChangeVoters {
                voters: ids(&[2, 3, 4])
            },
        ]
    );
}

#[test]
fn a_single_node_grows_to_three_in_one_change() {
    let steps = run(input(vec![view(&[1], &[1, 2, 3], 1)], nodes(3, &[])));
    assert_eq!(
        steps,
        [
            Step::AddLearner { node: NodeId(2) },
            Step::AddLearner { node: NodeId(3) },
            Step::ChangeVoters {
                voters: ids(&[1, 2, 3])
            },
        ]
    );
}

#[test]
fn the_dead_replica_is_replaced_first_when_several_are_to_go() {
    let mut shard = view(&[1, 2, 3, 4, 5], &[1, 6, 7, 4, 5], 1);
    shard.learners = BTreeMap::from([(NodeId(6), true), (NodeId(7), false)]);
    let plan = plan(&input(vec![shard], nodes(7, &[3])));
    let voters = ids(&[1, 2, 4, 5, 6]);
    assert_eq!(plan.steps[&ShardId(0)], Step::ChangeVoters { voters });
}

#[test]
fn shards_that_lack_replicas_go_first_and_the_others_say_that_they_wait() {
    let shards = vec![view(&[1, 2, 4], &[1, 2, 5], 1), view(&[1, 2, 3], &[1, 2, 5], 1)];
    let plan = plan(&input(shards, nodes(5, &[3])));
    assert_eq!(plan.steps[&ShardId(1)], Step::AddLearner { node: NodeId(5) });
    assert_eq!(plan.waiting[&ShardId(0)], Waiting::RepairsFirst);
}

#[test]
fn every_wait_names_its_reason() {
    let waiting = |shard: ShardView, down: &[u64]| {
        plan(&input(vec![shard], nodes(5, down)))
            .waiting
            .remove(&ShardId(0))
    };
    let unformed = ShardView {
        voters: BTreeSet::new(),
        ..view(&[1], &[1], 1)
    };
    assert_eq!(waiting(unformed, &[]), Some(Waiting::NotFormed));
    let lost = Waiting::NoQuorum {
        missing: ids(&[2, 3]),
        voters: 3,
    };
    assert_eq!(waiting(view(&[1, 2, 3], &[1, 4, 5], 1), &[2, 3]), Some(lost));
    let leaderless = ShardView {
        leader: None,
        ..view(&[1, 2, 3], &[1, 2, 4], 1)
    };
    assert_eq!(waiting(leaderless, &[]), Some(Waiting::NoLeader));
    let down = Waiting::NodesDown { nodes: ids(&[4]) };
    assert_eq!(waiting(view(&[1, 2, 3], &[1, 2, 4], 1), &[4]), Some(down));
    let learning = ShardView {
        learners: BTreeMap::from([(NodeId(4), false)]),
        ..view(&[1, 2, 3], &[1, 2, 4], 1)
    };
    assert_eq!(
        waiting(learning, &[]),
        Some(Waiting::CatchingUp { nodes: ids(&[4]) })
    );
    let changing = ShardView {
        changing: true,
        ..view(&[1, 2, 3], &[1, 2, 3], 1)
    };
    assert_eq!(waiting(changing, &[]), Some(Waiting::Changing));
    assert_eq!(waiting(view(&[1, 2, 3], &[1, 2, 3], 1), &[]), None);
}

#[test]
fn a_shard_never_moves_to_older_code() {
    let mut input = input(vec![view(&[1, 2, 3], &[1, 2, 4], 1)], nodes(4, &[]));
    input.nodes.get_mut(&NodeId(1)).expect("node 1").code_version = 2;
    assert_eq!(
        plan(&input).waiting[&ShardId(0)],
        Waiting::OlderCode { nodes: ids(&[4]) }
    );
    let led_elsewhere = ShardView {
        preferred: NodeId(2),
        ..view(&[1, 2, 3], &[1, 2, 3], 1)
    };
    input.shards.insert(ShardId(0), led_elsewhere);
    assert_eq!(
        plan(&input).waiting[&ShardId(0)],
        Waiting::OlderCode { nodes: ids(&[2]) }
    );
}
