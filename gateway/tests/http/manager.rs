//! Finding, creating, listing and destroying actors.

use clinch_gateway::GatewayConfig;
use serde_json::json;

use crate::client::{Answer, Server};
use crate::support::memory::{Memory, TOKEN};

async fn put(server: &Server, body: &str) -> Answer {
    server
        .send("PUT /actors?namespace=default", &[], body.as_bytes())
        .await
}

#[tokio::test]
async fn put_creates_once_and_then_finds() {
    let server = Server::start().await;
    let body = r#"{"name":"counter","key":"room/a\\/b","runner_name_selector":"default","crash_policy":"sleep","new":1}"#;
    let first = put(&server, body).await.json();
    assert_eq!(first["created"], true);
    let actor = &first["actor"];
    assert_eq!(
        (&actor["name"], &actor["key"]),
        (&json!("counter"), &json!(r"room/a\/b"))
    );
    assert_eq!(actor["namespace_id"], "default");
    assert!(actor["create_ts"].as_u64().unwrap() > 1_600_000_000_000);
    assert!(actor["destroy_ts"].is_null());
    let second = put(&server, body).await.json();
    assert_eq!(second["created"], false);
    assert_eq!(second["actor"]["actor_id"], actor["actor_id"]);
}

#[tokio::test]
async fn post_refuses_a_key_that_is_taken_and_says_by_whom() {
    let server = Server::start().await;
    let body = r#"{"name":"counter","key":"k"}"#;
    let first = server.post("/actors", body).await.json();
    assert!(first.get("created").is_none());
    let second = server.post("/actors", body).await;
    second.is_error(400, "actor/duplicate_key");
    let metadata = second.json()["metadata"].clone();
    assert_eq!(
        metadata,
        json!({"existing_actor_id": first["actor"]["actor_id"], "key": "k"})
    );
}

#[tokio::test]
async fn a_missing_actor_is_an_empty_list() {
    let server = Server::start().await;
    let id = server.actor("counter", "k").await;
    let empty = json!({"actors": [], "pagination": {"cursor": null}});
    assert_eq!(server.get("/actors?name=counter&key=none").await.json(), empty);
    assert_eq!(server.get("/actors?actor_ids=nope").await.json(), empty);
    assert_eq!(server.get("/actors?actor_ids=").await.json(), empty);
    let found = server
        .get("/actors?name=counter&key=k&namespace=default")
        .await
        .json();
    assert_eq!(found["actors"][0]["actor_id"], id.as_str());
    let found = server
        .get(&format!("/actors?actor_ids={id},nope,{id}"))
        .await
        .json();
    assert_eq!(found["actors"].as_array().unwrap().len(), 1);
    let elsewhere = server
        .get(&format!("/actors?actor_ids={id}&namespace=other"))
        .await;
    assert_eq!(elsewhere.json(), empty);
}

#[tokio::test]
async fn a_listing_comes_in_pages_and_ends() {
    let server = Server::start().await;
    for key in 0..5 {
        server.actor("counter", &key.to_string()).await;
    }
    server.actor("echo", "other").await;
    let mut seen = Vec::new();
    let mut path = "/actors?name=counter&limit=2".to_owned();
    for _ in 0..3 {
        let page = server.get(&path).await.json();
        seen.extend(
            page["actors"]
                .as_array()
                .unwrap()
                .iter()
                .map(|a| a["key"].clone()),
        );
        let Some(cursor) = page["pagination"]["cursor"].as_str() else {
            break;
        };
        path = format!("/actors?name=counter&limit=2&cursor={cursor}");
    }
    seen.sort_by_key(ToString::to_string);
    assert_eq!(json!(seen), json!(["0", "1", "2", "3", "4"]));
}

#[tokio::test]
async fn input_reaches_the_actor() {
    let server = Server::start().await;
    // {"start": 5}
    put(&server, r#"{"name":"counter","key":"k","input":"oWVzdGFydAU="}"#).await;
    let count = server
        .post(
            "/gateway/counter/action/getCount?rvt-namespace=default&rvt-method=get&rvt-key=k",
            "{}",
        )
        .await;
    assert_eq!(count.json(), json!({"output": 5}));
    put(&server, r#"{"name":"counter","key":"l","input":"*"}"#)
        .await
        .is_error(400, "api/bad_request");
    put(&server, r#"{"name":"counter","key":"l","input":"gg=="}"#)
        .await
        .is_error(400, "api/bad_request");
    // 4 MiB and a byte, as a CBOR byte string
    let large = {
        use base64::Engine;
        let bytes = [&[0x5a, 0, 0x3f, 0xff, 0xfc][..], &vec![0; (4 << 20) - 4]].concat();
        base64::engine::general_purpose::STANDARD.encode(bytes)
    };
    let answer = put(
        &server,
        &format!(r#"{{"name":"counter","key":"l","input":"{large}"}}"#),
    )
    .await;
    answer.is_error(400, "actor/input_too_large");
    answer.message_has("4194305");
}

#[tokio::test]
async fn wrong_requests_have_the_codes_of_the_catalogue() {
    let server = Server::start().await;
    for body in ["", "{", "[]", r#"{"key":"k"}"#, r#"{"name":5}"#] {
        put(&server, body).await.is_error(400, "api/bad_request");
    }
    put(&server, r#"{"name":"","key":"k"}"#)
        .await
        .is_error(400, "validation/invalid_input");
    put(&server, r#"{"name":"counter","key":"k","datacenter":"mars"}"#)
        .await
        .is_error(400, "validation/invalid_input");
    put(&server, r#"{"name":"nope","key":"k"}"#)
        .await
        .is_error(404, "actor/not_registered");
    let long = "k".repeat(129);
    put(&server, &format!(r#"{{"name":"counter","key":"{long}"}}"#))
        .await
        .is_error(400, "actor/key_too_large");
    put(&server, &format!(r#"{{"name":"{long}","key":"k"}}"#))
        .await
        .is_error(400, "actor/invalid_request");
    server
        .get("/actors")
        .await
        .is_error(400, "validation/invalid_input");
    server
        .get("/actors?name=")
        .await
        .is_error(400, "validation/invalid_input");
    server
        .get("/actors?name=counter&limit=0")
        .await
        .is_error(400, "validation/invalid_input");
    server
        .get("/actors?name=%zz")
        .await
        .is_error(400, "api/bad_request");
    server
        .get("/actors?name=counter&namespace=nowhere")
        .await
        .is_error(400, "namespace/not_found");
    server.get("/actorsx").await.is_error(404, "api/not_found");
    server
        .get("/actors/x/kv/entries")
        .await
        .is_error(404, "api/not_found");
    let ids = vec!["x"; 1001].join(",");
    server
        .get(&format!("/actors?actor_ids={ids}"))
        .await
        .is_error(400, "validation/invalid_input");
    let answer = server.send("PATCH /actors", &[], b"").await;
    answer.is_error(405, "api/method_not_allowed");
    assert_eq!(answer.header("allow").as_deref(), Some("GET, HEAD, PUT, POST"));
    server
        .post("/actors/names", "")
        .await
        .is_error(405, "api/method_not_allowed");
    server
        .get("/actors/x")
        .await
        .is_error(405, "api/method_not_allowed");
}

#[tokio::test]
async fn a_deleted_actor_is_gone_and_its_key_is_free() {
    let server = Server::start().await;
    let id = server.actor("counter", "k").await;
    let line = format!("DELETE /actors/{id}?namespace=other");
    server
        .send(&line, &[], b"")
        .await
        .is_error(404, "actor/not_found");
    let line = format!("DELETE /actors/{id}?namespace=default");
    let answer = server.send(&line, &[], b"").await;
    assert_eq!((answer.status, answer.json()), (200, json!({})));
    server
        .send(&line, &[], b"")
        .await
        .is_error(404, "actor/not_found");
    server
        .post(&format!("/gateway/{id}/action/getCount"), "{}")
        .await
        .is_error(404, "actor/not_found");
    assert_ne!(server.actor("counter", "k").await, id);
    server
        .send("DELETE /actors/x", &[], b"")
        .await
        .is_error(404, "actor/not_found");
}

#[tokio::test]
async fn names_are_those_of_the_registered_types() {
    let server = Server::start().await;
    let names = server.get("/actors/names?namespace=default").await.json();
    assert_eq!(names["names"]["counter"], json!({"metadata": {}}));
}

#[tokio::test]
async fn a_namespace_is_made_once_and_listed_by_administrators_only() {
    let server = Server::start().await;
    let body = |name: &str| serde_json::json!({ "name": name }).to_string();
    let find = "GET /actors?name=counter&key=k&namespace=shop";
    server
        .send(find, &[], b"")
        .await
        .is_error(400, "namespace/not_found");
    for created in [true, false] {
        let answer = server.send("PUT /namespaces", &[], body("shop").as_bytes()).await;
        assert_eq!(
            answer.json(),
            json!({"namespace": {"name": "shop"}, "created": created})
        );
    }
    assert_eq!(server.send(find, &[], b"").await.json()["actors"], json!([]));
    let names = [
        json!({"name": "default"}),
        json!({"name": "other"}),
        json!({"name": "shop"}),
    ];
    assert_eq!(
        server.get("/namespaces").await.json(),
        json!({"namespaces": names})
    );
    server
        .send("PUT /namespaces", &[], b"{}")
        .await
        .is_error(400, "api/bad_request");
    server
        .send("DELETE /namespaces", &[], b"")
        .await
        .is_error(405, "api/method_not_allowed");

    let guarded = Server::with(Memory::guarded(), GatewayConfig::default()).await;
    guarded.get("/namespaces").await.is_error(401, "api/unauthorized");
    let secret = [("authorization", "Bearer secret-token")];
    let line = "PUT /namespaces";
    guarded
        .send(line, &secret, body("shop").as_bytes())
        .await
        .is_error(403, "api/forbidden");
}

#[tokio::test]
async fn listing_and_deleting_ask_for_more_than_finding() {
    let server = Server::with(Memory::guarded(), GatewayConfig::default()).await;
    server
        .get("/actors?name=counter")
        .await
        .is_error(401, "api/unauthorized");
    server
        .send("DELETE /actors/x", &[], b"")
        .await
        .is_error(401, "api/unauthorized");
    let bearer = format!("bearer {TOKEN}");
    let headers = [("authorization", bearer.as_str())];
    assert_eq!(
        server
            .send("GET /actors?name=counter", &headers, b"")
            .await
            .status,
        200
    );
    server
        .send("GET /actors?name=counter&namespace=other", &headers, b"")
        .await
        .is_error(403, "api/forbidden");
}
