//! The files of the inspector's pages: public, and allowed to run nothing but themselves. What they do is tried in a browser, by
//! `gateway/tests/inspector-pages`.

use clinch_gateway::GatewayConfig;

use crate::client::Server;
use crate::support::memory::Memory;

#[tokio::test]
async fn the_inspector_s_pages_are_for_everybody_and_run_nothing_but_their_own_script() {
    let server = Server::with(Memory::guarded(), GatewayConfig::default()).await;
    let moved = server.get("/inspector/ui").await;
    assert_eq!(
        (moved.status, moved.header("location").as_deref()),
        (308, Some("ui/"))
    );
    for (file, content_type, text) in [
        ("", "text/html; charset=utf-8", "src=\"app.js\""),
        ("app.js", "text/javascript; charset=utf-8", "authorization"),
        ("style.css", "text/css; charset=utf-8", "color-scheme"),
    ] {
        let answer = server.get(&format!("/inspector/ui/{file}")).await;
        assert_eq!(answer.status, 200, "{file}");
        assert_eq!(answer.header("content-type").as_deref(), Some(content_type));
        let body = String::from_utf8(answer.body.clone()).unwrap();
        assert!(body.contains(text), "{file}: {body}");
        for elsewhere in ["http://", "https://", "innerHTML", "eval("] {
            assert!(!body.contains(elsewhere), "{elsewhere} in {file}");
        }
        let policy = answer.header("content-security-policy").unwrap_or_default();
        for rule in [
            "default-src 'none'",
            "script-src 'self'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
        ] {
            assert!(policy.contains(rule), "{file}: {policy}");
        }
        assert_eq!(
            answer.header("x-content-type-options").as_deref(),
            Some("nosniff")
        );
    }
    server
        .get("/inspector/ui/nothing")
        .await
        .is_error(404, "api/not_found");
    let posted = server.post("/inspector/ui/", "{}").await;
    posted.is_error(405, "api/method_not_allowed");
}
