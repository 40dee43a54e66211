//! The dead-letter budget: a bad deploy must stop the lane, not divert the whole topic.

use std::collections::VecDeque;

/// How many records may be dead-lettered before a lane halts.
#[derive(
    Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(deny_unknown_fields, default)]
pub struct BudgetSettings {
    /// The share of dead letters among the last `window` records that halts the lane, 0 to 1.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub ratio: f64,
    /// How many records the ratio looks back over. Until that many were seen, the ratio is taken of
    /// the whole window, so that the first bad record of a fresh start does not halt.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub window: u32,
    /// This many dead letters in a row halt the lane, whatever the ratio.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub run: u32,
}

impl Default for BudgetSettings {
    /// 1 % of 10,000 records, or 100 in a row: a poison record passes, a broken producer does not.
    fn default() -> Self {
        Self { ratio: 0.01, window: 10_000, run: 100 }
    }
}

/// The counts of one lane. Memory is bounded by the letters that the ratio allows.
#[derive(Debug, Default)]
pub struct Budget {
    seen: u64,
    run: u32,
    letters: VecDeque<u64>,
}

impl Budget {
    /// Counts a record that became a row.
    pub fn good(&mut self) {
        self.seen += 1;
        self.run = 0;
    }

    /// Counts a dead letter.
    ///
    /// # Errors
    /// A sentence that says which limit is exceeded. The letter is then not counted.
    pub fn bad(&mut self, settings: &BudgetSettings) -> Result<(), String> {
        let window = u64::from(settings.window.max(1));
        while self.letters.front().is_some_and(|at| at + window <= self.seen) {
            self.letters.pop_front();
        }
        if self.run >= settings.run.max(1) {
            return Err(format!("{} records in a row were refused", self.run));
        }
        let allowed = (settings.ratio.clamp(0.0, 1.0) * window as f64).max(1.0);
        if self.letters.len() as f64 >= allowed {
            return Err(format!(
                "{} of the last {window} records were refused",
                self.letters.len()
            ));
        }
        self.run += 1;
        self.letters.push_back(self.seen);
        self.seen += 1;
        Ok(())
    }

    /// Starts afresh, on an operator's release.
    pub fn reset(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: BudgetSettings = BudgetSettings { ratio: 0.1, window: 100, run: 3 };

    #[test]
    fn a_run_of_bad_records_is_refused() {
        let mut budget = Budget::default();
        for _ in 0..3 {
            budget.bad(&SETTINGS).unwrap();
        }
        assert!(budget.bad(&SETTINGS).unwrap_err().contains("in a row"));
        budget.reset();
        budget.bad(&SETTINGS).unwrap();
    }

    #[test]
    fn the_ratio_looks_at_the_window_only() {
        let mut budget = Budget::default();
        for _ in 0..10 {
            budget.bad(&SETTINGS).unwrap();
            budget.good();
        }
        assert!(budget.bad(&SETTINGS).unwrap_err().contains("10 of the last 100"));
        for _ in 0..100 {
            budget.good();
        }
        budget.bad(&SETTINGS).unwrap();
    }
}
