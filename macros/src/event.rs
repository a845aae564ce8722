//! `#[derive(Event)]`.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Data, DeriveInput, Fields, Index, LitStr, Path};

use crate::names::{camel_case, check_wire_name};

pub(crate) fn derive(item: &DeriveInput) -> syn::Result<TokenStream> {
    let Data::Struct(data) = &item.data else {
        return Err(syn::Error::new(
            item.ident.span(),
            "an event is a struct: its name on the wire is the type's",
        ));
    };
    if let Some(param) = item.generics.params.first() {
        return Err(syn::Error::new(
            param.span(),
            "an event has no generic parameters: it has one name on the wire",
        ));
    }
    let (name, krate) = attributes(item)?;
    let ident = &item.ident;
    let (arity, encode, decode) = match &data.fields {
        Fields::Unit => (0, quote!(#krate::__private::ArgsWriter::new(0)), quote!(Self)),
        Fields::Unnamed(fields) => {
            let len = fields.unnamed.len();
            let pushes = fields.unnamed.iter().enumerate().map(|(index, field)| {
                let index = Index::from(index);
                quote_spanned!(field.ty.span()=> .push(&self.#index))
            });
            let takes = fields.unnamed.iter().enumerate().map(|(index, field)| {
                let (ty, text) = (&field.ty, index.to_string());
                quote_spanned!(field.ty.span()=> __args.take::<#ty>(#text)?)
            });
            (
                len,
                quote!(#krate::__private::ArgsWriter::new(#len) #(#pushes)*),
                quote!(Self(#(#takes),*)),
            )
        }
        Fields::Named(_) => (
            1,
            quote!(#krate::__private::ArgsWriter::new(1).push(self)),
            quote!(__args.take::<Self>("event")?),
        ),
    };
    Ok(quote! {
        #[automatically_derived]
        #[allow(unused_mut, clippy::all, clippy::pedantic, reason = "written for the compiler, not for readers")]
        impl #krate::__private::Event for #ident {
            const NAME: &'static str = #name;
            const ARITY: usize = #arity;

            fn encode_args(&self) -> ::core::result::Result<::std::vec::Vec<u8>, #krate::__private::Error> {
                #encode.finish()
            }

            fn decode_args(__bytes: &[u8]) -> ::core::result::Result<Self, #krate::__private::Error> {
                let mut __args = #krate::__private::Args::parse(#name, __bytes)?;
                ::core::result::Result::Ok(#decode)
            }
        }
    })
}

fn attributes(item: &DeriveInput) -> syn::Result<(String, Path)> {
    let mut name = camel_case(&item.ident);
    let mut krate: Path = syn::parse_quote!(::clinch);
    for attr in item.attrs.iter().filter(|attr| attr.path().is_ident("event")) {
        attr.parse_nested_meta(|meta| {
            let value: LitStr = meta.value()?.parse()?;
            if meta.path.is_ident("name") {
                name = value.value();
                check_wire_name(&name).map_err(|why| syn::Error::new(value.span(), why))
            } else if meta.path.is_ident("crate") {
                krate = value.parse()?;
                Ok(())
            } else {
                Err(meta.error("unknown argument; `#[event]` knows: name, crate"))
            }
        })?;
    }
    Ok((name, krate))
}
