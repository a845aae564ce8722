//! The rooms of the React page in `examples/react-chat`. The program has all commands of `clinch`, with its own actor:
//! `cargo run --example react_chat -- up` is a cluster of three processes.
use clinch::prelude::*;
use serde::{Deserialize, Serialize};
use ts_rs::TS;

#[derive(Clone, Serialize, Deserialize, TS)]
struct Line {
    number: u64,
    id: String,
    from: String,
    text: String,
}

#[derive(Event, TS)]
#[event(name = "line")]
struct Said(Line);

#[derive(Deserialize)]
struct Visitor {
    name: String,
}

#[derive(Default, Serialize, Deserialize)]
struct Room {
    lines: Vec<Line>,
}

#[clinch::actor(name = "room", typescript, events(Said))]
impl Room {
    #[hook]
    fn conn_state(visitor: Visitor) -> Result<String> {
        match visitor.name.chars().count() {
            1..=20 => Ok(visitor.name),
            n => Err(Error::user(
                "bad_name",
                format!("a name of {n} characters: 1 to 20 are allowed"),
            )),
        }
    }

    /// Says something once, however often it is said under one id, and tells its number.
    #[action]
    fn say(&mut self, c: &Ctx<Self>, id: String, text: String) -> Result<u64> {
        if let Some(known) = self.lines.iter().find(|line| line.id == id) {
            return Ok(known.number);
        }
        let number = self.lines.last().map_or(0, |line| line.number) + 1;
        let from = c.conn()?.state()?;
        let line = Line {
            number,
            id,
            from,
            text,
        };
        c.broadcast(Said(line.clone()));
        self.lines.push(line);
        self.lines.drain(..self.lines.len().saturating_sub(200));
        Ok(number)
    }

    /// What was said after the line of that number, of the last 200.
    #[action]
    fn since(&self, number: u64) -> Vec<Line> {
        let after = self.lines.partition_point(|line| line.number <= number);
        self.lines[after..].to_vec()
    }
}

fn main() -> std::process::ExitCode {
    clinch::cli::main_with(Registry::new().actor::<Room>())
}
