//! In which format a chain's rows are staged.

use crate::write::load::job::LoadFormat;

/// Jobs of lines after containers did not do, until they are tried again.
pub const LINES_JOBS: u32 = 24;

/// A job takes objects of one format, and its slot is an interval of offsets: rows of two formats that lie
/// among each other fit into no job. So a chain changes to lines, which every row can be, at the first row
/// that is unlike the one before it, and where a record waits, because that one comes late; and back once
/// a job's time has passed without either.
#[derive(Debug, Default)]
pub struct Formats {
    /// Of the last row.
    wanted: Option<LoadFormat>,
    /// Whether rows are lines, whatever they might be.
    lines: bool,
    /// Whether there was a reason since the last job.
    varied: bool,
    /// Records of the lane that have waited.
    waited: u64,
    /// Jobs for which there are lines in any case.
    held: u32,
}

impl Formats {
    /// Lines for so many jobs.
    pub fn held(jobs: u32) -> Self {
        Self { lines: jobs > 0, held: jobs, ..Self::default() }
    }

    /// The format of the next row, which might be `wanted`, if so many records of the lane `waited` up to
    /// now.
    pub fn next(&mut self, wanted: LoadFormat, waited: u64) -> LoadFormat {
        let has_waited = std::mem::replace(&mut self.waited, waited) != waited;
        // Nothing lies behind what waited before the first row.
        let before = self.wanted.replace(wanted);
        if before.is_some_and(|before| before != wanted || has_waited) {
            (self.varied, self.lines) = (true, true);
        }
        if self.lines { LoadFormat::NdjsonGz } else { wanted }
    }

    /// A job was made. `is_late` says whether a record of the lane waits still.
    pub fn cut(&mut self, is_late: bool) {
        self.lines = self.varied || is_late || self.held > 0;
        self.varied = is_late;
    }

    /// A job's rows are in the table. How many more there are lines for.
    pub fn arrived(&mut self) -> u32 {
        self.held = self.held.saturating_sub(1);
        self.held
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::write::load::job::SchemaIx;

    const LINES: LoadFormat = LoadFormat::NdjsonGz;
    const A: LoadFormat = LoadFormat::Avro(SchemaIx(0));
    const B: LoadFormat = LoadFormat::Avro(SchemaIx(1));

    #[test]
    fn another_schema_comes_as_lines_until_a_job_had_none_but_it() {
        let mut formats = Formats::default();
        assert_eq!(
            [A, A, B, B, A].map(|wanted| formats.next(wanted, 0)),
            [A, A, LINES, LINES, LINES]
        );
        formats.cut(false);
        assert_eq!([A, B].map(|wanted| formats.next(wanted, 0)), [LINES, LINES]);
        formats.cut(false);
        assert_eq!(formats.next(B, 0), LINES);
        formats.cut(false);
        assert_eq!(formats.next(B, 0), B);
    }

    #[test]
    fn rows_are_lines_from_one_that_waits_on_and_until_none_does() {
        let mut formats = Formats::default();
        assert_eq!(
            [(A, 0), (A, 1), (A, 1)].map(|(wanted, waited)| formats.next(wanted, waited)),
            [A, LINES, LINES]
        );
        formats.cut(true);
        assert_eq!(formats.next(A, 1), LINES);
        formats.cut(false);
        assert_eq!(formats.next(A, 1), LINES);
        formats.cut(false);
        assert_eq!(formats.next(A, 1), A);
    }

    #[test]
    fn what_is_held_is_lines_for_so_many_jobs() {
        let mut formats = Formats::held(2);
        for left in [1, 0] {
            assert_eq!(formats.next(A, 0), LINES);
            formats.cut(false);
            assert_eq!(formats.arrived(), left);
        }
        assert_eq!(formats.next(A, 0), LINES);
        formats.cut(false);
        assert_eq!(formats.next(A, 0), A);
    }
}
