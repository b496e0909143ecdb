//! How long a call may be silent.

use std::time::Duration;

use crate::saga::StepSpec;
use crate::step::Payload;

impl<I: Payload, O: Payload> StepSpec<I, O> {
    /// How long a call of `execute` may go without a [`heartbeat`](crate::StepContext::heartbeat), or a
    /// [report of its progress](crate::StepContext::report_progress); without a limit by default.
    ///
    /// Longer silence is a time-out: the future is dropped and its effect is in doubt, as past the
    /// [`timeout`](Self::timeout). That one passes whatever the step tells, after 30 s by default: a step
    /// that takes hours needs both, hours there and seconds here.
    #[must_use]
    pub fn heartbeat(mut self, limit: Duration) -> Self {
        self.settings.heartbeat = Some(limit);
        self
    }

    /// The same for calls of `compensate`.
    #[must_use]
    pub fn compensation_heartbeat(mut self, limit: Duration) -> Self {
        self.settings.undo_heartbeat = Some(limit);
        self
    }
}
