//! Augmenting paths: the shortest chain of moves that takes load from a fuller node to an emptier one.
//!
//! Invariant: carrying a path out lowers the sum of squared excesses, so repeating until there is none ends.

use std::cmp::Reverse;

/// One move of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hop {
    /// Index of the shard that moves.
    pub(crate) shard: usize,
    /// Index of the node it moves from.
    pub(crate) from: usize,
    /// Index of the node it moves to.
    pub(crate) to: usize,
}

/// Finds a chain of moves from the fullest node that has one to the emptiest node within reach that is more than
/// `one` below it. Between nodes equally full the shorter chain wins, then the lower index.
///
/// `movable(from, to, used)` names the shard that would move from one node to the other; it must not be one of
/// `used`, the hops that lead to `from`.
pub(crate) fn improving_path(
    excess: &[i64],
    one: i64,
    movable: impl Fn(usize, usize, &[Hop]) -> Option<usize>,
) -> Option<Vec<Hop>> {
    let least = excess.iter().min()?;
    let mut sources: Vec<usize> = (0..excess.len())
        .filter(|&node| excess[node] - least > one)
        .collect();
    sources.sort_by_key(|&node| (Reverse(excess[node]), node));
    // Whatever a fuller source reached in vain is no use to a less full one either: visit each node once in all.
    let mut visited = vec![false; excess.len()];
    for equals in sources.chunk_by(|a, b| excess[*a] == excess[*b]) {
        let mut level: Vec<Path> = Vec::new();
        for &source in equals.iter().filter(|source| !visited[**source]) {
            level.push(Path {
                end: source,
                hops: Vec::new(),
            });
        }
        level.iter().for_each(|path| visited[path.end] = true);
        while !level.is_empty() {
            level = next_level(&level, &mut visited, &movable);
            let emptiest = level.iter().min_by_key(|path| (excess[path.end], path.end));
            if let Some(path) = emptiest
                && excess[equals[0]] - excess[path.end] > one
            {
                return Some(path.hops.clone());
            }
        }
    }
    None
}

/// A chain of moves under construction.
struct Path {
    /// The last node reached.
    end: usize,
    hops: Vec<Hop>,
}

/// All paths that are one hop longer and end at a node not visited before.
fn next_level(
    level: &[Path],
    visited: &mut [bool],
    movable: &impl Fn(usize, usize, &[Hop]) -> Option<usize>,
) -> Vec<Path> {
    let mut longer = Vec::new();
    for path in level {
        for (to, visited) in visited.iter_mut().enumerate().filter(|(_, visited)| !**visited) {
            if let Some(shard) = movable(path.end, to, &path.hops) {
                *visited = true;
                let mut hops = path.hops.clone();
                hops.push(Hop {
                    shard,
                    from: path.end,
                    to,
                });
                longer.push(Path { end: to, hops });
            }
        }
    }
    longer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_chain_wins_and_a_chain_is_found_where_no_single_move_helps() {
        // 0 may give to 1, 1 to 2; only 2 is empty.
        let chain = |from: usize, to: usize, _: &[Hop]| (to == from + 1).then_some(from * 10);
        let path = improving_path(&[5, 5, 0], 1, chain).unwrap();
        assert_eq!(
            path.iter().map(|hop| (hop.from, hop.to)).collect::<Vec<_>>(),
            [(1, 2)]
        );
        let path = improving_path(&[6, 5, 0], 1, chain).unwrap();
        assert_eq!(
            path.iter()
                .map(|hop| (hop.from, hop.to, hop.shard))
                .collect::<Vec<_>>(),
            [(0, 1, 0), (1, 2, 10)]
        );
    }

    #[test]
    fn nothing_moves_between_nodes_within_one_of_each_other() {
        let any = |_: usize, _: usize, _: &[Hop]| Some(0);
        assert_eq!(improving_path(&[1, 0, 1], 1, any), None);
        assert_eq!(improving_path(&[], 1, any), None);
        assert!(improving_path(&[2, 0, 1], 1, any).is_some());
    }
}
