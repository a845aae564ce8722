//! Tokens of actors: each opens the inspector of one actor, and nothing else.
//!
//! Invariant: a token is made of the actor's id and of a secret that the control group keeps, so it is the same at every
//! gateway, after every restart and at every owner, and whoever has tokens cannot make others of them.
//! Not here: the secret's place in the cluster state (`membership`), how a token is written (gateway).

use std::time::Duration;

use clinch_membership::Command;
use clinch_types::{ActorError, ActorId, code, group};
use ring::hmac;

use crate::backend::NodeBackend;

/// Time for the cluster to make the secret.
const SECRET_MAX: Duration = Duration::from_secs(10);
/// What the secret is used for stands in front of what is signed, should it ever be used for anything else.
const PURPOSE: &[u8] = b"clinch inspector token 1\0";

fn signed(actor: ActorId) -> Vec<u8> {
    [PURPOSE, actor.as_bytes()].concat()
}

fn key(secret: &[u8; 32]) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, secret)
}

fn token(secret: &[u8; 32], actor: ActorId) -> [u8; 32] {
    let tag = hmac::sign(&key(secret), &signed(actor));
    tag.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// Takes as long whatever is wrong with the token.
fn is_token(secret: &[u8; 32], actor: ActorId, token: &[u8; 32]) -> bool {
    hmac::verify(&key(secret), &signed(actor), token).is_ok()
}

impl NodeBackend {
    /// The token of an actor, whether there is such an actor or not.
    ///
    /// # Errors
    /// `guard.service_unavailable` when the cluster has no secret yet and cannot make one now.
    pub(crate) async fn token_of(&self, actor: ActorId) -> Result<[u8; 32], ActorError> {
        let unavailable = |why: &dyn std::fmt::Display| {
            let message = format!("the cluster has no secret for tokens of inspectors yet: {why}");
            ActorError::new(group::GUARD, code::SERVICE_UNAVAILABLE, message)
        };
        if self.inspector_secret().is_none() {
            let command = Command::MakeInspectorSecret {
                secret: self.rng.seed(),
                created: self.clock.wall(),
            };
            let made = self.control.propose(command, SECRET_MAX).await;
            // A control leader of a release that does not know the command is asked in vain, too.
            made.map_err(|error| unavailable(&error))?;
        }
        let mut state = self.control.watch();
        let known = state.wait_for(|state| state.as_ref().is_some_and(|s| s.inspector_secret().is_some()));
        // Whatever was proposed: what counts is the one that is there.
        match tokio::time::timeout(SECRET_MAX, known).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) | Err(_) => return Err(unavailable(&"this node has not heard of it")),
        }
        let secret = self.inspector_secret();
        let secret = secret.ok_or_else(|| unavailable(&"it was taken away"))?;
        Ok(token(&secret, actor))
    }

    /// Whether this is the token of that actor.
    pub(crate) fn opens(&self, actor: ActorId, token: &[u8; 32]) -> bool {
        self.inspector_secret()
            .is_some_and(|secret| is_token(&secret, actor, token))
    }

    fn inspector_secret(&self) -> Option<[u8; 32]> {
        self.control.state()?.inspector_secret().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clinch_types::{RegionId, Slot};

    #[test]
    fn a_token_is_of_one_actor_and_one_secret_and_never_changes() {
        let actor = |number| ActorId::new(RegionId(0), Slot(3), number);
        let made = token(&[1; 32], actor(9));
        let hex: String = made.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, GOLDEN, "people have written it down");
        assert!(is_token(&[1; 32], actor(9), &made));
        assert!(!is_token(&[1; 32], actor(8), &made));
        assert!(!is_token(&[2; 32], actor(9), &made));
        for at in [0, 31] {
            let mut wrong = made;
            wrong[at] ^= 1;
            assert!(!is_token(&[1; 32], actor(9), &wrong));
        }
    }
    const GOLDEN: &str = "45e887f2909f9225ad9513ec4cafa93c82b75c1a4a7444836785b1c1fffb5767";
}
