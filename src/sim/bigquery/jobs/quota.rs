//! How many load jobs a table and a project may have in a day.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use crate::sim::{bigquery::jobs::job::JobError, settings::LoadSettings};

/// The times of jobs inside the window.
#[derive(Debug, Default)]
pub struct Quotas {
    tables: HashMap<String, VecDeque<Duration>>,
    projects: HashMap<String, VecDeque<Duration>>,
}

impl Quotas {
    /// Takes one job out of both quotas, or says which is used up. What is refused so is not counted:
    /// whether BigQuery does is not documented.
    pub fn spend(
        &mut self,
        table: &str,
        project: &str,
        now: Duration,
        settings: &LoadSettings,
    ) -> Result<(), JobError> {
        let window = Duration::from_millis(settings.quota_window_ms);
        let of_table = current(&mut self.tables, table, now, window);
        if of_table.len() >= settings.per_table_max {
            return Err(exceeded("load_job_per_table.long", "table", "table"));
        }
        let of_project = current(&mut self.projects, project, now, window);
        if of_project.len() >= settings.per_project_max {
            return Err(exceeded("load_job.long", "project", "project"));
        }
        of_table.push_back(now);
        of_project.push_back(now);
        Ok(())
    }
}

fn current<'a>(
    all: &'a mut HashMap<String, VecDeque<Duration>>,
    key: &str,
    now: Duration,
    window: Duration,
) -> &'a mut VecDeque<Duration> {
    let times = all.entry(key.to_owned()).or_default();
    while times.front().is_some_and(|at| *at + window <= now) {
        times.pop_front();
    }
    times
}

/// The words for tables: pingcap-inc/tidb2dw#91, cloudflare/cloudflare-gcp#72.
fn exceeded(location: &str, whose: &str, per: &str) -> JobError {
    let message = format!(
        "Quota exceeded: Your {whose} exceeded quota for imports or query appends per {per}. For \
         more information, see https://cloud.google.com/bigquery/docs/troubleshoot-quotas"
    );
    JobError::new("quotaExceeded", Some(location), message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_count_for_their_table_and_their_project_until_the_window_has_passed() {
        let settings =
            LoadSettings { per_table_max: 2, per_project_max: 3, ..LoadSettings::default() };
        let mut quotas = Quotas::default();
        let mut spend = |table: &str, seconds: u64| {
            let spent = quotas.spend(table, "p", Duration::from_secs(seconds), &settings);
            spent.map_err(|error| error.location.unwrap())
        };
        assert_eq!((spend("a", 0), spend("a", 1)), (Ok(()), Ok(())));
        assert_eq!(spend("a", 2).unwrap_err(), "load_job_per_table.long");
        assert_eq!(spend("b", 3), Ok(()));
        assert_eq!(spend("c", 4).unwrap_err(), "load_job.long");
        assert_eq!(spend("a", 86_400), Ok(()), "the first has left the window");
        assert!(spend("a", 86_400).is_err());
    }
}
