//! What the probes saw: questions, requests with their answers, verdicts, as Markdown and as lines.

use std::{
    fmt::{self, Write as _},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// Exchanges that a probe's record holds; further ones are counted only.
const EXCHANGES_MAX: usize = 300;
/// Characters of a request's or an answer's line.
const LINE_CHARS_MAX: usize = 500;

/// What is asked, and what the service takes for granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// What the probe is called.
    pub name: &'static str,
    /// The question.
    pub asks: &'static str,
    /// What kcbq assumes.
    pub assumes: &'static str,
    /// Which code rests on it.
    pub rests: &'static str,
}

/// What came of a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The remote does what kcbq assumes.
    AsAssumed,
    /// It does something else.
    Different(String),
    /// It was asked, and what was asked for did not show.
    NotSeen(String),
    /// It could not be asked.
    NotRun(Trouble),
}

/// Why a probe could not be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// What happened.
    pub why: String,
    /// What a person can do about it.
    pub remedy: String,
}

impl Trouble {
    /// A trouble and its remedy.
    pub fn new(why: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { why: why.into(), remedy: remedy.into() }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AsAssumed => f.write_str("as assumed"),
            Self::Different(what) => write!(f, "DIFFERENT: {what}"),
            Self::NotSeen(why) => write!(f, "not seen: {why}"),
            Self::NotRun(Trouble { why, remedy }) => {
                write!(f, "could not be run: {why} – {remedy}")
            }
        }
    }
}

/// Collects what is otherwise than assumed.
#[derive(Debug, Default)]
pub struct Comparison(Vec<String>);

impl Comparison {
    /// Notes `otherwise` unless the assumption holds.
    pub fn check(&mut self, holds: bool, otherwise: impl FnOnce() -> String) {
        if !holds {
            self.0.push(otherwise());
        }
    }

    /// The verdict over everything that was checked.
    pub fn verdict(self) -> Verdict {
        match self.0.is_empty() {
            true => Verdict::AsAssumed,
            false => Verdict::Different(self.0.join("; ")),
        }
    }
}

/// A request and its answer, one line each.
#[derive(Clone, Debug)]
struct Exchange {
    request: String,
    answer: String,
    took: Duration,
}

/// The record of one probe. Clones share it, so that what was seen outlives a probe that is given up.
#[derive(Clone, Debug, Default)]
pub struct Log(Arc<Mutex<(Vec<Exchange>, usize)>>);

impl Log {
    /// Notes a request, what was answered and how long that took.
    pub fn note(&self, request: &str, answer: &str, took: Duration) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if held.0.len() >= EXCHANGES_MAX {
            held.1 += 1;
            return;
        }
        // A request stands between backticks.
        let (request, answer) = (line(request).replace('`', "'"), line(answer));
        held.0.push(Exchange { request, answer, took });
    }

    fn render(&self, out: &mut String) -> fmt::Result {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (number, Exchange { request, answer, took }) in (1..).zip(&held.0) {
            writeln!(out, "{number}. `{request}`<br>→ {answer} ({} ms)", took.as_millis())?;
        }
        match held.1 {
            0 => Ok(()),
            more => writeln!(out, "\n{more} further requests are left out."),
        }
    }
}

/// Text as one line.
fn line(text: &str) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().take(LINE_CHARS_MAX).map(plain).collect()
}

/// One probe's part of the transcript.
#[derive(Clone, Debug)]
pub struct Entry {
    /// What was asked.
    pub question: &'static Question,
    /// What was sent and answered.
    pub log: Log,
    /// What came of it.
    pub verdict: Verdict,
}

/// The whole transcript.
#[derive(Clone, Debug, Default)]
pub struct Transcript {
    /// Time, version, endpoints and the like: name and value.
    pub head: Vec<(&'static str, String)>,
    /// The probes, in their order.
    pub entries: Vec<Entry>,
    /// What could not be cleaned away.
    pub left: Vec<String>,
}

impl Transcript {
    /// The file's text.
    pub fn markdown(&self) -> String {
        let mut out = String::from("# What `kcbq probe` saw\n\n");
        // Writing to a `String` never fails.
        self.write(&mut out).ok();
        out
    }

    fn write(&self, out: &mut String) -> fmt::Result {
        out.push_str("| | |\n|---|---|\n");
        for (name, value) in &self.head {
            writeln!(out, "| {name} | {} |", line(value))?;
        }
        out.push_str("\n| probe | verdict |\n|---|---|\n");
        for Entry { question, verdict, .. } in &self.entries {
            writeln!(out, "| {} | {} |", question.name, cell(&verdict.to_string()))?;
        }
        for Entry { question, log, verdict } in &self.entries {
            let Question { name, asks, assumes, rests } = question;
            write!(out, "\n## {name}\n\n{asks}\n\n* kcbq assumes: {assumes}\n")?;
            writeln!(
                out,
                "* what rests on it: {rests}\n* verdict: **{}**\n",
                cell(&verdict.to_string())
            )?;
            log.render(out)?;
        }
        for left in &self.left {
            writeln!(out, "\nLeft behind: {}", line(left))?;
        }
        Ok(())
    }

    /// A line for each probe, and the sum.
    pub fn summary(&self) -> String {
        let line = |Entry { question, verdict, .. }: &Entry| {
            format!("{:<26} {}\n", question.name, line(&verdict.to_string()))
        };
        let mut text: String = self.entries.iter().map(line).collect();
        text.extend(self.left.iter().map(|left| format!("left behind: {left}\n")));
        let count = |is: fn(&Verdict) -> bool| {
            self.entries.iter().filter(|entry| is(&entry.verdict)).count()
        };
        let [same, different, unseen, unrun] = [
            count(|verdict| matches!(verdict, Verdict::AsAssumed)),
            count(|verdict| matches!(verdict, Verdict::Different(_))),
            count(|verdict| matches!(verdict, Verdict::NotSeen(_))),
            count(|verdict| matches!(verdict, Verdict::NotRun(_))),
        ];
        text + &format!(
            "{same} as assumed, {different} different, {unseen} not seen, {unrun} could not be run\n"
        )
    }

    /// The process's exit code: 1 if an assumption does not hold, else 2 if a probe could not be run, else 0.
    pub fn exit_code(&self) -> u8 {
        let any = |is: fn(&Verdict) -> bool| self.entries.iter().any(|entry| is(&entry.verdict));
        if any(|verdict| matches!(verdict, Verdict::Different(_))) {
            1
        } else if any(|verdict| matches!(verdict, Verdict::NotRun(_))) {
            2
        } else {
            0
        }
    }
}

/// A line inside a table's cell.
fn cell(text: &str) -> String {
    line(text).replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;

    static QUESTION: Question = Question { name: "q", asks: "Is it?", assumes: "yes", rests: "x" };

    fn transcript(verdicts: Vec<Verdict>) -> Transcript {
        let entry = |verdict| Entry { question: &QUESTION, log: Log::default(), verdict };
        Transcript {
            head: vec![("version", "1".to_owned())],
            entries: verdicts.into_iter().map(entry).collect(),
            left: Vec::new(),
        }
    }

    #[test]
    fn a_difference_weighs_more_than_a_probe_that_could_not_be_run() {
        let different = Verdict::Different("no".to_owned());
        let not_run = Verdict::NotRun(Trouble::new("away", "call"));
        let not_seen = Verdict::NotSeen("too long".to_owned());
        let code = |verdicts| transcript(verdicts).exit_code();
        assert_eq!(code(vec![Verdict::AsAssumed, not_seen]), 0);
        assert_eq!(code(vec![not_run.clone(), Verdict::AsAssumed]), 2);
        assert_eq!(code(vec![not_run, different]), 1);
    }

    #[test]
    fn every_exchange_is_a_line_and_a_foreign_text_stays_in_its_place() {
        let transcript = transcript(vec![Verdict::Different("a | b\n# c".to_owned())]);
        transcript.entries[0].log.note("GET `x`\ny", "200", Duration::from_millis(7));
        let text = transcript.markdown();
        assert!(text.contains("1. `GET 'x' y`<br>→ 200 (7 ms)\n"), "{text}");
        assert!(text.contains("* verdict: **DIFFERENT: a \\| b # c**\n"), "{text}");
        assert!(text.contains("* kcbq assumes: yes\n* what rests on it: x\n"), "{text}");
    }

    #[test]
    fn a_record_is_bounded() {
        let transcript = transcript(vec![Verdict::AsAssumed]);
        let log = &transcript.entries[0].log;
        (0..EXCHANGES_MAX + 2).for_each(|_| log.note("a", &"b".repeat(1_000), Duration::ZERO));
        let text = transcript.markdown();
        assert!(text.contains("\n2 further requests are left out.\n"));
        assert_eq!(text.matches(&"b".repeat(LINE_CHARS_MAX)).count(), EXCHANGES_MAX);
        assert!(!text.contains(&"b".repeat(LINE_CHARS_MAX + 1)));
    }
}
