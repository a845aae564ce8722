//! Actors that call each other: an order reserves goods in a warehouse.

use clinch_actor::{Any, Ctx, Error};
use serde::{Deserialize, Serialize};

/// The stock of one warehouse.
#[derive(Serialize, Deserialize)]
pub(crate) struct Inventory {
    stock: i64,
}

impl Default for Inventory {
    fn default() -> Self {
        Self { stock: 100 }
    }
}

#[clinch_actor::actor(name = "inventory", crate = "clinch_actor")]
impl Inventory {
    /// Takes `count` out, and tells what is left.
    #[action]
    fn reserve(&mut self, count: i64) -> Result<i64, Error> {
        if count > self.stock {
            return Err(Error::user("out_of_stock", "Out of stock").with("left", self.stock));
        }
        self.stock = self.stock.saturating_sub(count);
        Ok(self.stock)
    }

    #[action]
    fn stock(&self) -> i64 {
        self.stock
    }
}

/// An order.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Order {}

/// An order that went through.
#[derive(Serialize, Deserialize)]
pub(crate) struct Placed {
    ok: bool,
    left: i64,
}

/// What became of an order.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Outcome {
    /// It failed, and why.
    Failed {
        ok: bool,
        group: String,
        code: String,
        metadata: Option<Any>,
    },
    /// It went through.
    Placed { ok: bool },
}

#[clinch_actor::actor(name = "order", crate = "clinch_actor")]
impl Order {
    /// The warehouse's error, if there is one, is the order's.
    #[action]
    async fn process(&mut self, c: &Ctx<Self>, warehouse: String, count: i64) -> Result<Placed, Error> {
        let left = reserve(c, warehouse, count).await?;
        Ok(Placed { ok: true, left })
    }

    #[action]
    async fn process_safely(&mut self, c: &Ctx<Self>, warehouse: String, count: i64) -> Outcome {
        match reserve(c, warehouse, count).await {
            Ok(_) => Outcome::Placed { ok: true },
            Err(error) => Outcome::Failed {
                ok: false,
                group: error.group().to_owned(),
                code: error.code().to_owned(),
                metadata: error.metadata(),
            },
        }
    }
}

/// An order that is cut off by a change of its owner runs again. Its reservation, under one name, counts once all the same.
async fn reserve(c: &Ctx<Order>, warehouse: String, count: i64) -> Result<i64, Error> {
    let once = c.request_id().to_string();
    c.get::<Inventory>([warehouse])
        .reserve(count)
        .idempotency_key(once)
        .await
}
