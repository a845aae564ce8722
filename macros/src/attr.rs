//! The arguments of `#[actor(..)]`.

use std::time::Duration;

use proc_macro2::{Ident, TokenStream};
use quote::quote;
use syn::meta::ParseNestedMeta;
use syn::parse::Parser;
use syn::punctuated::Punctuated;
use syn::{Lit, LitInt, LitStr, Path, Token, Type};

use crate::names::check_actor_name;

const DURATIONS: [&str; 10] = [
    "connect_timeout",
    "disconnect_timeout",
    "vars_timeout",
    "background_timeout",
    "action_timeout",
    "create_timeout",
    "on_create_timeout",
    "on_wake_timeout",
    "on_sleep_timeout",
    "on_destroy_timeout",
];

const KNOWN: &str = "name, version, events(..), vars, durability, reentrant, typescript, handle, crate, action_timeout, sleep_after, \
                     queue_max, state_max, kv_max, request_body_max, connect_timeout, disconnect_timeout, vars_timeout, background_timeout, create_timeout, on_create_timeout, on_wake_timeout, on_sleep_timeout, on_destroy_timeout";

/// What was written in the attribute.
pub(crate) struct ActorAttr {
    pub(crate) name: Option<LitStr>,
    pub(crate) version: Option<LitInt>,
    pub(crate) events: Vec<Type>,
    /// The type of the variables, made by `Default`.
    pub(crate) vars: Option<Type>,
    /// Whether the types of actions and events are told for TypeScript.
    pub(crate) typescript: bool,
    pub(crate) handle: Option<Ident>,
    pub(crate) krate: Path,
    /// Statements that set fields of `__options`.
    pub(crate) options: Vec<TokenStream>,
}

impl ActorAttr {
    pub(crate) fn parse(tokens: TokenStream) -> (Self, Result<(), syn::Error>) {
        let mut attr = Self {
            name: None,
            version: None,
            events: Vec::new(),
            vars: None,
            typescript: false,
            handle: None,
            krate: syn::parse_quote!(::clinch),
            options: Vec::new(),
        };
        let mut seen = Vec::new();
        let parser = syn::meta::parser(|meta| {
            if let Some(key) = meta.path.get_ident() {
                if seen.contains(key) {
                    return Err(meta.error(format!("`{key}` is given twice")));
                }
                seen.push(key.clone());
            }
            attr.argument(&meta)
        });
        let result = parser.parse2(tokens);
        (attr, result)
    }

    fn argument(&mut self, meta: &ParseNestedMeta<'_>) -> syn::Result<()> {
        let key = match meta.path.get_ident() {
            Some(key) => key.to_string(),
            None => return Err(meta.error(format!("unknown argument; known are: {KNOWN}"))),
        };
        match key.as_str() {
            "name" => {
                let name: LitStr = meta.value()?.parse()?;
                check_actor_name(&name.value()).map_err(|why| syn::Error::new(name.span(), why))?;
                self.name = Some(name);
            }
            "version" => {
                let version: LitInt = meta.value()?.parse()?;
                version.base10_parse::<u32>()?;
                self.version = Some(version);
            }
            "events" => {
                let list;
                syn::parenthesized!(list in meta.input);
                self.events = Punctuated::<Type, Token![,]>::parse_terminated(&list)?
                    .into_iter()
                    .collect();
            }
            "vars" => self.vars = Some(meta.value()?.parse()?),
            "durability" => {
                let text: LitStr = meta.value()?.parse()?;
                self.options.push(durability(&text)?);
            }
            "reentrant" => self.options.push(quote!(__options.reentrant = true;)),
            "typescript" => self.typescript = true,
            "handle" => self.handle = Some(meta.value()?.parse::<LitStr>()?.parse()?),
            "crate" => self.krate = meta.value()?.parse::<LitStr>()?.parse()?,
            "sleep_after" => {
                let text: LitStr = meta.value()?.parse()?;
                let after = if text.value() == "never" {
                    quote!(::core::option::Option::None)
                } else {
                    let after = duration(&text)?;
                    quote!(::core::option::Option::Some(#after))
                };
                self.options.push(quote!(__options.sleep_after = #after;));
            }
            "queue_max" => {
                let max: LitInt = meta.value()?.parse()?;
                max.base10_parse::<u32>()?;
                self.options.push(quote!(__options.queue_max = #max;));
            }
            "state_max" | "kv_max" | "request_body_max" => {
                let (field, max) = (meta.path.get_ident(), size(&meta.value()?.parse()?)?);
                self.options.push(quote!(__options.#field = #max;));
            }
            other if DURATIONS.contains(&other) => {
                let (field, time) = (meta.path.get_ident(), duration(&meta.value()?.parse()?)?);
                self.options.push(quote!(__options.#field = #time;));
            }
            other => return Err(meta.error(format!("unknown argument `{other}`; known are: {KNOWN}"))),
        }
        Ok(())
    }
}

/// The statement that sets the durability. `__Durability` is brought in by the function around it, for the crate's path
/// may be given later.
fn durability(text: &LitStr) -> syn::Result<TokenStream> {
    let value = text.value();
    let durability = match value.as_str() {
        "replicated" => quote!(Replicated),
        "may lose everything" => quote!(MayLoseEverything),
        other => match other.strip_prefix("may lose ").and_then(parse_duration) {
            Some(time) => {
                let (seconds, nanos) = (time.as_secs(), time.subsec_nanos());
                quote!(MayLose(::core::time::Duration::new(#seconds, #nanos)))
            }
            None => {
                return Err(syn::Error::new(
                    text.span(),
                    "durability is \"replicated\" (the default), \"may lose 10s\" (or another time) or \"may lose everything\"",
                ));
            }
        },
    };
    Ok(quote!(__options.durability = __Durability::#durability;))
}

/// A number and its unit.
fn split(text: &str) -> Option<(u64, &str)> {
    let at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..at].parse().ok()?, text[at..].trim()))
}

fn parse_duration(text: &str) -> Option<Duration> {
    let (count, unit) = split(text)?;
    let seconds = |each: u64| count.checked_mul(each).map(Duration::from_secs);
    match unit {
        "ms" => Some(Duration::from_millis(count)),
        "s" => seconds(1),
        "min" | "m" => seconds(60),
        "h" => seconds(3600),
        _ => None,
    }
    .filter(|time| !time.is_zero())
}

fn duration(text: &LitStr) -> syn::Result<TokenStream> {
    let time = parse_duration(&text.value()).ok_or_else(|| {
        syn::Error::new(
            text.span(),
            "a time is a number above 0 with its unit, as \"500ms\", \"30s\", \"5min\", \"1h\"",
        )
    })?;
    let (seconds, nanos) = (time.as_secs(), time.subsec_nanos());
    Ok(quote!(::core::time::Duration::new(#seconds, #nanos)))
}

fn parse_size(text: &str) -> Option<usize> {
    let (count, unit) = split(text)?;
    let each = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        _ => return None,
    };
    usize::try_from(count.checked_mul(each)?)
        .ok()
        .filter(|size| *size > 0)
}

fn size(literal: &Lit) -> syn::Result<usize> {
    let size = match literal {
        Lit::Int(bytes) => Some(bytes.base10_parse()?),
        Lit::Str(text) => parse_size(&text.value()),
        _ => None,
    };
    size.ok_or_else(|| {
        syn::Error::new(
            literal.span(),
            "a size is a number of bytes, or as \"256KiB\", \"8MiB\"",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_need_a_known_unit() {
        assert_eq!(parse_duration("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(parse_duration("2 min"), Some(Duration::from_secs(120)));
        assert_eq!(parse_duration("1h"), Some(Duration::from_secs(3600)));
        for bad in [
            "",
            "s",
            "30",
            "0s",
            "-1s",
            "1d",
            "99999999999999999999s",
            "18446744073709551615h",
        ] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
        assert_eq!(parse_size("8MiB"), Some(8 << 20));
        assert_eq!(parse_size("10"), Some(10));
        for bad in ["", "0", "8MB", "1.5MiB", "18446744073709551615MiB"] {
            assert_eq!(parse_size(bad), None, "{bad}");
        }
    }
}
