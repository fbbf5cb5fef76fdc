//! A run beside an earlier one. Counts can be compared, and ratios to a base of the same run; the time of a request, which
//! depends on the machine and the hour, cannot.

use crate::table::{Cell, Results, Row, Table};

/// Counts do not depend on the machine, but a few of them on chance.
const CHANCE: f64 = 0.01;

/// The end of the name of a server that is measured a second time.
pub const AGAIN: &str = ", again";

/// Compares the figures of both runs. A ratio has changed if the change is more than its spread in both runs and the
/// difference of the base to itself, all together; a count, if it is not the same.
pub(crate) fn compare(now: &Results, then: &Results) -> Table {
    let what = format!(
        "Beside the run of {}. A ratio differs beyond the noise if it has changed by more than the middle halves of both \
         runs are wide, and the base measured twice is off, together; a count, by more than {:.0} %.",
        then.run,
        CHANCE * 100.0
    );
    let mut table = Table::new("differences", what, &["then", "now", "now / then"]);
    table.case = "scenario, figure".to_owned();
    let (mut same, mut missing) = (0, 0);
    for own in &now.tables {
        let Some(other) = then.tables.iter().find(|other| other.name == own.name) else {
            missing += 1;
            continue;
        };
        let noise = noise_of_base(own).max(noise_of_base(other));
        for (n, row) in own.rows.iter().enumerate() {
            let Some(before) = nth_like(row, n, own, other) else { continue };
            for (name, (new, old)) in own.columns.iter().zip(row.cells.iter().zip(&before.cells)) {
                match difference(old, new, noise) {
                    None => {}
                    Some(false) => same += 1,
                    Some(true) => {
                        let ratio = old.value().zip(new.value()).map(|(old, new)| new / old);
                        let cells = vec![old.clone(), new.clone(), Cell::number(ratio, 3)];
                        let case = [&own.name, &row.case, name].map(String::as_str);
                        let case: Vec<&str> = case.into_iter().filter(|part| !part.is_empty()).collect();
                        table.rows.push(Row::new(&row.server, cells).case(case.join(", ")));
                    }
                }
            }
        }
    }
    table.notes.push(format!("{} beyond the noise, {same} within it.", table.rows.len()));
    if missing > 0 {
        table.notes.push(format!("{missing} scenarios are not in the earlier run."));
    }
    table
}

/// Returns the row of the same server and case in the other table; if a server is there twice, the same one of both.
fn nth_like<'a>(row: &Row, n: usize, own: &Table, other: &'a Table) -> Option<&'a Row> {
    let is_like = |other: &&Row| other.server == row.server && other.case == row.case;
    let before = own.rows[..n].iter().filter(is_like).count();
    other.rows.iter().filter(is_like).nth(before)
}

/// Returns how far the ratios of a base that was measured twice are from 1.
fn noise_of_base(table: &Table) -> f64 {
    let again = table.rows.iter().filter(|row| row.server.ends_with(AGAIN)).flat_map(|row| &row.cells);
    let off = again.map(|cell| if let Cell::Quartiles([_, median, _], _) = cell { (median - 1.0).abs() } else { 0.0 });
    off.fold(0.0, f64::max)
}

/// Returns whether two figures differ beyond the noise; `None` if that cannot be said.
fn difference(old: &Cell, new: &Cell, noise: f64) -> Option<bool> {
    match (old, new) {
        (Cell::Quartiles(old, _), Cell::Quartiles(new, _)) if old[0] < old[2] || new[0] < new[2] => {
            let spread = |[low, median, high]: &[f64; 3]| (high - low) / median;
            Some((new[1] / old[1] - 1.0).abs() > spread(old) + spread(new) + noise)
        }
        (Cell::Count(old, _), Cell::Count(new, _)) => Some((new - old).abs() > old.abs() * CHANCE),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(ratio: [f64; 3], calls: f64) -> Results {
        let mut table = Table::new("flood", "", &["CPU us", "times", "calls"]);
        let cells = vec![Cell::Number(ratio[1] * 20.0, 1), Cell::Quartiles(ratio, 3), Cell::Count(calls, 2)];
        table.rows = vec![Row::new("ours", cells), Row::new("base", vec![Cell::Empty; 3])];
        Results { run: "today".to_owned(), tables: vec![table] }
    }

    /// Lost otherwise: a change that is noise taken for one, or one that is none; and an hour to look for it.
    #[test]
    fn a_change_is_told_from_noise() {
        let rows = |now: &Results, then: &Results| -> Vec<String> {
            compare(now, then).rows.into_iter().map(|row| row.case).collect()
        };
        let then = run([0.68, 0.70, 0.72], 5.06);
        assert!(rows(&run([0.70, 0.73, 0.75], 5.07), &then).is_empty(), "they overlap");
        assert_eq!(rows(&run([0.79, 0.80, 0.81], 5.06), &then), ["flood, times"]);
        assert_eq!(rows(&run([0.60, 0.61, 0.62], 5.06), &then), ["flood, times"]);
        let mut noisy = run([0.79, 0.80, 0.81], 5.06);
        let again = vec![Cell::Empty, Cell::Quartiles([0.85, 0.9, 1.0], 3), Cell::Empty];
        noisy.tables[0].rows.push(Row::new(format!("base{AGAIN}"), again));
        assert!(rows(&noisy, &then).is_empty(), "the base is off by a tenth itself");
        assert_eq!(rows(&run([0.68, 0.70, 0.72], 6.06), &then), ["flood, calls"]);
        let other = Results { tables: vec![Table::new("new", "", &[])], ..then.clone() };
        assert_eq!(compare(&other, &then).notes.len(), 2, "that it is missing is said");
    }
}
