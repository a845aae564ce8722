//! The hooks of connections, run in their order.
//!
//! Not here: when that is, and what becomes of the connection (node).

use std::sync::Arc;

use clinch_types::{ConnKind, code, group};

use crate::actor::ConnTable;
use crate::conn::encode_state;
use crate::{Access, Actor, Conn, ConnSeat, Ctx, Error, Frame, Input, Turn, cbor};

/// Opens a connection: gives CBOR of its state.
pub(crate) async fn connect<A: Actor>(
    hooks: &ConnTable<A>,
    actor: &mut A,
    c: Ctx<A>,
    mut seat: ConnSeat,
) -> Result<Vec<u8>, Error> {
    let raw = seat.kind == ConnKind::Raw;
    if raw && hooks.websocket.is_none() && hooks.message.is_none() {
        let message = "the actor has no handler for raw WebSockets";
        return Err(Error::new("handler", "websocket_not_defined", message));
    }
    let params = Input(seat.params.clone());
    if let Some(before) = hooks.before {
        before(actor, c.clone(), params.clone()).await?;
    }
    let state = match hooks.state {
        Some(make) => encode_state(&make(actor, c.clone(), params).await?)?,
        None => cbor::to_vec(&())?,
    };
    seat.state = state.clone().into();
    let seat = Arc::new(seat);
    let turn = c.turn().clone();
    if let Some(visit) = turn.visit() {
        visit.set_seat(seat.clone());
    }
    let conn = Conn::new(seat, turn);
    if let Some(connected) = hooks.connected {
        connected(actor, c.clone(), conn.clone()).await?;
    }
    if let Some(opened) = hooks.websocket.filter(|_| raw) {
        opened(actor, c, conn).await?;
    }
    Ok(state)
}

/// Tells of the end of the visit's connection.
pub(crate) async fn disconnect<A: Actor>(
    hooks: &ConnTable<A>,
    actor: &mut A,
    c: Ctx<A>,
) -> Result<Vec<u8>, Error> {
    if let Some(disconnected) = hooks.disconnected {
        let conn = c.conn()?;
        disconnected(actor, c, conn).await?;
    }
    Ok(Vec::new())
}

/// Hands a message of the visit's connection over. Without a hook it goes nowhere.
pub(crate) async fn message<A: Actor>(
    hooks: &ConnTable<A>,
    actor: &mut A,
    c: Ctx<A>,
    frame: Frame,
) -> Result<Vec<u8>, Error> {
    if let Some(take) = hooks.message {
        let conn = c.conn()?;
        take(actor, c, conn, frame).await?;
    }
    Ok(Vec::new())
}

/// Whether the client may.
pub(crate) fn allows<A: Actor>(
    hooks: &ConnTable<A>,
    actor: &A,
    turn: &Arc<Turn>,
    access: Access<'_>,
) -> Result<(), Error> {
    let (hook, name) = match access {
        Access::Subscribe(event) => (hooks.can_subscribe, event),
        Access::Publish(queue) => (hooks.can_publish, queue),
    };
    let Some(hook) = hook else { return Ok(()) };
    if hook(actor, &Ctx::new(turn.clone()), name).map_err(Error::into_definite)? {
        return Ok(());
    }
    let message = match access {
        Access::Subscribe(event) => format!("this connection may not subscribe to {event:?}"),
        Access::Publish(queue) => format!("this caller may not add to the queue {queue:?}"),
    };
    Err(Error::new(group::AUTH, code::FORBIDDEN, message))
}
