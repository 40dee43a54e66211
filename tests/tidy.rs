//! Guards the house: who may import whom, sizes, names, generated files, documentation.

// `cfg(test)` is what tells clippy that functions outside `#[test]` are test code too.
#[cfg(test)]
mod tidy {
    use std::{
        collections::{BTreeMap, BTreeSet},
        fs,
        path::{Path, PathBuf},
    };

    use regex::Regex;

    /// Set to any value to write the generated files in place of comparing them.
    const REGENERATE: &str = "KCBQ_REGENERATE";
    /// Beyond this a file has more than one job, most likely. Whoever is just over it because of one more call changes the
    /// number rather than the file.
    const FILE_LINES_MAX: usize = 560;

    /// Per top-level module, the others it may import. See docs/ARCHITECTURE.md.
    const IMPORTS: &[(&str, &[&str])] = &[
        // Vocabulary.
        ("duration", &[]),
        ("failpoint", &[]),
        ("fault", &[]),
        ("jitter", &[]),
        ("printable", &[]),
        ("record", &[]),
        ("secret", &[]),
        ("table", &[]),
        ("telemetry", &[]),
        // Ports: vocabulary, and the pure types that they carry.
        ("catalog", &["fault", "schema", "table"]),
        ("committer", &["fault", "record", "source"]),
        ("dead_letter", &["fault", "record"]),
        ("registry", &["fault"]),
        ("rest", &[]),
        ("rpc", &["rest"]),
        ("source", &["committer", "record"]),
        // Pure logic.
        ("batch", &["record", "table"]),
        ("path", &[]),
        ("delivery", &["batch", "dead_letter", "fault", "path", "record", "table", "write"]),
        ("schema", &["printable", "table"]),
        ("transcode", &["printable", "record", "schema", "table"]),
        // Write paths: their port, and REST as a port. `gcp::classify` reads Google's error
        // envelope and `gcp::tables::names` writes paths: every Google API shares them.
        (
            "write",
            &[
                "failpoint",
                "fault",
                "gcp",
                "jitter",
                "printable",
                "record",
                "rest",
                "rpc",
                "table",
                "transcode",
            ],
        ),
        // The driver.
        (
            "pipeline",
            &[
                "batch",
                "catalog",
                "committer",
                "dead_letter",
                "delivery",
                "failpoint",
                "fault",
                "jitter",
                "path",
                "printable",
                "record",
                "registry",
                "schema",
                "source",
                "table",
                "telemetry",
                "transcode",
                "write",
            ],
        ),
        // Adapters. They do not know each other.
        (
            "gcp",
            &[
                "catalog",
                "duration",
                "fault",
                "jitter",
                "printable",
                "rest",
                "rpc",
                "schema",
                "secret",
                "table",
                "write",
            ],
        ),
        (
            "kafka",
            &[
                "committer",
                "dead_letter",
                "duration",
                "failpoint",
                "fault",
                "printable",
                "record",
                "registry",
                "secret",
                "source",
            ],
        ),
        ("sim", &["rest", "rpc"]),
        // The shell.
        (
            "config",
            &[
                "delivery",
                "duration",
                "gcp",
                "kafka",
                "ops",
                "path",
                "pipeline",
                "schema",
                "secret",
                "table",
                "transcode",
                "write",
            ],
        ),
        ("ops", &["printable", "record", "secret", "telemetry"]),
        ("cli", &["app", "config", "ops", "sim"]),
    ];

    /// Imports of one item where the module as a whole is off limits.
    const ONLY: &[(&str, &str, &str)] = &[
        ("write", "gcp", "gcp::classify"),
        ("write", "gcp", "gcp::tables"),
        ("config", "delivery", "delivery::budget"),
        ("config", "gcp", "gcp::settings"),
    ];

    struct Source {
        path: PathBuf,
        /// Without test modules.
        code: String,
        text: String,
    }

    impl Source {
        /// The top-level module.
        fn module(&self) -> String {
            let inside = self.path.strip_prefix(root().join("src")).unwrap();
            let first = inside.components().next().unwrap().as_os_str().to_str().unwrap();
            first.trim_end_matches(".rs").to_owned()
        }

        fn name(&self) -> String {
            self.path.strip_prefix(root()).unwrap().display().to_string()
        }
    }

    fn root() -> &'static Path {
        Path::new(env!("CARGO_MANIFEST_DIR"))
    }

    fn files(folder: &Path, ending: &str, found: &mut Vec<PathBuf>) {
        let mut entries: Vec<_> =
            fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
        entries.sort();
        for path in entries {
            if path.is_dir() {
                files(&path, ending, found);
            } else if path.to_str().unwrap().ends_with(ending) {
                found.push(path);
            }
        }
    }

    /// The library's sources, without modules that exist only in tests.
    fn sources() -> Vec<Source> {
        let mut paths = Vec::new();
        files(&root().join("src"), ".rs", &mut paths);
        let test_module =
            Regex::new(r"#\[cfg\((?:all\()?test\b[^\]]*\]\s*(?:#\[[^\]]*\]\s*)*(?:pub |pub\(crate\) )?mod (\w+);").unwrap();
        let mut tests = BTreeSet::new();
        let read: Vec<(PathBuf, String)> = paths
            .into_iter()
            .map(|path| (path.clone(), fs::read_to_string(&path).unwrap()))
            .collect();
        for (path, text) in &read {
            for module in test_module.captures_iter(text) {
                let folder = path.with_extension("");
                tests.insert(folder.join(&module[1]));
            }
        }
        read.into_iter()
            .filter(|(path, _)| {
                let stem = path.with_extension("");
                !tests.iter().any(|test| stem.starts_with(test))
            })
            .map(|(path, text)| Source { code: without_tests(&text), path, text })
            .collect()
    }

    fn without_tests(text: &str) -> String {
        let tests = Regex::new(r"#\[cfg\(test\)\]\s*mod tests \{").unwrap();
        tests.split(text).next().unwrap().to_owned()
    }

    /// The paths below `crate::` that `code` names, two segments deep.
    fn imports(code: &str) -> BTreeSet<String> {
        let code: String = code
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
            .collect::<Vec<_>>()
            .join("\n");
        let mut found = BTreeSet::new();
        let segment = Regex::new(r"^\s*(\w+)(?:::(\w+))?").unwrap();
        // A group may itself hold no `crate::`, so what follows one ends before the next.
        for rest in code.split("crate::").skip(1) {
            let items = match rest.strip_prefix('{') {
                Some(group) => top_level_items(group),
                None => vec![rest],
            };
            for captures in items.iter().filter_map(|item| segment.captures(item)) {
                let second = captures.get(2).map_or("", |second| second.as_str());
                found.insert(format!("{}::{second}", &captures[1]));
            }
        }
        found
    }

    /// The items of `{a, b::{c, d}, e}`, given what follows the first brace.
    fn top_level_items(group: &str) -> Vec<&str> {
        let (mut depth, mut start, mut items) = (0, 0, Vec::new());
        for (at, char) in group.char_indices() {
            match char {
                '{' => depth += 1,
                '}' if depth == 0 => {
                    items.push(group.get(start..at).unwrap_or_default());
                    break;
                }
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    items.push(group.get(start..at).unwrap_or_default());
                    start = at + 1;
                }
                _ => {}
            }
        }
        items
    }

    #[test]
    fn imports_are_read_from_groups_and_paths() {
        let code = "use crate::{\n  a::b,\n  c::{d, e::f},\n  g,\n};\nlet x = crate::h::i();";
        let found: Vec<String> = imports(code).into_iter().collect();
        assert_eq!(found, ["a::b", "c::", "g::", "h::i"]);
    }

    #[test]
    fn modules_import_only_what_the_architecture_allows() {
        let rules: BTreeMap<&str, &[&str]> = IMPORTS.iter().copied().collect();
        let mut broken = Vec::new();
        for source in sources() {
            let module = source.module();
            if ["lib", "main", "app"].contains(&module.as_str()) {
                continue;
            }
            let Some(allowed) = rules.get(module.as_str()) else {
                broken.push(format!("{}: the module `{module}` has no rule", source.name()));
                continue;
            };
            for import in imports(&source.code) {
                let target = import.split("::").next().unwrap();
                let mut narrow =
                    ONLY.iter().filter(|(from, to, _)| *from == module && *to == target).peekable();
                let fits = narrow.peek().is_none() || narrow.any(|(.., only)| import == *only);
                if target != module && !(allowed.contains(&target) && fits) {
                    broken.push(format!("{}: imports crate::{import}", source.name()));
                }
            }
        }
        assert!(broken.is_empty(), "{}", broken.join("\n"));
    }

    #[test]
    fn vendor_crates_stay_in_their_adapters() {
        let homes: &[(&str, &[&str])] = &[
            ("rdkafka", &["kafka"]),
            ("google_cloud_auth", &["gcp"]),
            ("reqwest", &["gcp", "kafka"]),
            ("tonic", &["gcp", "sim"]),
            ("axum", &["ops", "app", "sim"]),
            ("anyhow", &["app", "cli", "main"]),
            ("clap", &["cli", "main"]),
        ];
        let mut broken = Vec::new();
        for source in sources() {
            for (name, modules) in homes {
                let used = Regex::new(&format!(r"(?m)^[^/\n]*\b{name}(?:_sys)?::")).unwrap();
                // The demo is Kafka and the producers, too: it brings its own broker.
                let is_demo = ["src/app/demo", "src/cli/demo"]
                    .iter()
                    .any(|demo| source.name().starts_with(demo));
                let at_home = is_demo || modules.contains(&source.module().as_str());
                if used.is_match(&source.code) && !at_home {
                    broken.push(format!("{}: uses {name}", source.name()));
                }
            }
        }
        assert!(broken.is_empty(), "{}", broken.join("\n"));
    }

    #[test]
    fn files_are_short_and_have_one_job() {
        let mut broken = Vec::new();
        for source in sources() {
            let lines = source.code.lines().count();
            if lines > FILE_LINES_MAX {
                broken.push(format!("{}: {lines} lines, {FILE_LINES_MAX} at most", source.name()));
            }
            let stem = source.path.file_stem().unwrap().to_str().unwrap();
            if ["utils", "util", "common", "helpers", "helper", "misc"].contains(&stem) {
                broken.push(format!("{}: name the job instead", source.name()));
            }
            if !source.text.starts_with("//!") {
                broken.push(format!("{}: say in `//!` what the file is for", source.name()));
            }
        }
        assert!(broken.is_empty(), "{}", broken.join("\n"));
    }

    #[test]
    fn no_file_names_a_path_of_one_machine() {
        // Put together here, so that this file does not name them either.
        let machine =
            Regex::new(&format!(r#"(?:^|[\s"'`(=:])/(?:{}|{}|{})/\w"#, "work", "root", "home"));
        let machine = machine.unwrap();
        let mut paths = Vec::new();
        for folder in ["src", "tests", "docs", "benches", "examples", "schemas", ".ci"] {
            let folder = root().join(folder);
            for ending in [".rs", ".md", ".toml", ".yaml", ".json", ".bash", "run"] {
                if folder.is_dir() {
                    files(&folder, ending, &mut paths);
                }
            }
        }
        paths.extend(["Cargo.toml", "Dockerfile", "deny.toml"].map(|file| root().join(file)));
        let mut broken = Vec::new();
        for path in paths.iter().filter(|path| !path.to_str().unwrap().contains("tests/data/")) {
            for (line, text) in fs::read_to_string(path).unwrap_or_default().lines().enumerate() {
                if machine.is_match(text) {
                    broken.push(format!("{}:{}: {}", path.display(), line + 1, text.trim()));
                }
            }
        }
        assert!(broken.is_empty(), "{}", broken.join("\n"));
    }

    #[test]
    fn every_metric_is_described_for_the_operator() {
        let path = root().join("docs/operations.md");
        let page = fs::read_to_string(path).unwrap();
        let missing: Vec<&str> = kcbq::telemetry::METRICS
            .iter()
            .map(|metric| metric.name)
            .filter(|name| !page.contains(&format!("`{name}`")))
            .collect();
        assert!(missing.is_empty(), "docs/operations.md does not name {missing:?}");
        let known: BTreeSet<&str> =
            kcbq::telemetry::METRICS.iter().map(|metric| metric.name).collect();
        let named = Regex::new(r"`(kcbq_[a-z_]+)`").unwrap();
        let gone: BTreeSet<&str> = named
            .captures_iter(&page)
            .map(|captures| captures.get(1).unwrap().as_str())
            .filter(|name| !known.contains(name))
            .collect();
        assert!(gone.is_empty(), "docs/operations.md names metrics that do not exist: {gone:?}");
    }

    /// The text of a module's file. `tests` may stand inside the file of the module around it.
    fn module_text(path: &[&str]) -> Option<String> {
        let (folder, path) = match path {
            ["it", rest @ ..] => ("tests/it", rest),
            path => ("src", path),
        };
        let around = path.strip_suffix(&["tests"]).unwrap_or(path);
        let read = |path: &[&str]| {
            fs::read_to_string(root().join(folder).join(path.join("/")).with_extension("rs")).ok()
        };
        read(path).or_else(|| read(around))
    }

    #[test]
    fn every_test_counter_and_defect_that_the_regressions_name_exists() {
        let page = fs::read_to_string(root().join("docs/regressions.md")).unwrap();
        let variants = ["src/pipeline/simulation/coverage.rs", "src/delivery/defect.rs"]
            .map(|file| fs::read_to_string(root().join(file)).unwrap())
            .concat();
        let exists = |name: &str| match *name.split("::").collect::<Vec<_>>() {
            [name] => variants.contains(&format!("\n    {name},\n")),
            ref module if module_text(module).is_some() => true,
            [ref module @ .., function] => {
                module_text(module).is_some_and(|text| text.contains(&format!("fn {function}(")))
            }
            [] => false,
        };
        let named = Regex::new(r"`([a-z]\w*(?:::\w+)+|(?:[A-Z][a-z]+)+)`").unwrap();
        let names: BTreeSet<&str> =
            named.captures_iter(&page).map(|captures| captures.get(1).unwrap().as_str()).collect();
        let gone: Vec<_> = names.iter().filter(|name| !exists(name)).collect();
        assert!(gone.is_empty(), "docs/regressions.md names what does not exist: {gone:?}");
        assert!(names.len() > 100, "docs/regressions.md names {} only", names.len());
    }

    /// A metric that is declared, registered and documented, and then forgotten, is always 0 and
    /// nobody sees it. So each must be changed by code that is not its declaration: directly, or in a
    /// function of `telemetry` that others call.
    #[test]
    fn every_metric_is_set_somewhere() {
        let sources = sources();
        let declared = Regex::new(r#"pub (\w+): \w+ = "(kcbq_\w+)""#).unwrap();
        let functions = Regex::new(r"fn (\w+)").unwrap();
        let metrics = root().join("src/telemetry/metrics.rs");
        let is_telemetry = |source: &Source| source.module() == "telemetry";
        let is_called = |function: &str| {
            let call = Regex::new(&format!(r"[.:]{function}\(")).unwrap();
            sources.iter().any(|source| !is_telemetry(source) && call.is_match(&source.code))
        };
        let is_set = |field: &str| {
            let labels = r"(?:\.with_label_values\([^;]*?\)\s*)?";
            let set = Regex::new(&format!(r"\.{field}\s*{labels}\.(inc|add|set|observe)")).unwrap();
            sources.iter().any(|source| {
                set.find_iter(&source.code).any(|found| {
                    let before = source.code.split_at(found.start()).0;
                    let within = functions.captures_iter(before).last();
                    !is_telemetry(source) || within.is_some_and(|within| is_called(&within[1]))
                })
            })
        };
        let text = fs::read_to_string(metrics).unwrap();
        let fields: Vec<_> = declared.captures_iter(&text).collect();
        assert_eq!(fields.len(), kcbq::telemetry::METRICS.len());
        let unset: Vec<_> = fields.iter().filter(|field| !is_set(&field[1])).collect();
        let unset: Vec<_> = unset.iter().map(|field| &field[2]).collect();
        assert!(unset.is_empty(), "nothing changes {unset:?}");
    }

    /// The table of metrics in docs/operations.md.
    fn metrics_table() -> String {
        let mut table = "| metric | kind | labels | meaning |\n|---|---|---|---|\n".to_owned();
        for metric in kcbq::telemetry::METRICS {
            let labels: Vec<String> =
                metric.labels.iter().map(|label| format!("`{label}`")).collect();
            table.push_str(&format!(
                "| `{}` | {} | {} | {} |\n",
                metric.name,
                metric.kind,
                labels.join(", "),
                metric.help.split_whitespace().collect::<Vec<_>>().join(" "),
            ));
        }
        table
    }

    #[test]
    fn generated_files_are_current() {
        let operations = root().join("docs/operations.md");
        let page = fs::read_to_string(&operations).unwrap();
        let (before, rest) = page.split_once("<!-- metrics: begin -->\n").unwrap();
        let (_, after) = rest.split_once("<!-- metrics: end -->").unwrap();
        let table = metrics_table();
        let operations_text =
            format!("{before}<!-- metrics: begin -->\n{table}<!-- metrics: end -->{after}");
        let generated = [
            ("docs/configuration.md", kcbq::config::reference::reference()),
            ("schemas/config.schema.json", kcbq::config::schema_text()),
            ("docs/operations.md", operations_text),
        ];
        let mut stale = Vec::new();
        for (file, wanted) in generated {
            let path = root().join(file);
            if std::env::var_os(REGENERATE).is_some() {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(&path, &wanted).unwrap();
            } else if fs::read_to_string(&path).unwrap_or_default() != wanted {
                stale.push(file);
            }
        }
        assert!(
            stale.is_empty(),
            "{stale:?} are stale: run `{REGENERATE}=1 cargo test --test tidy` and commit them"
        );
    }
}
