//! Test tooling: the gateway over actors in memory, for driving it with real clients before there is a cluster.
//!
//! ```text
//! cargo run -p clinch-gateway --example memory_backend -- 6420
//! ```

#[path = "../tests/support/mod.rs"]
#[expect(dead_code, reason = "shared with the tests, which use more of it")]
mod support;

use std::sync::Arc;

use clinch_gateway::{GatewayConfig, router, serve};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let port: u16 = match std::env::args().nth(1) {
        Some(port) => port.parse()?,
        None => 6420,
    };
    let config = GatewayConfig::default().validate()?;
    // `localhost` is ::1 first on many machines.
    let mut listeners = vec![TcpListener::bind(("127.0.0.1", port)).await?];
    listeners.extend(TcpListener::bind(("::1", port)).await.ok());
    println!("ready on http://{}", listeners[0].local_addr()?);
    let stop = CancellationToken::new();
    let tracker = TaskTracker::new();
    let router = router(Arc::new(support::memory::Memory::default()), config.clone());
    let ctrl_c = stop.clone();
    tracker.spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            ctrl_c.cancel();
        }
    });
    serve(listeners, router, config, None, stop, tracker.clone()).await;
    tracker.close();
    tracker.wait().await;
    Ok(())
}
