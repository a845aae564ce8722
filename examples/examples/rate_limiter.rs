//! A token bucket per tenant. Losing the last seconds of it in a crash only means a few calls more, so its state need not
//! be on disk before each answer.

use clinch::prelude::*;
use serde::{Deserialize, Serialize};

const BURST: f64 = 5.0;
const PER_SECOND: f64 = 1.0;

/// One per tenant; the key is the tenant's name.
#[derive(Serialize, Deserialize)]
struct Limiter {
    tokens: f64,
    refilled_ms: u64,
}

#[clinch::actor(name = "limiter", durability = "may lose 10s")]
impl Limiter {
    #[hook]
    fn create(c: &Ctx<Self>) -> Self {
        Self {
            tokens: BURST,
            refilled_ms: c.now().0,
        }
    }

    /// Whether the tenant may go on. One actor decides, one call after the other: there is no race.
    #[action]
    fn admit(&mut self, c: &Ctx<Self>) -> Result<()> {
        let now = c.now().0;
        let seconds = now.saturating_sub(self.refilled_ms) as f64 / 1000.0;
        (self.tokens, self.refilled_ms) = (BURST.min(self.tokens + seconds * PER_SECOND), now);
        if self.tokens < 1.0 {
            let wait_ms = ((1.0 - self.tokens) / PER_SECOND * 1000.0).ceil();
            // A failed action leaves no trace: the refill above is counted again next time.
            return Err(Error::user("rate_limited", "too many calls").with("retryAfterMs", wait_ms as u64));
        }
        self.tokens -= 1.0;
        Ok(())
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let node = Registry::new().actor::<Limiter>().start_local().await?;
    for tenant in ["acme", "globex"] {
        let limiter = node.cluster().get::<Limiter>(tenant);
        let mut admitted = 0;
        for _ in 0..8 {
            match limiter.admit().await {
                Ok(()) => admitted += 1,
                Err(error) if error.is("user", "rate_limited") => {}
                Err(error) => return Err(error.into()),
            }
        }
        println!("{tenant}: {admitted} of 8 admitted");
    }
    node.stop().await;
    Ok(())
}
