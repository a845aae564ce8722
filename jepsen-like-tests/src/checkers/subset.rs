//! Which of the increments of unknown outcome took effect between two known values.

use std::collections::BTreeMap;

/// Steps of the search before it gives up. Amounts of a key are distinct, and the newest candidates are tried first, so
/// a real gap is explained within a few.
const STEPS_MAX: usize = 2_000_000;

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    /// These candidates, by index.
    Yes(Vec<usize>),
    /// No choice fits.
    No,
    /// Too many to try.
    TooMany,
}

/// Chooses exactly `count` of the amounts with this sum; later ones are preferred.
pub(super) fn choose(amounts: &[i64], count: usize, sum: i64) -> Found {
    if count > amounts.len() {
        return Found::No;
    }
    let mut last: BTreeMap<i64, Vec<usize>> = BTreeMap::new();
    for (index, amount) in amounts.iter().enumerate() {
        last.entry(*amount).or_default().push(index);
    }
    let mut search = Search {
        amounts,
        places: last,
        chosen: Vec::new(),
        steps: 0,
    };
    match search.go(amounts.len(), count, sum) {
        true => Found::Yes(search.chosen),
        false if search.steps > STEPS_MAX => Found::TooMany,
        false => Found::No,
    }
}

struct Search<'a> {
    amounts: &'a [i64],
    /// Amount → its places, ascending: the last one to choose is looked up.
    places: BTreeMap<i64, Vec<usize>>,
    chosen: Vec<usize>,
    steps: usize,
}

impl Search<'_> {
    /// Chooses `count` of those below `end`.
    fn go(&mut self, end: usize, count: usize, sum: i64) -> bool {
        self.steps += 1;
        if self.steps > STEPS_MAX {
            return false;
        }
        if count == 0 {
            return sum == 0;
        }
        if count == 1 {
            let place = self
                .places
                .get(&sum)
                .and_then(|p| p.first())
                .filter(|p| **p < end);
            return place.is_some_and(|place| {
                self.chosen.push(*place);
                true
            });
        }
        for index in (count - 1..end).rev() {
            self.chosen.push(index);
            if self.go(index, count - 1, sum.wrapping_sub(self.amounts[index])) {
                return true;
            }
            self.chosen.pop();
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever was taken out of the amounts is explained, by as many that have the same sum.
        #[test]
        fn what_was_taken_is_found(amounts in prop::collection::vec(1i64..50, 0..9), mask in 0usize..512) {
            let taken: Vec<i64> = amounts.iter().enumerate().filter(|(i, _)| mask >> i & 1 == 1).map(|(_, a)| *a).collect();
            let sum = taken.iter().sum();
            let Found::Yes(mut found) = choose(&amounts, taken.len(), sum) else {
                return Err(TestCaseError::fail("not found"));
            };
            prop_assert_eq!(found.iter().map(|i| amounts[*i]).sum::<i64>(), sum);
            found.sort_unstable();
            found.dedup();
            prop_assert_eq!(found.len(), taken.len());
        }

        /// It agrees with trying everything.
        #[test]
        fn nothing_is_found_where_nothing_is(
            amounts in prop::collection::vec(1i64..20, 0..8), count in 0usize..5, sum in 0i64..60,
        ) {
            let fits = (0usize..1 << amounts.len()).any(|mask| {
                let taken = amounts.iter().enumerate().filter(|(i, _)| mask >> i & 1 == 1);
                mask.count_ones() as usize == count && taken.map(|(_, a)| a).sum::<i64>() == sum
            });
            prop_assert_eq!(matches!(choose(&amounts, count, sum), Found::Yes(_)), fits);
        }
    }

    #[test]
    fn a_hopeless_search_ends() {
        let even: Vec<i64> = (0..200).map(|i| 2 * i).collect();
        assert_eq!(choose(&even, 20, 4001), Found::TooMany);
    }
}
