//! By id, by name and key, by header; and who may.

use clinch_gateway::GatewayConfig;
use clinch_types::{Key, Target};
use serde_json::json;

use crate::client::Server;
use crate::support::memory::{Memory, TOKEN};

const CREATE: &str = "rvt-namespace=default&rvt-method=getOrCreate&rvt-runner=default&rvt-crash-policy=sleep";
const GET: &str = "rvt-namespace=default&rvt-method=get";

#[tokio::test]
async fn all_three_forms_reach_the_same_actor() {
    let server = Server::start().await;
    let query = format!("/gateway/counter/action/increment?x=1&{CREATE}&rvt-key=a%2Cb");
    assert_eq!(
        server.post(&query, r#"{"args":[1]}"#).await.json(),
        json!({"output": 1})
    );
    let id = server.actor("counter", "a/b").await;
    let by_id = server
        .post(&format!("/gateway/{id}/action/increment"), r#"{"args":[1]}"#)
        .await;
    assert_eq!(by_id.json(), json!({"output": 2}));
    let by_token = server
        .post(
            &format!("/gateway/{id}@any%2Ftoken/action/increment"),
            r#"{"args":[1]}"#,
        )
        .await;
    assert_eq!(by_token.json(), json!({"output": 3}));
    let headers = [("x-rivet-target", "actor"), ("x-rivet-actor", &id)];
    let by_header = server
        .send("POST /action/increment", &headers, br#"{"args":[1]}"#)
        .await;
    assert_eq!(by_header.json(), json!({"output": 4}));
    let get = format!("/gateway/counter/action/getCount?{GET}&rvt-key=a%2Cb");
    assert_eq!(server.post(&get, "{}").await.json(), json!({"output": 4}));
}

#[tokio::test]
async fn an_actor_has_a_second_address_for_raw_requests() {
    let server = Server::start().await;
    for (path, inner) in [("http/a/b", "/a/b"), ("http/", "/"), ("http", "/")] {
        let answer = server
            .get(&format!("/actors/counter/{path}?x=1&{CREATE}&rvt-key=k"))
            .await;
        assert_eq!(
            (answer.status, answer.body),
            (418, format!("GET {inner}?x=1 1").into_bytes())
        );
    }
    // Without a key it is a path of the manager, and there is none like it.
    for path in ["/actors/counter/http/a", "/actors/counter/https?rvt-key=k"] {
        assert_eq!(server.get(path).await.status, 404, "{path}");
    }
}

#[tokio::test]
async fn a_header_form_without_an_id_is_refused() {
    let server = Server::start().await;
    let answer = server
        .send("POST /action/increment", &[("x-rivet-target", "actor")], b"{}")
        .await;
    answer.is_error(400, "guard/missing_header");
}

#[tokio::test]
async fn what_names_no_actor_is_not_found() {
    let server = Server::start().await;
    for id in [
        "counter",
        "000000000000000000000000000000ff",
        "ffffffffffffffffffffffffffffffff",
    ] {
        let answer = server.post(&format!("/gateway/{id}/action/getCount"), "{}").await;
        answer.is_error(404, "actor/not_found");
    }
    let answer = server
        .post(
            &format!("/gateway/counter/action/getCount?{GET}&rvt-key=none"),
            "{}",
        )
        .await;
    answer.is_error(404, "actor/not_found");
    let answer = server
        .post(&format!("/gateway/nope/action/x?{CREATE}&rvt-key=k"), "{}")
        .await;
    answer.is_error(404, "actor/not_registered");
    for path in ["/gateway", "/gateway/", "/gateway//x/action/y"] {
        server.get(path).await.is_error(404, "guard/no_route");
    }
}

#[tokio::test]
async fn faults_of_a_query_are_answered_before_the_backend_is_asked() {
    let server = Server::start().await;
    for (query, code) in [
        (format!("{GET}&rvt-x=1"), "query_invalid_params"),
        (format!("{GET}&rvt-key=a&rvt-key=b"), "query_duplicate_param"),
        (format!("{GET}&rvt-key"), "query_param_missing_equals"),
        (format!("{GET}&rvt-key=%zz"), "query_invalid_percent_encoding"),
        (format!("{GET}&rvt-region=0"), "query_get_disallowed_params"),
        (
            "rvt-namespace=default&rvt-method=getOrCreate".into(),
            "query_missing_pool",
        ),
        (format!("{CREATE}&rvt-input=*"), "query_invalid_base64_input"),
        (format!("{CREATE}&rvt-input=_w"), "query_invalid_cbor_input"),
    ] {
        let answer = server
            .post(&format!("/gateway/counter/action/getCount?{query}"), "{}")
            .await;
        answer.is_error(400, &format!("guard/{code}"));
    }
    let answer = server.post(&format!("/gateway/c@t/action/x?{GET}"), "{}").await;
    answer.is_error(400, "guard/query_path_token_syntax");
    let answer = server.post(&format!("/gateway//action/x?{GET}"), "{}").await;
    answer.is_error(404, "guard/no_route");
    let answer = server.post(&format!("/gateway/?{GET}"), "{}").await;
    answer.is_error(400, "guard/query_empty_actor_name");
    assert!(server.memory.calls.lock().unwrap().is_empty());
}

#[tokio::test]
async fn names_keys_and_namespaces_are_checked() {
    let server = Server::start().await;
    let long = "k".repeat(129);
    let answer = server
        .post(
            &format!("/gateway/counter/action/getCount?{CREATE}&rvt-key={long}"),
            "{}",
        )
        .await;
    answer.is_error(400, "actor/key_too_large");
    answer.message_has("129");
    let answer = server
        .post(
            &format!("/gateway/{long}/action/getCount?{CREATE}&rvt-key=k"),
            "{}",
        )
        .await;
    answer.is_error(400, "actor/invalid_request");
    let elsewhere = CREATE.replace("default", "nowhere");
    let answer = server
        .post(
            &format!("/gateway/counter/action/getCount?{elsewhere}&rvt-key=k"),
            "{}",
        )
        .await;
    answer.is_error(400, "namespace/not_found");
    let answer = server
        .post(
            &format!("/gateway/counter/action/getCount?{CREATE}&rvt-region=mars"),
            "{}",
        )
        .await;
    answer.is_error(400, "validation/invalid_input");
}

#[tokio::test]
async fn input_and_region_travel_in_the_query() {
    let server = Server::start().await;
    // {"start": 5}
    let query = format!("{CREATE}&rvt-key=k&rvt-input=oWVzdGFydAU&rvt-region=0");
    let answer = server
        .post(&format!("/gateway/counter/action/getCount?{query}"), "{}")
        .await;
    assert_eq!(answer.json(), json!({"output": 5}));
    let Target::Key { key, create, .. } = server.memory.last_call().target else {
        panic!("addressed by key");
    };
    assert_eq!(key, Key::new(["k"]).unwrap());
    let create = create.unwrap();
    assert_eq!(create.input.as_deref(), Some(&b"\xa1\x65start\x05"[..]));
    assert_eq!(create.region.map(|region| region.0), Some(0));
}

#[tokio::test]
async fn a_token_is_taken_from_wherever_clients_put_it() {
    let server = Server::with(Memory::guarded(), GatewayConfig::default()).await;
    let bearer = format!("Bearer {TOKEN}");
    let body = br#"{"name":"counter","key":"k"}"#;
    server
        .send("PUT /actors", &[], body)
        .await
        .is_error(401, "api/unauthorized");
    let created = server
        .send("PUT /actors", &[("authorization", &bearer)], body)
        .await;
    let id = created.json()["actor"]["actor_id"].as_str().unwrap().to_owned();
    let path = format!("POST /gateway/{id}/action/getCount");
    server
        .send(&path, &[], b"{}")
        .await
        .is_error(401, "api/unauthorized");
    server
        .send(
            &path,
            &[("x-rivet-token", "wrong"), ("authorization", &bearer)],
            b"{}",
        )
        .await
        .is_error(401, "api/unauthorized");
    for headers in [[("x-rivet-token", TOKEN)], [("authorization", &bearer)]] {
        assert_eq!(server.send(&path, &headers, b"{}").await.status, 200);
        assert_eq!(server.memory.last_call().token.as_deref(), Some(TOKEN));
    }
    let path = format!("/gateway/{id}@{TOKEN}/action/getCount");
    assert_eq!(server.post(&path, "{}").await.status, 200);
    let path = format!("/gateway/counter/action/getCount?{GET}&rvt-key=k&rvt-token={TOKEN}");
    assert_eq!(server.post(&path, "{}").await.status, 200);
    assert_eq!(server.memory.last_call().token, None);
    let other = path.replace("namespace=default", "namespace=other");
    server.post(&other, "{}").await.is_error(403, "api/forbidden");
}

#[tokio::test]
async fn an_actor_tells_that_it_is_there() {
    let server = Server::start().await;
    let id = server.actor("counter", "k").await;
    let health = server.get(&format!("/gateway/{id}/health")).await;
    assert_eq!((health.status, &health.body[..]), (200, &b"ok"[..]));
    let metadata = server.get(&format!("/gateway/{id}/metadata")).await;
    assert_eq!(metadata.json()["runtime"], "clinch");
    server
        .get(&format!("/gateway/counter/health?{GET}&rvt-key=none"))
        .await
        .is_error(404, "actor/not_found");
}
