//! TypeScript types of actors: what `createClient<Registry>()` of the npm client infers its types from.
//!
//! Invariant: a type is what a client's program sees of a value, in each of its encodings. `ts-rs` says it of what users
//! derive; here is what the wire adds: arguments that may be missing, results that are nothing, events.
//! Not here: how values travel (`cbor`, and the gateway's).

use std::any::{TypeId, type_name};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use ts_rs::{Config, TS, TypeVisitor};

use crate::{Any, Event, Registry, RegistryError};

/// What the text calls its own; no type of a user may be called so.
const RESERVED: [&str; 3] = ["Registry", "RivetRegistry", "EventOf"];

/// What the client takes for an event with these arguments. Client 2.3.19 asks whether it is a queue's message first, and
/// takes every object for one: so it is both.
const EVENT: &str = "type EventOf<Arguments extends unknown[]> = { readonly _eventType?: Arguments; readonly _queueMessage?: Arguments };\n\n";

/// Words that name no parameter in TypeScript, though they may in Rust.
const KEYWORDS: &[&str] = &[
    "arguments",
    "await",
    "break",
    "case",
    "catch",
    "class",
    "const",
    "continue",
    "debugger",
    "default",
    "delete",
    "do",
    "else",
    "enum",
    "eval",
    "export",
    "extends",
    "finally",
    "for",
    "function",
    "if",
    "implements",
    "import",
    "in",
    "instanceof",
    "interface",
    "let",
    "new",
    "null",
    "package",
    "private",
    "protected",
    "public",
    "return",
    "static",
    "switch",
    "this",
    "throw",
    "try",
    "typeof",
    "var",
    "void",
    "while",
    "with",
    "yield",
];

/// Why there is no text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TypeScriptError {
    /// The registry itself is refused.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// Two types would be one.
    #[error(
        "`{first}` and `{second}` are both called `{name}` in TypeScript: rename one with `#[ts(rename = \"..\")]`"
    )]
    TwoTypes {
        /// The name.
        name: String,
        /// The Rust type that was met first.
        first: &'static str,
        /// The other one.
        second: &'static str,
    },
    /// The text needs the name itself.
    #[error("`{rust}` cannot be called `{name}` in TypeScript: rename it with `#[ts(rename = \"..\")]`")]
    Reserved {
        /// The name.
        name: String,
        /// The Rust type.
        rust: &'static str,
    },
}

/// The type of Rust's 64-bit and 128-bit integers. Whatever it says, clients get a `number` up to 2^53-1 on both sides of
/// zero and a `bigint` beyond, and may send either.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WideIntegers {
    /// `number`: right for counts, times, sizes, and whatever else stays below 2^53.
    #[default]
    Number,
    /// `number | bigint`: right for every value, and a nuisance to reckon with.
    NumberOrBigInt,
}

impl WideIntegers {
    const fn text(self) -> &'static str {
        match self {
            Self::Number => "number",
            Self::NumberOrBigInt => "number | bigint",
        }
    }
}

impl Registry {
    /// A TypeScript module with the type `Registry`, for `createClient<Registry>(..)` of the npm package `rivetkit` (2.3).
    ///
    /// Actors with `#[actor(typescript)]` have their actions and events typed; the others are `any`.
    ///
    /// # Errors
    /// When the registry is refused, or a name would mean two things.
    pub fn typescript(&self) -> Result<String, TypeScriptError> {
        self.typescript_with(WideIntegers::default())
    }

    /// As [`Registry::typescript`], with a say in wide integers.
    ///
    /// # Errors
    /// As [`Registry::typescript`].
    pub fn typescript_with(&self, wide: WideIntegers) -> Result<String, TypeScriptError> {
        self.check()?;
        let mut types = Types {
            config: Config::new().with_large_int(wide.text()),
            wide,
            seen: BTreeSet::new(),
            declared: BTreeMap::new(),
            failure: None,
        };
        let (mut actors, mut with_events) = (String::new(), false);
        for actor in self.types() {
            let name = property(actor.name());
            let Some(tell) = actor.typescript() else {
                let _ = writeln!(actors, "  {name}: any;");
                continue;
            };
            let mut told = ActorTypes {
                types: &mut types,
                actions: String::new(),
                events: String::new(),
            };
            tell(&mut told);
            with_events |= !told.events.is_empty();
            let _ = write!(
                actors,
                "  {name}: {{\n    config: {{\n      actions: {}      events: {}      queues: {{}};\n    }};\n  }};\n",
                block(&told.actions),
                block(&told.events),
            );
        }
        match types.failure.take() {
            Some(failure) => Err(failure),
            None => Ok(module(&types, &actors, with_events)),
        }
    }
}

/// `{ .. };` around members that have their line ends.
fn block(members: &str) -> String {
    match members {
        "" => "{};\n".into(),
        members => format!("{{\n{members}      }};\n"),
    }
}

fn module(types: &Types, actors: &str, with_events: bool) -> String {
    let mut out =
        String::from("// Written by Clinch from the actors of a program: to be written anew, not edited.\n");
    out.push_str("import type { Registry as RivetRegistry } from \"rivetkit\";\n\n");
    out.push_str(if with_events { EVENT } else { "" });
    for (_, text) in types.declared.values() {
        let _ = writeln!(out, "{text}\n");
    }
    let _ = write!(
        out,
        "/** The actors of the program, by name: `createClient<Registry>(..)`. */\nexport type Registry = RivetRegistry<{{\n{actors}}}>;\n"
    );
    out
}

/// What has a TypeScript type: whatever derives `ts_rs::TS`, and what that has one for.
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no TypeScript type",
    label = "crosses the wire of an actor with `#[actor(typescript)]`",
    note = "derive it beside serde's traits: `#[derive(ts_rs::TS)]`"
)]
pub trait InTypeScript: 'static {
    /// How it is spelt, with what that refers to declared.
    #[doc(hidden)]
    fn spelt(types: &mut Types) -> String;
}

#[diagnostic::do_not_recommend]
impl<T: TS + ?Sized + 'static> InTypeScript for T {
    fn spelt(types: &mut Types) -> String {
        types.visit::<T>();
        types.fix_keys(T::name(&types.config))
    }
}

impl TS for Any {
    type WithoutGenerics = Self;
    type OptionInnerType = Self;

    fn name(_: &Config) -> String {
        "unknown".into()
    }

    fn inline(config: &Config) -> String {
        <Self as TS>::name(config)
    }
}

/// The types met so far.
pub struct Types {
    config: Config,
    wide: WideIntegers,
    seen: BTreeSet<TypeId>,
    /// The Rust type and the text, by name.
    declared: BTreeMap<String, (&'static str, String)>,
    failure: Option<TypeScriptError>,
}

impl TypeVisitor for Types {
    fn visit<T: TS + 'static + ?Sized>(&mut self) {
        if !self.seen.insert(TypeId::of::<T>()) {
            return;
        }
        // What could have a file of its own has a name of its own.
        if T::output_path().is_some() {
            self.declare::<T>();
        }
        T::visit_dependencies(self);
        T::visit_generics(self);
    }
}

impl Types {
    fn declare<T: TS + 'static + ?Sized>(&mut self) {
        let (name, rust) = (T::ident(&self.config), type_name::<T>());
        let docs = T::docs().unwrap_or_default();
        let text = self.fix_keys(format!("{docs}export {}", T::decl(&self.config)));
        let failure = if RESERVED.contains(&name.as_str()) {
            TypeScriptError::Reserved { name, rust }
        } else {
            // One text of two types does no harm: a generic type with other parameters, say.
            let (first, known) = self
                .declared
                .entry(name.clone())
                .or_insert_with(|| (rust, text.clone()));
            if *known == text {
                return;
            }
            let (first, second) = (*first, rust);
            TypeScriptError::TwoTypes { name, first, second }
        };
        self.failure.get_or_insert(failure);
    }

    /// The keys of an object are text or numbers, however wide they are in Rust.
    fn fix_keys(&self, text: String) -> String {
        match self.wide {
            WideIntegers::Number => text,
            WideIntegers::NumberOrBigInt => text.replace("[key in number | bigint]", "[key in number]"),
        }
    }
}

/// One actor type, as the code of `#[actor(typescript)]` tells it.
pub struct ActorTypes<'a> {
    types: &'a mut Types,
    actions: String,
    events: String,
}

/// Tells an actor type.
pub type TellTypes = fn(&mut ActorTypes<'_>);

impl ActorTypes<'_> {
    /// An action, by its name on the wire.
    pub fn action(&mut self, name: &str, docs: &[&str], signature: fn(Signature<'_>) -> Signature<'_>) {
        let signature = signature(Signature {
            types: &mut *self.types,
            arguments: Vec::new(),
            rest: None,
            result: "void".into(),
        });
        let (arguments, result) = (signature.arguments(), signature.result);
        comment(&mut self.actions, docs);
        let _ = writeln!(
            self.actions,
            "        {}: (context$: unknown{arguments}) => {result};",
            property(name)
        );
    }

    /// An event.
    pub fn event<E: Event + InTypeScript>(&mut self) {
        let arguments = match E::ARITY {
            0 => "[]".to_owned(),
            1 => format!("[{}]", E::spelt(self.types)),
            // A tuple already.
            _ => E::spelt(self.types),
        };
        let _ = writeln!(
            self.events,
            "        {}: EventOf<{arguments}>;",
            property(E::NAME)
        );
    }
}

/// Arguments and result of an action.
pub struct Signature<'a> {
    types: &'a mut Types,
    /// Name and type.
    arguments: Vec<(String, String)>,
    rest: Option<(String, String)>,
    result: String,
}

impl Signature<'_> {
    /// The next argument.
    #[must_use]
    pub fn argument<T: InTypeScript>(mut self, name: &str) -> Self {
        let ty = T::spelt(self.types);
        self.arguments.push((parameter(name), ty));
        self
    }

    /// All further arguments.
    #[must_use]
    pub fn rest<T: InTypeScript>(mut self, name: &str) -> Self {
        let ty = T::spelt(self.types);
        self.rest = Some((parameter(name), ty));
        self
    }

    /// What callers get.
    #[must_use]
    pub fn returns<T: InTypeScript>(mut self) -> Self {
        if TypeId::of::<T>() != TypeId::of::<()>() {
            self.result = T::spelt(self.types);
        }
        self
    }

    /// As text behind the first parameter. What may be missing is what may be null, unless something behind it may not.
    fn arguments(&self) -> String {
        let is_needed = |(_, ty): &(String, String)| !ty.ends_with(" | null");
        let needed = self
            .arguments
            .iter()
            .rposition(is_needed)
            .map_or(0, |last| last + 1);
        let mut out = String::new();
        for (position, (name, ty)) in self.arguments.iter().enumerate() {
            let mark = if position < needed { "" } else { "?" };
            let _ = write!(out, ", {name}{mark}: {ty}");
        }
        if let Some((name, ty)) = &self.rest {
            let _ = write!(out, ", ...{name}: Array<{ty}>");
        }
        out
    }
}

/// A parameter's name; `$` is in no name of Rust.
fn parameter(name: &str) -> String {
    let name = name.trim_start_matches("r#");
    let mark = if KEYWORDS.contains(&name) { "$" } else { "" };
    format!("{name}{mark}")
}

/// A member's name. Escapes of Rust are escapes of TypeScript.
fn property(name: &str) -> String {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '$';
    if name.chars().all(is_word) && !name.starts_with(|c: char| c.is_ascii_digit()) {
        name.to_owned()
    } else {
        format!("{name:?}")
    }
}

/// The comment of an action, from lines of doc comments.
fn comment(out: &mut String, docs: &[&str]) {
    let text = docs.join("\n").replace("*/", "*\\/");
    let lines: Vec<&str> = text.trim().lines().map(str::trim_end).collect();
    match lines[..] {
        [] => {}
        [line] => {
            let _ = writeln!(out, "        /** {} */", line.trim());
        }
        _ => {
            out.push_str("        /**\n");
            for line in lines {
                let line = line.strip_prefix(' ').unwrap_or(line);
                let _ = writeln!(out, "{}", format!("         * {line}").trim_end());
            }
            out.push_str("         */\n");
        }
    }
}
