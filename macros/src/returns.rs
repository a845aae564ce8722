//! What a function returns: a value, or a `Result` of one.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{GenericArgument, PathArguments, ReturnType, Type};

use crate::names::without_self;

/// A return type as callers see it.
pub(crate) struct Returns {
    /// The type written, without `Self`.
    written: TokenStream,
    /// The type of success.
    pub(crate) value: TokenStream,
    fallible: bool,
    /// Where it is written.
    pub(crate) span: Span,
}

impl Returns {
    pub(crate) fn of(output: &ReturnType, actor: &Type, krate: &syn::Path) -> Self {
        let ReturnType::Type(_, ty) = output else {
            let span = Span::call_site();
            return Self {
                written: quote!(()),
                value: quote!(()),
                fallible: false,
                span,
            };
        };
        let written = without_self(ty, actor);
        let span = ty.span();
        let last = match &**ty {
            Type::Path(path) => path.path.segments.last(),
            _ => None,
        };
        let Some(segment) = last.filter(|s| s.ident == "Result" || s.ident == "ActionResult") else {
            return Self {
                value: written.clone(),
                written,
                fallible: false,
                span,
            };
        };
        // The first parameter is the value in every alias of the name; `unwrap` lets the compiler check it.
        let first = match &segment.arguments {
            PathArguments::AngleBracketed(arguments) => {
                arguments.args.iter().find_map(|argument| match argument {
                    GenericArgument::Type(ty) => Some(without_self(ty, actor)),
                    _ => None,
                })
            }
            _ => None,
        };
        let value = first.unwrap_or_else(|| quote!(<#written as #krate::__private::Fallible>::Value));
        Self {
            written,
            value,
            fallible: true,
            span,
        }
    }

    /// An expression that is the value; leaves the enclosing function with the error, if there is one.
    pub(crate) fn unwrap(&self, call: impl ToTokens, krate: &syn::Path) -> TokenStream {
        let Self {
            written,
            value,
            fallible,
            span,
        } = self;
        if *fallible {
            quote_spanned! {*span=> {
                let __value: #value = #krate::__private::Fallible::into_value(#call)?;
                __value
            }}
        } else {
            quote_spanned! {*span=> {
                // Fails to compile for a `Result` under another name, whose error would be taken for a value.
                let _ = <#written as #krate::__private::CallYourResultTypeResult<_>>::checked;
                #call
            }}
        }
    }
}
