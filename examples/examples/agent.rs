//! An agent that streams what a model says, word by word, to whoever listens, and remembers the conversation.
//!
//! The model is a fake one in this process: it takes its time for each word, as real ones do.

use std::time::Duration;

use clinch::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Clone, Serialize, Deserialize)]
struct Turn {
    who: String,
    text: String,
}

/// One conversation.
#[derive(Default, Serialize, Deserialize)]
struct Agent {
    turns: Vec<Turn>,
}

/// A piece of an answer on its way.
#[derive(Clone, Event)]
struct Token(String);

/// An answer is complete.
#[derive(Clone, Event)]
struct Answered(String);

/// Says what it was told, backwards.
fn model(prompt: &str) -> impl Iterator<Item = String> + use<> {
    let words: Vec<String> = prompt.split_whitespace().rev().map(str::to_owned).collect();
    words.into_iter()
}

#[clinch::actor(name = "agent", events(Token, Answered))]
impl Agent {
    /// Without `self`: the agent answers others while the model thinks. Each piece leaves when it is committed.
    #[action]
    async fn ask(c: Ctx<Self>, prompt: String) -> Result<String> {
        let asked = prompt.clone();
        c.update(move |agent| agent.say("user", asked)).await?;
        let mut answer = Vec::new();
        for word in model(&prompt) {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let token = Token(word.clone());
            c.try_update(move |_, c| {
                c.broadcast(token);
                Ok::<_, Error>(())
            })
            .await?;
            answer.push(word);
        }
        let answer = answer.join(" ");
        let told = answer.clone();
        c.try_update(move |agent, c| {
            agent.say("agent", told.clone());
            c.broadcast(Answered(told));
            Ok::<_, Error>(())
        })
        .await?;
        Ok(answer)
    }

    #[action]
    fn history(&self) -> Vec<Turn> {
        self.turns.clone()
    }
}

impl Agent {
    fn say(&mut self, who: &str, text: String) {
        let who = who.to_owned();
        self.turns.push(Turn { who, text });
    }
}

fn decoded(args: &[u8]) -> String {
    Token::decode_args(args).map_or_else(|error| error.to_string(), |token| token.0)
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let node = Registry::new().actor::<Agent>().start_local().await?;
    let agent = node.cluster().get::<Agent>("ada");
    // In a browser this is a connection that listens to `token`; in the agent's own process a subscription will do.
    let (_, meta) = agent.history().meta().await?;
    let mut events = node.events().subscribe(meta.actor);
    let (answer, ()) = tokio::join!(async { agent.ask("world hello".into()).await }, async {
        while let Some(told) = events.recv().await {
            for event in &told.events {
                match event.name.as_str() {
                    Token::NAME => println!("... {}", decoded(&event.args)),
                    _ => return,
                }
            }
        }
    });
    println!("{}", answer?);
    for turn in node.cluster().get::<Agent>("ada").history().await? {
        println!("{}: {}", turn.who, turn.text);
    }
    node.stop().await;
    Ok(())
}
