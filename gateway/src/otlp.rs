//! The latest turns of an actor as OTLP/JSON, so that tools for traces can read them.
//!
//! Invariant: turns of one request have one trace: that of the caller's own context if it came with one.
//! Not here: which turns are remembered (node).

use clinch_types::{ActorId, CallMeta, TurnOutcome, TurnTrace};
use serde_json::{Value, json};

/// `SPAN_KIND_INTERNAL` and `SPAN_KIND_SERVER` of OTLP.
const INTERNAL: u8 = 1;
const SERVER: u8 = 2;
/// `STATUS_CODE_OK` and `STATUS_CODE_ERROR`.
const OK: u8 = 1;
const ERROR: u8 = 2;

/// One export request with all of them; nothing for none.
pub(crate) fn export(turns: &[TurnTrace], meta: &CallMeta, version: &str) -> Value {
    if turns.is_empty() {
        return json!([]);
    }
    let spans: Vec<Value> = turns.iter().map(|turn| span(turn, meta.actor)).collect();
    json!([{
        "resourceSpans": [{
            "resource": { "attributes": [
                text("service.name", "clinch"),
                text("service.version", version),
                text("clinch.actor.id", &meta.actor.to_string()),
                number("clinch.shard", u64::from(meta.shard.0)),
            ]},
            "scopeSpans": [{ "scope": { "name": "clinch.turns" }, "spans": spans }],
        }],
    }])
}

fn text(key: &str, value: &str) -> Value {
    json!({ "key": key, "value": { "stringValue": value } })
}

/// 64-bit numbers are texts in the JSON of protocol buffers.
fn number(key: &str, value: u64) -> Value {
    json!({ "key": key, "value": { "intValue": value.to_string() } })
}

fn span(turn: &TurnTrace, actor: ActorId) -> Value {
    let begin = u128::from(turn.began.0) * 1_000_000;
    let end = begin + u128::from(turn.ran_us) * 1000;
    let called = turn.request.seq > 0;
    let mut attributes = vec![
        text("clinch.cause", turn.cause.name()),
        number("clinch.epoch", turn.epoch.0),
        number("clinch.waited_us", turn.waited_us.into()),
        number("clinch.ran_us", turn.ran_us.into()),
        json!({ "key": "clinch.exclusive", "value": { "boolValue": turn.exclusive } }),
    ];
    if called {
        attributes.push(text("clinch.request.id", &turn.request.to_string()));
    }
    if let Some(commit) = turn.commit_us {
        attributes.push(number("clinch.commit_us", commit.into()));
    }
    let (outcome, error) = match &turn.outcome {
        TurnOutcome::Ok => ("ok", None),
        TurnOutcome::Error { group, code } => ("error", Some(format!("{group}.{code}"))),
        TurnOutcome::Panicked => ("panicked", Some("panic".to_owned())),
        TurnOutcome::TimedOut => ("timed-out", Some("timeout".to_owned())),
        // Of a later release.
        _ => ("unknown", None),
    };
    attributes.push(text("clinch.outcome", outcome));
    if let Some(error) = &error {
        attributes.push(text("error.type", error));
        attributes.push(json!({ "key": "clinch.rolled_back", "value": { "boolValue": turn.exclusive } }));
    }
    let status = match (&turn.outcome, &error) {
        (_, Some(error)) => json!({ "code": ERROR, "message": error }),
        (TurnOutcome::Ok, None) => json!({ "code": OK }),
        (_, None) => json!({}),
    };
    let mut span = json!({
        "traceId": trace_id(turn, actor),
        "spanId": format!("{:016x}", span_id(turn)),
        "name": turn.what,
        "kind": if called { SERVER } else { INTERNAL },
        "startTimeUnixNano": begin.to_string(),
        "endTimeUnixNano": end.to_string(),
        "attributes": attributes,
        "status": status,
    });
    if turn.trace != [0; 25] {
        span["parentSpanId"] = json!(hex(&turn.trace[16..24]));
    }
    span
}

/// Never used again in a shard: epochs grow, and numbers within one.
fn span_id(turn: &TurnTrace) -> u64 {
    (turn.epoch.0 << 40) ^ (turn.number + 1)
}

fn trace_id(turn: &TurnTrace, actor: ActorId) -> String {
    if turn.trace != [0; 25] {
        return hex(&turn.trace[..16]);
    }
    let request = turn.request;
    let drawn = match request.seq {
        0 => u128::from_be_bytes(*actor.as_bytes()).wrapping_add(span_id(turn).into()),
        seq => request.session.0.wrapping_add(seq.into()),
    };
    format!("{:032x}", drawn.max(1))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use clinch_types::{Epoch, RegionId, RequestId, SessionId, ShardId, Slot, TurnCause, Version, WallMs};

    use super::*;

    fn turn(outcome: TurnOutcome) -> TurnTrace {
        TurnTrace {
            number: 4,
            epoch: Epoch(2),
            what: "increment".into(),
            cause: TurnCause::Call,
            exclusive: true,
            request: RequestId {
                session: SessionId(0xab00),
                seq: 1,
            },
            trace: [0; 25],
            began: WallMs(1_700_000_000_123),
            waited_us: 6,
            ran_us: 7,
            commit_us: Some(8),
            outcome,
        }
    }

    fn exported(turns: &[TurnTrace]) -> Value {
        let meta = CallMeta {
            actor: ActorId::new(RegionId(0), Slot(1), 2),
            shard: ShardId(3),
            epoch: Epoch(2),
            version: Version(0),
            created: false,
        };
        export(turns, &meta, "0.0.0")
    }

    fn spans(turns: &[TurnTrace]) -> Vec<Value> {
        let all = exported(turns);
        let spans = all[0]["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array();
        spans.cloned().unwrap_or_default()
    }

    fn attribute(span: &Value, key: &str) -> Value {
        let all = span["attributes"].as_array().unwrap();
        let found = all.iter().find(|attribute| attribute["key"] == key);
        found.map_or(Value::Null, |attribute| attribute["value"].clone())
    }

    #[test]
    fn a_turn_is_a_span_that_tools_read() {
        assert_eq!(exported(&[]), json!([]));
        let span = &spans(&[turn(TurnOutcome::Ok)])[0];
        assert_eq!(span["traceId"], "0000000000000000000000000000ab01");
        assert_eq!(span["spanId"], "0000020000000005");
        assert_eq!(span.get("parentSpanId"), None);
        assert_eq!((&span["name"], &span["kind"]), (&json!("increment"), &json!(2)));
        assert_eq!(span["startTimeUnixNano"], "1700000000123000000");
        assert_eq!(span["endTimeUnixNano"], "1700000000123007000");
        assert_eq!(span["status"], json!({"code": 1}));
        assert_eq!(attribute(span, "clinch.waited_us"), json!({"intValue": "6"}));
        assert_eq!(attribute(span, "clinch.commit_us"), json!({"intValue": "8"}));
        assert_eq!(attribute(span, "clinch.rolled_back"), Value::Null);
    }

    #[test]
    fn a_failed_turn_says_how_it_failed() {
        let error = TurnOutcome::Error {
            group: "user".into(),
            code: "no_deal".into(),
        };
        let all = [
            (error, "user.no_deal"),
            (TurnOutcome::Panicked, "panic"),
            (TurnOutcome::TimedOut, "timeout"),
        ];
        for (outcome, said) in all {
            let span = &spans(&[turn(outcome)])[0];
            assert_eq!(span["status"], json!({"code": 2, "message": said}));
            assert_eq!(attribute(span, "error.type"), json!({"stringValue": said}));
            assert_eq!(attribute(span, "clinch.rolled_back"), json!({"boolValue": true}));
        }
    }

    #[test]
    fn a_turn_belongs_to_its_callers_trace_and_one_without_a_caller_to_its_own() {
        let mut called = turn(TurnOutcome::Ok);
        called.trace[..16].fill(0x11);
        called.trace[16..24].fill(0x22);
        let mut first = turn(TurnOutcome::Ok);
        first.request = RequestId::default();
        let second = TurnTrace {
            number: 5,
            ..first.clone()
        };
        let spans = spans(&[called, first, second]);
        assert_eq!(spans[0]["traceId"], "11".repeat(16));
        assert_eq!(spans[0]["parentSpanId"], "22".repeat(8));
        assert_eq!(spans[1]["kind"], 1);
        assert_ne!(spans[1]["traceId"], spans[2]["traceId"]);
        assert_ne!(spans[1]["spanId"], spans[2]["spanId"]);
    }
}
