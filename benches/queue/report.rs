//! What was measured, a table for each question: contenders by shapes.

use std::fmt;

use selfheal_benches::{Spread, Table};

use crate::lap::Cell;

/// Table, contender, shape; jobs a second in each round.
type Cells = (&'static str, &'static str, String, Vec<f64>);

/// Jobs a second, by cell and round.
pub(crate) struct Figures {
    cells: Vec<Cells>,
}

impl Figures {
    pub(crate) fn of(cells: &[Cell]) -> Self {
        let cells = cells.iter().map(|cell| (cell.table, cell.contender, cell.shape.clone(), Vec::new()));
        Self { cells: cells.collect() }
    }

    pub(crate) fn add(&mut self, cell: usize, rate: f64) {
        self.cells[cell].3.push(rate);
    }
}

/// The ratio is that of the medians, to the best floor of the shape; of what comes in one shape only, to the best of all.
impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut tables: Vec<_> = self.cells.iter().map(|cell| cell.0).collect();
        tables.dedup();
        tables.sort_unstable();
        tables.dedup();
        for name in tables {
            let mut table = Table::new([name, "", "min/MEDIAN/max", "x floor"]);
            let cells: Vec<_> = self.cells.iter().filter(|cell| cell.0 == name).collect();
            let median =
                |rates: &[f64]| Spread::of(rates.iter().copied()).map_or(f64::NAN, |spread| spread.median);
            let floor = |shape: &str| {
                let of_shape =
                    |cell: &&&Cells| cell.1.starts_with("floor") && (cell.2 == shape || shape == "as set up");
                cells.iter().filter(of_shape).map(|cell| median(&cell.3)).fold(f64::NAN, f64::max)
            };
            let mut shapes: Vec<&str> = Vec::new();
            for cell in &cells {
                if !shapes.contains(&&*cell.2) {
                    shapes.push(&cell.2);
                }
            }
            for shape in shapes {
                for (_, contender, _, rates) in cells.iter().filter(|cell| cell.2 == shape) {
                    let Some(Spread { min, median, max }) = Spread::of(rates.iter().copied()) else {
                        continue;
                    };
                    table.row([
                        shape.to_owned(),
                        (*contender).to_owned(),
                        format!("{min:.0}/{median:.0}/{max:.0}"),
                        format!("{:.2}", median / floor(shape)),
                    ]);
                }
            }
            writeln!(f, "{table}")?;
        }
        Ok(())
    }
}
