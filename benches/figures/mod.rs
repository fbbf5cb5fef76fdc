//! What is said of many measurements of the same thing.

/// The quartiles.
pub(crate) fn middle(figures: &mut [f64]) -> [f64; 3] {
    figures.sort_by(f64::total_cmp);
    [1, 2, 3].map(|quarter| figures[figures.len() * quarter / 4])
}

/// The median, and the middle half.
pub(crate) fn spread(figures: &mut [f64]) -> String {
    let [low, median, high] = middle(figures);
    format!("{median:.3} ({low:.3} to {high:.3})")
}
