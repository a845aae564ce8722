//! The token of an actor: who may read it, and what it opens.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clinch_gateway::GatewayConfig;
use serde_json::json;

use crate::client::{Answer, Server};
use crate::support::memory::{Memory, TOKEN};

async fn guarded() -> Server {
    Server::with(Memory::guarded(), GatewayConfig::default()).await
}

async fn ask(server: &Server, token: &str, line: &str, body: &str) -> Answer {
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str())];
    server.send(line, &headers, body.as_bytes()).await
}

async fn counter(server: &Server, key: &str) -> String {
    let body = json!({"name": "counter", "key": key}).to_string();
    let made = ask(server, TOKEN, "PUT /actors", &body).await.json();
    made["actor"]["actor_id"].as_str().expect("an id").to_owned()
}

/// The token of an actor, as an administrator reads it.
async fn token(server: &Server, id: &str) -> String {
    let line = format!("GET /actors/{id}/kv/keys/Aw%3D%3D?namespace=default");
    let answer = ask(server, TOKEN, &line, "").await;
    let body = answer.json();
    assert_eq!(answer.status, 200, "{body}");
    assert!(body["update_ts"].is_u64(), "{body}");
    let value = STANDARD
        .decode(body["value"].as_str().expect("a text"))
        .expect("base64");
    String::from_utf8(value).expect("a token is ASCII")
}

#[tokio::test]
async fn the_token_of_an_actor_opens_its_inspector_and_nothing_else() {
    let server = guarded().await;
    let (id, other) = (counter(&server, "one").await, counter(&server, "two").await);
    let own = token(&server, &id).await;
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    assert!(own.len() == 43 && own.chars().all(allowed), "{own}");
    assert_ne!(own, token(&server, &other).await);

    let state = ask(&server, &own, &format!("GET /gateway/{id}/inspector/state"), "").await;
    assert_eq!(state.json(), json!({"isStateEnabled": true, "state": 0}));
    assert_eq!(server.memory.last_call().token, None, "it goes no further");
    let patch = format!("PATCH /gateway/{id}/inspector/state");
    assert_eq!(ask(&server, &own, &patch, r#"{"state":40}"#).await.status, 200);
    let act = format!("POST /gateway/{id}/inspector/action/increment");
    let acted = ask(&server, &own, &act, r#"{"args":[2]}"#).await;
    assert_eq!(acted.json(), json!({"output": 42}));

    let mut changed = own.clone();
    changed.replace_range(..1, "A");
    let by_key =
        "GET /gateway/counter/inspector/state?rvt-namespace=default&rvt-method=get&rvt-key=one".to_owned();
    for (token, line) in [
        (&own, format!("GET /gateway/{other}/inspector/state")),
        (&own, by_key),
        (&changed, format!("GET /gateway/{id}/inspector/state")),
        (&format!("{own}="), format!("GET /gateway/{id}/inspector/state")),
        (&String::new(), format!("GET /gateway/{id}@{own}/inspector/state")),
    ] {
        let refused = ask(&server, token, &line, "").await;
        refused.is_error(401, "inspector/unauthorized");
    }
    for line in [
        format!("POST /gateway/{id}/action/increment"),
        format!("POST /gateway/{id}/queue/jobs"),
        format!("GET /gateway/{id}/request/x"),
        format!("GET /gateway/{id}/metadata"),
        format!("GET /actors/{id}/kv/keys/Aw%3D%3D"),
        format!("DELETE /actors/{id}"),
        "GET /actors?name=counter".to_owned(),
        "GET /cluster".to_owned(),
    ] {
        let refused = ask(&server, &own, &line, r#"{"args":[]}"#).await;
        refused.is_error(401, "api/unauthorized");
    }
}

#[tokio::test]
async fn the_token_of_an_actor_is_read_by_those_who_may_list_it_and_is_gone_with_the_actor() {
    let server = guarded().await;
    let id = counter(&server, "one").await;
    let own = token(&server, &id).await;
    let line = |key: &str| format!("GET /actors/{id}/kv/keys/{key}");
    server
        .send(&line("Aw=="), &[], b"")
        .await
        .is_error(401, "api/unauthorized");
    let elsewhere = format!("{}?namespace=other", line("Aw=="));
    ask(&server, TOKEN, &elsewhere, "")
        .await
        .is_error(403, "api/forbidden");
    let key = ask(&server, TOKEN, &line("BA%3D%3D"), "").await;
    key.is_error(404, "api/not_found");
    key.message_has("\"BA==\"");
    let text = ask(&server, TOKEN, &line("no*base64"), "").await;
    text.is_error(400, "validation/invalid_input");
    text.message_has("\"no*base64\"");
    let put = line("Aw==").replace("GET", "PUT");
    let refused = ask(&server, TOKEN, &put, "").await;
    refused.is_error(405, "api/method_not_allowed");
    assert_eq!(refused.header("allow").as_deref(), Some("GET, HEAD"));
    for path in ["kv", "kv/keys", "kv/keys/Aw==/x", "nothing/keys/Aw=="] {
        let line = format!("GET /actors/{id}/{path}");
        ask(&server, TOKEN, &line, "")
            .await
            .is_error(404, "api/not_found");
    }

    let destroyed = ask(&server, TOKEN, &format!("DELETE /actors/{id}"), "").await;
    assert_eq!(destroyed.status, 200);
    ask(&server, TOKEN, &line("Aw=="), "")
        .await
        .is_error(404, "actor/not_found");
    let shown = ask(&server, &own, &format!("GET /gateway/{id}/inspector/state"), "").await;
    shown.is_error(404, "actor/not_found");
    let again = counter(&server, "one").await;
    assert_ne!(token(&server, &again).await, own, "the same key, another actor");
}
