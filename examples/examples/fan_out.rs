//! Fan-out and fan-in: a document is cut into parts, actors count the words of each, one gathers the counts.

use std::collections::BTreeMap;

use clinch::prelude::*;
use futures_util::future::try_join_all;
use serde::{Deserialize, Serialize};

type Counts = BTreeMap<String, u64>;

/// Counts the words of one part.
#[derive(Default, Serialize, Deserialize)]
struct Counter {
    seen: u64,
}

#[clinch::actor(name = "wordCounter")]
impl Counter {
    #[action]
    fn count(&mut self, part: String) -> Counts {
        self.seen += 1;
        let mut counts = Counts::new();
        for word in part.split_whitespace() {
            *counts.entry(word.to_lowercase()).or_default() += 1;
        }
        counts
    }
}

/// Gathers.
#[derive(Default, Serialize, Deserialize)]
struct Index {
    total: Counts,
}

#[clinch::actor(name = "index")]
impl Index {
    /// No `self`: while the counters work, the index goes on answering. The result is one turn of its own.
    #[action]
    async fn add(c: Ctx<Self>, text: String) -> Result<usize> {
        let lines = text.lines().enumerate();
        let parts = lines.map(|(n, line)| c.get::<Counter>(n % 8).count(line.to_owned()).into_future());
        let counted = try_join_all(parts).await?;
        c.update(move |index| {
            for (word, count) in counted.into_iter().flatten() {
                *index.total.entry(word).or_default() += count;
            }
            index.total.len()
        })
        .await
    }

    #[action]
    fn top(&self) -> Option<(String, u64)> {
        self.total
            .iter()
            .max_by_key(|(_, count)| **count)
            .map(|(word, count)| (word.clone(), *count))
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let node = Registry::new()
        .actor::<Counter>()
        .actor::<Index>()
        .start_local()
        .await?;
    let index = node.cluster().get::<Index>("all");
    let text = "the quick brown fox\njumps over the lazy dog\nand the dog\nsleeps on";
    println!("{} words", index.add(text.into()).await?);
    if let Some((word, count)) = index.top().await? {
        println!("most frequent: {word} ({count})");
    }
    node.stop().await;
    Ok(())
}
