//! Commands on their way to the owner of their run.

use std::time::Duration;

use tokio::time::Instant;

use crate::journal::{Command, CommandAnswer};
use crate::machine::{Asked, Refused};
use crate::operator::{Operator, OperatorError};
use crate::store::StoreError;

/// What became of a command so far.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Sent {
    /// The owner of the run has answered it.
    Answered(CommandAnswer),
    /// It is kept, and nobody has answered it yet: the next owner of the run will.
    Waiting,
}

impl Operator {
    /// Hands a command in and waits for its answer, for `patience` at most. Where nobody drives the run, it
    /// is carried out at the next start.
    ///
    /// The same command under the same token is carried out once, so a call that was interrupted can be
    /// repeated.
    ///
    /// # Errors
    ///
    /// [`OperatorError::Refused`] where the run, as its journal has it now, is at a stage that doesn't take the
    /// verb: then nothing was handed in. Whatever is possible only to the owner to tell is told by the answer.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the answer; the command may have been handed in.
    pub async fn send(&self, command: &Command, patience: Duration) -> Result<Sent, OperatorError> {
        self.check(command).await?;
        self.store.submit(command).await?;
        Ok(self.answer(&command.token, patience).await?)
    }

    /// Says whether the run's stage takes the command now, without handing it in: what a dry run tells.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    pub async fn check(&self, command: &Command) -> Result<(), OperatorError> {
        let Some(view) = self.view(&command.run).await? else {
            let run = command.run.clone();
            return Err(OperatorError::NoSuchRun { run });
        };
        let asked = Asked {
            at: command.at,
            by: &command.by,
            reason: &command.reason,
        };
        let token = Some(command.token.as_str());
        match view.state.command(&view.graph, &command.verb, asked, token) {
            Err(
                why @ (Refused::Ended
                | Refused::NotNow { .. }
                | Refused::NoSuchStep(_)
                | Refused::NoSuchSignal { .. }
                | Refused::TokenTaken(_)),
            ) => Err(OperatorError::Refused {
                run: command.run.clone(),
                why,
                legal: view.legal(),
            }),
            // Rules that only the code knows are for the owner to judge by.
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Waits for the answer to a command that was handed in, for `patience` at most.
    ///
    /// # Errors
    ///
    /// Where the store fails.
    pub async fn answer(&self, token: &str, patience: Duration) -> Result<Sent, StoreError> {
        const FIRST: Duration = Duration::from_millis(5);
        const LONGEST: Duration = Duration::from_millis(100);
        let until = Instant::now() + patience;
        let mut pause = FIRST;
        loop {
            let kept = self.store.find_command(token).await?;
            if let Some(answer) = kept.and_then(|kept| kept.answer) {
                return Ok(Sent::Answered(answer));
            }
            if Instant::now() >= until {
                return Ok(Sent::Waiting);
            }
            tokio::time::sleep(pause.min(until - Instant::now())).await;
            pause = (pause * 2).min(LONGEST);
        }
    }
}
