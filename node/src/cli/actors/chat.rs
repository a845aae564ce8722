//! Actors that know who is connected to them: a chat room, and doors that are shut.

use clinch_actor::{Any, Conn, ConnId, Ctx, Error, Event};
use serde::{Deserialize, Serialize};

/// A room where everybody hears everybody.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct ChatRoom {
    messages: Vec<Said>,
    log: Vec<String>,
}

/// Who comes in.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Visitor {
    #[serde(default)]
    auth_token: Option<String>,
    #[serde(default)]
    username: Option<String>,
}

impl Visitor {
    fn shows(visitor: Option<&Self>, token: &str) -> bool {
        visitor.is_some_and(|visitor| visitor.auth_token.as_deref() == Some(token))
    }
}

/// What the room keeps of each connection.
#[derive(Serialize, Deserialize)]
pub(crate) struct Guest {
    username: String,
}

/// A message.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Said {
    from: String,
    text: Any,
}

#[derive(Event)]
#[event(name = "newMessage", crate = "clinch_actor")]
struct NewMessage(Said);

#[derive(Event)]
#[event(name = "directMessage", crate = "clinch_actor")]
struct DirectMessage(Said);

#[derive(Serialize, Deserialize)]
struct Username {
    username: String,
}

#[derive(Event)]
#[event(name = "userJoined", crate = "clinch_actor")]
struct UserJoined(Username);

#[derive(Event)]
#[event(name = "userLeft", crate = "clinch_actor")]
struct UserLeft(Username);

#[derive(Serialize, Deserialize)]
struct Text {
    text: Any,
}

#[derive(Event)]
#[event(name = "notification", crate = "clinch_actor")]
struct Notification(Text);

/// What a guest is told of itself.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Me {
    username: String,
    params: Option<Any>,
    conn_id: ConnId,
}

#[clinch_actor::actor(
    name = "chatRoom",
    events(NewMessage, DirectMessage, UserJoined, UserLeft, Notification),
    crate = "clinch_actor"
)]
impl ChatRoom {
    #[hook]
    fn before_connect(visitor: Option<Visitor>) -> Result<(), Error> {
        if Visitor::shows(visitor.as_ref(), "bad") {
            return Err(Error::user("forbidden", "Forbidden").with("reason", "bad token"));
        }
        if Visitor::shows(visitor.as_ref(), "crash") {
            return Err(Error::internal("auth backend exploded: postgres://secret"));
        }
        Ok(())
    }

    #[hook]
    fn conn_state(visitor: Option<Visitor>) -> Result<Guest, Error> {
        if Visitor::shows(visitor.as_ref(), "bad-state") {
            return Err(Error::user("invalid_token", "Invalid token"));
        }
        let username = visitor.and_then(|visitor| visitor.username);
        Ok(Guest {
            username: username.unwrap_or_else(|| "anonymous".into()),
        })
    }

    #[hook]
    fn on_connect(&mut self, c: &Ctx<Self>, conn: &Conn<Self>) -> Result<(), Error> {
        let username = conn.state()?.username;
        self.log.push(format!("connect:{username}"));
        c.broadcast(UserJoined(Username { username }));
        Ok(())
    }

    #[hook]
    fn on_disconnect(&mut self, c: &Ctx<Self>, conn: &Conn<Self>) -> Result<(), Error> {
        let username = conn.state()?.username;
        self.log.push(format!("disconnect:{username}"));
        c.broadcast(UserLeft(Username { username }));
        Ok(())
    }

    #[action]
    fn send_message(&mut self, c: &Ctx<Self>, text: Any) -> Result<Said, Error> {
        let from = c.conn()?.state()?.username;
        let said = Said { from, text };
        self.messages.push(said.clone());
        c.broadcast(NewMessage(said.clone()));
        Ok(said)
    }

    #[action]
    fn history(&self) -> Vec<Said> {
        self.messages.clone()
    }

    #[action]
    fn hook_log(&self) -> Vec<String> {
        self.log.clone()
    }

    #[action]
    fn who_am_i(&self, c: &Ctx<Self>) -> Result<Me, Error> {
        let conn = c.conn()?;
        Ok(Me {
            username: conn.state()?.username,
            params: conn.params()?,
            conn_id: conn.id(),
        })
    }

    #[action]
    fn users(&self, c: &Ctx<Self>) -> Result<Vec<String>, Error> {
        let names = c.conns().into_iter().map(|conn| Ok(conn.state()?.username));
        let mut names = names.collect::<Result<Vec<_>, Error>>()?;
        names.sort();
        Ok(names)
    }

    /// Tells all connections of one user, and how many those are.
    #[action]
    fn dm(&mut self, c: &Ctx<Self>, username: String, text: Any) -> Result<usize, Error> {
        let from = c.conn()?.state()?.username;
        let mut sent = 0;
        for conn in c.conns() {
            if conn.state()?.username == username {
                let (from, text) = (from.clone(), text.clone());
                conn.send(DirectMessage(Said { from, text }));
                sent += 1;
            }
        }
        Ok(sent)
    }

    #[action]
    fn notify_others(&mut self, c: &Ctx<Self>, text: Any) -> Result<(), Error> {
        let own = c.conn()?.id();
        for conn in c.conns().into_iter().filter(|conn| conn.id() != own) {
            conn.send(Notification(Text { text: text.clone() }));
        }
        Ok(())
    }

    #[action]
    fn kick(&mut self, c: &Ctx<Self>, username: String, reason: String) -> Result<usize, Error> {
        let mut kicked = 0;
        for conn in c.conns() {
            if conn.state()?.username == username {
                conn.disconnect(reason.as_str());
                kicked += 1;
            }
        }
        Ok(kicked)
    }

    #[action]
    fn rename(&mut self, c: &Ctx<Self>, username: String) -> Result<String, Error> {
        c.conn()?.set_state(&Guest {
            username: username.clone(),
        })?;
        Ok(username)
    }
}

/// Counts per connection.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct ConnState {}

/// What is counted.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Hits {
    hits: u64,
}

#[clinch_actor::actor(name = "connState", crate = "clinch_actor")]
impl ConnState {
    #[hook]
    fn conn_state() -> Hits {
        Hits::default()
    }

    #[hook]
    fn on_connect(conn: &Conn<Self>) -> Result<(), Error> {
        conn.set_state(&Hits { hits: 100 })
    }

    #[action]
    fn hit(&mut self, c: &Ctx<Self>) -> Result<u64, Error> {
        c.conn()?.update(|state| {
            state.hits += 1;
            state.hits
        })
    }
}

/// Lets nobody stay.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct BadOnConnect {}

#[clinch_actor::actor(name = "badOnConnect", crate = "clinch_actor")]
impl BadOnConnect {
    #[hook]
    fn on_connect() -> Result<(), Error> {
        Err(Error::user("not_welcome", "not welcome"))
    }

    #[action]
    fn ping(&self) -> String {
        "pong".into()
    }
}

/// Lets in who shows a header.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct AuthHeader {}

#[clinch_actor::actor(name = "authHeader", crate = "clinch_actor")]
impl AuthHeader {
    #[hook]
    fn before_connect(c: &Ctx<Self>) -> Result<(), Error> {
        match c.header("authorization") {
            Some("Bearer my-token") => Ok(()),
            _ => Err(Error::user("unauthorized", "Missing bearer")),
        }
    }

    #[action]
    fn ok(&self) -> String {
        "ok".into()
    }
}
