//! `#[actor(typescript)]`: the statement that tells the types of actions and events.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::spanned::Spanned as _;
use syn::{Attribute, Expr, ExprLit, GenericArgument, Lit, Meta, Path, PathArguments, Type};

use crate::method::{Method, Param, Role};
use crate::names::without_self;
use crate::returns::Returns;

/// Inside a macro of the crate, which says it when the crate was built without.
pub(crate) fn tell(actions: &[Method], events: &[Type], actor: &Type, krate: &Path) -> TokenStream {
    let actions = actions.iter().map(|method| action(method, actor, krate));
    let events = events
        .iter()
        .map(|event| quote_spanned!(event.span()=> __types.event::<#event>();));
    quote! {
        #krate::__private::typescript! {
            let __spec = __spec.typescript(|__types| {
                #(#actions)*
                #(#events)*
            });
        }
    }
}

fn action(method: &Method, actor: &Type, krate: &Path) -> TokenStream {
    let (Role::Action(name) | Role::Hook(name)) = &method.role;
    let cfgs = method.cfgs();
    let docs = method.attrs.iter().filter_map(doc);
    let arguments = method.params.iter().map(|param| argument(param, actor));
    let returns = Returns::of(&method.output, actor, krate);
    let (value, span) = (&returns.value, returns.span);
    let returns = quote_spanned!(span=> .returns::<#value>());
    quote! {
        #(#cfgs)*
        __types.action(#name, &[#(#docs),*], |__signature| __signature #(#arguments)* #returns);
    }
}

fn argument(param: &Param, actor: &Type) -> TokenStream {
    let text = param.ident.to_string();
    match each_of_rest(param) {
        Some(ty) => {
            let ty = without_self(ty, actor);
            quote_spanned!(param.ty.span()=> .rest::<#ty>(#text))
        }
        None => {
            let ty = without_self(&param.ty, actor);
            quote_spanned!(param.ty.span()=> .argument::<#ty>(#text))
        }
    }
}

/// The `T` of a `Rest<T>`.
fn each_of_rest(param: &Param) -> Option<&Type> {
    let Type::Path(path) = &param.ty else { return None };
    match &path.path.segments.last()?.arguments {
        PathArguments::AngleBracketed(list) if param.is_rest => list.args.iter().find_map(|one| match one {
            GenericArgument::Type(ty) => Some(ty),
            _ => None,
        }),
        _ => None,
    }
}

/// The text of a doc comment's line.
fn doc(attr: &Attribute) -> Option<String> {
    match &attr.meta {
        Meta::NameValue(pair) if attr.path().is_ident("doc") => match &pair.value {
            Expr::Lit(ExprLit {
                lit: Lit::Str(text), ..
            }) => Some(text.value()),
            _ => None,
        },
        _ => None,
    }
}
