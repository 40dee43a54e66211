//! Appends that go on while something else is done to their stream.

use tokio::{
    sync::{Semaphore, oneshot},
    time::Instant,
};

use crate::{
    app::probe::{
        appends::{Appended, Appends, Request, message, next},
        rpc::Answer,
        transcript::Trouble,
    },
    rpc::RpcStream,
};

/// Requests without an answer.
const WINDOW: usize = 64;

impl Appends {
    /// Sends requests without waiting until one is refused, does `meanwhile` from the first answer on, and gives
    /// back the answers as far as they came. Ends the connection. An error where there is no answer at all.
    pub(crate) async fn race<T>(
        self,
        requests: impl Iterator<Item = Request>,
        meanwhile: impl Future<Output = T>,
    ) -> Result<(Vec<Answer<Appended>>, T), Trouble> {
        let mut requests = requests.peekable();
        let line = requests.peek().map(|request| self.line(request)).unwrap_or_default();
        let (asked, window) = (Instant::now(), Semaphore::new(WINDOW));
        let Self { wire: RpcStream { requests: wire, mut answers }, stream, mut schema, log } =
            self;
        let (window, stream) = (&window, stream.as_str());
        let send = async move {
            for request in requests {
                let Ok(permit) = window.acquire().await else { break };
                permit.forget();
                if wire.send(message(stream, schema.take(), request)).await.is_err() {
                    break;
                }
            }
            // Without its sender the call ends behind its last answer.
            drop(wire);
        };
        let (told, heard) = oneshot::channel();
        let read = async {
            let (mut read, mut told) = (Vec::new(), Some(told));
            let end = loop {
                let answer = match next(&mut answers).await {
                    Ok(answer) => answer,
                    Err(end) => break end,
                };
                told.take().map(|told| told.send(()).ok());
                window.add_permits(1);
                if answer.is_err() {
                    window.close();
                }
                read.push(answer);
            };
            window.close();
            (read, end)
        };
        let meanwhile = async {
            match heard.await {
                Ok(()) => Some(meanwhile.await),
                Err(_) => None,
            }
        };
        let ((), (answers, end), other) = tokio::join!(send, read, meanwhile);
        log.note(&format!("{line}, and more without waiting"), &told_of(&answers), asked.elapsed());
        other.map(|other| (answers, other)).ok_or(end)
    }
}

fn told_of(answers: &[Answer<Appended>]) -> String {
    let taken = answers.iter().filter(|answer| answer.is_ok()).count();
    let refused = answers.iter().find_map(|answer| answer.as_ref().err());
    let refused = refused.map(|refusal| format!(", then {refusal}")).unwrap_or_default();
    format!("{} answers, {taken} OK{refused}", answers.len())
}
