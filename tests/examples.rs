//! The examples are valid configurations.

// `cfg(test)` is what tells clippy that functions outside `#[test]` are test code too.
#[cfg(test)]
mod examples {
    use std::{fs, io, path::Path};

    use kcbq::config::{self, Sources};

    /// Whatever an example asks of its surroundings is there.
    struct Anything;

    impl Sources for Anything {
        fn variable(&self, _: &str) -> Option<String> {
            Some("given".to_owned())
        }

        fn file(&self, _: &Path) -> io::Result<String> {
            Ok("given\n".to_owned())
        }
    }

    fn parse(name: &str) -> config::Settings {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
        let text = fs::read_to_string(folder.join(name)).unwrap();
        config::parse(&text, &Anything).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    #[test]
    fn every_example_is_valid() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
        let names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(names.len() >= 2, "{names:?}");
        for name in names {
            parse(name.to_str().unwrap());
        }
    }

    #[test]
    fn the_examples_take_the_topics_they_speak_of() {
        assert!(parse("quickstart.yaml").topic("clicks.web").is_some());
        assert!(parse("debezium.yaml").topic("shop.public.orders").is_some());
    }

    #[test]
    fn the_configuration_in_the_readme_is_valid() {
        let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
        let readme = fs::read_to_string(readme).unwrap();
        let (_, rest) = readme.split_once("```yaml\n").unwrap();
        let (text, _) = rest.split_once("```").unwrap();
        let settings = config::parse(text, &Anything).unwrap_or_else(|error| panic!("{error}"));
        assert!(settings.topic("shop.orders").is_some());
    }
}
