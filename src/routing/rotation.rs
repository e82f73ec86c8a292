//! Weighted choice by a seed.

/// The item whose share of the total weight holds the seed; `None` when all weights are zero.
///
/// The seed is scaled to the total by a 128-bit product (Lemire, "Fast Random Integer Generation in an
/// Interval", 2019), so shares are exact to 2^-32 of the total.
pub(super) fn pick<T>(items: &[T], weight: impl Fn(&T) -> u32, seed: u64) -> Option<&T> {
    let total: u64 = items.iter().map(|i| u64::from(weight(i))).sum();
    let mut point = u64::try_from((u128::from(seed) * u128::from(total)) >> 64).ok()?;
    items.iter().find(|item| {
        let share = u64::from(weight(item));
        let found = point < share;
        point = point.saturating_sub(share);
        found
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::id::ClickId;

    #[test]
    fn shares_follow_the_weights() {
        let items = [1u32, 0, 3];
        let mut counts = [0u32; 3];
        for _ in 0..20_000 {
            let picked = pick(&items, |w| *w, ClickId::now().seed()).unwrap();
            counts[items.iter().position(|i| std::ptr::eq(i, picked)).unwrap()] += 1;
        }
        assert_eq!(counts[1], 0);
        let share = f64::from(counts[2]) / 20_000.0;
        assert!((0.73..0.77).contains(&share), "{share}");
    }

    #[test]
    fn nothing_to_choose_from_is_none() {
        assert_eq!(pick(&[0u32, 0], |w| *w, 5), None);
        assert_eq!(pick::<u32>(&[], |w| *w, 5), None);
    }
}
