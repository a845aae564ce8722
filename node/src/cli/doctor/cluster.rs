//! What a running node says of itself, its cluster and its clock.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};

use super::Finding;
use super::ask::{Answer, get};

/// Difference of clocks that is remarked upon, in ms. They are told in whole seconds.
const CLOCKS_APART_MS: i64 = 2_000;

/// What came of asking.
pub(super) struct Examined {
    pub(super) findings: Vec<Finding>,
    /// Whether anybody answered.
    pub(super) answers: bool,
}

impl Examined {
    /// Of a node whose gateway speaks TLS to this machine as well, which is not spoken here.
    pub(super) fn unasked(gateway: SocketAddr) -> Self {
        let found = format!("its gateway at {gateway} takes nothing but TLS, so it was not asked");
        Self {
            findings: vec![Finding::ok("node", found)],
            answers: false,
        }
    }
}

/// Asks the node behind a gateway. When none answers, that is bad only if somebody said that one should.
pub(super) async fn examine(
    gateway: &str,
    token: Option<&str>,
    timeout: Duration,
    is_asked_for: bool,
) -> Examined {
    let health = match get(gateway, "/health", None, timeout).await {
        Ok(answer) if answer.body["runtime"] == "clinch" => answer,
        other => {
            let reason = other
                .err()
                .unwrap_or_else(|| "what answers there is no gateway".into());
            let found = format!("none answers at {gateway}: {reason}");
            let finding = match is_asked_for {
                true => Finding::bad("node", found, "start it, or give the address of its gateway"),
                false => Finding::ok("node", found),
            };
            return Examined {
                findings: vec![finding],
                answers: false,
            };
        }
    };
    let mut findings = vec![version(gateway, &health), clock("clock", gateway, &health)];
    findings.push(match get(gateway, "/ready", None, timeout).await {
        Ok(answer) if answer.status == 200 => Finding::ok("ready", "it serves every shard"),
        Ok(answer) => Finding::bad(
            "ready",
            format!("it does not serve: {}", text(&answer.body["reason"])),
            "if that does not pass, look at the nodes below and at the log of this one",
        ),
        Err(reason) => Finding::bad("ready", reason, "look at the log of the node"),
    });
    match get(gateway, "/cluster", token, timeout).await {
        Ok(answer) if answer.status == 200 => {
            findings.extend(members(&answer.body));
            findings.push(shards(&answer.body));
            findings.extend(clocks(gateway, &answer.body, timeout).await);
        }
        Ok(answer) if matches!(answer.status, 401 | 403) => findings.push(Finding::warn(
            "cluster",
            "the node tells it only to an admin",
            "give --token (or CLINCH_TOKEN) of the kind admin",
        )),
        Ok(answer) => findings.push(Finding::bad(
            "cluster",
            format!("the gateway answers {}", answer.status),
            "look at the log of the node",
        )),
        Err(reason) => findings.push(Finding::bad("cluster", reason, "look at the log of the node")),
    }
    Examined {
        findings,
        answers: true,
    }
}

fn version(gateway: &str, health: &Answer) -> Finding {
    let (mine, theirs) = (env!("CARGO_PKG_VERSION"), text(&health.body["version"]));
    let found = format!("answers at {gateway}, version {theirs}");
    let finding = match theirs == mine {
        true => Finding::ok("node", found),
        false => Finding::warn(
            "node",
            format!("{found}; this program is {mine}"),
            "examine it with the program it runs",
        ),
    };
    finding.with(json!({ "gateway": gateway, "version": theirs }))
}

fn clock(about: &'static str, whose: &str, answer: &Answer) -> Finding {
    let Some(ahead) = answer.ahead_ms else {
        return Finding::ok(about, format!("{whose} tells no time"));
    };
    let value = json!({ "gateway": whose, "ahead_ms": ahead });
    let finding = match ahead.abs() <= CLOCKS_APART_MS {
        true => Finding::ok(about, format!("{whose} has the time of this machine, within 2 s")),
        false => Finding::warn(
            about,
            format!("{whose} is {} s {} this machine", ahead.abs() / 1000, side(ahead)),
            "synchronise both clocks: schedules fire by the clock of whichever node owns their actor",
        ),
    };
    finding.with(value)
}

fn side(ahead: i64) -> &'static str {
    match ahead > 0 {
        true => "ahead of",
        false => "behind",
    }
}

fn list<'a>(cluster: &'a Value, name: &str) -> &'a [Value] {
    cluster[name].as_array().map_or(&[], Vec::as_slice)
}

/// A value as people read it: text without quotes.
fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn members(cluster: &Value) -> Vec<Finding> {
    const ABOUT: &str = "nodes";
    let present = |node: &&Value| !matches!(node["state"].as_str(), Some("left" | "replaced"));
    let nodes: Vec<&Value> = list(cluster, "nodes").iter().filter(present).collect();
    let mut findings = Vec::new();
    for node in &nodes {
        let found = format!(
            "node {} is {}: code version {}, start {}, owns {} of {} replicas",
            node["id"],
            text(&node["state"]),
            node["codeVersion"],
            node["incarnation"],
            node["owned"],
            node["replicas"]
        );
        let finding = match node["state"].as_str() {
            Some("up") => Finding::ok(ABOUT, found),
            _ => Finding::warn(
                ABOUT,
                found,
                "start it, or look at its log; until then one fault less is tolerated",
            ),
        };
        findings.push(finding.with((*node).clone()));
    }
    let versions: BTreeSet<u64> = nodes
        .iter()
        .filter_map(|node| node["codeVersion"].as_u64())
        .collect();
    if versions.len() > 1 {
        let found = format!("they run different code: versions {versions:?}");
        let advice = "finish the upgrade: until then the newest nodes own all they can";
        findings.push(Finding::warn(ABOUT, found, advice));
    }
    findings
}

fn shards(cluster: &Value) -> Finding {
    const ABOUT: &str = "shards";
    let shards = list(cluster, "shards");
    if cluster["formed"] != true {
        let advice = "start as many nodes as cluster.expect-nodes says";
        return Finding::bad(
            ABOUT,
            "they are not placed yet: the cluster waits for nodes",
            advice,
        );
    }
    let ids = |wanted: &dyn Fn(&Value) -> bool| -> Vec<String> {
        let wanted = shards.iter().filter(|shard| wanted(shard));
        wanted.map(|shard| shard["id"].to_string()).collect()
    };
    let orphans = ids(&|shard| shard["owner"].is_null());
    let elsewhere = ids(&|shard| !shard["owner"].is_null() && shard["owner"] != shard["preferred"]);
    let value = json!({ "count": shards.len(), "without_owner": orphans, "elsewhere": elsewhere });
    let finding = if !orphans.is_empty() {
        let found = format!(
            "of {} shards these have no owner: {}",
            shards.len(),
            orphans.join(", ")
        );
        Finding::bad(
            ABOUT,
            found,
            "start the nodes that hold their replicas; `clinch shards` names them",
        )
    } else if !elsewhere.is_empty() {
        let found = format!(
            "{} of {} are not where they should be",
            elsewhere.len(),
            shards.len()
        );
        Finding::warn(
            ABOUT,
            found,
            "wait a moment: their owners hand them over; if they do not, a node lags behind",
        )
    } else {
        Finding::ok(ABOUT, format!("{}, each with an owner", shards.len()))
    };
    finding.with(value)
}

/// The clocks of the other nodes, as far as their gateways are reached from here.
async fn clocks(asked: &str, cluster: &Value, timeout: Duration) -> Vec<Finding> {
    let me = &cluster["node"];
    let gateways = list(cluster, "nodes").iter().filter_map(|node| {
        let up = node["state"] == "up" && node["id"] != *me;
        node["gateway"].as_str().filter(|gateway| up && *gateway != asked)
    });
    let told = gateways.map(|gateway| async move {
        match get(gateway, "/health", None, timeout).await {
            Ok(answer) => clock("clock", gateway, &answer),
            // It may listen for its own machine only.
            Err(reason) => Finding::ok("clock", format!("{gateway} is not reached from here: {reason}")),
        }
    });
    futures_util::future::join_all(told).await
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn shards_without_an_owner_and_nodes_that_are_down_are_named() {
        let mut cluster = json!({
            "formed": true, "node": 1,
            "nodes": [
                {"id": 1, "state": "up", "codeVersion": 2, "incarnation": 1, "owned": 1, "replicas": 2},
                {"id": 2, "state": "down", "codeVersion": 1, "incarnation": 1, "owned": 0, "replicas": 2},
                {"id": 3, "state": "replaced", "codeVersion": 0, "incarnation": 1, "owned": 0, "replicas": 0},
            ],
            "shards": [{"id": 0, "owner": 1, "preferred": 1}, {"id": 1, "owner": null, "preferred": 2}],
        });
        let levels: Vec<Level> = members(&cluster).iter().map(|finding| finding.level).collect();
        assert_eq!(
            levels,
            [Level::Ok, Level::Warn, Level::Warn],
            "the last one tells of two versions"
        );
        let found = shards(&cluster);
        assert_eq!(
            (found.level, &found.value["without_owner"]),
            (Level::Bad, &json!(["1"]))
        );
        cluster["shards"][1]["owner"] = 1.into();
        assert_eq!(shards(&cluster).level, Level::Warn);
        cluster["shards"][1]["owner"] = 2.into();
        assert_eq!(shards(&cluster).level, Level::Ok);
        cluster["formed"] = false.into();
        assert_eq!(shards(&cluster).level, Level::Bad);
    }

    #[test]
    fn a_clock_that_is_off_is_told_with_its_side() {
        let answer = |ahead_ms| Answer {
            status: 200,
            body: Value::Null,
            ahead_ms,
        };
        let found = clock("clock", "a", &answer(Some(-7_400)));
        assert!(
            found.level == Level::Warn && found.found.contains("7 s behind"),
            "{found:?}"
        );
        assert_eq!(clock("clock", "a", &answer(Some(900))).level, Level::Ok);
        assert_eq!(clock("clock", "a", &answer(None)).level, Level::Ok);
    }
}
