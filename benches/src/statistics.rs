//! Medians and their spread: what one disturbed round cannot move.

/// The middle of some measurements, and how far apart their middle half lies.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Summary {
    pub(crate) median: f64,
    /// The first and the third quartile.
    pub(crate) quartiles: (f64, f64),
}

impl Summary {
    /// Of at least one measurement.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        Summary { median: quantile(&sorted, 0.5), quartiles: (quantile(&sorted, 0.25), quantile(&sorted, 0.75)) }
    }
}

/// Between two measurements it lies on the line that joins them.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let last = u32::try_from(sorted.len().saturating_sub(1)).unwrap_or(u32::MAX);
    let place = share * f64::from(last);
    // The place is no more than the last.
    #[expect(clippy::cast_sign_loss, reason = "shares are positive")]
    let index = place as usize;
    let at = |index: usize| sorted.get(index).or(sorted.last()).copied().unwrap_or(f64::NAN);
    at(index) + (at(index + 1) - at(index)) * place.fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_disturbed_round_does_not_move_the_median() {
        let calm = Summary::of([1.0, 2.0, 3.0, 4.0, 5.0]);
        assert_eq!(calm, Summary { median: 3.0, quartiles: (2.0, 4.0) });
        assert_eq!(Summary::of([500.0, 1.0, 3.0, 4.0, 2.0]), calm);
        assert_eq!(Summary::of([1.0, 2.0]), Summary { median: 1.5, quartiles: (1.25, 1.75) });
        assert_eq!(Summary::of([7.0]), Summary { median: 7.0, quartiles: (7.0, 7.0) });
    }
}
