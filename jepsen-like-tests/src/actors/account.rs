//! Accounts that pay each other by one-way sends.

use clinch::prelude::*;
use serde::{Deserialize, Serialize};

use super::{Failure, Told};

/// One account. Amounts are used once, so that each tells which payment it is.
#[derive(Default, Serialize, Deserialize)]
pub struct Account {
    balance: i64,
    /// Amount, to whom, ...
    paid: Vec<i64>,
    /// Amount, from whom, ...
    got: Vec<i64>,
}

/// The number in the key: `b3` is 3.
fn number(c: &Ctx<Account>) -> Result<i64> {
    let key: String = c.key_as()?;
    key[1..]
        .parse()
        .map_err(|_| Error::user("key", "keys of accounts are a letter and a number"))
}

#[clinch::actor(name = "account", sleep_after = "2s", action_timeout = "900ms")]
impl Account {
    /// Pays another account: leaves here at once, arrives there some time later.
    #[action]
    fn pay(&mut self, c: &Ctx<Self>, amount: i64, to: i64) -> Result<Told> {
        self.balance -= amount;
        self.paid.extend([amount, to]);
        c.get::<Self>(format!("b{to}")).take(amount, number(c)?).send()?;
        Ok((self.balance, Vec::new()))
    }

    #[action]
    fn take(&mut self, amount: i64, from: i64) {
        self.balance += amount;
        self.got.extend([amount, from]);
    }

    /// The balance; how many numbers tell what was paid, those, and what was got.
    #[action]
    fn account(&self) -> Told {
        let mut list = vec![self.paid.len() as i64];
        list.extend(&self.paid);
        list.extend(&self.got);
        (self.balance, list)
    }

    /// Pays, and then fails: nobody may ever see it.
    #[action]
    async fn spoil(&mut self, c: &Ctx<Self>, amount: i64) -> Result<Told> {
        self.balance -= amount;
        self.paid.extend([amount, 0]);
        c.get::<Self>("b0").take(amount, number(c)?).send()?;
        Failure::of(amount).strike().await
    }
}
