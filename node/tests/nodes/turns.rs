//! What owners tell of the turns they ran last.

use std::net::SocketAddr;
use std::time::Duration;

use crate::common::{TestCluster, eventually, http};
use clinch::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Ends its turns in every way there is.
#[derive(Default, Serialize, Deserialize)]
struct Runner {
    count: i64,
}

#[clinch::actor(name = "runner", action_timeout = "1s")]
impl Runner {
    #[action]
    fn add(&mut self, by: i64) -> i64 {
        self.count += by;
        self.count
    }

    #[action]
    fn get(&self) -> i64 {
        self.count
    }

    #[action]
    fn fail(&mut self) -> Result<()> {
        self.count += 100;
        Err(Error::user("no_deal", "changed my mind"))
    }

    #[action]
    fn boom(&mut self) {
        panic!("a bug in the application");
    }

    #[action]
    async fn late_boom(&self) {
        tokio::task::yield_now().await;
        panic!("another bug");
    }

    #[action]
    async fn hang(&mut self) {
        std::future::pending::<()>().await;
    }

    /// Works beside the state.
    #[action]
    async fn twice(c: Ctx<Self>) -> Result<i64> {
        c.update(|runner| runner.count *= 2).await?;
        c.read(|runner| runner.count).await
    }

    #[action]
    fn grow(&mut self, c: &Ctx<Self>) -> Result<()> {
        c.kv().put("k", &vec![1u8; 200 << 10])
    }

    #[action]
    fn soon(&mut self, c: &Ctx<Self>) -> Result<()> {
        c.me().add(1).after(Duration::from_millis(50))?;
        Ok(())
    }

    #[action]
    fn doze(&mut self, c: &Ctx<Self>) {
        c.sleep();
    }
}

fn registry() -> Registry {
    Registry::new().actor::<Runner>()
}

async fn start() -> TestCluster {
    let mut cluster = TestCluster::prepare(1, registry());
    cluster.configs[0].cluster.shards = 1;
    cluster.start_node(0).await;
    cluster.ready().await;
    cluster
}

async fn ask(to: SocketAddr, path: &str) -> (u16, Value) {
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    let (status, body) = http(to, request.as_bytes()).await;
    let body = serde_json::from_str(&body).unwrap_or_else(|e| panic!("{status} {body:?}: {e}"));
    (status, body)
}

/// The answer about the turns of a runner; `query` begins with `&`.
async fn answered(cluster: &TestCluster, key: &str, query: &str) -> (u16, Value) {
    let path =
        format!("/gateway/runner/inspector/traces?rvt-namespace=default&rvt-method=get&rvt-key={key}{query}");
    ask(cluster.node(0).gateways()[0], &path).await
}

fn spans_of(answer: &Value) -> Vec<Value> {
    let spans = answer["otlp"][0]["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array();
    spans.cloned().unwrap_or_default()
}

async fn spans(cluster: &TestCluster, key: &str, query: &str) -> Vec<Value> {
    let (status, answer) = answered(cluster, key, query).await;
    assert_eq!(status, 200, "{answer}");
    spans_of(&answer)
}

fn attribute(span: &Value, name: &str) -> Value {
    let all = span["attributes"].as_array().expect("attributes");
    let found = all.iter().find(|attribute| attribute["key"] == name);
    let value = found.and_then(|attribute| attribute["value"].as_object()?.values().next().cloned());
    value.unwrap_or_default()
}

fn number(span: &Value, name: &str) -> Option<u64> {
    attribute(span, name).as_str()?.parse().ok()
}

/// Name, outcome and error of each.
fn shown(spans: &[Value]) -> Vec<(String, String, String)> {
    let text = |value: Value| value.as_str().unwrap_or_default().to_owned();
    spans
        .iter()
        .map(|span| {
            let name = text(span["name"].clone());
            (
                name,
                text(attribute(span, "clinch.outcome")),
                text(attribute(span, "error.type")),
            )
        })
        .collect()
}

fn three(name: &str, outcome: &str, error: &str) -> (String, String, String) {
    (name.into(), outcome.into(), error.into())
}

#[tokio::test(flavor = "multi_thread")]
async fn turns_that_failed_panicked_or_timed_out_are_told_as_such() {
    let cluster = start().await;
    let runner = cluster.node(0).cluster().get::<Runner>("a");
    assert_eq!(runner.add(2).await.unwrap(), 2);
    runner.fail().await.unwrap_err();
    runner.boom().await.unwrap_err();
    runner.late_boom().await.unwrap_err();
    runner.hang().await.unwrap_err();
    runner.grow().await.unwrap_err();
    assert_eq!(runner.get().await.unwrap(), 2);
    let spans = spans(&cluster, "a", "").await;
    let expected = [
        three("create", "ok", ""),
        three("add", "ok", ""),
        three("fail", "error", "user.no_deal"),
        three("boom", "panicked", "panic"),
        three("lateBoom", "panicked", "panic"),
        three("hang", "timed-out", "timeout"),
        three("grow", "error", "kv.value_too_large"),
        three("get", "ok", ""),
    ];
    assert_eq!(shown(&spans), expected);
    let codes: Vec<_> = spans.iter().map(|span| span["status"]["code"].clone()).collect();
    assert_eq!(codes, [1, 1, 2, 2, 2, 2, 2, 1]);
    let rolled: Vec<_> = spans
        .iter()
        .map(|span| attribute(span, "clinch.rolled_back"))
        .collect();
    let none = Value::Null;
    assert_eq!(
        rolled,
        [
            &none,
            &none,
            &json!(true),
            &json!(true),
            &json!(false),
            &json!(true),
            &json!(true),
            &none
        ]
        .map(Clone::clone),
        "what did not hold the state has nothing to give back"
    );
    let (hung, read, added) = (&spans[5], &spans[7], &spans[1]);
    assert!(number(hung, "clinch.ran_us") >= Some(1_000_000), "{hung}");
    assert!(number(added, "clinch.commit_us") > Some(0), "{added}");
    assert_eq!(number(read, "clinch.commit_us"), None, "a read commits nothing");
    assert_eq!(attribute(added, "clinch.cause"), "call");
    assert_eq!(attribute(&spans[0], "clinch.cause"), "create");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_behind_another_is_told_to_have_waited() {
    let cluster = start().await;
    let runner = cluster.node(0).cluster().get::<Runner>("a");
    runner.add(0).await.unwrap();
    let behind = async {
        // It is sent when the one before it has begun.
        let began = || async { cluster.node(0).cluster().get::<Runner>("b").get().await.is_ok() };
        eventually("the shard serves others", began).await;
        runner.add(1).await.unwrap()
    };
    let (hung, added) = tokio::join!(runner.hang(), behind);
    hung.unwrap_err();
    assert_eq!(added, 1);
    let spans = spans(&cluster, "a", "").await;
    let last = spans.last().expect("turns");
    assert_eq!(last["name"], "add");
    // The other ran for a second; how much of that had passed is not known.
    assert!(
        number(last, "clinch.waited_us") > number(last, "clinch.ran_us"),
        "{last}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn work_beside_the_state_and_schedules_are_told_with_their_cause() {
    let cluster = start().await;
    let runner = cluster.node(0).cluster().get::<Runner>("a");
    runner.add(3).await.unwrap();
    assert_eq!(runner.twice().await.unwrap(), 6);
    runner.soon().await.unwrap();
    eventually("it fired", || async { runner.get().await.unwrap() == 7 }).await;
    let spans = spans(&cluster, "a", "").await;
    let told: Vec<_> = spans
        .iter()
        .map(|span| {
            (
                span["name"].clone(),
                attribute(span, "clinch.exclusive"),
                attribute(span, "clinch.cause"),
            )
        })
        .filter(|(name, ..)| name != "get")
        .collect();
    let expected = json!([
        ["create", true, "create"],
        ["add", true, "call"],
        // The update, and the action around it.
        ["twice", true, "call"],
        ["twice", false, "call"],
        ["soon", true, "call"],
        ["add", true, "schedule"],
    ]);
    assert_eq!(json!(told), expected);
    let fired = spans
        .iter()
        .find(|span| attribute(span, "clinch.cause") == "schedule")
        .unwrap();
    assert_eq!(fired["kind"], 1, "nobody called");
    assert!(number(fired, "clinch.commit_us").is_some(), "{fired}");
}

#[tokio::test(flavor = "multi_thread")]
async fn turns_are_chosen_by_time_and_number_and_bad_choices_refused() {
    let cluster = start().await;
    let runner = cluster.node(0).cluster().get::<Runner>("a");
    for _ in 0..3 {
        runner.add(1).await.unwrap();
        // Begins are told in milliseconds.
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    let all = spans(&cluster, "a", "").await;
    let begin = |span: &Value| {
        let nanos: u64 = span["startTimeUnixNano"].as_str().unwrap().parse().unwrap();
        nanos / 1_000_000
    };
    let (second, last) = (begin(&all[2]), begin(&all[3]));
    assert!(second < last, "{all:?}");
    let chosen = |query: String| {
        let cluster = &cluster;
        async move {
            let (status, answer) = answered(cluster, "a", &query).await;
            assert_eq!(status, 200, "{answer}");
            (spans_of(&answer), answer["clamped"].clone())
        }
    };
    assert_eq!(
        chosen(format!("&startMs={last}")).await,
        (all[3..].to_vec(), json!(false))
    );
    assert_eq!(
        chosen(format!("&endMs={second}")).await,
        (all[..3].to_vec(), json!(false))
    );
    assert_eq!(
        chosen(format!("&startMs={second}&endMs={second}")).await,
        (all[2..3].to_vec(), json!(false))
    );
    assert_eq!(chosen("&limit=4".into()).await, (all.clone(), json!(false)));
    assert_eq!(
        chosen("&limit=2".into()).await,
        (all[2..].to_vec(), json!(true)),
        "the newest"
    );
    assert_eq!(
        chosen(format!("&endMs={second}&limit=1")).await,
        (all[2..3].to_vec(), json!(true))
    );
    assert_eq!(chosen("&endMs=0".into()).await, (Vec::new(), json!(false)));
    let bad = [
        ("&limit=0", "limit is 0, it must be 1 to 1000"),
        ("&limit=1001", "limit is 1001, it must be 1 to 1000"),
        ("&limit=x", "limit is \"x\""),
        ("&startMs=-1", "startMs is \"-1\""),
        ("&endMs=", "endMs is"),
        ("&startMs=5&endMs=4", "startMs is 5, after endMs, which is 4"),
    ];
    for (query, said) in bad {
        let (status, answer) = answered(&cluster, "a", query).await;
        assert_eq!(status, 400, "{query}: {answer}");
        let message = answer["message"].as_str().unwrap_or_default();
        assert!(message.contains(said), "{query}: {message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_remembers_its_latest_turns_of_actors_asleep_and_gone_until_others_take_their_place() {
    let cluster = start().await;
    let to = cluster.node(0).gateways()[0];
    let runner = cluster.node(0).cluster().get::<Runner>("a");
    runner.add(1).await.unwrap();
    let id = runner.resolve().await.unwrap();
    runner.doze().await.unwrap();
    eventually("it sleeps", || async { !cluster.awake(0, id).await }).await;
    let names = |spans: &[Value]| -> Vec<Value> { spans.iter().map(|span| span["name"].clone()).collect() };
    assert_eq!(names(&spans(&cluster, "a", "").await), ["create", "add", "doze"]);
    assert!(!cluster.awake(0, id).await, "to look is not to wake");
    runner.destroy().await.unwrap();
    let by_id = format!("/gateway/{id}/inspector/traces");
    assert_eq!(
        names(&spans_of(&ask(to, &by_id).await.1)),
        ["create", "add", "doze"]
    );
    assert_eq!(
        answered(&cluster, "a", "").await.0,
        404,
        "the key names nobody any more"
    );

    let other = cluster.node(0).cluster().get::<Runner>("b");
    for _ in 0..600 {
        other.get().await.unwrap();
    }
    assert_eq!(ask(to, &by_id).await.0, 404, "forgotten");
    let (_, answer) = answered(&cluster, "b", "").await;
    assert_eq!(
        (spans_of(&answer).len(), &answer["clamped"]),
        (512, &json!(false))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_is_part_of_its_callers_trace() {
    let cluster = start().await;
    cluster.node(0).cluster().get::<Runner>("a").add(1).await.unwrap();
    let body = r#"{"args":[4]}"#;
    let request = format!(
        "POST /gateway/runner/action/add?rvt-namespace=default&rvt-method=get&rvt-key=a HTTP/1.1\r\nhost: x\r\n\
         connection: close\r\ntraceparent: 00-{}-{}-01\r\ncontent-length: {}\r\n\r\n{body}",
        "ab".repeat(16),
        "cd".repeat(8),
        body.len(),
    );
    let (status, answer) = http(cluster.node(0).gateways()[0], request.as_bytes()).await;
    assert_eq!(status, 200, "{answer}");
    let spans = spans(&cluster, "a", "").await;
    let last = spans.last().expect("turns");
    assert_eq!(
        (&last["name"], &last["traceId"]),
        (&json!("add"), &json!("ab".repeat(16)))
    );
    assert_eq!(last["parentSpanId"], json!("cd".repeat(8)));
    assert_eq!(spans[1].get("parentSpanId"), None, "of a caller without one");
}
