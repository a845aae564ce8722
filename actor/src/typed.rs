//! Makes a typed actor into the interface a node runs.
//!
//! Invariant: a result leaves only after [`Turn::verdict`] passed it, and an error leaves only as a definite one.

use std::collections::BTreeMap;
use std::future::ready;
use std::sync::Arc;

use bytes::Bytes;
use clinch_types::{code, group, limits};
use tracing::Instrument as _;

use crate::actor::{ResponseFn, Run};
use crate::registry::RegistryError;
use crate::turn::Effect;
use crate::{
    Access, ActionInfo, Actor, ActorOptions, ActorType, Any, Args, BoxFuture, ConnHooks, ConnSeat, Ctx,
    Error, Frame, Hook, Input, Spec, StateArc, Turn, cbor, connect, request,
};

/// An actor type as a node runs it.
pub struct TypeOf<A: Actor> {
    spec: Arc<Spec<A>>,
    index: BTreeMap<&'static str, usize>,
    options: ActorOptions,
}

impl<A: Actor> TypeOf<A> {
    /// Checks the type's names and options.
    ///
    /// # Errors
    /// Names what is wrong, and the actor.
    pub fn new() -> Result<Self, RegistryError> {
        check_actor_name(A::NAME)?;
        let options = A::options().validate().map_err(|source| RegistryError::Options {
            actor: A::NAME,
            source,
        })?;
        let spec = A::spec();
        let mut index = BTreeMap::new();
        for (position, info) in spec.infos.iter().enumerate() {
            if info.name.is_empty() || info.name.len() > limits::ACTION_NAME_MAX {
                return Err(RegistryError::ActionName {
                    actor: A::NAME,
                    action: info.name,
                });
            }
            if index.insert(info.name, position).is_some() {
                return Err(RegistryError::DuplicateAction {
                    actor: A::NAME,
                    action: info.name,
                });
            }
        }
        Ok(Self {
            spec: Arc::new(spec),
            index,
            options,
        })
    }

    fn info(&self, action: usize) -> &'static str {
        self.spec.infos.get(action).map_or("?", |info| info.name)
    }

    /// Runs work on the state alone, in a turn that begins and ends with it.
    fn conn_turn(
        &self,
        mut state: StateArc,
        turn: Arc<Turn>,
        what: &'static str,
        work: impl for<'a> FnOnce(&'a Spec<A>, &'a mut A, Ctx<A>) -> BoxFuture<'a, Result<Vec<u8>, Error>>
        + Send
        + 'static,
    ) -> BoxFuture<'static, (StateArc, Result<Vec<u8>, Error>)> {
        let spec = self.spec.clone();
        let span = turn.code_span(what);
        let run = async move {
            let result = match unique::<A>(&mut state) {
                Ok(actor) => work(&spec, actor, Ctx::new(turn.clone())).await,
                Err(error) => Err(error),
            };
            let result = result
                .map_err(Error::into_definite)
                .and_then(|output| turn.verdict(what).map(|()| output));
            (state, noted(result))
        };
        Box::pin(run.instrument(span))
    }

    fn hook_fn(&self, hook: Hook) -> Option<crate::actor::HookFn<A>> {
        self.spec
            .hooks
            .iter()
            .find(|(at, _)| *at == hook)
            .map(|(_, run)| *run)
    }
}

fn check_actor_name(name: &'static str) -> Result<(), RegistryError> {
    let bad = |reason| Err(RegistryError::ActorName { name, reason });
    if name.is_empty() {
        return bad("it is empty");
    }
    if name.chars().count() > limits::ACTOR_NAME_MAX {
        return bad("it is longer than 64 characters");
    }
    if name
        .chars()
        .any(|c| matches!(c, '/' | '@' | ',') || c.is_whitespace() || c.is_control())
    {
        return bad("it contains one of `/`, `@`, `,`, white space or a control character");
    }
    Ok(())
}

/// The node asked for what it must not ask: an action of another kind, a state of another type.
fn misuse(what: &str) -> Error {
    Error::internal(format!("the actor was run wrongly: {what}"))
}

/// Says in the span around it that a piece of code failed, and with what.
fn noted<T>(result: Result<T, Error>) -> Result<T, Error> {
    if let Err(error) = &result {
        let span = tracing::Span::current();
        span.record("otel.status_code", "ERROR");
        span.record(
            "error.type",
            tracing::field::display(format_args!("{}.{}", error.group(), error.code())),
        );
    }
    result
}

/// The last look at a result before it leaves.
fn finish(turn: &Turn, name: &str, result: Result<Vec<u8>, Error>) -> Result<Vec<u8>, Error> {
    let output = result.map_err(Error::into_definite)?;
    turn.verdict(name)?;
    let (len, max) = (output.len(), limits::REPLY_MAX);
    if len > max {
        let message = format!("the reply of {name} has {len} bytes, at most {max} are allowed");
        return Err(Error::new(group::MESSAGE, code::OUTGOING_TOO_LONG, message));
    }
    Ok(output)
}

/// The state, alone.
pub(crate) fn unique<A: Actor>(state: &mut StateArc) -> Result<&mut A, Error> {
    Arc::get_mut(state)
        .ok_or_else(|| misuse("its state is shared during an exclusive turn"))?
        .downcast_mut()
        .ok_or_else(|| misuse("its state has another type"))
}

/// The state, beside other readers.
pub(crate) fn borrowed<A: Actor>(state: &StateArc) -> Result<&A, Error> {
    state
        .downcast_ref()
        .ok_or_else(|| misuse("its state has another type"))
}

/// Takes the arguments apart, and notes how many there are.
fn parse_args(turn: &Turn, name: &'static str, bytes: &[u8]) -> Result<Args, Error> {
    let args = Args::parse(name, bytes)?;
    turn.set_argument_count(args.len());
    Ok(args)
}

/// Runs a result through `before_action_response`.
fn pass<A: Actor>(
    before: Option<ResponseFn<A>>,
    state: &A,
    turn: &Arc<Turn>,
    name: &str,
    result: Result<Vec<u8>, Error>,
) -> Result<Vec<u8>, Error> {
    match (before, result) {
        (Some(before), Ok(output)) => {
            let value = Any(cbor::value(&output).map_err(|e| Error::internal(e.to_string()))?);
            cbor::to_vec(&before(state, &Ctx::new(turn.clone()), name, value)?)
        }
        (_, result) => result,
    }
}

impl<A: Actor> ActorType for TypeOf<A> {
    fn name(&self) -> &'static str {
        A::NAME
    }

    fn version(&self) -> u32 {
        A::VERSION
    }

    fn options(&self) -> &ActorOptions {
        &self.options
    }

    fn actions(&self) -> &[ActionInfo] {
        &self.spec.infos
    }

    #[cfg(feature = "typescript")]
    fn typescript(&self) -> Option<crate::TellTypes> {
        self.spec.typescript
    }

    fn action(&self, name: &str) -> Option<usize> {
        self.index.get(name).copied()
    }

    fn has_hook(&self, hook: Hook) -> bool {
        self.hook_fn(hook).is_some()
    }

    fn create(&self, turn: Arc<Turn>, input: Option<Bytes>) -> BoxFuture<'static, Result<StateArc, Error>> {
        let create = self.spec.create;
        let span = turn.code_span("create");
        let work = async move {
            let made = create(Ctx::new(turn.clone()), Input(input))
                .await
                .map_err(Error::into_definite)?;
            turn.verdict("create")?;
            Ok(Arc::new(made) as StateArc)
        };
        Box::pin(async move { noted(work.await) }.instrument(span))
    }

    fn encode(&self, state: &StateArc, out: &mut Vec<u8>) -> Result<(), Error> {
        cbor::write_to(borrowed::<A>(state)?, out)
    }

    fn decode(&self, version: u32, bytes: &[u8]) -> Result<StateArc, Error> {
        let (name, ours) = (A::NAME, A::VERSION);
        if version > ours {
            let message =
                format!("the state of {name} has version {version}, this node's code has version {ours}");
            return Err(Error::new(group::ACTOR, "state_too_new", message));
        }
        let state: A = match self.spec.migrate {
            Some(migrate) if version < ours => migrate(version, bytes).map_err(|e| {
                Error::internal(format!("migrating {name} from version {version} to {ours}: {e}"))
            })?,
            _ => cbor::from_slice_strict(bytes).map_err(|e| {
                Error::internal(format!("reading the state of {name}, version {version}: {e}"))
            })?,
        };
        Ok(Arc::new(state))
    }

    fn has_state(&self) -> bool {
        size_of::<A>() > 0
    }

    fn replace(
        &self,
        state: StateArc,
        turn: Arc<Turn>,
        bytes: Bytes,
    ) -> BoxFuture<'static, (StateArc, Result<Vec<u8>, Error>)> {
        let replaced = match self.has_state() {
            true => cbor::decode::<A>("the state", &bytes),
            false => {
                let message = format!("actors of type {} keep no state", A::NAME);
                Err(Error::new(group::ACTOR, "state_not_enabled", message))
            }
        };
        let replaced = replaced.and_then(|new| turn.record(Effect::Save).map(|()| new));
        Box::pin(ready(match replaced {
            Ok(new) => (Arc::new(new) as StateArc, Ok(Vec::new())),
            Err(error) => (state, Err(error)),
        }))
    }

    fn exclusive(
        &self,
        action: usize,
        mut state: StateArc,
        turn: Arc<Turn>,
        args: Bytes,
    ) -> BoxFuture<'static, (StateArc, Result<Vec<u8>, Error>)> {
        let Some(&Run::Exclusive(run)) = self.spec.runs.get(action) else {
            return Box::pin(ready((state, Err(misuse("this is no exclusive action")))));
        };
        let (name, before) = (self.info(action), self.spec.before_response);
        let span = turn.code_span(name);
        let work = async move {
            let ready = parse_args(&turn, name, &args).and_then(|args| Ok((unique::<A>(&mut state)?, args)));
            let result = match ready {
                Ok((actor, args)) => {
                    let result = run(actor, Ctx::new(turn.clone()), args).await;
                    pass(before, actor, &turn, name, result)
                }
                Err(error) => Err(error),
            };
            (state, noted(finish(&turn, name, result)))
        };
        Box::pin(work.instrument(span))
    }

    fn shared(
        &self,
        action: usize,
        state: StateArc,
        turn: Arc<Turn>,
        args: Bytes,
    ) -> BoxFuture<'static, Result<Vec<u8>, Error>> {
        let Some(&Run::Shared(run)) = self.spec.runs.get(action) else {
            return Box::pin(ready(Err(misuse("this is no shared action"))));
        };
        let (name, before) = (self.info(action), self.spec.before_response);
        let span = turn.code_span(name);
        let work = async move {
            let args = parse_args(&turn, name, &args)?;
            let actor = borrowed::<A>(&state)?;
            let result = run(actor, Ctx::new(turn.clone()), args).await;
            let result = pass(before, actor, &turn, name, result);
            finish(&turn, name, result)
        };
        Box::pin(async move { noted(work.await) }.instrument(span))
    }

    fn interleaved(
        &self,
        action: usize,
        turn: Arc<Turn>,
        args: Bytes,
    ) -> BoxFuture<'static, Result<Vec<u8>, Error>> {
        let Some(&Run::Interleaved(run)) = self.spec.runs.get(action) else {
            return Box::pin(ready(Err(misuse("this is no interleaved action"))));
        };
        let (name, before) = (self.info(action), self.spec.before_response);
        let span = turn.code_span(name);
        let work = async move {
            let args = parse_args(&turn, name, &args)?;
            let mut result = run(Ctx::new(turn.clone()), args).await;
            if before.is_some() && result.is_ok() {
                let inner = turn.clone();
                let look = move |actor: &A| pass(before, actor, &inner, name, result);
                result = Ctx::<A>::new(turn.clone()).read(look).await?;
            }
            finish(&turn, name, result)
        };
        Box::pin(async move { noted(work.await) }.instrument(span))
    }

    fn vars(
        &self,
        state: StateArc,
        turn: Arc<Turn>,
    ) -> Option<BoxFuture<'static, Result<Arc<dyn std::any::Any + Send + Sync>, Error>>> {
        let make = self.spec.vars.clone()?;
        Some(Box::pin(async move {
            make(borrowed::<A>(&state)?, Ctx::new(turn))
                .await
                .map_err(Error::into_definite)
        }))
    }

    fn run(&self, turn: Arc<Turn>) -> Option<BoxFuture<'static, Result<(), Error>>> {
        self.spec.run.map(|run| run(Ctx::new(turn)))
    }

    fn has_vars(&self) -> bool {
        self.spec.vars.is_some()
    }

    fn has_run(&self) -> bool {
        self.spec.run.is_some()
    }

    fn state_changed(&self, state: &StateArc, turn: &Arc<Turn>) -> Result<(), Error> {
        let Some(tell) = self.spec.on_state_change else {
            return Ok(());
        };
        tell(borrowed::<A>(state)?, &Ctx::new(turn.clone())).map_err(Error::into_definite)?;
        turn.verdict("on_state_change")
    }

    fn conn_hooks(&self) -> ConnHooks {
        let conns = &self.spec.conns;
        ConnHooks {
            any: conns.before.is_some()
                || conns.state.is_some()
                || conns.connected.is_some()
                || conns.disconnected.is_some(),
            disconnect: conns.disconnected.is_some(),
            websocket: conns.websocket.is_some() || conns.message.is_some(),
            request: conns.request.is_some(),
            can_subscribe: conns.can_subscribe.is_some(),
            can_publish: conns.can_publish.is_some(),
        }
    }

    fn connect(
        &self,
        state: StateArc,
        turn: Arc<Turn>,
        seat: ConnSeat,
    ) -> BoxFuture<'static, (StateArc, Result<Vec<u8>, Error>)> {
        self.conn_turn(state, turn, "connecting", |spec, actor, c| {
            Box::pin(connect::connect(&spec.conns, actor, c, seat))
        })
    }

    fn disconnect(
        &self,
        state: StateArc,
        turn: Arc<Turn>,
    ) -> BoxFuture<'static, (StateArc, Result<Vec<u8>, Error>)> {
        self.conn_turn(state, turn, "on_disconnect", |spec, actor, c| {
            Box::pin(connect::disconnect(&spec.conns, actor, c))
        })
    }

    fn message(
        &self,
        state: StateArc,
        turn: Arc<Turn>,
        frame: Frame,
    ) -> BoxFuture<'static, (StateArc, Result<Vec<u8>, Error>)> {
        self.conn_turn(state, turn, "on_message", |spec, actor, c| {
            Box::pin(connect::message(&spec.conns, actor, c, frame))
        })
    }

    fn request(
        &self,
        state: StateArc,
        turn: Arc<Turn>,
        request: clinch_types::HttpRequest,
        body: Option<crate::Body>,
    ) -> BoxFuture<'static, (StateArc, Result<Vec<u8>, Error>)> {
        self.conn_turn(state, turn, "on_request", |spec, actor, c| {
            Box::pin(request::answer(spec.conns.request, actor, c, request, body))
        })
    }

    fn allows(&self, state: &StateArc, turn: &Arc<Turn>, access: Access<'_>) -> Result<(), Error> {
        connect::allows(&self.spec.conns, borrowed::<A>(state)?, turn, access)
    }

    fn hook(
        &self,
        hook: Hook,
        mut state: StateArc,
        turn: Arc<Turn>,
    ) -> BoxFuture<'static, (StateArc, Result<(), Error>)> {
        let Some(run) = self.hook_fn(hook) else {
            return Box::pin(ready((state, Ok(()))));
        };
        let span = turn.code_span(hook.name());
        let work = async move {
            let result = match unique::<A>(&mut state) {
                Ok(actor) => run(actor, Ctx::new(turn.clone()))
                    .await
                    .map_err(Error::into_definite),
                Err(error) => Err(error),
            };
            let result = result.and_then(|()| turn.verdict("the hook"));
            (state, noted(result))
        };
        Box::pin(work.instrument(span))
    }
}
