//! The options that keep the figures of a run, and compare another one with them.

use crate::compare::compare;
use crate::table::{Results, Table};
use clap::Args;
use std::path::PathBuf;

/// Options of a benchmark.
#[derive(Args, Clone, Debug)]
pub struct Keep {
    /// Write the figures to this file, too.
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// Say what differs from the figures in this file, which `--save` has written.
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
}

impl Keep {
    /// Reads the figures of the earlier run, if there is to be a comparison.
    ///
    /// # Errors
    /// A text that names the file.
    pub fn earlier(&self) -> Result<Option<Results>, String> {
        self.compare.as_deref().map(Results::load).transpose()
    }

    /// Prints the figures, with the differences to an earlier run, and writes them to the file that was asked for.
    /// Returns the differences.
    ///
    /// # Errors
    /// A text that names the file.
    pub fn tell(&self, results: &Results, earlier: Option<&Results>) -> Result<Option<Table>, String> {
        print!("\n{}", results.markdown());
        let differences = earlier.map(|earlier| compare(results, earlier));
        differences.iter().for_each(|table| print!("{}", table.markdown()));
        if let Some(file) = &self.save {
            results.save(file).map_err(|error| format!("--save {}: {error}", file.display()))?;
        }
        Ok(differences)
    }
}
