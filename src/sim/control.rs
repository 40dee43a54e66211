//! The control API of tests and benchmarks, on the same fronts as the services.
//!
//! | request | does |
//! |---|---|
//! | `GET /sim/v1/rows[?table=p.d.t]` | the stored rows as NDJSON, one object per row with its `table`; in ledger mode `topic`, `partition`, `offset`, `hash`, `stored_ms`, and of those with `&topic=t`, `&partition=0`, `&from=17` only what is at or behind that offset. `/sim/v1/ledger` is the same |
//! | `GET /sim/v1/tables` | the tables with their row counts |
//! | `GET /sim/v1/counters` | [`Counters`](crate::sim::counters::Counters) |
//! | `GET /sim/v1/lost` | when the fault script lost an answer, in milliseconds since the epoch |
//! | `GET`, `POST`, `DELETE /sim/v1/faults` | shows, replaces, removes the fault script |
//! | `POST /sim/v1/release` | applies all held requests; load jobs that are held back or hang go on |
//! | `POST /sim/v1/schemas` | preloads schemas: `[{"id": 8, "subject": "s", "schema": "…", "schemaType": "AVRO", "references": []}]`; `subject` may be absent |
//! | `POST /sim/v1/reset` | forgets everything |

use std::time::Duration;

use serde_json::{Value, json};

use crate::sim::{
    bigquery::store::Span,
    core::Core,
    message::{Request, Response},
    registry::Preload,
};

/// Where the control API begins.
pub const PREFIX: &str = "/sim/v1/";

/// Applies one control request.
pub fn handle(core: &mut Core, request: &Request, now: Duration) -> Response {
    let what = request.path.strip_prefix(PREFIX).unwrap_or_default();
    match (request.method.as_str(), what) {
        ("GET", "rows" | "ledger") => dump(core, request),
        ("GET", "tables") => tables(core),
        ("GET", "counters") => shown(&core.counters),
        ("GET", "lost") => Response::json(200, &core.lost().collect()),
        ("GET", "faults") => shown(core.faults.script()),
        ("POST", "faults") => match serde_json::from_slice(&request.body) {
            Ok(script) => {
                core.set_faults(script);
                Response::json(200, &json!({}))
            }
            Err(error) => refused(&error.to_string()),
        },
        ("DELETE", "faults") => {
            core.set_faults(Default::default());
            Response::json(200, &json!({}))
        }
        ("POST", "release") => {
            core.release(now);
            Response::json(200, &json!({}))
        }
        ("POST", "schemas") => preload(core, request),
        ("POST", "reset") => {
            core.reset();
            Response::json(200, &json!({}))
        }
        _ => Response::json(404, &json!({"error": "no such control request"})),
    }
}

fn shown(value: &impl serde::Serialize) -> Response {
    match serde_json::to_value(value) {
        Ok(value) => Response::json(200, &value),
        Err(error) => refused(&error.to_string()),
    }
}

fn refused(message: &str) -> Response {
    Response::json(400, &json!({"error": message}))
}

fn tables(core: &Core) -> Response {
    let tables: Vec<Value> = core
        .bigquery
        .tables()
        .map(|(path, table)| {
            let name = format!("{}.{}.{}", path.project, path.dataset, path.table);
            json!({"table": name, "rows": table.store.count()})
        })
        .collect();
    Response::json(200, &json!(tables))
}

fn dump(core: &Core, request: &Request) -> Response {
    let wanted = request.parameter("table");
    let Some(span) = span(request) else {
        return refused("`partition` and `from` must be numbers");
    };
    let mut body = String::new();
    for (path, table) in core.bigquery.tables() {
        let name = format!("{}.{}.{}", path.project, path.dataset, path.table);
        if wanted.as_ref().is_some_and(|wanted| *wanted != name) {
            continue;
        }
        for mut line in table.store.dump(&span) {
            if let Some(line) = line.as_object_mut() {
                line.shift_insert(0, "table".into(), json!(name));
            }
            body.push_str(&line.to_string());
            body.push('\n');
        }
    }
    Response::with_type(200, "application/x-ndjson", body)
}

fn span(request: &Request) -> Option<Span> {
    let partition = request.parameter("partition").map(|text| text.parse());
    let from = request.parameter("from").map(|text| text.parse());
    Some(Span {
        topic: request.parameter("topic"),
        partition: partition.transpose().ok()?,
        from: from.transpose().ok()?,
    })
}

fn preload(core: &mut Core, request: &Request) -> Response {
    let schemas: Vec<Preload> = match serde_json::from_slice(&request.body) {
        Ok(schemas) => schemas,
        Err(error) => return refused(&error.to_string()),
    };
    for schema in schemas {
        core.registry.preload(schema);
    }
    Response::json(200, &json!({}))
}
