//! A web application with a node inside: its handlers call actors like any other async function.
//!
//! `curl -X POST localhost:PORT/carts/ada/items/apple`, then `curl localhost:PORT/carts/ada`. Clients of the actors
//! themselves find their gateway at `http://localhost:PORT/api/actors`.

use std::collections::BTreeMap;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use clinch::prelude::*;
use serde::{Deserialize, Serialize};

/// One per customer.
#[derive(Default, Serialize, Deserialize)]
struct Cart {
    items: BTreeMap<String, u32>,
}

#[clinch::actor(name = "cart")]
impl Cart {
    #[action]
    fn add(&mut self, item: String) -> Result<u32> {
        if self.items.len() >= 100 {
            return Err(Error::user(
                "cart_full",
                "a cart holds at most 100 kinds of items",
            ));
        }
        let count = self.items.entry(item).or_default();
        *count += 1;
        Ok(*count)
    }

    #[action]
    fn items(&self) -> BTreeMap<String, u32> {
        self.items.clone()
    }
}

/// What the application said no to is the customer's affair; the rest is ours.
fn status(error: Error) -> (StatusCode, String) {
    let status = match error.group() {
        "user" => StatusCode::UNPROCESSABLE_ENTITY,
        _ if error.is_retryable() => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    (status, error.message().to_owned())
}

async fn add(
    State(cluster): State<Cluster>,
    Path((customer, item)): Path<(String, String)>,
) -> std::result::Result<String, (StatusCode, String)> {
    let count = cluster.get::<Cart>(customer).add(item).await.map_err(status)?;
    Ok(format!("{count}\n"))
}

async fn show(
    State(cluster): State<Cluster>,
    Path(customer): Path<String>,
) -> std::result::Result<String, (StatusCode, String)> {
    let items = cluster.get::<Cart>(customer).items().await.map_err(status)?;
    Ok(items
        .into_iter()
        .map(|(item, count)| format!("{count} {item}\n"))
        .collect())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let node = Registry::new().actor::<Cart>().start_local().await?;
    let app = Router::new()
        .route("/carts/{customer}", get(show))
        .route("/carts/{customer}/items/{item}", post(add))
        .with_state(node.cluster().clone())
        .nest_service("/api/actors", node.router());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("listening on {}", listener.local_addr()?);
    let stop = async { drop(tokio::signal::ctrl_c().await) };
    axum::serve(listener, app).with_graceful_shutdown(stop).await?;
    node.stop().await;
    Ok(())
}
