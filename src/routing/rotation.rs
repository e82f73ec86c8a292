//! The weighted choice: rendezvous hashing, in which every item has a score of its own for a key, and the highest wins.
//!
//! The score of an item of weight `w` is `-w / ln(u)`, with `u` evenly spread in (0, 1) by SipHash-1-3 of key, salt and the
//! item's id; so an item wins with the share that its weight has of all (Schindelhauer and Schomaker, "Weighted
//! Distributed Hash Tables", 2005). What changes in one item moves only keys to it or from it: a visitor who has the same
//! key gets the same item while it is there, and an item that may not take any more leaves its keys to the next ones, in
//! the proportion of their weights. Stages have salts of their own, or the choice of one would say that of the next.

use std::hash::Hasher as _;

use siphasher::sip::SipHasher13;

/// Something to choose.
pub(super) trait Item {
    /// What its score hangs on, different among the items of one choice.
    fn id(&self) -> i64;

    /// Its share; 0 is never chosen.
    fn weight(&self) -> u32;
}

/// What was chosen.
#[derive(Debug)]
pub(super) struct Drawn<'a, T> {
    /// The highest score of those that may take it; `None`: none may.
    pub(super) chosen: Option<&'a T>,
    /// The highest score of all.
    pub(super) first: &'a T,
}

impl<T> Drawn<'_, T> {
    /// Whether what has the highest score may not take any more.
    pub(super) fn is_first_full(&self) -> bool {
        self.chosen.is_none_or(|chosen| !std::ptr::eq(chosen, self.first))
    }
}

/// Chooses among items; `None` where all weights are 0. `is_full` is asked in the order of the items.
pub(super) fn draw<'a, T: Item>(
    items: impl Iterator<Item = &'a T>,
    key: u64,
    salt: u64,
    is_full: impl Fn(&T) -> bool,
) -> Option<Drawn<'a, T>> {
    let mut items = items.filter(|item| item.weight() > 0).peekable();
    let only = items.next()?;
    if items.peek().is_none() {
        return Some(Drawn { chosen: (!is_full(only)).then_some(only), first: only });
    }
    let (mut first, mut chosen) = ((only, score(only, key, salt)), None);
    if !is_full(only) {
        chosen = Some(first);
    }
    for item in items {
        let scored = (item, score(item, key, salt));
        if scored.1 > first.1 {
            first = scored;
        }
        if chosen.is_none_or(|(_, best)| scored.1 > best) && !is_full(item) {
            chosen = Some(scored);
        }
    }
    Some(Drawn { chosen: chosen.map(|(item, _)| item), first: first.0 })
}

fn score(item: &impl Item, key: u64, salt: u64) -> f64 {
    let mut hasher = SipHasher13::new_with_keys(key, salt);
    hasher.write_i64(item.id());
    // the upper 53 bits and a half: never 0, never 1
    #[expect(clippy::cast_precision_loss, reason = "53 bits are exact")]
    let u = ((hasher.finish() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    -f64::from(item.weight()) / u.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Clone, Copy, PartialEq)]
    struct Weighted(i64, u32);

    impl Item for Weighted {
        fn id(&self) -> i64 {
            self.0
        }

        fn weight(&self) -> u32 {
            self.1
        }
    }

    fn chosen(items: &[Weighted], key: u64, salt: u64) -> Option<i64> {
        draw(items.iter(), key, salt, |_| false).and_then(|drawn| drawn.chosen).map(|item| item.0)
    }

    fn key(i: u64) -> u64 {
        i.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    #[test]
    fn shares_follow_the_weights_within_one_percent() {
        let items = [Weighted(1, 5), Weighted(2, 0), Weighted(3, 3), Weighted(4, 2)];
        let mut counts = [0_u32; 5];
        for i in 0..1_000_000 {
            counts[usize::try_from(chosen(&items, key(i), 7).unwrap()).unwrap()] += 1;
        }
        for (id, wanted) in [(1, 0.5), (2, 0.0), (3, 0.3), (4, 0.2)] {
            let share = f64::from(counts[id]) / 1e6;
            assert!((share - wanted).abs() <= 0.01 * wanted, "{id}: {share}");
        }
    }

    #[test]
    fn stages_are_independent() {
        let items = [Weighted(1, 1), Weighted(2, 1), Weighted(3, 2)];
        let mut cells = [[0_f64; 3]; 3];
        let count = 300_000;
        for i in 0..count {
            let place = |salt| usize::try_from(chosen(&items, key(i), salt).unwrap() - 1).unwrap();
            cells[place(1)][place(2)] += 1.0;
        }
        let share = [0.25, 0.25, 0.5];
        #[expect(clippy::cast_precision_loss, reason = "small")]
        let expected = |a: usize, b: usize| share[a] * share[b] * count as f64;
        let all = (0..3).flat_map(|a| (0..3).map(move |b| (a, b)));
        let chi_square: f64 = all.map(|(a, b)| (cells[a][b] - expected(a, b)).powi(2) / expected(a, b)).sum();
        // 8 degrees of freedom: 26.1 is passed by chance once in a thousand
        assert!(chi_square < 26.1, "{chi_square}");
    }

    #[test]
    fn a_changed_weight_moves_keys_only_to_or_from_its_item_and_a_removed_one_only_its_own() {
        let before = [Weighted(1, 5), Weighted(2, 3), Weighted(3, 2)];
        let heavier = [Weighted(1, 5), Weighted(2, 6), Weighted(3, 2)];
        let without = [Weighted(1, 5), Weighted(3, 2)];
        for i in 0..100_000 {
            let was = chosen(&before, key(i), 1).unwrap();
            let now = chosen(&heavier, key(i), 1).unwrap();
            assert!(now == was || now == 2, "{was} {now}");
            let left = chosen(&without, key(i), 1).unwrap();
            assert!(left == was || was == 2, "{was} {left}");
        }
    }

    #[test]
    fn a_full_item_leaves_its_keys_to_the_next_ones() {
        let items = [Weighted(1, 5), Weighted(2, 3), Weighted(3, 2)];
        for i in 0..1_000 {
            let drawn = draw(items.iter(), key(i), 1, |item| item.0 == 1).unwrap();
            let open = chosen(&items[1..], key(i), 1);
            assert_eq!(drawn.chosen.map(|item| item.0), open);
            assert_eq!(drawn.is_first_full(), drawn.first.0 == 1);
        }
        let none = draw(items.iter(), 1, 1, |_| true).unwrap();
        assert!(none.chosen.is_none() && none.is_first_full());
        assert!(draw([Weighted(1, 0)].iter(), 1, 1, |_| false).is_none());
    }
}
