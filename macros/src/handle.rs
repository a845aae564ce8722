//! The typed handle: one method per action.

use proc_macro2::{Ident, TokenStream};
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Path, Type};

use crate::method::{Method, Param, Role};
use crate::names::without_self;
use crate::returns::Returns;

/// Methods of every handle. They give way to an action of the same name; [`crate::handle`]'s raw handle still has
/// them.
fn builders(actor: &Type, actions: &[Method], krate: &Path) -> Vec<TokenStream> {
    let taken = |name: &str| actions.iter().any(|action| action.ident == name);
    let mut builders = Vec::new();
    if !taken("with_input") {
        builders.push(quote! {
            /// What `create` gets, should this handle's call be the one that creates the actor.
            #[must_use]
            pub fn with_input<I: #krate::__private::Serialize>(self, input: I) -> Self {
                Self { raw: self.raw.with_input(&input) }
            }
        });
    }
    if !taken("existing") {
        builders.push(quote! {
            /// Only to an actor that exists.
            #[must_use]
            pub fn existing(self) -> Self {
                Self { raw: self.raw.existing() }
            }
        });
    }
    if !taken("in_region") {
        builders.push(quote! {
            /// The home region, should this handle's call be the one that creates the actor.
            #[must_use]
            pub fn in_region(self, region: #krate::__private::RegionId) -> Self {
                Self { raw: self.raw.in_region(region) }
            }
        });
    }
    if !taken("with_params") {
        builders.push(quote! {
            /// What the connection hooks get.
            #[must_use]
            pub fn with_params<P: #krate::__private::Serialize>(self, params: P) -> Self {
                Self { raw: self.raw.with_params(&params) }
            }
        });
    }
    if !taken("connect") {
        builders.push(quote! {
            /// Opens a connection: for events, and for actions that know who calls.
            pub fn connect(
                &self,
            ) -> #krate::__private::BoxFuture<
                'static,
                ::core::result::Result<#krate::__private::Connection<#actor>, #krate::__private::Error>,
            > {
                let raw = self.raw.clone();
                ::std::boxed::Box::pin(async move { #krate::__private::Connection::open(&raw).await })
            }
        });
    }
    builders
}

/// `pub struct CounterHandle` and what it can do.
pub(crate) fn handle(ident: &Ident, actor: &Type, actions: &[Method], krate: &Path) -> TokenStream {
    let builders = builders(actor, actions, krate);
    let calls = actions.iter().map(|action| call(action, actor, krate));
    let doc = format!("Calls actors of type `{}`.", quote!(#actor));
    quote! {
        #[doc = #doc]
        #[derive(Clone)]
        #[allow(unreachable_pub, private_interfaces, reason = "the block does not tell how visible its type is")]
        pub struct #ident {
            raw: #krate::__private::RawHandle,
        }

        #[allow(
            dead_code, unreachable_pub, private_interfaces, missing_docs, clippy::too_many_arguments,
            reason = "one method per action, used or not"
        )]
        impl #ident {
            #(#builders)*
            #(#calls)*
        }

        impl ::core::convert::From<#krate::__private::RawHandle> for #ident {
            fn from(raw: #krate::__private::RawHandle) -> Self {
                Self { raw }
            }
        }

        impl ::core::ops::Deref for #ident {
            type Target = #krate::__private::RawHandle;

            fn deref(&self) -> &Self::Target {
                &self.raw
            }
        }
    }
}

fn call(action: &Method, actor: &Type, krate: &Path) -> TokenStream {
    let Method {
        role,
        ident,
        params,
        attrs,
        output,
        ..
    } = action;
    let (Role::Action(name) | Role::Hook(name)) = role;
    let value = Returns::of(output, actor, krate).value;
    let idents: Vec<_> = params.iter().map(|param| &param.ident).collect();
    let types = params.iter().map(|param| without_self(&param.ty, actor));
    let count = params.iter().filter(|param| !param.is_rest).count();
    let rest_len = params
        .iter()
        .filter(|param| param.is_rest)
        .map(|Param { ident, .. }| quote!(+ #ident.0.len()));
    let pushes = params.iter().map(|Param { ident, ty, is_rest }| {
        let push = Ident::new(if *is_rest { "rest" } else { "push" }, ty.span());
        quote_spanned!(ty.span()=> .#push(&#ident))
    });
    quote! {
        #(#attrs)*
        pub fn #ident(&self, #(#idents: #types),*) -> #krate::__private::Call<#value> {
            let __args = #krate::__private::ArgsWriter::new(#count #(#rest_len)*) #(#pushes)*;
            self.raw.action_encoded(::std::string::String::from(#name), __args.finish())
        }
    }
}
