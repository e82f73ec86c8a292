//! Keys as visitors ask for them: the n-th most popular one is asked for 1/n as often as the most popular one.

/// Zipf's law with exponent 1.
pub(crate) struct Zipf {
    /// The sum of the weights up to each rank.
    sums: Vec<f64>,
}

impl Zipf {
    /// Over the ranks 0 to `ranks` - 1.
    pub(crate) fn new(ranks: usize) -> Self {
        let mut sum = 0.0;
        let weights = (1..=ranks).map(|rank| 1.0 / rank as f64);
        Self {
            sums: weights
                .map(|weight| {
                    sum += weight;
                    sum
                })
                .collect(),
        }
    }

    /// A rank.
    pub(crate) fn draw(&self, random: &mut fastrand::Rng) -> usize {
        let at = random.f64() * self.sums.last().copied().unwrap_or_default();
        self.sums.partition_point(|sum| *sum <= at).min(self.sums.len() - 1)
    }
}
