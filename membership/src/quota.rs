//! How much each node should hold: its share by weight, but never more than one replica of each shard.

/// Shares over one common denominator, so that loads and shares are compared without rounding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Quotas {
    numerators: Vec<u64>,
    denominator: u64,
}

impl Quotas {
    /// Splits `total` over the nodes in proportion to their weights, none above `cap`. What does not fit on a
    /// capped node is split over the others; what fits nowhere is left out.
    pub(crate) fn split(total: u64, cap: u64, weights: &[u32]) -> Self {
        let mut capped = vec![false; weights.len()];
        loop {
            let rest = total.saturating_sub(cap * capped.iter().filter(|capped| **capped).count() as u64);
            let free = || weights.iter().zip(&capped).filter(|(_, capped)| !**capped);
            let weight: u64 = free().map(|(&weight, _)| u64::from(weight)).sum();
            // Capping one raises the share of the others, so look again until none is over.
            let over: Vec<bool> = weights
                .iter()
                .zip(&capped)
                .map(|(&own, &capped)| !capped && own > 0 && rest * u64::from(own) > cap * weight)
                .collect();
            if !over.contains(&true) {
                let denominator = weight.max(1);
                let numerators = weights
                    .iter()
                    .zip(&capped)
                    .map(|(&own, &capped)| {
                        if capped {
                            cap * denominator
                        } else {
                            rest * u64::from(own)
                        }
                    })
                    .collect();
                return Self {
                    numerators,
                    denominator,
                };
            }
            for (capped, over) in capped.iter_mut().zip(over) {
                *capped |= over;
            }
        }
    }

    /// How far a load is above (or, negative, below) the node's share, in units of [`Quotas::one`].
    pub(crate) fn excess(&self, node: usize, load: u64) -> i64 {
        // Bounded far below 2^63: at most 1,024 shards x 7 replicas x 10,000 nodes x weight 1,000.
        (load * self.denominator).cast_signed() - self.numerators[node].cast_signed()
    }

    /// One replica, in the units of [`Quotas::excess`].
    pub(crate) fn one(&self) -> i64 {
        self.denominator.cast_signed()
    }

    /// The share, rounded down.
    pub(crate) fn floor(&self, node: usize) -> u64 {
        self.numerators[node] / self.denominator
    }

    /// The share, rounded up.
    pub(crate) fn ceil(&self, node: usize) -> u64 {
        self.numerators[node].div_ceil(self.denominator)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn shares_follow_weights_and_what_a_capped_node_cannot_take_goes_to_the_others() {
        let even = Quotas::split(10, 10, &[1, 1, 1]);
        assert_eq!((even.floor(0), even.ceil(0)), (3, 4));
        let weighted = Quotas::split(12, 10, &[1, 2, 3, 0]);
        assert_eq!([0, 1, 2, 3].map(|node| weighted.ceil(node)), [2, 4, 6, 0]);
        let capped = Quotas::split(12, 4, &[1, 1, 100, 1]);
        assert_eq!([0, 1, 2, 3].map(|node| capped.ceil(node)), [3, 3, 4, 3]);
        assert_eq!(capped.floor(0), 2);
        let full = Quotas::split(12, 4, &[1, 1, 1]);
        assert_eq!([0, 1, 2].map(|node| full.ceil(node)), [4, 4, 4]);
    }

    proptest! {
        /// Shares add up to the total when it fits, and none is above the cap.
        #[test]
        fn nothing_is_lost_and_nothing_is_over(
            weights in prop::collection::vec(0u32..50, 1..20), cap in 1u64..100, replicas in 1u64..8,
        ) {
            let bearing = weights.iter().filter(|weight| **weight > 0).count() as u64;
            let total = cap * replicas.min(bearing);
            let quotas = Quotas::split(total, cap, &weights);
            let sum: u64 = quotas.numerators.iter().sum();
            prop_assert_eq!(sum, total * quotas.denominator);
            prop_assert!((0..weights.len()).all(|node| quotas.ceil(node) <= cap));
        }
    }
}
