//! The bytes of what nodes of different releases say to each other about actors: fixed, or they understand nothing.

use clinch_types::{
    ActorId, ActorInfo, ActorLook, ActorStatus, ActorView, ActorWarning, CallOp, Crash, Epoch, Key,
    ListReply, RegionId, RequestId, SessionId, Slot, TurnCause, TurnOutcome, TurnTrace, TurnsReply,
    ViewReply, WallMs, codec,
};

fn info() -> ActorInfo {
    ActorInfo {
        id: ActorId::new(RegionId(0), Slot(1), 2),
        namespace: "n".into(),
        name: "a".into(),
        key: Key::new(["k"]).unwrap(),
        region: RegionId(0),
        created: WallMs(5),
        awake: true,
    }
}

fn crash() -> Crash {
    Crash {
        group: "g".into(),
        code: "c".into(),
        failures: 2,
        since: WallMs(6),
        next_try: Some(WallMs(7)),
    }
}

/// The bytes, and that they read back as the same.
fn written<T: codec::Encode + codec::Decode<()> + PartialEq + std::fmt::Debug>(value: &T) -> Vec<u8> {
    let bytes = codec::encode(value).unwrap();
    assert_eq!(codec::decode::<T>(&bytes).as_ref(), Ok(value));
    bytes
}

/// As [`info`] is written.
const INFO: [u8; 25] = [
    0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 1, b'n', 1, b'a', 1, 1, b'k', 0, 5,
];

#[test]
fn what_earlier_releases_know_is_written_as_they_do() {
    let mut expected = vec![1];
    expected.extend(INFO);
    expected.push(1);
    assert_eq!(written(&info()), expected);
    let list = ListReply {
        actors: vec![info()],
        next: None,
    };
    let mut expected = vec![1, 1];
    expected.extend(INFO);
    expected.extend([1, 0]);
    assert_eq!(written(&list), expected);
    assert_eq!(written(&CallOp::Resolve), [1, 1]);
    assert_eq!(written(&CallOp::Inspect), [1, 11]);
    assert_eq!(written(&CallOp::ClearQueues), [1, 13]);
}

#[test]
fn a_status_has_a_number_that_stays() {
    let all = [
        (ActorStatus::Starting, vec![1, 0]),
        (ActorStatus::Running, vec![1, 1]),
        (ActorStatus::Stopping, vec![1, 2]),
        (ActorStatus::Sleeping, vec![1, 3]),
        (
            ActorStatus::Crashed(crash()),
            vec![1, 4, 1, b'g', 1, b'c', 2, 6, 1, 7],
        ),
        (
            ActorStatus::BackingOff(crash()),
            vec![1, 5, 1, b'g', 1, b'c', 2, 6, 1, 7],
        ),
    ];
    for (status, bytes) in all {
        assert_eq!(written(&status), bytes, "{status:?}");
    }
}

#[test]
fn looks_are_written_as_they_always_will_be() {
    assert_eq!(written(&CallOp::Look), [1, 14]);
    let turns = CallOp::Turns {
        from: WallMs(1),
        to: WallMs(2),
        limit: 3,
    };
    assert_eq!(written(&turns), [1, 15, 1, 2, 3]);
    let view = ActorView {
        info: info(),
        status: ActorStatus::Sleeping,
    };
    let warning = ActorWarning {
        code: "w".into(),
        message: "m".into(),
    };
    let look = ActorLook {
        view: view.clone(),
        warnings: vec![warning.clone()],
    };
    let mut expected = vec![1];
    expected.extend(INFO);
    expected.extend([1, 3, 1, 1, b'w', 1, b'm']);
    assert_eq!(written(&look), expected);
    let page = ViewReply {
        actors: vec![view],
        next: None,
        warnings: vec![warning],
    };
    let mut expected = vec![1, 1];
    expected.extend(INFO);
    expected.extend([1, 3, 0, 1, 1, b'w', 1, b'm']);
    assert_eq!(written(&page), expected);
}

#[test]
fn turns_are_written_as_they_always_will_be() {
    let turn = TurnTrace {
        number: 1,
        epoch: Epoch(2),
        what: "w".into(),
        cause: TurnCause::Schedule,
        exclusive: true,
        request: RequestId {
            session: SessionId(3),
            seq: 4,
        },
        trace: [9; 25],
        began: WallMs(5),
        waited_us: 6,
        ran_us: 7,
        commit_us: Some(8),
        outcome: TurnOutcome::Error {
            group: "g".into(),
            code: "c".into(),
        },
    };
    let reply = TurnsReply {
        turns: vec![turn],
        clamped: true,
    };
    let mut expected = vec![1, 1, 1, 2, 1, b'w', 2, 1, 3, 4];
    expected.extend([9; 25]);
    expected.extend([5, 6, 7, 1, 8, 1, 1, b'g', 1, b'c', 1]);
    assert_eq!(written(&reply), expected);
    for (outcome, number) in [
        (TurnOutcome::Ok, 0),
        (TurnOutcome::Panicked, 2),
        (TurnOutcome::TimedOut, 3),
    ] {
        assert_eq!(written(&outcome), [1, number]);
    }
}
