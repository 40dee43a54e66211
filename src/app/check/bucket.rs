//! The probe of the bucket that rows are staged in.

use std::{
    hash::{BuildHasher as _, Hasher as _, RandomState},
    sync::Arc,
};

use crate::{
    app::check::{Finding, probes::chain},
    config::Settings,
    fault::{Fault, FaultKind},
    gcp::objects::{Bucket, ROLE},
    write::load::Objects,
};

const AREA: &str = "bucket";

/// The bucket exists, and this identity may do there what staging takes.
pub(crate) async fn bucket(settings: Settings) -> Vec<Finding> {
    let Some(gcs) = &settings.gcs else { return Vec::new() };
    let rest = match settings.bigquery.connect_bucket(gcs, 1) {
        Ok(rest) => rest,
        Err(error) => return vec![Finding::problem(AREA, chain(&error))],
    };
    look(&Bucket::new(Arc::new(rest), &gcs.bucket), &gcs.bucket, &gcs.prefix).await
}

async fn look(objects: &dyn Objects, bucket: &str, prefix: &str) -> Vec<Finding> {
    let listed = match objects.list(prefix, None).await {
        Ok(_) => Finding::ok(AREA, format!("`{bucket}` is there; objects may be listed")),
        Err(fault) if fault.kind == FaultKind::TableNotFound => {
            let message = format!("`{bucket}` does not exist");
            let remedy = "create it in the dataset's location, or correct `gcs.bucket`";
            return vec![Finding::problem(AREA, message).remedy(remedy)];
        }
        Err(fault) => refused("objects cannot be listed", bucket, &fault),
    };
    vec![listed, written(objects, bucket, prefix).await]
}

/// Writes an object and deletes it.
async fn written(objects: &dyn Objects, bucket: &str, prefix: &str) -> Finding {
    // A number that no other run has: the name must be free.
    let name = format!("{prefix}check-{:016x}", RandomState::new().build_hasher().finish());
    if let Err(fault) = objects.put(&name, vec!["kcbq check\n".into()]).await {
        return refused(&format!("no object can be written below `{prefix}`"), bucket, &fault);
    }
    let uri = objects.uri(&name);
    match objects.delete(&uri).await {
        Ok(()) => Finding::ok(AREA, format!("objects may be written and deleted below `{prefix}`")),
        Err(fault) => refused(&format!("{uri} was written and cannot be deleted"), bucket, &fault),
    }
}

fn refused(what: &str, bucket: &str, fault: &Fault) -> Finding {
    let remedy = match fault.kind {
        FaultKind::Unauthenticated => "check `bigquery.credentials`".to_owned(),
        FaultKind::PermissionDenied => format!("grant {ROLE} on the bucket"),
        _ => "check `gcs.bucket`, `gcs.endpoint` and the network".to_owned(),
    };
    Finding::problem(AREA, format!("`{bucket}`: {what}: {}", fault.what())).remedy(remedy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::{
        faults::{FaultAction, FaultRule, FaultScript},
        memory::SimRest,
        settings::SimSettings,
        simulator::Simulator,
    };

    fn simulator() -> Simulator {
        let buckets = vec!["staging".to_owned()];
        Simulator::with_system_clock(SimSettings { buckets, ..SimSettings::default() })
    }

    async fn lines(sim: &Simulator, name: &str) -> Vec<String> {
        let bucket = Bucket::new(Arc::new(SimRest(sim.clone())), name);
        let findings = look(&bucket, name, "kcbq/").await;
        findings.iter().map(ToString::to_string).collect()
    }

    fn objects(sim: &Simulator) -> usize {
        sim.with_core(|core, _| core.gcs.objects("staging").count())
    }

    fn refuse(sim: &Simulator, operation: &str) {
        let (status, reason) = (403, "forbidden".to_owned());
        let fault = FaultAction::Refuse { status, reason, message: String::new() };
        let rule = FaultRule {
            operation: operation.to_owned(),
            table: None,
            nth: None,
            every: None,
            probability: None,
            times: None,
            fault,
        };
        let script = FaultScript { seed: 0, rules: vec![rule] };
        sim.with_core(|core, _| core.set_faults(script));
    }

    #[tokio::test]
    async fn a_bucket_is_tried_and_left_as_it_was() {
        let sim = simulator();
        let wanted = [
            "ok       bucket    `staging` is there; objects may be listed",
            "ok       bucket    objects may be written and deleted below `kcbq/`",
        ];
        assert_eq!(lines(&sim, "staging").await, wanted);
        assert_eq!(objects(&sim), 0);
        let [missing] = lines(&sim, "stagin").await.try_into().unwrap();
        assert!(
            missing.starts_with("PROBLEM  bucket    `stagin` does not exist – create it in the")
        );
    }

    #[tokio::test]
    async fn each_refusal_is_a_problem_with_its_remedy() {
        let sim = simulator();
        for (operation, index, wanted) in [
            ("storage.objects.list", 0, "objects cannot be listed"),
            ("storage.objects.insert", 1, "no object can be written below `kcbq/`"),
            ("storage.objects.delete", 1, "was written and cannot be deleted"),
        ] {
            refuse(&sim, operation);
            let lines = lines(&sim, "staging").await;
            let problems = lines.iter().filter(|line| line.starts_with("PROBLEM"));
            assert_eq!((lines.len(), problems.count()), (2, 1), "{lines:?}");
            let problem = &lines[index];
            assert!(problem.contains(wanted), "{problem}");
            assert!(
                problem.ends_with(" – grant roles/storage.objectUser on the bucket"),
                "{problem}"
            );
        }
        assert_eq!(objects(&sim), 1, "what could not be deleted");
    }
}
