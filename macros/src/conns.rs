//! Hooks of connections and raw requests, as statements that put them into the table.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::spanned::Spanned as _;
use syn::{Path, Type};

use crate::expand::invoke;
use crate::method::{Method, Role};
use crate::names::without_self;
use crate::returns::Returns;

/// The type of what is kept of each connection: what `conn_state` returns.
pub(crate) fn state_type(hooks: &[Method], actor: &Type, krate: &Path) -> TokenStream {
    let is_state = |method: &&Method| matches!(&method.role, Role::Hook(name) if name == "conn_state");
    match hooks.iter().find(is_state) {
        Some(method) => Returns::of(&method.output, actor, krate).value,
        None => quote!(()),
    }
}

/// The statement of one hook; `None` for hooks that are none of these.
pub(crate) fn hook(name: &str, method: &Method, actor: &Type, krate: &Path) -> Option<TokenStream> {
    let cfgs = method.cfgs();
    let value = Returns::of(&method.output, actor, krate).unwrap(invoke(method, actor), krate);
    let ident = &method.ident;
    let first = method.params.first();
    let argument = first.map(|param| (&param.ident, without_self(&param.ty, actor)));
    let statement = match name {
        "before_connect" | "conn_state" => {
            let params = argument.map(|(name, ty)| quote!(let #name: #ty = __input.params()?;));
            let value = match name {
                "before_connect" => quote!({ let (): () = #value; }),
                _ => value,
            };
            quote! {
                let __spec = __spec.#ident(|__state, __ctx, __input| ::std::boxed::Box::pin(async move {
                    #params
                    let __value = #value;
                    ::core::result::Result::Ok(__value)
                }));
            }
        }
        "on_connect" | "on_disconnect" | "on_websocket" => quote! {
            let __spec = __spec.#ident(|__state, __ctx, __conn| ::std::boxed::Box::pin(async move {
                let (): () = #value;
                ::core::result::Result::Ok(())
            }));
        },
        "on_message" => {
            let (frame, ty) = argument?;
            quote! {
                let __spec = __spec.on_message(|__state, __ctx, __conn, __frame| ::std::boxed::Box::pin(async move {
                    let #frame: #ty = __frame;
                    let (): () = #value;
                    ::core::result::Result::Ok(())
                }));
            }
        }
        "on_request" => {
            let (request, ty) = argument?;
            let span = method.ident.span();
            let reply = quote_spanned!(span=> #krate::__private::HttpAnswer::answer(__value));
            let asked = quote_spanned!(ty.span()=> <#ty as #krate::__private::HttpAsked>::asked(__request));
            quote! {
                let __spec = __spec.on_request(|__state, __ctx, __request| ::std::boxed::Box::pin(async move {
                    let #request: #ty = #asked.await?;
                    let __value = #value;
                    ::core::result::Result::Ok(#reply)
                }));
            }
        }
        "can_subscribe" | "can_publish" => {
            let (name, _) = argument?;
            quote! {
                let __spec = __spec.#ident(|__state, __ctx, #name| {
                    let __ctx = __ctx.clone();
                    let __value: bool = #value;
                    ::core::result::Result::Ok(__value)
                });
            }
        }
        _ => return None,
    };
    Some(quote! {
        #(#cfgs)*
        #statement
    })
}
