//! A game room with a tick loop: players set where they want to go at any time, twenty times a second the world moves.

use std::collections::BTreeMap;
use std::time::Duration;

use clinch::prelude::*;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

const TICK: Duration = Duration::from_millis(50);

/// What the players pressed since the last tick: in memory only, nobody minds if a crash loses it.
type Inputs = Mutex<BTreeMap<String, (i32, i32)>>;

#[derive(Serialize, Deserialize, Event)]
struct Moved {
    tick: u64,
    players: BTreeMap<String, (i32, i32)>,
}

/// The world. It may lose its last second: a replay of one second harms no game.
#[derive(Default, Serialize, Deserialize)]
struct Room {
    tick: u64,
    players: BTreeMap<String, (i32, i32)>,
}

#[clinch::actor(name = "gameRoom", vars = Inputs, events(Moved), durability = "may lose 1s")]
impl Room {
    #[hook]
    async fn run(c: Ctx<Self>) -> Result<()> {
        let mut ticks = tokio::time::interval(TICK);
        loop {
            tokio::select! {
                () = c.cancelled() => return Ok(()),
                _ = ticks.tick() => {}
            }
            let inputs = std::mem::take(&mut *c.vars().lock());
            c.try_update(move |room, c| {
                room.step(inputs);
                c.broadcast(Moved {
                    tick: room.tick,
                    players: room.players.clone(),
                });
                Ok::<_, Error>(())
            })
            .await?;
        }
    }

    #[action]
    fn join(&mut self, player: String) {
        self.players.entry(player).or_default();
    }

    /// Only notes what was pressed, so it is a read as far as the state goes.
    #[action]
    fn press(&self, c: &Ctx<Self>, player: String, dx: i32, dy: i32) -> Result<()> {
        if !self.players.contains_key(&player) {
            return Err(Error::user("not_in_room", "join first"));
        }
        // What comes from players is checked: one step per tick.
        c.vars().lock().insert(player, (dx.clamp(-1, 1), dy.clamp(-1, 1)));
        Ok(())
    }

    #[action]
    fn look(&self, player: String) -> Option<(i32, i32)> {
        self.players.get(&player).copied()
    }
}

impl Room {
    fn step(&mut self, inputs: BTreeMap<String, (i32, i32)>) {
        self.tick += 1;
        for (player, (dx, dy)) in inputs {
            if let Some((x, y)) = self.players.get_mut(&player) {
                (*x, *y) = (*x + dx, *y + dy);
            }
        }
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let node = Registry::new().actor::<Room>().start_local().await?;
    let room = node.cluster().get::<Room>("arena");
    println!(
        "{}",
        room.press("bob".into(), 1, 0)
            .await
            .err()
            .map_or_else(String::new, |e| e.to_string())
    );
    room.join("ann".into()).await?;
    for steps in 1..=3 {
        room.press("ann".into(), 100, -1).await?;
        while room.look("ann".into()).await? != Some((steps, -steps)) {
            tokio::time::sleep(TICK / 5).await;
        }
    }
    println!("ann is at {:?}", room.look("ann".into()).await?);
    node.stop().await;
    Ok(())
}
