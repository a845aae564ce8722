//! An actor that people come to: connections, their hooks, and what they are told.

use clinch::prelude::*;
use serde::{Deserialize, Serialize};

use super::{Failure, Put, Told};

/// One in so many visitors is not let in.
const UNWELCOME: i64 = 16;

/// Who comes: a number that nobody else has.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Visitor {
    /// The number.
    pub number: i64,
}

impl Visitor {
    /// Whether the hall lets it in.
    pub fn is_welcome(number: i64) -> bool {
        number % UNWELCOME != 0
    }
}

/// A list, and who came and went.
#[derive(Default, Serialize, Deserialize)]
pub struct Hall {
    list: Vec<i64>,
    entered: Vec<i64>,
    left: Vec<i64>,
}

#[clinch::actor(name = "hall", sleep_after = "1s", action_timeout = "900ms", events(Put))]
impl Hall {
    #[hook]
    async fn before_connect(&self, visitor: Visitor) -> Result<()> {
        match Visitor::is_welcome(visitor.number) {
            true => Ok(()),
            false => Err(Error::user("unwelcome", "this visitor is not let in")),
        }
    }

    #[hook]
    fn conn_state(&self, visitor: Visitor) -> Visitor {
        visitor
    }

    /// Writes down who came, and greets it: place 0, its own number.
    #[hook]
    fn on_connect(&mut self, _c: &Ctx<Self>, conn: &Conn<Self>) -> Result<()> {
        let number = conn.state()?.number;
        self.entered.push(number);
        conn.send(Put { place: 0, number });
        Ok(())
    }

    #[hook]
    fn on_disconnect(&mut self, _c: &Ctx<Self>, conn: &Conn<Self>) -> Result<()> {
        self.left.push(conn.state()?.number);
        Ok(())
    }

    /// One more at the end of the list, and everybody is told.
    #[action]
    fn tell(&mut self, c: &Ctx<Self>, value: i64) -> Told {
        self.list.push(value);
        let place = self.list.len() as i64;
        c.broadcast(Put { place, number: value });
        (place, Vec::new())
    }

    #[action]
    fn list(&self) -> Told {
        (self.list.len() as i64, self.list.clone())
    }

    /// How many came; how many numbers tell who, those, and who went.
    #[action]
    fn visits(&self) -> Told {
        let mut list = vec![self.entered.len() as i64];
        list.extend(&self.entered);
        list.extend(&self.left);
        (self.entered.len() as i64, list)
    }

    /// Tells everybody, shows the door to some, and then fails: nobody may hear of it.
    #[action]
    async fn spoil(&mut self, c: &Ctx<Self>, value: i64) -> Result<Told> {
        self.list.push(value);
        c.broadcast(Put {
            place: self.list.len() as i64,
            number: value,
        });
        for conn in c.conns() {
            conn.send(Put {
                place: 0,
                number: value,
            });
            if conn.state()?.number % 2 == 0 {
                conn.disconnect("spoilt");
            }
        }
        self.left.push(value);
        Failure::of(value).strike().await
    }
}
