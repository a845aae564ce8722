//! Every change of an actor's state in an external SQL database, in order and once.
//!
//! The change and the note that it is to be mirrored are one commit (the actor's own queue); the loop beside the actions
//! writes to the database and takes the note away. If it fails between the two, the note comes again, and the database
//! knows by its number that it has it.

use std::time::Duration;

use clinch::prelude::*;
use parking_lot::Mutex;
use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};

/// The database, opened once for the program: every actor finds it by its type.
struct Database(Mutex<Connection>);

#[derive(Default, Serialize, Deserialize)]
struct Account {
    balance: i64,
}

/// What is mirrored.
#[derive(Serialize, Deserialize)]
struct Row {
    balance: i64,
}

#[clinch::actor(name = "account")]
impl Account {
    /// Inside the turn that changed the state: the message commits with it.
    #[hook]
    fn on_state_change(&self, c: &Ctx<Self>) -> Result<()> {
        c.queue("mirror").push(&Row {
            balance: self.balance,
        })
    }

    #[hook]
    async fn run(c: Ctx<Self>) -> anyhow::Result<()> {
        let database = c.data::<Database>()?;
        let mut rows = c.queue::<Row>("mirror");
        while let Some(row) = rows.next().await? {
            let written = {
                let account = c.key().to_string();
                let sql = "INSERT INTO account (name, balance, version) VALUES (?1, ?2, ?3)
                           ON CONFLICT (name) DO UPDATE SET balance = ?2, version = ?3 WHERE version < ?3";
                let version = row.id().0 as i64;
                database
                    .0
                    .lock()
                    .execute(sql, params![account, row.balance, version])
            };
            match written {
                Ok(_) => row.ack().await?,
                // The database is down: the message stays, and with it the order of those behind it.
                Err(_) => row.retry(Duration::from_secs(1)).await?,
            }
        }
        Ok(())
    }

    #[action]
    fn deposit(&mut self, amount: i64) -> Result<i64> {
        if amount <= 0 {
            return Err(Error::user("bad_amount", "an amount is more than nothing"));
        }
        self.balance += amount;
        Ok(self.balance)
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let file = tempfile::NamedTempFile::new()?;
    let connection = Connection::open(file.path())?;
    connection
        .execute_batch("CREATE TABLE account (name TEXT PRIMARY KEY, balance INTEGER, version INTEGER)")?;
    let registry = Registry::new()
        .actor::<Account>()
        .data(Database(Mutex::new(connection)));
    let node = registry.start_local().await?;
    for name in ["ada", "bob"] {
        let account = node.cluster().get::<Account>(name);
        for amount in 1..=10 {
            account.deposit(amount).await?;
        }
        account.deposit(-5).await.unwrap_err();
    }
    // Anybody may read the mirror, with another connection and without asking the actors.
    let reader = Connection::open(file.path())?;
    let sum = || {
        reader.query_row("SELECT coalesce(sum(balance), 0) FROM account", [], |row| {
            row.get::<_, i64>(0)
        })
    };
    while sum()? < 110 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    println!("mirrored: {}", sum()?);
    node.stop().await;
    Ok(())
}
