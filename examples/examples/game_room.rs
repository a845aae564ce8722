//! A game room with a tick loop: players set where they want to go at any time, twenty times a second the world moves.
//! Everybody hears of what moves near their player, or near where they look, and of nothing else.

use std::collections::BTreeMap;
use std::time::Duration;

use clinch::prelude::*;
use clinch::{Connection, Events};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

const TICK: Duration = Duration::from_millis(50);
/// How far players see, in steps.
const SIGHT: u32 = 10;

type Spot = (i32, i32);
/// What the players pressed since the last tick: in memory only, nobody minds if a crash loses it.
type Inputs = Mutex<BTreeMap<String, Spot>>;

/// Who moved in one tick, of those whom the connection sees come, go or move.
#[derive(Serialize, Deserialize, Event)]
struct Moved {
    tick: u64,
    players: BTreeMap<String, Spot>,
}

/// What a connection is interested in: the surroundings of its player, or of another spot.
#[derive(Serialize, Deserialize)]
struct View {
    player: String,
    elsewhere: Option<Spot>,
}

/// The world. It may lose its last second: a replay of one second harms no game.
#[derive(Default, Serialize, Deserialize)]
struct Room {
    tick: u64,
    players: BTreeMap<String, Spot>,
}

#[clinch::actor(name = "gameRoom", vars = Inputs, events(Moved), durability = "may lose 1s")]
impl Room {
    #[hook]
    fn conn_state(player: String) -> View {
        View {
            player,
            elsewhere: None,
        }
    }

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
                let steps = room.step(inputs);
                room.tell(c, &steps)
            })
            .await?;
        }
    }

    #[action]
    fn join(&mut self, player: String, at: Option<Spot>) {
        self.players.entry(player).or_insert(at.unwrap_or_default());
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
    fn look(&self, player: String) -> Option<Spot> {
        self.players.get(&player).copied()
    }

    /// Turns the eyes of this connection elsewhere, or back to its player.
    #[action]
    fn watch(&mut self, c: &Ctx<Self>, spot: Option<Spot>) -> Result<()> {
        c.conn()?.update(|view| view.elsewhere = spot)
    }
}

/// Who made a step, from where, to where.
type Step = (String, Spot, Spot);

impl Room {
    fn step(&mut self, inputs: BTreeMap<String, Spot>) -> Vec<Step> {
        self.tick += 1;
        let mut steps = Vec::new();
        for (player, (dx, dy)) in inputs {
            if let Some(spot) = self.players.get_mut(&player) {
                let from = *spot;
                *spot = (from.0 + dx, from.1 + dy);
                steps.push((player, from, *spot));
            }
        }
        steps
    }

    /// Tells every connection of the steps in its sight: not everybody of everything, which grows with the square of them.
    fn tell(&self, c: &Ctx<Self>, steps: &[Step]) -> Result<()> {
        if steps.is_empty() {
            return Ok(());
        }
        for conn in c.conns() {
            let view = conn.state()?;
            let Some(eye) = view.elsewhere.or_else(|| self.look(view.player)) else {
                continue;
            };
            let seen = steps
                .iter()
                .filter(|(_, from, to)| near(eye, *from) || near(eye, *to));
            let players: BTreeMap<_, _> = seen.map(|(player, _, to)| (player.clone(), *to)).collect();
            if !players.is_empty() {
                let tick = self.tick;
                conn.send(Moved { tick, players });
            }
        }
        Ok(())
    }
}

fn near(a: Spot, b: Spot) -> bool {
    a.0.abs_diff(b.0).max(a.1.abs_diff(b.1)) <= SIGHT
}

/// A player's screen.
struct Screen {
    conn: Connection<Room>,
    moved: Events<Moved>,
}

impl Screen {
    async fn open(room: &RoomHandle, player: &str) -> anyhow::Result<Self> {
        let conn = room.clone().with_params(player).connect().await?;
        let moved = conn.on::<Moved>().await?;
        Ok(Self { conn, moved })
    }

    /// Who moves in the next event.
    async fn sees(&mut self) -> anyhow::Result<String> {
        let event = self
            .moved
            .next()
            .await
            .ok_or_else(|| anyhow::anyhow!("the room hung up"))?;
        Ok(event?.players.into_keys().collect::<Vec<_>>().join(" and "))
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
    room.join("ann".into(), None).await?;
    for steps in 1..=3 {
        room.press("ann".into(), 100, -1).await?;
        while room.look("ann".into()).await? != Some((steps, -steps)) {
            tokio::time::sleep(TICK / 5).await;
        }
    }
    println!("ann is at {:?}", room.look("ann".into()).await?);

    // Bob is near ann, cy is far away.
    room.join("bob".into(), Some((8, 0))).await?;
    room.join("cy".into(), Some((1000, 0))).await?;
    let mut bob = Screen::open(&room, "bob").await?;
    let mut cy = Screen::open(&room, "cy").await?;
    for player in ["ann", "bob", "cy"] {
        let from = room.look(player.into()).await?;
        room.press(player.into(), 0, 1).await?;
        while room.look(player.into()).await? == from {
            tokio::time::sleep(TICK / 5).await;
        }
    }
    println!("bob sees {}, then {}", bob.sees().await?, bob.sees().await?);
    // Had cy heard of the others, it would have been before.
    println!("cy sees {}", cy.sees().await?);
    cy.conn.watch(Some((0, 0))).await?;
    room.press("ann".into(), 0, 1).await?;
    println!("cy watches the middle and sees {}", cy.sees().await?);
    node.stop().await;
    Ok(())
}
