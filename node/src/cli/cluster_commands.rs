//! `clinch status` and `clinch shards`: the cluster as one of its nodes sees it.

use http::Method;
use serde_json::Value;

use super::exit::Outcome;
use super::remote::Remote;
use super::terminal::{print, table};

/// Show the nodes of a cluster
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  clinch status --gateway http://127.0.0.1:6421")]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    remote: Remote,
    /// Print as JSON: all that `GET /cluster` answers
    #[arg(long)]
    json: bool,
}

/// Show where the shards of a cluster are
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  clinch shards --json")]
pub(crate) struct ShardsArgs {
    #[command(flatten)]
    remote: Remote,
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) async fn status(args: &StatusArgs) -> Outcome {
    let cluster = args
        .remote
        .client()?
        .request(Method::GET, "/cluster", None)
        .await?;
    print(&if args.json {
        cluster.to_string()
    } else {
        status_text(&cluster)
    })
}

pub(crate) async fn shards(args: &ShardsArgs) -> Outcome {
    let cluster = args
        .remote
        .client()?
        .request(Method::GET, "/cluster", None)
        .await?;
    let none = Value::Array(Vec::new());
    let shards = cluster.get("shards").unwrap_or(&none);
    print(&if args.json {
        shards.to_string()
    } else {
        shards_text(shards)
    })
}

/// A value as people read it: text without quotes, lists with commas, nothing as a dash.
fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "-".into(),
        Some(Value::String(text)) if text.is_empty() => "-".into(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(items)) if items.is_empty() => "-".into(),
        Some(Value::Array(items)) => items
            .iter()
            .map(|item| cell(Some(item)))
            .collect::<Vec<_>>()
            .join(", "),
        Some(other) => other.to_string(),
    }
}

fn rows(list: Option<&Value>, columns: &[&str]) -> Vec<Vec<String>> {
    let items = list.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    items
        .iter()
        .map(|item| columns.iter().map(|column| cell(item.get(column))).collect())
        .collect()
}

fn status_text(cluster: &Value) -> String {
    if cluster.get("cluster").is_none() {
        return format!("node {} is not part of a cluster yet", cell(cluster.get("node")));
    }
    let columns = [
        "id",
        "state",
        "owned",
        "replicas",
        "zone",
        "incarnation",
        "gateway",
        "address",
    ];
    let head = [
        "NODE",
        "STATE",
        "OWNED",
        "REPLICAS",
        "ZONE",
        "INCARNATION",
        "GATEWAY",
        "ADDRESS",
    ];
    let nodes = table(&head, &rows(cluster.get("nodes"), &columns));
    let shards = cluster
        .get("shards")
        .and_then(Value::as_array)
        .map_or(&[][..], Vec::as_slice);
    let orphans: Vec<String> = shards
        .iter()
        .filter(|shard| shard.get("owner").is_none_or(Value::is_null))
        .map(|shard| cell(shard.get("id")))
        .collect();
    let health = match (
        cluster.get("formed") == Some(&Value::Bool(true)),
        orphans.is_empty(),
    ) {
        (false, _) => "not formed yet: it waits for nodes".to_owned(),
        (true, true) => format!("{} shards, each with an owner", shards.len()),
        (true, false) => format!(
            "{} shards, without an owner: {}",
            shards.len(),
            orphans.join(", ")
        ),
    };
    format!(
        "cluster {} ({}), version {}, seen by node {}\n{health}\n\n{nodes}",
        cell(cluster.get("name")),
        cell(cluster.get("cluster")),
        cell(cluster.get("version")),
        cell(cluster.get("node")),
    )
}

fn shards_text(shards: &Value) -> String {
    let columns = ["id", "owner", "epoch", "preferred", "replicas", "voters"];
    table(
        &["SHARD", "OWNER", "EPOCH", "PREFERRED", "REPLICAS", "VOTERS"],
        &rows(Some(shards), &columns),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_shard_without_an_owner_is_named() {
        let cluster = json!({
            "node": 1, "formed": true, "cluster": "c", "name": "shop", "version": 7,
            "nodes": [{"id": 1, "state": "up", "owned": 1, "replicas": 2, "zone": "", "incarnation": 3,
                       "gateway": "http://a", "address": "a:1"}],
            "shards": [{"id": 0, "owner": 1, "epoch": 2, "replicas": [1, 2], "voters": [1, 2], "preferred": 1},
                       {"id": 1, "owner": null, "epoch": null, "replicas": [1], "voters": [], "preferred": null}],
        });
        let text = status_text(&cluster);
        assert!(text.contains("2 shards, without an owner: 1"), "{text}");
        assert!(text.contains("   1  up         1"), "{text}");
        let text = shards_text(&cluster["shards"]);
        assert!(
            text.contains("    1      -      -          -  1         -"),
            "{text}"
        );
    }

    #[test]
    fn a_node_without_a_cluster_says_so() {
        assert_eq!(
            status_text(&json!({"node": 3, "formed": false})),
            "node 3 is not part of a cluster yet"
        );
    }
}
