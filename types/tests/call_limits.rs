//! Every limit of a call is checked at its edge, and its error names the value and the limit.

use clinch_types::{
    CallOp, CallRequest, ConnId, ConnKind, Consistency, CreateSpec, Door, HttpBody, HttpRequest, Key,
    RequestId, Target, codec, limits,
};

fn call(op: CallOp) -> CallRequest {
    CallRequest {
        request: RequestId::default(),
        acked_below: 0,
        long_dedup: false,
        target: target("default", "counter"),
        op,
        if_active: false,
        consistency: Consistency::default(),
        chain: Vec::new(),
        params: None,
        trace: [0; 25],
        door: None,
    }
}

fn target(namespace: &str, name: &str) -> Target {
    Target::Key {
        namespace: namespace.into(),
        name: name.into(),
        key: Key::new(["k"]).unwrap(),
        create: None,
    }
}

fn text(len: usize) -> String {
    "x".repeat(len)
}

fn http(method: usize, uri: usize, body: usize) -> CallRequest {
    call(CallOp::Http(Box::new(HttpRequest {
        method: text(method),
        uri: text(uri),
        body: HttpBody::Whole(vec![0; body]),
    })))
}

fn push(queue: usize, body: usize) -> CallRequest {
    call(CallOp::Push {
        queue: text(queue),
        body: vec![0; body],
        wait: false,
    })
}

/// A limit, the error beyond it, and a call with so much.
type Case = (&'static str, usize, &'static str, fn(usize) -> CallRequest);

#[test]
#[expect(clippy::too_many_lines, reason = "one table, a limit each")]
fn every_limit_of_a_call_is_checked_at_its_edge_and_named() {
    let cases: [Case; 18] = [
        ("namespace", limits::NAMESPACE_MAX, "actor.invalid_request", |n| {
            CallRequest {
                target: target(&text(n), "counter"),
                ..call(CallOp::Resolve)
            }
        }),
        (
            "actor name",
            limits::ACTOR_NAME_MAX,
            "actor.invalid_request",
            |n| CallRequest {
                target: target("default", &text(n)),
                ..call(CallOp::Resolve)
            },
        ),
        ("input", limits::INPUT_MAX, "actor.input_too_large", |n| {
            let mut request = call(CallOp::Resolve);
            if let Target::Key { create, .. } = &mut request.target {
                *create = Some(CreateSpec {
                    input: Some(vec![0; n]),
                    region: None,
                });
            }
            request
        }),
        (
            "action name",
            limits::ACTION_NAME_MAX,
            "actor.invalid_request",
            |n| {
                call(CallOp::Action {
                    name: text(n),
                    args: Vec::new(),
                })
            },
        ),
        ("arguments", limits::ARGS_MAX, "message.incoming_too_long", |n| {
            call(CallOp::Action {
                name: "a".into(),
                args: vec![0; n],
            })
        }),
        ("parameters", limits::PARAMS_MAX, "actor.invalid_request", |n| {
            CallRequest {
                params: Some(vec![0; n]),
                ..call(CallOp::Resolve)
            }
        }),
        ("headers", limits::HEADERS_MAX, "actor.invalid_request", |n| {
            CallRequest {
                door: Some(Box::new(Door {
                    conn: None,
                    headers: vec![("a".into(), text(n - 1))],
                })),
                ..call(CallOp::Resolve)
            }
        }),
        (
            "path of a WebSocket",
            limits::URI_MAX,
            "actor.invalid_request",
            |n| {
                call(CallOp::Connect {
                    conn: ConnId(1),
                    kind: ConnKind::Raw,
                    path: text(n),
                })
            },
        ),
        (
            "event name",
            limits::EVENT_NAME_MAX,
            "actor.invalid_request",
            |n| {
                call(CallOp::Subscribe {
                    conn: ConnId(1),
                    event: text(n),
                    on: true,
                })
            },
        ),
        (
            "raw message",
            limits::RAW_MESSAGE_MAX,
            "actor.invalid_request",
            |n| {
                call(CallOp::Message {
                    conn: ConnId(1),
                    text: false,
                    data: vec![0; n],
                })
            },
        ),
        ("method", limits::ACTION_NAME_MAX, "actor.invalid_request", |n| {
            http(n, 1, 0)
        }),
        ("path", limits::URI_MAX, "actor.invalid_request", |n| {
            http(3, n, 0)
        }),
        (
            "whole body",
            limits::HTTP_WHOLE_MAX,
            "actor.invalid_request",
            |n| http(3, 1, n),
        ),
        (
            "queue name",
            limits::QUEUE_NAME_MAX,
            "actor.invalid_request",
            |n| push(n, 0),
        ),
        (
            "queue message",
            limits::QUEUE_MESSAGE_MAX,
            "queue.message_too_large",
            |n| push(1, n),
        ),
        ("chain", limits::CHAIN_MAX, "actor.invalid_request", |n| {
            CallRequest {
                chain: vec![Default::default(); n],
                ..call(CallOp::Resolve)
            }
        }),
        (
            "component",
            limits::KEY_COMPONENT_MAX,
            "actor.key_too_large",
            |n| keyed(&[n]),
        ),
        // Seven full components and seven separators leave this much for the eighth.
        ("key", limits::KEY_MAX, "actor.key_too_large", |n| {
            keyed(&[128, 128, 128, 128, 128, 128, 128, n - 7 * 129])
        }),
    ];
    for (what, max, error, make) in cases {
        assert_eq!(make(max).check(), Ok(()), "{what} of {max}");
        let refused = make(max + 1).check().unwrap_err();
        assert_eq!(
            format!("{}.{}", refused.group, refused.code),
            error,
            "{what}: {refused}"
        );
        for number in [max, max + 1] {
            assert!(
                refused.message.contains(&number.to_string()),
                "{what} does not name {number}: {refused}"
            );
        }
    }
    let unnamed = push(0, 0).check().unwrap_err();
    assert!(unnamed.message.contains("queue name"), "{unnamed}");
}

/// A call on a key with components of these lengths, which nobody has checked so far.
fn keyed(lengths: &[usize]) -> CallRequest {
    let parts: Vec<String> = lengths.iter().map(|len| text(*len)).collect();
    let key: Key = codec::decode(&codec::encode(&parts).unwrap()).unwrap();
    CallRequest {
        target: Target::Key {
            namespace: "default".into(),
            name: "counter".into(),
            key,
            create: None,
        },
        ..call(CallOp::Resolve)
    }
}
