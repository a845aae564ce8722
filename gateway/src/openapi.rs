//! `/openapi.json`: the routes of the gateway, for people and for tools.
//!
//! Invariant: the document names every route that is served, and none that is not; the tests below read both.

use std::sync::LazyLock;

use bytes::Bytes;

use crate::plain::VERSION;

/// The document as a client gets it.
pub(crate) fn document() -> Bytes {
    static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| {
        let text = include_str!("openapi.json").replacen("\"VERSION\"", &format!("\"{VERSION}\""), 1);
        Bytes::from(text)
    });
    DOCUMENT.clone()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;
    use crate::plain::ROUTES;

    fn paths() -> BTreeSet<String> {
        let document: Value = serde_json::from_slice(&document()).unwrap();
        assert_eq!(document["info"]["version"], VERSION);
        let paths = document["paths"].as_object().unwrap();
        paths.keys().cloned().collect()
    }

    /// The names that a `match` of the source distinguishes, from the line that begins it to its last arm.
    fn arms(source: &str, begin: &str) -> BTreeSet<String> {
        let from = source
            .find(begin)
            .unwrap_or_else(|| panic!("no {begin:?} in the source"));
        let block = source[from..].split("_ => ").next().unwrap();
        let patterns = block
            .lines()
            .filter_map(|line| line.split_once("=>"))
            .map(|(pattern, _)| pattern);
        let names = patterns.flat_map(|pattern| pattern.split('"').skip(1).step_by(2));
        names.map(str::to_owned).collect()
    }

    #[test]
    fn every_route_is_in_the_document_and_every_path_of_the_document_is_a_route() {
        let mut expected: BTreeSet<String> = ROUTES.iter().map(|(path, _)| (*path).to_owned()).collect();
        expected.extend(
            [
                "/actors",
                "/actors/names",
                "/actors/{actor_id}",
                "/actors/{actor_id}/kv/keys/{key}",
                "/namespaces",
            ]
            .map(str::to_owned),
        );
        let inside = arms(include_str!("action.rs"), "match first {");
        assert!(
            inside.contains("request") && inside.contains("metadata"),
            "{inside:?}"
        );
        for first in inside {
            let path = match first.as_str() {
                "request" | "websocket" => format!("/gateway/{{actor}}/{first}/{{path}}"),
                // Of an older generation, and refused.
                "inspect" | "dynamic" | "inspector" => continue,
                _ => format!("/gateway/{{actor}}/{first}"),
            };
            expected.insert(path);
        }
        let parts = arms(include_str!("inspector.rs"), "match path {");
        assert!(parts.contains("rpcs") && parts.contains("summary"), "{parts:?}");
        expected.extend(
            parts
                .iter()
                .map(|part| format!("/gateway/{{actor}}/inspector/{part}")),
        );
        for called in ["action", "queue"] {
            expected.insert(format!("/gateway/{{actor}}/{called}/{{{called}}}"));
        }
        expected.insert("/gateway/{actor}/inspector/action/{action}".to_owned());
        assert_eq!(paths(), expected);
    }
}
