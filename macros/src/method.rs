//! One function of the block: is it an action or a hook, and what does it take?

use syn::spanned::Spanned;
use syn::{Attribute, FnArg, Ident, ImplItemFn, LitStr, Pat, ReturnType, Signature, Type};

use crate::names::{camel_case, check_wire_name};

/// What hooks there are; the order is that of an actor's life.
pub(crate) const HOOKS: [&str; 19] = [
    "create",
    "on_create",
    "vars",
    "on_wake",
    "run",
    "before_connect",
    "conn_state",
    "on_connect",
    "can_subscribe",
    "can_publish",
    "on_request",
    "on_websocket",
    "on_message",
    "on_disconnect",
    "on_state_change",
    "before_action_response",
    "on_sleep",
    "on_destroy",
    "migrate",
];

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Receiver {
    Exclusive,
    Shared,
    None,
}

/// How a parameter list takes the context.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum CtxParam {
    None,
    Reference,
    Value,
}

/// A parameter that is an argument.
pub(crate) struct Param {
    pub(crate) ident: Ident,
    pub(crate) ty: Type,
    /// Whether it takes all further arguments.
    pub(crate) is_rest: bool,
}

pub(crate) enum Role {
    /// With its name on the wire.
    Action(String),
    /// With the hook's name, the function's.
    Hook(String),
}

/// A marked function.
pub(crate) struct Method {
    pub(crate) role: Role,
    pub(crate) ident: Ident,
    pub(crate) receiver: Receiver,
    pub(crate) ctx: CtxParam,
    /// How it takes a connection, behind the context.
    pub(crate) conn: CtxParam,
    pub(crate) params: Vec<Param>,
    pub(crate) is_async: bool,
    pub(crate) output: ReturnType,
    /// `cfg`, `doc` and `deprecated`, for what is generated from it.
    pub(crate) attrs: Vec<Attribute>,
}

impl Method {
    /// Takes the mark off the function. `None` when there is none.
    pub(crate) fn take(function: &mut ImplItemFn) -> syn::Result<Option<Self>> {
        let mut marks = Vec::new();
        function.attrs.retain(|attr| {
            let mark = attr.path().is_ident("action") || attr.path().is_ident("hook");
            if mark {
                marks.push(attr.clone());
            }
            !mark
        });
        let Some(mark) = marks.pop() else { return Ok(None) };
        if let Some(second) = marks.pop() {
            return Err(syn::Error::new(
                second.span(),
                "a function is marked once, as `#[action]` or as `#[hook]`",
            ));
        }
        let sig = &function.sig;
        check_plain(sig)?;
        let (receiver, ctx, conn, params) = inputs(sig)?;
        let role = if mark.path().is_ident("action") {
            Role::Action(action_name(&mark, &sig.ident)?)
        } else {
            Role::Hook(hook_name(&mark, &sig.ident)?)
        };
        let kept = |attr: &&Attribute| {
            ["cfg", "doc", "deprecated"]
                .iter()
                .any(|name| attr.path().is_ident(name))
        };
        let method = Self {
            role,
            ident: sig.ident.clone(),
            receiver,
            ctx,
            conn,
            params,
            is_async: sig.asyncness.is_some(),
            output: sig.output.clone(),
            attrs: function.attrs.iter().filter(kept).cloned().collect(),
        };
        method.check_hook()?;
        Ok(Some(method))
    }

    pub(crate) fn cfgs(&self) -> impl Iterator<Item = &Attribute> {
        self.attrs.iter().filter(|attr| attr.path().is_ident("cfg"))
    }

    /// Whether the shape is that of its hook.
    fn check_hook(&self) -> syn::Result<()> {
        let Role::Hook(name) = &self.role else {
            return self.refuse_conn();
        };
        if let Some(shape) = CONN_SHAPES.iter().find(|shape| shape.name == name) {
            return self.check_conn_hook(shape);
        }
        self.refuse_conn()?;
        let fail = |message: String| Err(syn::Error::new(self.ident.span(), message));
        let returns_self = !matches!(self.output, ReturnType::Default);
        match name.as_str() {
            "create" if self.receiver != Receiver::None || self.params.len() > 1 || !returns_self => fail(
                "the hook `create` is `async fn create(c: &Ctx<Self>, input: Input) -> Self`, \
                 context and input may be left out, it may return a `Result`"
                    .to_owned(),
            ),
            "migrate"
                if self.receiver != Receiver::None
                    || self.params.len() != 2
                    || self.ctx != CtxParam::None
                    || self.is_async
                    || !returns_self =>
            {
                fail("the hook `migrate` is `fn migrate(from: u32, bytes: &[u8]) -> Self`, it may return a `Result`".to_owned())
            }
            "create" | "migrate" => Ok(()),
            "vars" if self.receiver == Receiver::Exclusive || !self.params.is_empty() || !returns_self => fail(
                "the hook `vars` is `async fn vars(&self, c: &Ctx<Self>) -> Vars`, \
                 `self` and the context may be left out, it may return a `Result`"
                    .to_owned(),
            ),
            "run" if self.receiver != Receiver::None
                || self.ctx != CtxParam::Value
                || !self.params.is_empty()
                || !self.is_async =>
            {
                fail(
                    "the hook `run` is `async fn run(c: Ctx<Self>)`, without `self` because it runs beside the actions; \
                     it may return a `Result<()>`"
                        .to_owned(),
                )
            }
            "on_state_change" if self.receiver != Receiver::Shared || !self.params.is_empty() || self.is_async => fail(
                "the hook `on_state_change` is `fn on_state_change(&self, c: &Ctx<Self>)`: it looks at the state inside \
                 the turn that changed it, so it neither changes it again nor waits; it may return a `Result<()>`"
                    .to_owned(),
            ),
            "before_action_response"
                if self.receiver != Receiver::Shared
                    || self.params.len() != 2
                    || self.is_async
                    || !returns_self =>
            {
                fail(
                    "the hook `before_action_response` is \
                     `fn before_action_response(&self, c: &Ctx<Self>, action: &str, output: Any) -> Any`, \
                     the context may be left out, it may return a `Result`"
                        .to_owned(),
                )
            }
            "vars" | "run" | "on_state_change" | "before_action_response" => Ok(()),
            "on_create" if self.receiver == Receiver::None || self.params.len() > 1 => fail(
                "the hook `on_create` is `async fn on_create(&mut self, c: &Ctx<Self>, input: Input)`, \
                 context and input may be left out, it may return a `Result`"
                    .to_owned(),
            ),
            "on_create" => Ok(()),
            other if self.receiver == Receiver::None || !self.params.is_empty() => fail(format!(
                "the hook `{other}` is `async fn {other}(&mut self, c: &Ctx<Self>)`, \
                 the context may be left out, it may return a `Result<()>`"
            )),
            _ => Ok(()),
        }
    }
}

/// The shape of a hook of connections or raw requests.
struct ConnShape {
    name: &'static str,
    /// Which receivers it may have.
    receivers: &'static [Receiver],
    conn: bool,
    params: std::ops::RangeInclusive<usize>,
    waits: bool,
    returns: bool,
    /// For the error.
    text: &'static str,
}

const READS: &[Receiver] = &[Receiver::Shared, Receiver::None];
const WRITES: &[Receiver] = &[Receiver::Exclusive, Receiver::Shared, Receiver::None];

const fn told(name: &'static str, text: &'static str) -> ConnShape {
    ConnShape {
        name,
        receivers: WRITES,
        conn: true,
        params: 0..=0,
        waits: true,
        returns: false,
        text,
    }
}

const fn access(name: &'static str, text: &'static str) -> ConnShape {
    ConnShape {
        name,
        receivers: READS,
        conn: false,
        params: 1..=1,
        waits: false,
        returns: true,
        text,
    }
}

const CONN_SHAPES: [ConnShape; 9] = [
    ConnShape {
        name: "before_connect",
        receivers: READS,
        conn: false,
        params: 0..=1,
        waits: true,
        returns: false,
        text: "async fn before_connect(&self, c: &Ctx<Self>, params: Params) -> Result<()>",
    },
    ConnShape {
        name: "conn_state",
        receivers: READS,
        conn: false,
        params: 0..=1,
        waits: true,
        returns: true,
        text: "async fn conn_state(&self, c: &Ctx<Self>, params: Params) -> State",
    },
    told(
        "on_connect",
        "async fn on_connect(&mut self, c: &Ctx<Self>, conn: &Conn<Self>)",
    ),
    told(
        "on_disconnect",
        "async fn on_disconnect(&mut self, c: &Ctx<Self>, conn: &Conn<Self>)",
    ),
    told(
        "on_websocket",
        "async fn on_websocket(&mut self, c: &Ctx<Self>, conn: &Conn<Self>)",
    ),
    ConnShape {
        name: "on_message",
        receivers: WRITES,
        conn: true,
        params: 1..=1,
        waits: true,
        returns: false,
        text: "async fn on_message(&mut self, c: &Ctx<Self>, conn: &Conn<Self>, frame: Frame)",
    },
    ConnShape {
        name: "on_request",
        receivers: WRITES,
        conn: false,
        params: 1..=1,
        waits: true,
        returns: true,
        text: "async fn on_request(&mut self, c: &Ctx<Self>, request: http::Request<Body>) -> http::Response<Body>",
    },
    access(
        "can_subscribe",
        "fn can_subscribe(&self, c: &Ctx<Self>, event: &str) -> bool",
    ),
    access(
        "can_publish",
        "fn can_publish(&self, c: &Ctx<Self>, queue: &str) -> bool",
    ),
];

impl Method {
    fn check_conn_hook(&self, shape: &ConnShape) -> syn::Result<()> {
        let returns = !matches!(self.output, ReturnType::Default);
        let fits = shape.receivers.contains(&self.receiver)
            && (self.conn == CtxParam::None || shape.conn)
            && shape.params.contains(&self.params.len())
            && (shape.waits || !self.is_async)
            && (returns || !shape.returns);
        if fits {
            return Ok(());
        }
        let ConnShape { name, text, .. } = shape;
        Err(syn::Error::new(
            self.ident.span(),
            format!("the hook `{name}` is `{text}`, the context may be left out, it may return a `Result`"),
        ))
    }

    fn refuse_conn(&self) -> syn::Result<()> {
        match self.conn {
            CtxParam::None => Ok(()),
            CtxParam::Reference | CtxParam::Value => Err(syn::Error::new(
                self.ident.span(),
                "a connection is given to its hooks only; elsewhere take it from the context: `c.conn()?`",
            )),
        }
    }
}

fn action_name(mark: &Attribute, ident: &Ident) -> syn::Result<String> {
    let mut name = camel_case(ident);
    let mut span = ident.span();
    if !matches!(mark.meta, syn::Meta::Path(_)) {
        mark.parse_nested_meta(|meta| {
            if !meta.path.is_ident("name") {
                return Err(meta.error("unknown argument; `#[action]` knows: name"));
            }
            let literal: LitStr = meta.value()?.parse()?;
            (name, span) = (literal.value(), literal.span());
            Ok(())
        })?;
    }
    check_wire_name(&name).map_err(|why| syn::Error::new(span, why))?;
    Ok(name)
}

fn hook_name(mark: &Attribute, ident: &Ident) -> syn::Result<String> {
    mark.meta
        .require_path_only()
        .map_err(|e| syn::Error::new(e.span(), "`#[hook]` has no arguments"))?;
    let name = ident.to_string();
    if HOOKS.contains(&name.as_str()) {
        return Ok(name);
    }
    let known = HOOKS.join(", ");
    Err(syn::Error::new(
        ident.span(),
        format!("there is no hook `{name}`; hooks are: {known}"),
    ))
}

/// Refuses what cannot cross the wire.
fn check_plain(sig: &Signature) -> syn::Result<()> {
    if let Some(unsafety) = &sig.unsafety {
        return Err(syn::Error::new(
            unsafety.span(),
            "actions and hooks are not unsafe",
        ));
    }
    if let Some(param) = sig.generics.params.first() {
        return Err(syn::Error::new(
            param.span(),
            "actions and hooks have no generic parameters: callers are on the wire",
        ));
    }
    if let Some(variadic) = &sig.variadic {
        return Err(syn::Error::new(
            variadic.span(),
            "actions and hooks are not variadic",
        ));
    }
    Ok(())
}

fn inputs(sig: &Signature) -> syn::Result<(Receiver, CtxParam, CtxParam, Vec<Param>)> {
    let (mut receiver, mut ctx, mut params) = (Receiver::None, CtxParam::None, Vec::new());
    let mut conn = CtxParam::None;
    for (position, input) in sig.inputs.iter().enumerate() {
        let typed = match input {
            FnArg::Receiver(this) => {
                receiver = receiver_of(this)?;
                continue;
            }
            FnArg::Typed(typed) => typed,
        };
        let found = named_param(&typed.ty, "Ctx");
        let is_conn = named_param(&typed.ty, "Conn");
        if is_conn != CtxParam::None && conn == CtxParam::None && params.is_empty() {
            conn = is_conn;
        } else if found == CtxParam::None {
            params.push(param(typed, sig, position + 1 == sig.inputs.len())?);
        } else if position == usize::from(receiver != Receiver::None) {
            ctx = found;
        } else {
            return Err(syn::Error::new(
                typed.span(),
                "the context is the first parameter after `self`",
            ));
        }
    }
    Ok((receiver, ctx, conn, params))
}

/// A parameter that is an argument.
fn param(typed: &syn::PatType, sig: &Signature, is_last: bool) -> syn::Result<Param> {
    let fail = |span: proc_macro2::Span, why: &str| Err(syn::Error::new(span, why));
    match &*typed.ty {
        // The bytes of an old state and the name of an action, event or queue are lent by the node.
        Type::Reference(reference)
            if ![
                "migrate",
                "before_action_response",
                "can_subscribe",
                "can_publish",
            ]
            .iter()
            .any(|hook| sig.ident == hook) =>
        {
            return fail(
                reference.span(),
                "arguments come over the wire, so they are owned: take `String` for `&str`, `Vec<T>` for `&[T]`",
            );
        }
        Type::ImplTrait(ty) => {
            return fail(
                ty.span(),
                "arguments come over the wire, so they have one concrete type",
            );
        }
        _ => {}
    }
    let Pat::Ident(pat) = &*typed.pat else {
        return fail(
            typed.pat.span(),
            "an argument needs a name; take it apart in the body",
        );
    };
    let is_rest = is_named(&typed.ty, "Rest");
    if is_rest && !is_last {
        return fail(
            typed.span(),
            "`Rest` takes all further arguments, so it is the last",
        );
    }
    Ok(Param {
        ident: pat.ident.clone(),
        ty: (*typed.ty).clone(),
        is_rest,
    })
}

fn receiver_of(this: &syn::Receiver) -> syn::Result<Receiver> {
    match (&this.reference, &this.mutability, &this.colon_token) {
        (Some(_), Some(_), None) => Ok(Receiver::Exclusive),
        (Some(_), None, None) => Ok(Receiver::Shared),
        _ => Err(syn::Error::new(
            this.span(),
            "an actor is not taken by value: `&mut self` to change it, `&self` to read it, no `self` to run beside it",
        )),
    }
}

/// Whether a type is written as a path that ends in this name.
fn is_named(ty: &Type, name: &str) -> bool {
    matches!(ty, Type::Path(path) if path.path.segments.last().is_some_and(|last| last.ident == name))
}

fn named_param(ty: &Type, name: &str) -> CtxParam {
    match ty {
        Type::Reference(reference) if reference.mutability.is_none() && is_named(&reference.elem, name) => {
            CtxParam::Reference
        }
        ty if is_named(ty, name) => CtxParam::Value,
        _ => CtxParam::None,
    }
}
