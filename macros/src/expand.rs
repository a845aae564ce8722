//! `#[actor]`: the block as it was, the implementation of `Actor`, the handle.

use std::collections::BTreeMap;

use proc_macro2::{Ident, TokenStream};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{ImplItem, ItemImpl, Path, Type};

use crate::attr::ActorAttr;
use crate::handle;
use crate::method::{CtxParam, Method, Receiver, Role};
use crate::names::{camel_case, without_self};
use crate::returns::Returns;

/// Everything found, errors collected.
struct Found {
    actions: Vec<Method>,
    hooks: Vec<Method>,
}

pub(crate) fn actor(attr: TokenStream, mut block: ItemImpl) -> TokenStream {
    let (attr, read) = ActorAttr::parse(attr);
    let mut errors = read.err();
    let mut fail = |error: syn::Error| match &mut errors {
        Some(all) => all.combine(error),
        None => errors = Some(error),
    };
    let found = collect(&mut block, &mut fail);
    let ident = match check_block(&block) {
        Ok(ident) => Some(ident),
        Err(error) => {
            fail(error);
            None
        }
    };
    let errors = errors.map(syn::Error::into_compile_error);
    // After a mistake in one function the rest is written all the same, or every use of the actor is an error too.
    let generated = ident.map(|ident| generate(&ident, &attr, &block, &found));
    quote! { #block #generated #errors }
}

/// The name of the type.
fn check_block(block: &ItemImpl) -> syn::Result<Ident> {
    if let Some((_, path, _)) = &block.trait_ {
        return Err(syn::Error::new(
            path.span(),
            "`#[actor]` stands on an `impl` block of the type itself",
        ));
    }
    if let Some(param) = block.generics.params.first() {
        return Err(syn::Error::new(
            param.span(),
            "an actor type has no generic parameters: it has one name on the wire",
        ));
    }
    match &*block.self_ty {
        Type::Path(path) if path.qself.is_none() => match path.path.segments.last() {
            Some(last) if last.arguments.is_none() => Ok(last.ident.clone()),
            _ => Err(syn::Error::new(
                path.span(),
                "an actor type has no generic parameters: it has one name on the wire",
            )),
        },
        other => Err(syn::Error::new(other.span(), "an actor is a struct or an enum")),
    }
}

fn collect(block: &mut ItemImpl, fail: &mut impl FnMut(syn::Error)) -> Found {
    let (mut actions, mut hooks) = (Vec::<Method>::new(), Vec::<Method>::new());
    let mut names = BTreeMap::<String, Ident>::new();
    for item in &mut block.items {
        let ImplItem::Fn(function) = item else { continue };
        match Method::take(function) {
            Ok(None) => {}
            Err(error) => fail(error),
            Ok(Some(method)) => match &method.role {
                Role::Hook(_) => hooks.push(method),
                Role::Action(name) => match names.get(name) {
                    // The same function twice, under different `cfg`s, is fine; under one, rustc tells.
                    Some(first) if *first != method.ident => fail(syn::Error::new(
                        method.ident.span(),
                        format!(
                            "two actions have the name `{name}` on the wire: `{first}` and `{}`",
                            method.ident
                        ),
                    )),
                    _ => {
                        names.insert(name.clone(), method.ident.clone());
                        actions.push(method);
                    }
                },
            },
        }
    }
    Found { actions, hooks }
}

fn generate(ident: &Ident, attr: &ActorAttr, block: &ItemImpl, found: &Found) -> TokenStream {
    let ActorAttr {
        name,
        version,
        events,
        vars,
        typescript,
        handle,
        krate,
        options,
    } = attr;
    let actor = &*block.self_ty;
    let name = name
        .as_ref()
        .map_or_else(|| camel_case(ident), syn::LitStr::value);
    let version = version
        .as_ref()
        .map(|version| quote!(const VERSION: u32 = #version;));
    let handle = handle.clone().unwrap_or_else(|| format_ident!("{ident}Handle"));
    let options = (!options.is_empty()).then(|| {
        quote! {
            fn options() -> #krate::__private::ActorOptions {
                #[allow(unused_imports, reason = "only some actors set it")]
                use #krate::__private::Durability as __Durability;
                let mut __options = #krate::__private::ActorOptions::default();
                #(#options)*
                __options
            }
        }
    });
    let (vars_type, make_vars) = vars_of(found, vars.as_ref(), actor, krate);
    let create = create(found, actor, krate);
    let conn_state = crate::conns::state_type(&found.hooks, actor, krate);
    let hooks = found.hooks.iter().filter_map(|method| hook(method, actor, krate));
    let actions = found.actions.iter().map(|method| action(method, actor, krate));
    let emits = events
        .iter()
        .map(|event| quote_spanned!(event.span()=> impl #krate::__private::Emits<#event> for #actor {}));
    let typescript = typescript.then(|| crate::typescript::tell(&found.actions, events, actor, krate));
    let handle_items = handle::handle(&handle, actor, &found.actions, krate);
    quote! {
        #[automatically_derived]
        impl #krate::__private::Actor for #actor {
            const NAME: &'static str = #name;
            #version
            type Handle = #handle;
            type Vars = #vars_type;
            type ConnState = #conn_state;
            #options
            #[allow(unused_mut, clippy::all, clippy::pedantic, reason = "written for the compiler, not for readers")]
            fn spec() -> #krate::__private::Spec<Self> {
                let __spec = #create;
                #make_vars
                #(#hooks)*
                #(#actions)*
                #typescript
                __spec
            }
        }

        #(#emits)*
        #handle_items
    }
}

/// `<Counter>::increment(__state, &__ctx, by)`, awaited if need be.
pub(crate) fn invoke(method: &Method, actor: &Type) -> TokenStream {
    let Method { ident, params, .. } = method;
    let state = (method.receiver != Receiver::None).then(|| quote!(__state,));
    let ctx = match method.ctx {
        CtxParam::None => None,
        CtxParam::Reference => Some(quote!(&__ctx,)),
        CtxParam::Value => Some(quote!(__ctx.clone(),)),
    };
    let conn = match method.conn {
        CtxParam::None => None,
        CtxParam::Reference => Some(quote!(&__conn,)),
        CtxParam::Value => Some(quote!(__conn.clone(),)),
    };
    let args = params.iter().map(|param| &param.ident);
    let wait = method.is_async.then(|| quote!(.await));
    quote_spanned!(ident.span()=> <#actor>::#ident(#state #ctx #conn #(#args),*) #wait)
}

fn action(method: &Method, actor: &Type, krate: &Path) -> TokenStream {
    let (Role::Action(name) | Role::Hook(name)) = &method.role;
    let cfgs = method.cfgs();
    let takes = method.params.iter().map(|param| {
        let (ident, text) = (&param.ident, param.ident.to_string());
        let ty = without_self(&param.ty, actor);
        let take = Ident::new(if param.is_rest { "rest" } else { "take" }, param.ty.span());
        quote_spanned!(param.ty.span()=> let #ident: #ty = __args.#take(#text)?;)
    });
    let returns = Returns::of(&method.output, actor, krate);
    let value = returns.unwrap(invoke(method, actor), krate);
    let reply = quote_spanned!(returns.span=> #krate::__private::reply(&__value));
    let body = quote! {
        ::std::boxed::Box::pin(async move {
            #(#takes)*
            let __value = #value;
            #reply
        })
    };
    // Unused where the action takes no arguments or no context.
    let (ctx, args) = (quote!(__ctx), quote!(mut __args));
    let run = match method.receiver {
        Receiver::Exclusive => quote!(exclusive(#name, |__state, #ctx, #args| #body)),
        Receiver::Shared => quote!(shared(#name, |__state, #ctx, #args| #body)),
        Receiver::None => quote!(interleaved(#name, |#ctx, #args| #body)),
    };
    quote! {
        #(#cfgs)*
        let __spec = __spec.#run;
    }
}

/// The type of the variables, and the statement that says how they are made.
fn vars_of(
    found: &Found,
    named: Option<&Type>,
    actor: &Type,
    krate: &Path,
) -> (TokenStream, Option<TokenStream>) {
    let is_vars = |method: &&Method| matches!(&method.role, Role::Hook(name) if name == "vars");
    if let Some(method) = found.hooks.iter().find(is_vars) {
        let returns = Returns::of(&method.output, actor, krate);
        let (ty, value) = (
            returns.value.clone(),
            returns.unwrap(invoke(method, actor), krate),
        );
        let cfgs = method.cfgs();
        let make = quote! {
            #(#cfgs)*
            let __spec = __spec.vars(|__state, __ctx| ::std::boxed::Box::pin(async move {
                let __value = #value;
                ::core::result::Result::Ok(__value)
            }));
        };
        return (ty, Some(make));
    }
    let Some(ty) = named else {
        return (quote!(()), None);
    };
    let make = quote_spanned! {ty.span()=>
        let __spec = __spec.vars(|_, _| ::std::boxed::Box::pin(async {
            ::core::result::Result::Ok(<#ty as ::core::default::Default>::default())
        }));
    };
    (ty.to_token_stream(), Some(make))
}

/// The expression that begins the table.
fn create(found: &Found, actor: &Type, krate: &Path) -> TokenStream {
    let is_create = |method: &&Method| matches!(&method.role, Role::Hook(name) if name == "create");
    let Some(method) = found.hooks.iter().find(is_create) else {
        return quote_spanned!(actor.span()=> #krate::__private::Spec::<Self>::from_default());
    };
    let input = method
        .params
        .first()
        .map(|param| input(param, actor, &quote!(__input)));
    let value = Returns::of(&method.output, actor, krate).unwrap(invoke(method, actor), krate);
    quote! {
        #krate::__private::Spec::<Self>::with_create(|__ctx, __input| ::std::boxed::Box::pin(async move {
            #input
            let __value = #value;
            ::core::result::Result::Ok(__value)
        }))
    }
}

fn input(param: &crate::method::Param, actor: &Type, from: impl ToTokens) -> TokenStream {
    let (ident, ty) = (&param.ident, without_self(&param.ty, actor));
    quote_spanned!(param.ty.span()=> let #ident: #ty = #from.get()?;)
}

fn hook(method: &Method, actor: &Type, krate: &Path) -> Option<TokenStream> {
    let Role::Hook(name) = &method.role else {
        return None;
    };
    let cfgs = method.cfgs();
    let call = invoke(method, actor);
    let variant = match name.as_str() {
        "migrate" => {
            let (from, bytes) = (&method.params[0].ident, &method.params[1].ident);
            let value = Returns::of(&method.output, actor, krate).unwrap(call, krate);
            return Some(quote! {
                #(#cfgs)*
                let __spec = __spec.migrate(|#from, #bytes| {
                    let __value = #value;
                    ::core::result::Result::Ok(__value)
                });
            });
        }
        "run" => {
            let value = Returns::of(&method.output, actor, krate).unwrap(call, krate);
            return Some(quote! {
                #(#cfgs)*
                let __spec = __spec.run(|__ctx| ::std::boxed::Box::pin(async move {
                    let (): () = #value;
                    ::core::result::Result::Ok(())
                }));
            });
        }
        "on_state_change" => {
            let value = Returns::of(&method.output, actor, krate).unwrap(call, krate);
            return Some(quote! {
                #(#cfgs)*
                let __spec = __spec.on_state_change(|__state, __ctx| {
                    let __ctx = __ctx.clone();
                    let (): () = #value;
                    ::core::result::Result::Ok(())
                });
            });
        }
        "before_action_response" => {
            let (action, output) = (&method.params[0].ident, &method.params[1].ident);
            let value = Returns::of(&method.output, actor, krate).unwrap(call, krate);
            return Some(quote! {
                #(#cfgs)*
                let __spec = __spec.before_action_response(|__state, __ctx, #action, #output| {
                    let __ctx = __ctx.clone();
                    let __value: #krate::__private::Any = #value;
                    ::core::result::Result::Ok(__value)
                });
            });
        }
        "on_create" => quote!(OnCreate),
        "on_wake" => quote!(OnWake),
        "on_sleep" => quote!(OnSleep),
        "on_destroy" => quote!(OnDestroy),
        _ => return crate::conns::hook(name, method, actor, krate),
    };
    let input = method
        .params
        .first()
        .map(|param| input(param, actor, quote!(__ctx.input())));
    let value = Returns::of(&method.output, actor, krate).unwrap(call, krate);
    Some(quote! {
        #(#cfgs)*
        let __spec = __spec.hook(#krate::__private::Hook::#variant, |__state, __ctx| ::std::boxed::Box::pin(async move {
            #input
            let (): () = #value;
            ::core::result::Result::Ok(())
        }));
    })
}
