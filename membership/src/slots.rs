//! The slot table: which shard holds which slot.

use clinch_types::{ShardId, Slot};

/// The table of a new cluster: contiguous ranges whose sizes differ by at most one.
///
/// `shards` is brought into 1 to [`Slot::COUNT`].
pub fn initial(shards: u32) -> Vec<ShardId> {
    let shards = shards.clamp(1, u32::from(Slot::COUNT));
    (0..u32::from(Slot::COUNT))
        .map(|slot| ShardId(slot * shards / u32::from(Slot::COUNT)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shard_gets_one_range_and_no_range_is_two_longer_than_another() {
        for shards in 1..=u32::from(Slot::COUNT) {
            let table = initial(shards);
            assert_eq!(table.len(), usize::from(Slot::COUNT));
            assert!(table.is_sorted(), "ranges of {shards} shards are contiguous");
            let mut sizes = vec![0u32; shards as usize];
            for shard in &table {
                sizes[shard.0 as usize] += 1;
            }
            let (min, max) = (sizes.iter().min().unwrap(), sizes.iter().max().unwrap());
            assert!(*min >= 1 && max - min <= 1, "{shards} shards: {min} to {max}");
        }
    }

    /// A change here moves actors of clusters that exist.
    #[test]
    fn the_table_of_sixteen_shards_never_changes() {
        let table = initial(16);
        assert_eq!(table[0], ShardId(0));
        assert_eq!(table[63], ShardId(0));
        assert_eq!(table[64], ShardId(1));
        assert_eq!(table[1023], ShardId(15));
    }

    #[test]
    fn a_number_of_shards_out_of_range_is_brought_into_it() {
        assert_eq!(initial(0), initial(1));
        assert_eq!(initial(5000), initial(1024));
    }
}
