//! G1, G4, G5, A11: what one actor pays another arrives exactly once and in order, what failed never does, and in the end
//! nothing is on its way: all balances together are nothing.

use std::collections::{BTreeMap, BTreeSet};

use super::{Law, Placed, Report, by_key, placed};
use crate::history::{Op, Operation, Outcome};

/// Of each payment its amount, and the other account.
type Book = Vec<(i64, i64)>;

/// The last look at one account.
struct Account<'a> {
    look: &'a Operation,
    value: i64,
    paid: Book,
    got: Book,
}

pub(super) fn check(operations: &[Operation], report: &mut Report) {
    let mut accounts: BTreeMap<i64, Account<'_>> = BTreeMap::new();
    let mut asked: BTreeMap<i64, &Operation> = BTreeMap::new();
    let mut pays: BTreeSet<&str> = BTreeSet::new();
    for (key, operations) in by_key(operations) {
        let is_account = |o: &&Operation| matches!(o.op, Op::Pay(..) | Op::Account);
        let Some(number) = number(key).filter(|_| operations.iter().any(is_account)) else {
            continue;
        };
        pays.insert(key);
        report.key = key.to_owned();
        for operation in &operations {
            if let Op::Pay(amount, _) | Op::Spoil(amount) = operation.op {
                asked.insert(amount, operation);
            }
        }
        let placed = placed(&operations);
        let looks: Vec<&Placed<'_>> = placed.iter().filter(|p| p.operation.op == Op::Account).collect();
        for pair in looks.windows(2) {
            let ((one, got_one), (two, got_two)) = (parts(pair[0]), parts(pair[1]));
            if !two.starts_with(&one) || !got_two.starts_with(&got_one) {
                let text = "what was paid or got is not what it was".to_owned();
                report.add(Law::Payments, &[pair[0].operation, pair[1].operation], text);
            }
        }
        let Some(last) = looks.last() else { continue };
        let (paid, got) = parts(last);
        let (look, value) = (last.operation, last.value);
        accounts.insert(
            number,
            Account {
                look,
                value,
                paid,
                got,
            },
        );
        acknowledged(&placed, &accounts[&number], last, report);
    }
    for (number, account) in &accounts {
        report.key = account.look.key.clone();
        honest(account, &asked, report);
        arrivals(*number, account, &accounts, report);
    }
    if accounts.len() == pays.len() {
        at_the_end(operations, &accounts, report);
    }
}

/// `b3` is 3.
fn number(key: &str) -> Option<i64> {
    key.get(1..)?.parse().ok()
}

fn parts(look: &Placed<'_>) -> (Book, Book) {
    let list = &look.operation.list;
    let count = list.first().and_then(|n| usize::try_from(*n).ok()).unwrap_or(0);
    let rest = list.get(1..).unwrap_or_default();
    let (paid, got) = rest.split_at(count.min(rest.len()));
    let pairs = |list: &[i64]| list.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
    (pairs(paid), pairs(got))
}

/// What was acknowledged is in the book of the payer.
fn acknowledged(placed: &[Placed<'_>], account: &Account<'_>, last: &Placed<'_>, report: &mut Report) {
    let paid: BTreeSet<&(i64, i64)> = account.paid.iter().collect();
    for pay in placed {
        if let Op::Pay(amount, to) = pay.operation.op
            && pay.meta.version <= last.meta.version
            && !paid.contains(&(amount, to))
        {
            let text = format!("paying {amount} to {to} was acknowledged and is not in the book");
            report.add(Law::Payments, &[pay.operation, last.operation], text);
        }
    }
    let sum = |list: &[(i64, i64)]| list.iter().map(|(amount, _)| amount).sum::<i64>();
    if account.value != sum(&account.got) - sum(&account.paid) {
        let text = format!("the balance {} is not what its book says", account.value);
        report.add(Law::Payments, &[last.operation], text);
    }
}

fn honest(account: &Account<'_>, asked: &BTreeMap<i64, &Operation>, report: &mut Report) {
    for (amount, _) in account.paid.iter().chain(&account.got) {
        match asked.get(amount) {
            None => report.add(
                Law::Payments,
                &[account.look],
                format!("nobody asked for a payment of {amount}"),
            ),
            Some(pay) if pay.outcome == Outcome::Fail => {
                let text = format!("paying {amount} was said to have failed, and it is in a book");
                report.add(Law::Honest, &[pay, account.look], text);
            }
            Some(_) => {}
        }
    }
}

/// What arrived is what was sent, once, in order. A payer's book may have been looked at before the payment was made.
fn arrivals(me: i64, account: &Account<'_>, accounts: &BTreeMap<i64, Account<'_>>, report: &mut Report) {
    for (from, payer) in accounts {
        let sent = payer
            .paid
            .iter()
            .filter(|(_, to)| *to == me)
            .map(|(amount, _)| *amount);
        let sent: Vec<i64> = sent.collect();
        let got = account.got.iter().filter(|(_, other)| other == from);
        let got: Vec<i64> = got.map(|(amount, _)| *amount).collect();
        let same = sent.len().min(got.len());
        let once: BTreeSet<&i64> = got.iter().collect();
        if sent[..same] != got[..same] || once.len() < got.len() {
            let text = format!("from {from} came {:?}, sent was {:?}", tail(&got), tail(&sent));
            report.add(Law::Payments, &[payer.look, account.look], text);
        }
    }
}

fn tail(list: &[i64]) -> &[i64] {
    &list[list.len().saturating_sub(6)..]
}

/// When nobody paid any more before the last looks.
fn at_the_end(operations: &[Operation], accounts: &BTreeMap<i64, Account<'_>>, report: &mut Report) {
    let Some(first) = accounts.values().map(|a| a.look.invoke_ns).min() else {
        return;
    };
    let quiet = operations
        .iter()
        .filter(|o| matches!(o.op, Op::Pay(..)))
        .all(|o| o.return_ns.is_some_and(|returned| returned < first));
    let total: i64 = accounts.values().map(|account| account.value).sum();
    if quiet && total != 0 {
        let looks: Vec<&Operation> = accounts.values().map(|account| account.look).collect();
        let text = format!("all balances together are {total}: something was sent and never arrived");
        report.add(Law::Arrived, &looks, text);
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{Sample, laws_of_all};
    use super::*;

    /// Two accounts; `b0` paid 5 and 6 to `b1`.
    fn looked(one: (i64, &[i64]), two: (i64, &[i64])) -> Vec<Law> {
        let mut sample = Sample::default();
        sample.key("b0");
        sample.ok(Op::Pay(5, 1), (0, 10), -5, &[], 1, 2);
        sample.ok(Op::Pay(6, 1), (11, 20), -11, &[], 1, 3);
        sample.failed(Op::Spoil(7), 21);
        sample.ok(Op::Account, (30, 40), one.0, one.1, 1, 3);
        sample.key("b1");
        sample.ok(Op::Account, (31, 41), two.0, two.1, 1, 3);
        laws_of_all(check, &sample)
    }

    #[test]
    fn payments_that_arrive_once_and_in_order_are_sound_and_all_else_is_found() {
        let paid = (-11, &[4, 5, 1, 6, 1][..]);
        assert_eq!(looked(paid, (11, &[0, 5, 0, 6, 0])), []);
        assert_eq!(looked(paid, (5, &[0, 5, 0])), [Law::Arrived], "6 never arrived");
        assert_eq!(
            looked(paid, (16, &[0, 5, 0, 6, 0, 5, 0])),
            [Law::Payments, Law::Arrived]
        );
        assert_eq!(
            looked(paid, (11, &[0, 6, 0, 5, 0])),
            [Law::Payments],
            "out of order"
        );
        assert_eq!(
            looked(paid, (12, &[0, 5, 0, 6, 0])),
            [Law::Payments, Law::Arrived]
        );
        let spoilt = looked(paid, (18, &[0, 5, 0, 6, 0, 7, 0]));
        assert!(spoilt.contains(&Law::Honest), "{spoilt:?}");
        let forgot = looked((-5, &[2, 5, 1]), (5, &[0, 5, 0]));
        assert_eq!(forgot, [Law::Payments], "an acknowledged one is not in the book");
    }
}
