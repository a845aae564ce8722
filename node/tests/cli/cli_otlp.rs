//! Spans of turns, as a collector gets them from a real node.

use std::path::Path;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::routing::post;
use clinch::HttpClient;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::cli_support::{PATIENCE, Running, clinch, free_base, run_command, text, wait_until};

/// A node that sends its spans to a collector at this port.
fn dev(dir: &Path, collector: u16) -> (Running, String) {
    let base = free_base(1);
    let folder = dir.join("d");
    let (port, listen) = (base.to_string(), (base + 1000).to_string());
    let mut command = clinch(&[
        "dev",
        "--json",
        "--dir",
        folder.to_str().unwrap(),
        "--port",
        &port,
        "--listen-port",
        &listen,
    ]);
    command.env(
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        format!("http://127.0.0.1:{collector}"),
    );
    command.env_remove("OTEL_SERVICE_NAME");
    let node = Running::start_command(command, dir.join("log"));
    node.line();
    (node, format!("http://127.0.0.1:{base}"))
}

fn attribute(span: &Span, name: &str) -> Option<String> {
    let found = span.attributes.iter().find(|attribute| attribute.key == name)?;
    match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        Value::IntValue(number) => Some(number.to_string()),
        other => panic!("{name} is {other:?}"),
    }
}

/// A collector, and what it gets.
async fn collector() -> (u16, mpsc::UnboundedReceiver<ExportTraceServiceRequest>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let take = move |body: Bytes| {
        let request = ExportTraceServiceRequest::decode(body).expect("protobuf of OTLP");
        let _ = sender.send(request);
        async {}
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let router = Router::new().route("/v1/traces", post(take));
    tokio::spawn(async move { axum::serve(listener, router).await });
    (port, receiver)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_span_of_a_call_reaches_a_collector_as_part_of_its_callers_trace() {
    let dir = tempfile::tempdir().unwrap();
    let (port, mut requests) = collector().await;
    let (_node, gateway) = dev(dir.path(), port);
    let mut curl = std::process::Command::new("curl");
    curl.args([
        "-s",
        "-H",
        "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    ]);
    curl.args(["-d", "{\"args\":[\"three\"]}"]);
    let query = "rvt-namespace=default&rvt-method=getOrCreate&rvt-runner=default&rvt-key=ada";
    curl.arg(format!("{gateway}/gateway/counter/action/increment?{query}"));
    let answer = text(&run_command(curl, PATIENCE).stdout);
    assert!(answer.contains("invalid_request"), "{answer}");
    let client = HttpClient::new(&gateway, None, PATIENCE);
    let key = ["ada".to_owned()];
    let count = client
        .call("counter", &key, "increment", json!([3]))
        .await
        .unwrap();
    assert_eq!(count, 3);

    let (mut failed, mut done) = (None, None);
    while failed.is_none() || done.is_none() {
        let request = timeout(PATIENCE, requests.recv())
            .await
            .expect("spans in time")
            .unwrap();
        for resource in request.resource_spans {
            let service = &resource.resource.as_ref().unwrap().attributes;
            assert!(format!("{service:?}").contains("\"clinch\""), "{service:?}");
            for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                if span.name != "counter.increment" {
                    continue;
                }
                match attribute(&span, "error.type") {
                    Some(_) => failed = Some(span),
                    None => done = Some(span),
                }
            }
        }
    }
    let (failed, done) = (failed.unwrap(), done.unwrap());
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    assert_eq!(hex(&failed.trace_id), "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(hex(&failed.parent_span_id), "b7ad6b7169203331");
    assert_eq!(failed.status.as_ref().unwrap().code, 2, "an error");
    assert_eq!(
        attribute(&failed, "error.type").as_deref(),
        Some("actor.invalid_request")
    );
    assert_ne!(
        done.trace_id, failed.trace_id,
        "without `traceparent` a trace of its own"
    );
    assert!(done.parent_span_id.is_empty(), "{done:?}");
    assert!(done.end_time_unix_nano >= done.start_time_unix_nano);
    for (name, value) in [
        ("actor.name", "counter"),
        ("actor.key", "ada"),
        ("code", "increment"),
        ("node", "1"),
    ] {
        assert_eq!(attribute(&done, name).as_deref(), Some(value), "{done:?}");
    }
    for name in ["actor.id", "request", "shard", "epoch"] {
        assert!(
            attribute(&done, name).is_some_and(|value| !value.is_empty()),
            "{name}: {done:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_down_is_complained_of_once_and_slows_nobody() {
    let dir = tempfile::tempdir().unwrap();
    // Nobody listens there.
    let (mut node, gateway) = dev(dir.path(), 1);
    let client = HttpClient::new(&gateway, None, Duration::from_secs(10));
    let key = ["ada".to_owned()];
    let dropped = || {
        let mut curl = std::process::Command::new("curl");
        curl.args(["-s", &format!("{gateway}/metrics")]);
        let metrics = text(&run_command(curl, PATIENCE).stdout);
        let line = metrics
            .lines()
            .find(|line| line.starts_with("node_spans_dropped_count"));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
    };
    // Two requests to the collector fail, one after the other.
    for round in 1..=2 {
        let before = dropped().unwrap_or_default();
        let count = client
            .call("counter", &key, "increment", json!([1]))
            .await
            .unwrap();
        assert_eq!(count, round);
        wait_until("the lost spans are counted", || {
            (dropped()? > before).then_some(())
        });
    }
    node.signal(libc::SIGTERM);
    assert_eq!(node.wait(), Some(0), "{}", node.stderr());
    assert_eq!(
        node.stderr().matches("the collector takes no spans").count(),
        1,
        "{}",
        node.stderr()
    );
}
