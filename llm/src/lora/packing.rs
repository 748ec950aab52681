//! How examples share a micro-batch without padding: best fit, longest first.

/// Indices of examples per pack: each exactly once, no pack over `budget` tokens unless one
/// example alone is. Equal lengths keep their order, so the result depends on `lengths` alone.
pub fn pack(lengths: &[usize], budget: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|i| std::cmp::Reverse(lengths[*i]));
    let mut packs: Vec<(usize, Vec<usize>)> = vec![];
    for i in order {
        let fits = packs
            .iter_mut()
            .filter(|(used, _)| used + lengths[i] <= budget)
            .max_by_key(|(used, _)| *used);
        match fits {
            Some((used, pack)) => {
                *used += lengths[i];
                pack.push(i);
            }
            None => packs.push((lengths[i], vec![i])),
        }
    }
    packs.into_iter().map(|(_, pack)| pack).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fills_gaps_with_the_best_fit() {
        assert_eq!(pack(&[5, 3, 7, 2], 10), [vec![2, 1], vec![0, 3]]);
        assert!(pack(&[], 10).is_empty());
    }

    proptest! {
        #[test]
        fn every_example_once_and_within_budget(
            lengths in prop::collection::vec(1usize..50, 0..60),
            budget in 10usize..80,
        ) {
            let packs = pack(&lengths, budget);
            let mut all: Vec<usize> = packs.iter().flatten().copied().collect();
            all.sort_unstable();
            prop_assert_eq!(all, (0..lengths.len()).collect::<Vec<_>>());
            for pack in packs {
                let used: usize = pack.iter().map(|i| lengths[*i]).sum();
                prop_assert!(used <= budget || pack.len() == 1);
            }
        }
    }
}
