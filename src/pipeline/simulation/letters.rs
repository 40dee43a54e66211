//! Dead letters under way, and what goes wrong with them.

use super::{
    coverage::Mark,
    env::{Env, Event, Who},
};
use crate::{
    dead_letter::{DeadLetter, Stage},
    delivery::action::LetterId,
    fault::{Fault, FaultKind},
};

/// What becomes of a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LetterAnswer {
    /// Stored.
    Stored,
    /// Not stored.
    Refused,
    /// Stored, and the client does not learn it.
    StoredUnknown,
}

/// A dead letter's way back: to whom, and which.
pub(crate) type Sender = (Who, usize, LetterId);

/// Sends a dead letter.
pub(crate) fn send(env: &mut Env, sender: Sender, letter: DeadLetter) {
    let answer = if !env.rng.chance(env.chances().letter) {
        LetterAnswer::Stored
    } else if env.rng.chance(500) {
        env.mark(Mark::DeadLetterFault);
        LetterAnswer::Refused
    } else {
        env.mark(Mark::DeadLetterUnknown);
        LetterAnswer::StoredUnknown
    };
    let (who, worker, _) = sender;
    env.log(format_args!(
        "letter {who:?}.{worker} {} {} {answer:?} {}",
        letter.origin,
        letter.reason.stage.name(),
        letter.reason.message
    ));
    let delay = env.delay();
    env.after(delay, Event::LetterArrives(sender, Box::new(letter), answer));
}

/// A dead letter at its topic.
pub(crate) fn arrives(env: &mut Env, sender: Sender, letter: &DeadLetter, answer: LetterAnswer) {
    if answer != LetterAnswer::Refused {
        env.checkers.lettered(letter, &mut env.history, env.now);
        env.mark(Mark::DeadLetter);
        env.mark(match letter.reason.stage {
            Stage::Decode => Mark::LetterDecode,
            Stage::Transcode => Mark::LetterTranscode,
            Stage::Schema => Mark::LetterSchema,
            Stage::Write => Mark::LetterWrite,
            _ => Mark::LetterDestination,
        });
    }
    let delay = env.delay();
    env.after(delay, Event::LetterAnswered(sender, answer));
}

/// What a client makes of a dead letter's answer.
pub(crate) fn result(answer: LetterAnswer) -> Result<(), Fault> {
    match answer {
        LetterAnswer::Stored => Ok(()),
        LetterAnswer::Refused => Err(Fault::refused(FaultKind::Transient, "injected", "refused")),
        LetterAnswer::StoredUnknown => {
            Err(Fault::unknown(FaultKind::Transient, "injected", "no answer"))
        }
    }
}
