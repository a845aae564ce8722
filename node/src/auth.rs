//! Who may do what at the gateway.
//!
//! Without any token the gateway is open, and `NodeConfig::validate` lets it listen on loopback only. With tokens,
//! every request needs one that allows enough; only SHA-256 hashes are kept, and they are compared in constant time.

use clinch_gateway::Scope;
use clinch_types::ActorError;
use subtle::ConstantTimeEq;

use crate::config::TokenConfig;

/// The tokens of a node.
#[derive(Debug, Clone)]
pub(crate) struct Tokens(Vec<TokenConfig>);

impl Tokens {
    pub(crate) fn new(tokens: Vec<TokenConfig>) -> Self {
        Self(tokens)
    }

    /// # Errors
    /// `api.unauthorized` without a token or with an unknown one, `api.forbidden` for one that allows less.
    pub(crate) fn authorize(
        &self,
        token: Option<&str>,
        scope: Scope,
        namespace: Option<&str>,
    ) -> Result<(), ActorError> {
        if self.0.is_empty() {
            return Ok(());
        }
        let token =
            token.ok_or_else(|| ActorError::new("api", "unauthorized", "this gateway wants a token"))?;
        let digest = ring::digest::digest(&ring::digest::SHA256, token.as_bytes());
        let mut found = None;
        for known in &self.0 {
            // Every token is compared, whole: the time taken tells nothing.
            let same: bool = digest.as_ref().ct_eq(&known.sha256.0).into();
            if same {
                found = Some(known);
            }
        }
        let known =
            found.ok_or_else(|| ActorError::new("api", "unauthorized", "the token is not known here"))?;
        let allowed = known.kind.scope();
        if scope > allowed {
            let message = format!("a {:?} token was given, this wants {scope:?}", allowed);
            return Err(ActorError::new("api", "forbidden", message));
        }
        match (&known.namespace, namespace) {
            (Some(mine), Some(asked)) if mine != asked => {
                let message = format!("the token is good for namespace {mine:?}, not for {asked:?}");
                Err(ActorError::new("api", "forbidden", message))
            }
            _ => Ok(()),
        }
    }

    /// The only namespace a (known) token is good for.
    pub(crate) fn namespace_of(&self, token: Option<&str>) -> Option<&str> {
        let digest = ring::digest::digest(&ring::digest::SHA256, token?.as_bytes());
        let mut found = None;
        for known in &self.0 {
            if digest.as_ref().ct_eq(&known.sha256.0).into() {
                found = known.namespace.as_deref();
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Sha256, TokenKind};

    fn tokens() -> Tokens {
        let hash = |text: &str| {
            let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
            Sha256(digest.as_ref().try_into().unwrap())
        };
        let token = |text, kind, namespace: Option<&str>| TokenConfig {
            kind,
            namespace: namespace.map(Into::into),
            sha256: hash(text),
        };
        Tokens::new(vec![
            token("pub", TokenKind::Publishable, Some("shop")),
            token("adm", TokenKind::Admin, None),
        ])
    }

    #[test]
    fn tokens_allow_what_their_kind_and_namespace_say_and_no_more() {
        let tokens = tokens();
        assert!(tokens.authorize(Some("adm"), Scope::Admin, None).is_ok());
        assert!(
            tokens
                .authorize(Some("pub"), Scope::Publishable, Some("shop"))
                .is_ok()
        );
        let code = |r: Result<(), ActorError>| r.unwrap_err().code;
        assert_eq!(
            code(tokens.authorize(None, Scope::Publishable, None)),
            "unauthorized"
        );
        assert_eq!(
            code(tokens.authorize(Some("pux"), Scope::Publishable, None)),
            "unauthorized"
        );
        assert_eq!(
            code(tokens.authorize(Some("pub"), Scope::Secret, Some("shop"))),
            "forbidden"
        );
        assert_eq!(
            code(tokens.authorize(Some("pub"), Scope::Publishable, Some("bank"))),
            "forbidden"
        );
        assert_eq!(tokens.namespace_of(Some("pub")), Some("shop"));
    }
}
