//! What is done with the actors of a run.
//!
//! Not here: how often, and by whom ([`super::clients`]).

use crate::history::Op;

/// What is done with an actor, told by the first letter of its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Counter,
    Register,
    List,
    Stamp,
    Schedule,
    Churn,
    Account,
    Chain,
    Queue,
    Ticker,
    Events,
    Hall,
    Buyer,
    /// What buyers call; there is one if there are any.
    Till,
}

impl Role {
    /// All but counters, which every run has.
    pub(super) const OTHERS: [(Self, &'static str); 12] = [
        (Self::Register, "r"),
        (Self::List, "l"),
        (Self::Stamp, "s"),
        (Self::Schedule, "t"),
        (Self::Churn, "d"),
        (Self::Account, "b"),
        (Self::Chain, "x"),
        (Self::Queue, "q"),
        (Self::Ticker, "c"),
        (Self::Events, "e"),
        (Self::Hall, "h"),
        (Self::Buyer, "w"),
    ];

    /// Whether what such an actor accepts happens later: by a schedule, elsewhere, or when somebody takes it.
    pub(super) fn takes_time(self) -> bool {
        matches!(
            self,
            Self::Schedule | Self::Account | Self::Chain | Self::Queue | Self::Ticker
        )
    }

    /// Fewest actors of this role.
    pub(super) fn least(self) -> usize {
        match self {
            Self::Account | Self::Chain => 2,
            _ => 1,
        }
    }

    pub(super) fn of(key: &str) -> Self {
        if key.starts_with('v') {
            return Self::Till;
        }
        let found = Self::OTHERS
            .into_iter()
            .find(|(_, letter)| key.starts_with(letter));
        found.map_or(Self::Counter, |(role, _)| role)
    }

    /// What only looks at such an actor.
    pub(super) fn look(self) -> Op {
        match self {
            Self::Counter => Op::Read,
            Self::Register => Op::Get,
            Self::List | Self::Chain | Self::Events => Op::List,
            Self::Stamp => Op::Stamps,
            Self::Schedule => Op::Fired,
            Self::Churn => Op::Sum,
            Self::Account => Op::Account,
            Self::Queue => Op::Works,
            Self::Ticker => Op::Ticks,
            Self::Hall => Op::Visits,
            Self::Buyer => Op::Bought,
            Self::Till => Op::Till,
        }
    }

    /// The last calls on an actor of this role: something that writes if it can be repeated, and a look.
    pub(super) fn last_calls(self, number: i64) -> Vec<Op> {
        let first = match self {
            Self::Counter => vec![Op::Increment(number)],
            Self::Register => vec![Op::Write(number)],
            Self::List => vec![Op::Append(number)],
            Self::Stamp => vec![Op::Stamp(number)],
            Self::Churn => vec![Op::Add(number)],
            Self::Events => vec![Op::Tell(number)],
            Self::Hall => vec![Op::Tell(number), Op::List],
            Self::Buyer => vec![Op::Buy(number)],
            Self::Schedule | Self::Account | Self::Chain | Self::Queue | Self::Ticker | Self::Till => {
                Vec::new()
            }
        };
        first.into_iter().chain([self.look()]).collect()
    }
}
