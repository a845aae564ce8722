//! A coordinator and its data actors: one actor knows which rooms there are, each room holds its own messages. The
//! coordinator stays small, the rooms spread over the cluster.

use clinch::prelude::*;
use clinch::{ActorKey, ShardedKey};
use serde::{Deserialize, Serialize};

/// A room is addressed by its organisation and number; user data cannot be confused with the separator of a text key.
#[derive(Clone, ActorKey)]
struct RoomKey {
    org: String,
    number: u32,
}

/// The rooms of one organisation.
#[derive(Default, Serialize, Deserialize)]
struct Rooms {
    titles: Vec<String>,
}

#[clinch::actor(name = "rooms")]
impl Rooms {
    /// Makes a room and remembers it. The send leaves with the commit: no room without its entry, no entry without room.
    #[action]
    fn open(&mut self, c: &Ctx<Self>, title: String) -> Result<u32> {
        let number = self.titles.len() as u32;
        let key = RoomKey {
            org: c.key_as()?,
            number,
        };
        c.get::<Room>(key).rename(title.clone()).send()?;
        self.titles.push(title);
        Ok(number)
    }

    #[action]
    fn list(&self) -> Vec<String> {
        self.titles.clone()
    }
}

/// One room.
#[derive(Default, Serialize, Deserialize)]
struct Room {
    title: String,
    messages: Vec<String>,
}

#[clinch::actor(name = "room")]
impl Room {
    #[action]
    fn rename(&mut self, title: String) {
        self.title = title;
    }

    #[action]
    fn say(&mut self, c: &Ctx<Self>, text: String) -> Result<usize> {
        self.messages.push(text);
        // One counter for everybody would be a bottleneck: sixteen are not.
        let key = ShardedKey::hash("messages", c.id().to_string(), 16);
        c.get::<Tally>(key).add().send()?;
        Ok(self.messages.len())
    }

    #[action]
    fn title(&self) -> String {
        self.title.clone()
    }
}

/// One part of a count.
#[derive(Default, Serialize, Deserialize)]
struct Tally(u64);

#[clinch::actor(name = "tally")]
impl Tally {
    #[action]
    fn add(&mut self) {
        self.0 += 1;
    }

    #[action]
    fn get(&self) -> u64 {
        self.0
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let registry = Registry::new().actor::<Rooms>().actor::<Room>().actor::<Tally>();
    let node = registry.start_local().await?;
    let cluster = node.cluster();
    let rooms = cluster.get::<Rooms>("acme");
    for title in ["general", "random"] {
        let number = rooms.open(title.into()).await?;
        let room = cluster.get::<Room>(RoomKey {
            org: "acme".into(),
            number,
        });
        room.say("hello".into()).await?;
        while room.title().await? != title {
            tokio::task::yield_now().await;
        }
    }
    println!("{}", rooms.list().await?.join(", "));
    let count = || async {
        let parts = ShardedKey::all("messages", 16).map(|key| cluster.get::<Tally>(key).get().into_future());
        anyhow::Ok(
            futures_util::future::try_join_all(parts)
                .await?
                .into_iter()
                .sum::<u64>(),
        )
    };
    while count().await? < 2 {
        tokio::task::yield_now().await;
    }
    println!("messages: {}", count().await?);
    node.stop().await;
    Ok(())
}
