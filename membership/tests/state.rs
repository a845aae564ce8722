//! The laws of the cluster state: every accepted command keeps the invariants, every refusal says why.

use std::collections::BTreeMap;

use clinch_membership::{
    ClusterState, Command, Desired, NodeRecord, NodeState, Rejected, Setting, Settings, TokenKind,
    TokenRecord, limits,
};
use clinch_types::{ClusterId, Epoch, Incarnation, NodeId, RegionId, ShardId, Slot, WallMs, codec};
use proptest::prelude::*;

fn cluster(settings: Settings) -> ClusterState {
    ClusterState::new(ClusterId(7), "test", RegionId(0), settings, WallMs(1_000)).expect("sound settings")
}

fn record(id: u64, incarnation: u64) -> NodeRecord {
    NodeRecord {
        id: NodeId(id),
        storage_id: u128::from(id) + 100,
        incarnation: Incarnation(incarnation),
        address: format!("10.0.0.{id}:7000"),
        gateway: Some(format!("http://10.0.0.{id}:6420")),
        zone: "a".to_owned(),
        region: RegionId(0),
        code_version: 1,
        capacity: 1,
        state: NodeState::Up,
        actor_types: vec!["counter".to_owned()],
    }
}

fn join(id: u64) -> Command {
    Command::Join {
        record: record(id, 1),
    }
}

fn set_state(id: u64, state: NodeState) -> Command {
    Command::SetNodeState {
        node: NodeId(id),
        incarnation: None,
        state,
    }
}

/// Applies all; panics with the command that was refused.
fn apply_all(mut state: ClusterState, commands: impl IntoIterator<Item = Command>) -> ClusterState {
    for command in commands {
        let what = format!("{command:?}");
        state = state
            .apply(command)
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        state
            .check_invariants()
            .unwrap_or_else(|broken| panic!("{what}: {broken}"));
    }
    state
}

/// Four nodes, all shards placed.
fn placed() -> ClusterState {
    apply_all(
        cluster(Settings::default()),
        [join(1), join(2), join(3), join(4), Command::PlaceInitial],
    )
}

#[test]
fn the_version_grows_by_one_with_each_change_and_not_without() {
    let one = cluster(Settings::default()).apply(join(1)).unwrap();
    assert_eq!(one.version, 1);
    let again = one.apply(join(1)).unwrap();
    assert_eq!(again, one, "a repeated join changes nothing");
    let same = one.apply(set_state(1, NodeState::Up)).unwrap();
    assert_eq!(same.version, 1);
    assert_eq!(one.apply(set_state(1, NodeState::Draining)).unwrap().version, 2);
}

#[test]
fn a_wiped_node_must_come_back_under_a_new_id() {
    let state = placed();
    let mut wiped = record(2, 2);
    wiped.storage_id = 999;
    let error = state.apply(Command::Join { record: wiped }).unwrap_err();
    assert_eq!(error, Rejected::WrongStorage { node: NodeId(2) });
    assert_eq!(
        error.to_string(),
        "node 2's data directory is not the one it joined with: a wiped node must join under a new node id"
    );
}

#[test]
fn a_copied_data_directory_is_refused() {
    let mut copy = record(9, 1);
    copy.storage_id = record(2, 1).storage_id;
    let (node, owner) = (NodeId(9), NodeId(2));
    assert_eq!(
        placed().apply(Command::Join { record: copy }),
        Err(Rejected::StorageTaken { node, owner })
    );
}

#[test]
fn a_restart_updates_the_record_and_an_earlier_start_is_refused() {
    let down = placed().apply(set_state(2, NodeState::Down)).unwrap();
    let mut restarted = record(2, 5);
    restarted.address = "10.0.0.99:7000".to_owned();
    let up = down.apply(Command::Join { record: restarted }).unwrap();
    let node = &up.nodes[&NodeId(2)];
    assert_eq!((node.state, node.incarnation), (NodeState::Up, Incarnation(5)));
    assert_eq!(node.address, "10.0.0.99:7000");
    let late = Command::Join { record: record(2, 4) };
    assert!(matches!(up.apply(late), Err(Rejected::OldIncarnation { .. })));
    let verdict = Command::SetNodeState {
        node: NodeId(2),
        incarnation: Some(Incarnation(1)),
        state: NodeState::Down,
    };
    assert!(
        matches!(up.apply(verdict), Err(Rejected::OldIncarnation { .. })),
        "a verdict about the last start"
    );
}

#[test]
fn a_restart_does_not_end_a_drain() {
    let draining = placed().apply(set_state(2, NodeState::Draining)).unwrap();
    let restarted = draining.apply(Command::Join { record: record(2, 2) }).unwrap();
    assert_eq!(restarted.nodes[&NodeId(2)].state, NodeState::Draining);
}

#[test]
fn an_id_that_left_or_was_replaced_is_never_used_again() {
    let left = apply_all(
        cluster(Settings::default()),
        [
            join(1),
            set_state(1, NodeState::Draining),
            set_state(1, NodeState::Left),
        ],
    );
    for state in [
        left,
        apply_all(
            placed(),
            [set_state(1, NodeState::Down), set_state(1, NodeState::Replaced)],
        ),
    ] {
        let back = Command::Join { record: record(1, 9) };
        assert!(matches!(state.apply(back), Err(Rejected::Gone { .. })));
        assert!(matches!(
            state.apply(set_state(1, NodeState::Up)),
            Err(Rejected::BadTransition { .. })
        ));
        assert!(state.nodes[&NodeId(1)].actor_types.is_empty());
    }
}

#[test]
fn a_node_leaves_only_when_nothing_is_on_it() {
    let draining = placed().apply(set_state(1, NodeState::Draining)).unwrap();
    let leave = set_state(1, NodeState::Left);
    assert!(matches!(
        draining.apply(leave.clone()),
        Err(Rejected::StillInUse { .. })
    ));
    let shards = draining.rebalanced();
    assert!(!shards.is_empty());
    let base = draining.version;
    let mut state = apply_all(draining, [Command::SetDesired { base, shards }]);
    assert_eq!(state.shards_on(NodeId(1)).count(), 0);
    // A group that still has it as a voter holds it back, too.
    let voters = vec![NodeId(1), NodeId(2)];
    state = apply_all(
        state,
        [Command::SetActual {
            shard: ShardId(3),
            voters,
        }],
    );
    let held = Rejected::StillInUse {
        node: NodeId(1),
        shard: ShardId(3),
    };
    assert_eq!(state.apply(leave.clone()), Err(held));
    let voters = vec![NodeId(3), NodeId(2)];
    apply_all(
        state,
        [
            Command::SetActual {
                shard: ShardId(3),
                voters,
            },
            leave,
        ],
    );
}

#[test]
fn the_first_placement_waits_for_the_nodes_expected_and_happens_once() {
    let settings = Settings {
        expect_nodes: 3,
        ..Settings::default()
    };
    let mut joining = record(3, 1);
    joining.state = NodeState::Joining;
    let two = apply_all(
        cluster(settings),
        [join(1), join(2), Command::Join { record: joining }],
    );
    let early = Rejected::TooFewNodes { up: 2, expected: 3 };
    assert_eq!(two.apply(Command::PlaceInitial), Err(early));
    let three = apply_all(two, [set_state(3, NodeState::Up), Command::PlaceInitial]);
    assert_eq!(
        (three.shards.len(), three.slots.len()),
        (16, usize::from(Slot::COUNT))
    );
    assert!(
        three
            .shards
            .values()
            .all(|at| at.desired.len() == 3 && at.actual.is_empty())
    );
    assert!(matches!(
        three.apply(Command::PlaceInitial),
        Err(Rejected::AlreadyPlaced { .. })
    ));
}

#[test]
fn nodes_of_another_region_or_without_capacity_hold_no_shards() {
    let (mut far, mut small) = (record(2, 1), record(3, 1));
    far.region = RegionId(1);
    small.capacity = 0;
    let commands = [
        join(1),
        Command::Join { record: far },
        Command::Join { record: small },
        Command::PlaceInitial,
    ];
    let state = apply_all(cluster(Settings::default()), commands);
    assert!(state.shards.values().all(|at| at.desired == [NodeId(1)]));
    let mut moved = record(2, 2);
    moved.region = RegionId(0);
    assert!(matches!(
        state.apply(Command::Join { record: moved }),
        Err(Rejected::WrongRegion { .. })
    ));
}

#[test]
fn a_plan_from_an_older_state_or_onto_an_unfit_node_is_refused() {
    let state = placed();
    let desired = |nodes: &[u64], leader| Desired {
        replicas: nodes.iter().map(|&id| NodeId(id)).collect(),
        leader: NodeId(leader),
    };
    let set = |base, nodes: &[u64], leader| Command::SetDesired {
        base,
        shards: BTreeMap::from([(ShardId(0), desired(nodes, leader))]),
    };
    let now = state.version;
    assert_eq!(
        state.apply(set(now - 1, &[1, 2, 3], 1)),
        Err(Rejected::Stale {
            base: now - 1,
            current: now
        })
    );
    assert!(matches!(
        state.apply(set(now, &[1, 1, 3], 1)),
        Err(Rejected::BadReplicas { .. })
    ));
    assert!(matches!(
        state.apply(set(now, &[], 1)),
        Err(Rejected::BadReplicas { .. })
    ));
    assert!(matches!(
        state.apply(set(now, &[1, 2, 3], 4)),
        Err(Rejected::BadLeader { .. })
    ));
    assert_eq!(
        state.apply(set(now, &[1, 2, 8], 1)),
        Err(Rejected::UnknownNode { node: NodeId(8) })
    );
    let joined = apply_all(state, [join(5), set_state(5, NodeState::Down)]);
    let onto_down = joined.apply(set(joined.version, &[1, 2, 5], 1));
    assert!(matches!(onto_down, Err(Rejected::CannotGain { .. })));
    let sorted = apply_all(joined.clone(), [set(joined.version, &[4, 2, 1], 4)]);
    assert_eq!(
        sorted.shards[&ShardId(0)].desired,
        [NodeId(1), NodeId(2), NodeId(4)]
    );
}

#[test]
fn a_settled_cluster_needs_no_rebalance_and_a_grown_one_does() {
    let state = placed();
    assert!(state.rebalanced().is_empty());
    let down = apply_all(state.clone(), [set_state(2, NodeState::Down)]);
    assert!(down.rebalanced().is_empty(), "a reboot moves nothing");
    let replaced = apply_all(down, [set_state(2, NodeState::Replaced)]);
    let plan = replaced.rebalanced();
    assert!(
        plan.values()
            .all(|desired| !desired.replicas.contains(&NodeId(2)))
    );
    let base = replaced.version;
    let repaired = apply_all(replaced, [Command::SetDesired { base, shards: plan }]);
    assert!(repaired.rebalanced().is_empty());
    let grown = apply_all(state, [join(5)]);
    assert!(!grown.rebalanced().is_empty());
    assert!(cluster(Settings::default()).rebalanced().is_empty());
}

#[test]
fn namespaces_and_tokens_are_checked_and_forgotten_on_request() {
    let token = TokenRecord {
        kind: TokenKind::Secret,
        namespace: Some("shop".to_owned()),
        hash: [3; 32],
        created: WallMs(5),
    };
    let put = |token: &TokenRecord| Command::PutToken {
        id: "t1".to_owned(),
        token: token.clone(),
    };
    let create = |name: &str| Command::CreateNamespace {
        name: name.to_owned(),
        created: WallMs(5),
    };
    let state = cluster(Settings::default());
    assert!(state.namespaces.contains_key("default"));
    assert!(matches!(
        state.apply(put(&token)),
        Err(Rejected::UnknownNamespace { .. })
    ));
    let state = apply_all(state, [create("shop"), put(&token)]);
    assert_eq!(state.apply(create("shop")).unwrap(), state);
    let admin = TokenRecord {
        kind: TokenKind::Admin,
        ..token
    };
    assert!(matches!(
        state.apply(put(&admin)),
        Err(Rejected::Malformed { .. })
    ));
    for bad in ["", "a b", "a/b", "ü"] {
        assert!(
            matches!(state.apply(create(bad)), Err(Rejected::Malformed { .. })),
            "{bad:?}"
        );
    }
    assert!(matches!(
        state.apply(create(&"x".repeat(65))),
        Err(Rejected::TooLong { len: 65, max: 64, .. })
    ));
    let state = apply_all(state, [Command::RemoveToken { id: "t1".to_owned() }]);
    assert!(state.tokens.is_empty());
}

#[test]
fn the_secret_of_inspectors_is_made_once_and_is_no_token_of_anybody() {
    let make = |byte| Command::MakeInspectorSecret {
        secret: [byte; 32],
        created: WallMs(5),
    };
    let state = cluster(Settings::default());
    assert_eq!(state.inspector_secret(), None);
    let state = apply_all(state, [make(1)]);
    assert_eq!(state.inspector_secret(), Some(&[1; 32]));
    assert_eq!(state.apply(make(2)).unwrap(), state, "the first stays");
    let (id, token) = state.tokens.first_key_value().expect("where it lies");
    let put = Command::PutToken {
        id: id.clone(),
        token: TokenRecord {
            hash: [2; 32],
            ..token.clone()
        },
    };
    assert!(matches!(state.apply(put), Err(Rejected::Malformed { .. })));
    // As nodes of any release read it.
    let read: ClusterState = codec::decode(&codec::encode(&state).unwrap()).unwrap();
    assert_eq!(read.inspector_secret(), Some(&[1; 32]));
}

#[test]
fn settings_out_of_range_are_refused_and_shards_are_fixed_once_placed() {
    let state = placed();
    let set = |setting| Command::SetSetting { setting };
    assert!(matches!(
        state.apply(set(Setting::Shards(32))),
        Err(Rejected::AlreadyPlaced { .. })
    ));
    assert!(matches!(
        state.apply(set(Setting::Replicas(8))),
        Err(Rejected::OutOfRange { value: 8, .. })
    ));
    assert!(matches!(
        state.apply(set(Setting::ExpectNodes(0))),
        Err(Rejected::OutOfRange { .. })
    ));
    let fewer = apply_all(state, [set(Setting::Replicas(1))]);
    assert_eq!(fewer.rebalanced().len(), 16);
    apply_all(cluster(Settings::default()), [set(Setting::Shards(32))]);
}

#[test]
fn records_over_their_limits_are_refused_with_the_limit() {
    let state = cluster(Settings::default());
    let with = |change: fn(&mut NodeRecord)| {
        let mut record = record(1, 1);
        change(&mut record);
        state.apply(Command::Join { record }).unwrap_err()
    };
    assert!(matches!(
        with(|node| node.address = "x".repeat(263)),
        Rejected::TooLong { max: 262, .. }
    ));
    assert!(matches!(
        with(|node| node.address.clear()),
        Rejected::Malformed { .. }
    ));
    assert!(matches!(
        with(|node| node.zone = "z".repeat(65)),
        Rejected::TooLong { max: 64, .. }
    ));
    assert!(matches!(
        with(|node| node.capacity = 1_001),
        Rejected::OutOfRange { .. }
    ));
    assert!(matches!(
        with(|node| node.actor_types = vec!["t".repeat(64); 114]),
        Rejected::TooLong { .. }
    ));
    assert!(matches!(
        with(|node| node.state = NodeState::Down),
        Rejected::BadTransition { .. }
    ));
}

#[test]
fn routes_show_present_nodes_replicas_and_owners_as_last_heard() {
    let state = apply_all(
        placed(),
        [set_state(4, NodeState::Down), set_state(4, NodeState::Replaced)],
    );
    let voters = vec![NodeId(2), NodeId(3)];
    let state = apply_all(
        state,
        [Command::SetActual {
            shard: ShardId(1),
            voters: voters.clone(),
        }],
    );
    let map = state.route_map(&BTreeMap::from([(ShardId(0), (NodeId(3), Epoch(9)))]));
    assert_eq!((map.cluster, map.version), (ClusterId(7), state.version));
    assert_eq!(
        (map.shards[&ShardId(0)].owner, map.shards[&ShardId(0)].epoch),
        (Some(NodeId(3)), Epoch(9))
    );
    assert_eq!(
        map.shards[&ShardId(0)].replicas,
        state.shards[&ShardId(0)].desired
    );
    assert_eq!(
        (map.shards[&ShardId(1)].owner, &map.shards[&ShardId(1)].replicas),
        (None, &voters)
    );
    assert_eq!(map.shard_of(Slot(64)), Some(ShardId(1)));
    assert!(map.nodes.keys().copied().eq([1, 2, 3].map(NodeId)));
    assert_eq!(map.nodes[&NodeId(2)].address, "10.0.0.2:7000");
    assert!(
        cluster(Settings::default())
            .route_map(&BTreeMap::new())
            .slots
            .is_empty()
    );
}

/// Clusters that exist hold these bytes: a change here needs a new format, not new golden bytes.
#[test]
fn the_encoded_form_never_changes() {
    let mut state = cluster(Settings {
        shards: 2,
        replicas: 1,
        expect_nodes: 1,
    });
    state = apply_all(state, [join(1), Command::PlaceInitial]);
    let token = TokenRecord {
        kind: TokenKind::Publishable,
        namespace: None,
        hash: [9; 32],
        created: WallMs(2),
    };
    let id = "pk".to_owned();
    state = apply_all(state, [Command::PutToken { id, token }]);
    state = apply_all(
        state,
        [Command::SetActual {
            shard: ShardId(1),
            voters: vec![NodeId(1)],
        }],
    );
    let bytes = codec::encode(&state).unwrap();
    // 1,024 slots of one byte each are told by their number.
    let slots: Vec<u8> = [[0u8; 512], [1u8; 512]].concat();
    let at = bytes
        .windows(1024)
        .position(|window| window == slots)
        .expect("the slot table");
    let short = [&bytes[..at], &bytes[at + 1024..]].concat();
    let hex: String = short.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, GOLDEN);
    assert_eq!(codec::decode::<ClusterState>(&bytes).unwrap(), state);
}
const GOLDEN: &str = concat!(
    "01070474657374000402010101010165010d31302e302e302e313a373030300114687474703a2f2f31302e302e302e313a36343230",
    "0161000101010107636f756e746572fb0004020001010001010101010101010764656661756c74fbe8030102706b0000",
    "090909090909090909090909090909090909090909090909090909090909090902"
);

/// Nodes of other releases send these bytes.
#[test]
fn the_encoded_commands_never_change() {
    let shard = ShardId(3);
    let voters = vec![NodeId(1), NodeId(2)];
    let desired = Desired {
        replicas: voters.clone(),
        leader: NodeId(2),
    };
    let verdict = Command::SetNodeState {
        node: NodeId(4),
        incarnation: Some(Incarnation(6)),
        state: NodeState::Down,
    };
    let token = TokenRecord {
        kind: TokenKind::Admin,
        namespace: None,
        hash: [1; 32],
        created: WallMs(2),
    };
    let (name, id) = ("shop".to_owned(), "pk".to_owned());
    let created = WallMs(7);
    let cases = [
        (join(1), GOLDEN_JOIN),
        (verdict, "010104010604"),
        (Command::PlaceInitial, "0102"),
        (
            Command::SetDesired {
                base: 9,
                shards: BTreeMap::from([(shard, desired)]),
            },
            "010309010302010202",
        ),
        (Command::SetActual { shard, voters }, "010403020102"),
        (
            Command::SetLeader {
                shard,
                leader: NodeId(2),
            },
            "01050302",
        ),
        (Command::CreateNamespace { name, created }, "01060473686f7007"),
        (
            Command::PutToken {
                id: id.clone(),
                token,
            },
            GOLDEN_TOKEN,
        ),
        (Command::RemoveToken { id }, "010802706b"),
        (
            Command::SetSetting {
                setting: Setting::Shards(64),
            },
            "01090040",
        ),
        (
            Command::SetSetting {
                setting: Setting::Replicas(5),
            },
            "01090105",
        ),
        (
            Command::SetSetting {
                setting: Setting::ExpectNodes(3),
            },
            "01090203",
        ),
        (
            Command::MakeInspectorSecret {
                secret: [7; 32],
                created: WallMs(2),
            },
            GOLDEN_SECRET,
        ),
    ];
    for (command, golden) in cases {
        let bytes = codec::encode(&command).unwrap();
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, golden, "{command:?}");
        assert_eq!(codec::decode::<Command>(&bytes).unwrap(), command);
    }
}
const GOLDEN_JOIN: &str = concat!(
    "0100016501",
    "0d31302e302e302e313a373030300114687474703a2f2f31302e302e302e313a36343230",
    "0161000101010107636f756e746572"
);
const GOLDEN_SECRET: &str = "010a070707070707070707070707070707070707070707070707070707070707070702";
const GOLDEN_TOKEN: &str = "010702706b0200010101010101010101010101010101010101010101010101010101010101010102";

#[test]
fn the_largest_state_fits_in_one_frame() {
    let mut state = cluster(Settings {
        shards: limits::SHARDS_MAX,
        replicas: limits::REPLICAS_MAX,
        expect_nodes: 1,
    });
    state.name = "n".repeat(limits::CLUSTER_NAME_MAX);
    let big = u64::MAX - limits::NODES_EVER_MAX as u64;
    for i in 0..limits::NODES_EVER_MAX as u64 {
        let present = i < limits::NODES_MAX as u64;
        let types = limits::ACTOR_TYPES_BYTES_MAX / 9;
        let node = NodeRecord {
            id: NodeId(big + i),
            storage_id: u128::MAX - u128::from(i),
            incarnation: Incarnation(u64::MAX),
            address: "a".repeat(limits::ADDRESS_MAX),
            gateway: present.then(|| "g".repeat(limits::GATEWAY_MAX)),
            zone: "z".repeat(limits::ZONE_MAX),
            region: RegionId(u16::MAX),
            code_version: u32::MAX,
            capacity: limits::CAPACITY_MAX,
            state: if present { NodeState::Up } else { NodeState::Left },
            actor_types: if present {
                vec!["t".to_owned(); types]
            } else {
                Vec::new()
            },
        };
        node.check().expect("within the limits");
        state.nodes.insert(node.id, node);
    }
    let voters: Vec<NodeId> = (0..14).map(|i| NodeId(big + i)).collect();
    state.slots = clinch_membership::slots::initial(limits::SHARDS_MAX);
    for shard in 0..limits::SHARDS_MAX {
        let at = clinch_membership::ShardPlacement {
            desired: voters.clone(),
            actual: voters.clone(),
            leader: voters[0],
        };
        state.shards.insert(ShardId(shard), at);
    }
    let name = |i: usize| format!("{i:064}");
    let created = WallMs(u64::MAX);
    for i in 0..limits::NAMESPACES_MAX {
        state
            .namespaces
            .insert(name(i), clinch_membership::NamespaceRecord { created });
    }
    for i in 0..limits::TOKENS_MAX {
        let token = TokenRecord {
            kind: TokenKind::Secret,
            namespace: Some(name(i)),
            hash: [255; 32],
            created,
        };
        state.tokens.insert(name(i), token);
    }
    let bytes = codec::encode(&state).expect("fits");
    assert_eq!(codec::decode::<ClusterState>(&bytes).expect("fits"), state);
    let refused = state.apply(Command::Join { record: record(1, 1) });
    assert!(matches!(
        refused,
        Err(Rejected::Full {
            max: limits::NODES_MAX,
            ..
        })
    ));
}

fn commands() -> impl Strategy<Value = Vec<Command>> {
    let node = || 1u64..7;
    let states = prop::sample::select(vec![
        NodeState::Joining,
        NodeState::Up,
        NodeState::Draining,
        NodeState::Left,
        NodeState::Down,
        NodeState::Replaced,
    ]);
    let name = || prop::sample::select(vec!["default", "shop", "b\u{e4}d", ""]).prop_map(str::to_owned);
    let nodes = || prop::collection::vec(node().prop_map(NodeId), 0..5);
    let join = (node(), 1u64..4, 0u32..3, prop::bool::weighted(0.9)).prop_map(
        |(id, incarnation, capacity, same)| {
            let mut record = record(id, incarnation);
            record.capacity = capacity;
            record.storage_id = if same { record.storage_id } else { 101 };
            Command::Join { record }
        },
    );
    let state =
        (node(), prop::option::weighted(0.2, 1u64..4), states).prop_map(|(id, incarnation, state)| {
            let incarnation = incarnation.map(Incarnation);
            Command::SetNodeState {
                node: NodeId(id),
                incarnation,
                state,
            }
        });
    let desired = (0u64..40, 0u32..6, nodes(), node()).prop_map(|(base, shard, replicas, leader)| {
        let leader = NodeId(leader);
        Command::SetDesired {
            base,
            shards: BTreeMap::from([(ShardId(shard), Desired { replicas, leader })]),
        }
    });
    let kind = prop::sample::select(vec![TokenKind::Publishable, TokenKind::Secret, TokenKind::Admin]);
    let put = (name(), kind, prop::option::of(name())).prop_map(|(id, kind, namespace)| {
        let token = TokenRecord {
            kind,
            namespace,
            hash: [1; 32],
            created: WallMs(1),
        };
        Command::PutToken { id, token }
    });
    let setting = prop_oneof![
        (0u32..6).prop_map(Setting::Shards),
        (0u8..9).prop_map(Setting::Replicas),
        (0u32..4).prop_map(Setting::ExpectNodes),
    ];
    let command = prop_oneof![
        6 => join,
        6 => state,
        3 => Just(Command::PlaceInitial),
        3 => desired,
        3 => (0u32..6, nodes()).prop_map(|(shard, voters)| Command::SetActual { shard: ShardId(shard), voters }),
        2 => (0u32..6, node()).prop_map(|(shard, leader)| Command::SetLeader { shard: ShardId(shard), leader: NodeId(leader) }),
        1 => name().prop_map(|name| Command::CreateNamespace { name, created: WallMs(3) }),
        1 => put,
        1 => name().prop_map(|id| Command::RemoveToken { id }),
        1 => any::<u8>().prop_map(|byte| Command::MakeInspectorSecret { secret: [byte; 32], created: WallMs(4) }),
        2 => setting.prop_map(|setting| Command::SetSetting { setting }),
    ];
    prop::collection::vec(command, 0..60)
}

proptest! {
    /// Whatever is asked, in whatever order: an accepted command keeps every invariant and moves the version by one
    /// or changes nothing; repeated, it changes nothing more, unless it was made for one version; a rebalance of any
    /// state that can be reached is accepted.
    #[test]
    fn every_accepted_command_keeps_the_invariants(commands in commands()) {
        let mut state = cluster(Settings { shards: 5, replicas: 3, expect_nodes: 1 });
        for mut command in commands {
            // Half the plans are up to date.
            if let Command::SetDesired { base, .. } = &mut command
                && *base % 2 == 0
            {
                *base = state.version;
            }
            let Ok(next) = state.apply(command.clone()) else {
                continue;
            };
            prop_assert_eq!(next.check_invariants(), Ok(()));
            prop_assert_eq!(next.version - state.version, u64::from(next != state));
            if !matches!(command, Command::PlaceInitial | Command::SetDesired { .. }) {
                prop_assert_eq!(next.apply(command), Ok(next.clone()));
            }
            let plan = Command::SetDesired { base: next.version, shards: next.rebalanced() };
            let balanced = next.apply(plan);
            prop_assert!(balanced.is_ok(), "{:?}", balanced);
            prop_assert!(balanced.is_ok_and(|balanced| balanced.rebalanced().is_empty()));
            let bytes = codec::encode(&next).expect("small");
            prop_assert_eq!(codec::decode::<ClusterState>(&bytes), Ok(next.clone()));
            state = next;
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = codec::decode::<ClusterState>(&bytes);
        let _ = codec::decode::<Command>(&bytes);
    }
}
