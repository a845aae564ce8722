//! `#[derive(ActorKey)]`.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Data, DeriveInput, LitStr, Path};

/// Components of a key, at most; longer ones hardly stay below the limit of bytes.
const COMPONENTS_MAX: usize = 16;

pub(crate) fn derive(item: &DeriveInput) -> syn::Result<TokenStream> {
    let Data::Struct(data) = &item.data else {
        return Err(syn::Error::new(
            item.ident.span(),
            "a key is a struct: its fields, in order, are the components",
        ));
    };
    if let Some(param) = item.generics.params.first() {
        return Err(syn::Error::new(param.span(), "a key has no generic parameters"));
    }
    let count = data.fields.len();
    if count == 0 || count > COMPONENTS_MAX {
        return Err(syn::Error::new(
            item.ident.span(),
            format!("a key has 1 to {COMPONENTS_MAX} fields; without any it is `()`"),
        ));
    }
    let krate = krate(item)?;
    let (ident, positions) = (&item.ident, 0..count);
    let members: Vec<_> = data.fields.members().collect();
    let parts = data.fields.iter().zip(&members).map(|(field, member)| {
        quote_spanned!(field.ty.span()=> #krate::__private::KeyPart::into_part(self.#member))
    });
    let reads = data.fields.iter().zip(&members).zip(positions).map(|((field, member), at)| {
        let ty = &field.ty;
        quote_spanned!(ty.span()=> #member: <#ty as #krate::__private::FromKeyPart>::from_part(&__parts[#at])?)
    });
    Ok(quote! {
        #[automatically_derived]
        impl #krate::__private::IntoKey for #ident {
            fn into_key(self) -> ::core::result::Result<#krate::__private::Key, #krate::__private::KeyError> {
                #krate::__private::Key::new([#(#parts),*])
            }
        }

        #[automatically_derived]
        impl #krate::__private::FromKey for #ident {
            fn from_key(__key: &#krate::__private::Key) -> ::core::option::Option<Self> {
                let __parts = __key.components();
                if __parts.len() != #count {
                    return ::core::option::Option::None;
                }
                ::core::option::Option::Some(Self { #(#reads),* })
            }
        }
    })
}

fn krate(item: &DeriveInput) -> syn::Result<Path> {
    let mut krate: Path = syn::parse_quote!(::clinch);
    for attr in item.attrs.iter().filter(|attr| attr.path().is_ident("actor_key")) {
        attr.parse_nested_meta(|meta| {
            if !meta.path.is_ident("crate") {
                return Err(meta.error("unknown argument; `#[actor_key]` knows: crate"));
            }
            krate = meta.value()?.parse::<LitStr>()?.parse()?;
            Ok(())
        })?;
    }
    Ok(krate)
}
