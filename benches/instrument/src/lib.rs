//! The instruments of the benchmarks: tables of figures, a run beside an earlier one, a page of all results, and
//! profiles that say where the time goes.

mod callgrind;
mod compare;
mod keep;
mod page;
mod perf;
mod run;
mod table;

pub use self::callgrind::{Callgrind, Instructions};
pub use self::compare::AGAIN;
pub use self::keep::Keep;
pub use self::page::Page;
pub use self::perf::{Profile, Recording};
pub use self::run::{folder, run};
pub use self::table::{Cell, Results, Row, Table};

/// Returns the quartiles.
pub fn quartiles(mut figures: Vec<f64>) -> [f64; 3] {
    figures.sort_by(f64::total_cmp);
    [1, 2, 3].map(|quarter| figures.get(figures.len() * quarter / 4).copied().unwrap_or(f64::NAN))
}
