//! Names on the wire.

use proc_macro2::{Ident, TokenStream, TokenTree};
use quote::ToTokens;

/// The limits of `clinch_types::limits`, which a macro crate does not depend on; a test in `actor` compares them.
const ACTOR_NAME_MAX: usize = 64;
const ACTION_NAME_MAX: usize = 128;

/// `get_count` and `GetCount` become `getCount`.
pub(crate) fn camel_case(ident: &Ident) -> String {
    let text = ident.to_string();
    let mut out = String::with_capacity(text.len());
    for part in text
        .trim_start_matches("r#")
        .split('_')
        .filter(|part| !part.is_empty())
    {
        let mut chars = part.chars();
        if let Some(first) = chars.next() {
            if out.is_empty() {
                out.extend(first.to_lowercase());
            } else {
                out.extend(first.to_uppercase());
            }
            out.push_str(chars.as_str());
        }
    }
    out
}

/// Why a text is no actor name.
pub(crate) fn check_actor_name(name: &str) -> Result<(), String> {
    if name.is_empty() || name.chars().count() > ACTOR_NAME_MAX {
        return Err(format!("an actor name has 1 to {ACTOR_NAME_MAX} characters"));
    }
    match name
        .chars()
        .find(|c| matches!(c, '/' | '@' | ',') || c.is_whitespace() || c.is_control())
    {
        Some(c) => Err(format!("an actor name must not contain {c:?}")),
        None => Ok(()),
    }
}

/// Why a text is no name of an action or event.
pub(crate) fn check_wire_name(name: &str) -> Result<(), String> {
    if name.is_empty() || name.len() > ACTION_NAME_MAX {
        return Err(format!("a name on the wire has 1 to {ACTION_NAME_MAX} bytes"));
    }
    Ok(())
}

/// The same tokens with `Self` spelt out, for use outside of the block they come from.
pub(crate) fn without_self(tokens: impl ToTokens, actor: &syn::Type) -> TokenStream {
    let replace = |tree| match tree {
        TokenTree::Ident(ident) if ident == "Self" => actor.to_token_stream(),
        TokenTree::Group(group) => {
            let mut inner = proc_macro2::Group::new(group.delimiter(), without_self(group.stream(), actor));
            inner.set_span(group.span());
            TokenTree::from(inner).into()
        }
        other => other.into(),
    };
    tokens.into_token_stream().into_iter().flat_map(replace).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_on_the_wire_are_camel_case() {
        let name = |text: &str| camel_case(&syn::parse_str::<Ident>(text).unwrap());
        assert_eq!(name("increment"), "increment");
        assert_eq!(name("get_count"), "getCount");
        assert_eq!(name("_get__count_2x"), "getCount2x");
        assert_eq!(name("r#type"), "type");
        assert_eq!(name("ChatRoom"), "chatRoom");
    }
}
