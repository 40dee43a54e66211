//! The topics' settings, as the configuration would give them.

use std::{sync::Arc, time::Duration};

use super::plan::Plan;
use crate::{
    pipeline::{
        encoder::TopicEncoder,
        paths::Paths,
        settings::{
            AllowedTables, BatchSettings, NullValue, PayloadSettings, TableTemplate, TopicLoad,
            TopicMatch, TopicSettings,
        },
    },
    schema::{columns::ColumnRules, policy::Policy},
    table::{Granularity, Partitioning, TableLayout},
    transcode::settings::{Format, RowSettings},
    write::load::settings::LoadSettings,
};

/// All topics.
pub(crate) fn settings(plan: &Plan) -> Vec<Arc<TopicSettings>> {
    let payload = |format| PayloadSettings { format, schema: None };
    let by_day = TableLayout {
        partitioning: Some(Partitioning {
            granularity: Granularity::Day,
            column: Some("at".to_owned()),
            expiration_ms: None,
        }),
        ..TableLayout::default()
    };
    let object_bytes = plan.loading.object_bytes;
    let jobs_per_table_day = plan.loading.jobs_per_table_day;
    let load = LoadSettings { jobs_per_table_day, object_bytes, ..LoadSettings::default() };
    let topic = |name, format, key: Option<Format>, table, layout: &TableLayout| {
        Arc::new(TopicSettings {
            matcher: TopicMatch::parse(name).unwrap(),
            value: payload(format),
            key: key.map(payload),
            table: TableTemplate::parse(table).unwrap(),
            header_tables: AllowedTables::default(),
            dataset: "d".into(),
            write: plan.loading.mode(name),
            stream: plan.loading.mode(name).stream(plan.loading.has_storage),
            freshness: Duration::from_millis(plan.loading.freshness_ms),
            load: TopicLoad {
                group: "g".into(),
                epoch: 0,
                settings: load,
                streams_per_hour: 1_000_000,
            },
            dead_letter: (name == "a" || !plan.letterless).then(|| "dead".into()),
            dead_letter_budget: plan.budget,
            null_value: NullValue::Skip,
            batch: BatchSettings { ..plan.batch },
            row: RowSettings::default(),
            columns: ColumnRules::default(),
            policy: Policy::default(),
            layout: layout.clone(),
        })
    };
    vec![
        topic("a", Format::Avro, Some(Format::String), "ab", &by_day),
        topic("b", Format::Avro, None, "ab", &by_day),
        topic("c", Format::Json, None, "c{header:t}", &TableLayout::default()),
    ]
}

/// The production encoder for them.
pub(crate) fn encoder(plan: &Plan, paths: &Arc<Paths>) -> TopicEncoder {
    TopicEncoder::new("p".into(), settings(plan), Arc::clone(paths)).unwrap()
}
