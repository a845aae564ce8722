//! A chat room in a browser page: run it, and open the address it prints in two windows.
use clinch::http::{Request, Response};
use clinch::prelude::*;
use clinch::{Conn, Frame};
use serde::{Deserialize, Serialize};

#[derive(Default, Serialize, Deserialize)]
struct Room {
    history: Vec<String>,
}

#[clinch::actor(name = "room")]
impl Room {
    #[hook]
    fn on_request(&self, _request: Request<bytes::Bytes>) -> Response<&'static str> {
        Response::new(include_str!("chat.html"))
    }

    #[hook]
    fn conn_state(&self) -> String {
        "somebody".into()
    }

    #[hook]
    fn on_websocket(&self, conn: &Conn<Self>) {
        self.history.iter().for_each(|line| conn.send_text(line));
    }

    /// `/name ada` takes a name; anything else is said.
    #[hook]
    fn on_message(&mut self, c: &Ctx<Self>, conn: &Conn<Self>, frame: Frame) -> Result<()> {
        let Frame::Text(text) = frame else { return Ok(()) };
        if let Some(name) = text.strip_prefix("/name ") {
            return conn.set_state(&name.chars().take(20).collect());
        }
        let line = format!("{}: {text}", conn.state()?);
        c.conns().iter().for_each(|other| other.send_text(&line));
        self.history.push(line);
        self.history.drain(..self.history.len().saturating_sub(100));
        Ok(())
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let port = std::env::args()
        .nth(1)
        .map_or(Ok(6420), |port| port.parse::<u16>())?;
    let mut config = NodeConfig::embedded("chat-data")?;
    config.gateway = vec![([127, 0, 0, 1], port).into()];
    let node = Registry::new().actor::<Room>().node(config).start().await?;
    node.ready(std::time::Duration::from_secs(30)).await?;
    let query = "rvt-namespace=default&rvt-method=getOrCreate&rvt-runner=default&rvt-key=lobby";
    println!("http://{}/gateway/room/request/?{query}", node.gateways()[0]);
    tokio::signal::ctrl_c().await?;
    node.stop().await;
    Ok(())
}
