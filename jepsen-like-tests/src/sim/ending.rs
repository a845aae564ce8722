//! What has to come to its end before the last looks: messages that wait, sends on their way.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use super::clients::Crew;
use super::roles::Role;
use crate::doors::Door;
use crate::history::{Op, Outcome};

/// Time that one call may take.
const CALL_MAX: Duration = Duration::from_secs(20);
/// Messages taken from one queue, at most.
const MESSAGES_MAX: usize = 5000;
/// Looks for what was sent before it counts as lost, and the pause between them.
const LOOKS_MAX: usize = 60;
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Time in which everybody who was in a hall is found to have left, whatever became of the gateway; and the pause between
/// two looks.
const LEAVE_MAX: Duration = Duration::from_secs(45);
const LEAVE_EVERY: Duration = Duration::from_secs(3);

impl Crew {
    fn of_role(&self, role: Role) -> impl Iterator<Item = &String> {
        self.keys.iter().filter(move |key| Role::of(key) == role)
    }

    /// Takes what is in the queues. Nobody else works on them any more.
    pub(super) async fn drain(&self, door: &Door) {
        for key in self.of_role(Role::Queue) {
            for _ in 0..MESSAGES_MAX {
                tokio::time::sleep(Duration::from_millis(1)).await;
                let answer = self.calls.call(door, "last", key, Op::Pop, CALL_MAX).await;
                if answer.list.is_empty() {
                    break;
                }
            }
        }
    }

    /// Waits until what was sent has arrived, for as long as it may take. Whether it has is for the laws to say.
    pub(super) async fn wait_for_sends(&self, door: &Door) {
        for _ in 0..LOOKS_MAX {
            if self.is_balanced(door).await && self.has_arrived(door).await {
                return;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until everybody has left the halls. Nobody enters any more.
    pub(super) async fn wait_for_leaves(&self, door: &Door) {
        let until = Instant::now() + LEAVE_MAX;
        while Instant::now() < until {
            let mut is_empty = true;
            for key in self.of_role(Role::Hall) {
                let answer = self.calls.call(door, "last", key, Op::Visits, CALL_MAX).await;
                let entered = answer.list.first().and_then(|count| usize::try_from(*count).ok());
                is_empty &= entered.is_some_and(|entered| answer.list.len() == 1 + 2 * entered);
            }
            if is_empty {
                return;
            }
            tokio::time::sleep(LEAVE_EVERY).await;
        }
    }

    async fn is_balanced(&self, door: &Door) -> bool {
        let mut total = 0;
        for key in self.of_role(Role::Account) {
            match self
                .calls
                .call(door, "last", key, Op::Account, CALL_MAX)
                .await
                .outcome
            {
                Outcome::Ok(balance) => total += balance,
                Outcome::Fail | Outcome::Unknown => return false,
            }
        }
        total == 0
    }

    async fn has_arrived(&self, door: &Door) -> bool {
        let mut there: BTreeSet<(String, i64)> = BTreeSet::new();
        for key in self.of_role(Role::Chain) {
            let answer = self.calls.call(door, "last", key, Op::List, CALL_MAX).await;
            if !answer.is_ok() {
                return false;
            }
            there.extend(answer.list.into_iter().map(|value| (key.clone(), value)));
        }
        let operations = self.calls.recorder.operations();
        operations.into_iter().all(|operation| match operation.op {
            Op::Relay(value, to) => {
                !there.contains(&(operation.key, value)) || there.contains(&(format!("x{to}"), value))
            }
            _ => true,
        })
    }
}
