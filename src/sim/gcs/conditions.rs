//! The preconditions in a request's query.

use crate::sim::{gcs::error::GcsError, message::Request};

/// Whether the request reads or writes: a reader's unmet `…NotMatch` is 304, a writer's 412.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intent {
    /// Read.
    Read,
    /// Write or delete.
    Write,
}

/// Conditions on the live object; generation 0 stands for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    generation: Option<u64>,
    not_generation: Option<u64>,
    metageneration: Option<u64>,
    not_metageneration: Option<u64>,
}

impl Conditions {
    /// The conditions of a request.
    pub fn of(request: &Request) -> Result<Self, GcsError> {
        let number = |name: &str| match request.parameter(name) {
            None => Ok(None),
            Some(text) => text.parse().map(Some).map_err(|_| {
                GcsError::invalid(format!("Invalid unsigned integer value: '{text}' for {name}"))
            }),
        };
        Ok(Self {
            generation: number("ifGenerationMatch")?,
            not_generation: number("ifGenerationNotMatch")?,
            metageneration: number("ifMetagenerationMatch")?,
            not_metageneration: number("ifMetagenerationNotMatch")?,
        })
    }

    /// Checks them against the live object's generation and metageneration.
    pub fn check(&self, live: Option<(u64, u64)>, intent: Intent) -> Result<(), GcsError> {
        let (generation, metageneration) = live.unwrap_or((0, 0));
        let differs = |wanted: Option<u64>, have| wanted.is_some_and(|wanted| wanted != have);
        if differs(self.generation, generation) || differs(self.metageneration, metageneration) {
            return Err(GcsError::condition_not_met());
        }
        if self.not_generation == Some(generation)
            || (live.is_some() && self.not_metageneration == Some(metageneration))
        {
            return Err(match intent {
                Intent::Read => GcsError::not_modified(),
                Intent::Write => GcsError::condition_not_met(),
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{HeaderMap, Method};

    use super::*;

    fn status(query: &str, live: Option<(u64, u64)>, intent: Intent) -> u16 {
        let path = format!("/x?{query}");
        let request = Request::new(Method::GET, &path, HeaderMap::new(), Bytes::new());
        let checked = Conditions::of(&request).and_then(|found| found.check(live, intent));
        checked.map_or_else(|error| error.status, |()| 200)
    }

    #[test]
    fn conditions_against_a_live_object_and_none() {
        let (live, none) = (Some((7, 1)), None);
        for (query, object, intent, expected) in [
            ("ifGenerationMatch=0", none, Intent::Write, 200),
            ("ifGenerationMatch=0", live, Intent::Write, 412),
            ("ifGenerationMatch=7", live, Intent::Write, 200),
            ("ifGenerationMatch=8", live, Intent::Read, 412),
            ("ifGenerationMatch=7", none, Intent::Write, 412),
            ("ifGenerationNotMatch=7", live, Intent::Read, 304),
            ("ifGenerationNotMatch=7", live, Intent::Write, 412),
            ("ifGenerationNotMatch=0", none, Intent::Write, 412),
            ("ifGenerationNotMatch=0", live, Intent::Write, 200),
            ("ifMetagenerationMatch=1", live, Intent::Write, 200),
            ("ifMetagenerationMatch=2", live, Intent::Write, 412),
            ("ifMetagenerationNotMatch=1", live, Intent::Read, 304),
            ("ifGenerationMatch=x", live, Intent::Read, 400),
        ] {
            assert_eq!(status(query, object, intent), expected, "{query} {object:?}");
        }
    }
}
