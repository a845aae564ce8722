//! Routes about the node, and what every answer carries.

use clinch_gateway::GatewayConfig;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client::{Server, request, within};
use crate::support::memory::{Memory, TOKEN};

const ORIGIN: &str = "https://app.example";

#[tokio::test]
async fn health_and_metadata_answer_what_clients_wait_for() {
    let server = Server::start().await;
    let health = server.get("/health").await;
    assert_eq!((health.status, &health.json()["status"]), (200, &json!("ok")));
    let metadata = server.get("/metadata?namespace=default").await;
    assert_eq!(
        metadata.header("content-type").as_deref(),
        Some("application/json")
    );
    let metadata = metadata.json();
    assert!(metadata["version"].is_string());
    assert_eq!(metadata["runner"], json!({"kind": {"normal": {}}}));
    assert!(metadata.get("clientEndpoint").is_none());
    assert!(server.get("/").await.body.starts_with(b"Clinch"));
    assert_eq!(server.get("/devtools/mod.js").await.status, 200);
    server.get("/no/such/route").await.is_error(404, "api/not_found");
    server
        .post("/health", "")
        .await
        .is_error(405, "api/method_not_allowed");
    let mut head = server.connect().await;
    let bytes = request("HEAD /health", &[("connection", "close")], b"");
    head.write_all(&bytes).await.unwrap();
    let mut answer = String::new();
    within(head.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.ends_with("\r\n\r\n"), "a body: {answer}");
}

#[tokio::test]
async fn a_configured_endpoint_steers_clients() {
    let config = GatewayConfig {
        client_endpoint: Some("https://near.example".into()),
        ..GatewayConfig::default()
    };
    let server = Server::with(Memory::default(), config).await;
    let metadata = server.get("/metadata").await.json();
    assert_eq!(metadata["clientEndpoint"], "https://near.example");
}

#[tokio::test]
async fn a_node_that_is_not_ready_says_why_and_stays_healthy() {
    let server = Server::with(Memory::guarded(), GatewayConfig::default()).await;
    let ready = server.get("/ready").await;
    assert_eq!(ready.status, 503);
    assert_eq!(
        ready.json()["reason"],
        "shard 12 has no quorum: nodes 2, 3 are down"
    );
    assert_eq!(server.get("/health").await.status, 200);
    let server = Server::start().await;
    assert_eq!(server.get("/ready").await.json(), json!({"status": "ready"}));
}

#[tokio::test]
async fn the_cluster_and_its_metrics_are_for_administrators() {
    let guarded = Server::with(Memory::guarded(), GatewayConfig::default()).await;
    let bearer = format!("Bearer {TOKEN}");
    for path in ["GET /cluster", "GET /metrics"] {
        guarded
            .send(path, &[], b"")
            .await
            .is_error(401, "api/unauthorized");
        guarded
            .send(path, &[("authorization", &bearer)], b"")
            .await
            .is_error(403, "api/forbidden");
    }
    let open = Server::start().await;
    assert_eq!(open.get("/cluster").await.json()["nodes"][0]["state"], "up");
    let metrics = open.get("/metrics").await;
    assert_eq!(metrics.body, b"# TYPE up gauge\nup 1\n");
    assert!(metrics.header("content-type").unwrap().starts_with("text/plain"));
}

#[tokio::test]
async fn a_preflight_is_answered_on_every_path_without_a_token() {
    let server = Server::with(Memory::guarded(), GatewayConfig::default()).await;
    let wanted = "authorization,content-type,x-rivet-encoding,x-mine";
    for path in ["/actors?namespace=nope", "/gateway/x/action/y", "/no/such/route"] {
        let headers = [
            ("origin", ORIGIN),
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", wanted),
        ];
        let answer = server.send(&format!("OPTIONS {path}"), &headers, b"").await;
        assert_eq!(answer.status, 204);
        assert_eq!(
            answer.header("access-control-allow-origin").as_deref(),
            Some(ORIGIN)
        );
        assert_eq!(
            answer.header("access-control-allow-credentials").as_deref(),
            Some("true")
        );
        assert_eq!(
            answer.header("access-control-allow-headers").as_deref(),
            Some(wanted)
        );
        assert_eq!(answer.header("access-control-max-age").as_deref(), Some("86400"));
        assert!(
            answer
                .header("access-control-allow-methods")
                .unwrap()
                .contains("PUT")
        );
        assert_eq!(answer.header("vary").as_deref(), Some("Origin"));
    }
}

#[tokio::test]
async fn every_answer_echoes_the_origin_errors_included() {
    let server = Server::start().await;
    let id = server.actor("counter", "k").await;
    for line in [
        "GET /metadata".to_owned(),
        "GET /no/such/route".to_owned(),
        "GET /actors".to_owned(),
        format!("POST /gateway/{id}/action/getCount"),
        format!("POST /gateway/{id}/action/nope"),
        "POST /gateway/none/action/x".to_owned(),
        format!("PUT /gateway/{id}/action/getCount"),
    ] {
        let headers = [("origin", ORIGIN), ("x-rivet-ray-id", "ray-7")];
        let answer = server.send(&line, &headers, b"{}").await;
        assert_eq!(
            answer.header("access-control-allow-origin").as_deref(),
            Some(ORIGIN),
            "{line}"
        );
        assert_eq!(
            answer.header("access-control-allow-credentials").as_deref(),
            Some("true")
        );
        assert!(
            answer
                .header("access-control-expose-headers")
                .unwrap()
                .starts_with('*')
        );
        assert_eq!(answer.header("x-rivet-ray-id").as_deref(), Some("ray-7"));
    }
    let plain = server.get("/health").await;
    assert_eq!(plain.header("access-control-allow-origin"), None);
    assert_eq!(plain.header("vary").as_deref(), Some("Origin"));
}

#[tokio::test]
async fn with_a_list_of_origins_others_get_no_leave() {
    let config = GatewayConfig {
        allowed_origins: vec![ORIGIN.into()],
        ..GatewayConfig::default()
    };
    let server = Server::with(Memory::default(), config).await;
    let allowed = server.send("GET /health", &[("origin", ORIGIN)], b"").await;
    assert!(allowed.header("access-control-allow-origin").is_some());
    let other = server
        .send("GET /health", &[("origin", "https://evil.example")], b"")
        .await;
    assert_eq!(other.header("access-control-allow-origin"), None);
}

#[tokio::test]
async fn an_actor_is_inspected_by_those_who_may() {
    let server = Server::start().await;
    let id = server.actor("counter", "k").await;
    let of = |path: &str| format!("/gateway/{id}/inspector/{path}");
    let called = server.post(&of("action/increment"), r#"{"args":[5]}"#).await;
    assert_eq!(called.json(), json!({"output": 5}));
    assert_eq!(
        server.get(&of("rpcs")).await.json(),
        json!({"rpcs": ["increment"]})
    );
    assert_eq!(server.get(&of("state")).await.json()["isStateEnabled"], true);
    assert_eq!(
        server.get(&of("connections")).await.json(),
        json!({"connections": []})
    );
    let summary = server.get(&of("summary")).await.json();
    assert_eq!(
        (
            &summary["rpcs"],
            &summary["queueSize"],
            &summary["isStateEnabled"]
        ),
        (&json!(["increment"]), &json!(0), &json!(true)),
        "{summary}"
    );
    for (flag, value) in [
        ("isDatabaseEnabled", json!(false)),
        ("isWorkflowEnabled", json!(false)),
        ("workflowState", Value::Null),
    ] {
        assert_eq!(summary.get(flag), Some(&value), "{summary}");
    }
    assert_eq!(
        server.get(&of("traces")).await.json(),
        json!({"otlp": [], "clamped": false})
    );
    server.get(&of("nope")).await.is_error(404, "actor/not_found");
    server
        .post(&of("state"), "{}")
        .await
        .is_error(405, "actor/method_not_allowed");
    let both = server
        .post(&of("action/increment"), r#"{"args":[5],"properties":{}}"#)
        .await;
    both.is_error(400, "message/malformed");
    server
        .post(&of("action/nope"), "{}")
        .await
        .is_error(404, "actor/action_not_found");

    let guarded = Server::with(Memory::guarded(), GatewayConfig::default()).await;
    let line = format!("GET {}", of("state"));
    guarded
        .send(&line, &[], b"")
        .await
        .is_error(401, "inspector/unauthorized");
    let wrong = [("authorization", "Bearer wrong")];
    guarded
        .send(&line, &wrong, b"")
        .await
        .is_error(401, "inspector/unauthorized");
    // With the right one the question gets as far as the actor, which is not there.
    let right = [("authorization", "Bearer secret-token")];
    guarded
        .send(&line, &right, b"")
        .await
        .is_error(404, "actor/not_found");
}
