//! How states look in the terminal: a sign, a word and a hue each, so that no one of them has to be seen.

use amends::journal::Standing;
use amends::{EffectReport, StepStatus};

use crate::output::Hue;

/// The look of a state.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    pub(crate) sign: char,
    pub(crate) word: &'static str,
    pub(crate) hue: Hue,
}

fn look(sign: char, word: &'static str, hue: Hue) -> Look {
    Look { sign, word, hue }
}

pub(crate) fn of_run(standing: Standing) -> Look {
    let word = standing.as_str();
    match standing {
        Standing::Running => look('▶', word, Hue::Cyan),
        Standing::Waiting { .. } => look('◔', word, Hue::Cyan),
        Standing::Paused => look('‖', word, Hue::Yellow),
        Standing::Parked => look('!', word, Hue::Yellow),
        Standing::Completed => look('✓', word, Hue::Green),
        Standing::Compensated => look('↶', word, Hue::Magenta),
        Standing::Stopped => look('■', word, Hue::Plain),
        Standing::Abandoned => look('✗', word, Hue::Red),
    }
}

pub(crate) fn of_step(status: StepStatus) -> Look {
    match status {
        StepStatus::Pending => look('·', "pending", Hue::Dim),
        StepStatus::Running => look('▶', "running", Hue::Cyan),
        StepStatus::Retrying => look('◔', "waits to retry", Hue::Cyan),
        StepStatus::Interrupted => look('‖', "interrupted", Hue::Yellow),
        StepStatus::Done => look('✓', "done", Hue::Green),
        StepStatus::Failed => look('✗', "failed", Hue::Red),
        StepStatus::Stopped => look('■', "asked to stop", Hue::Plain),
        StepStatus::Undoing => look('◀', "undoing", Hue::Magenta),
        StepStatus::Undone => look('↶', "undone", Hue::Magenta),
        StepStatus::UndoFailed => look('⊘', "undo failed", Hue::Red),
        StepStatus::Skipped => look('»', "skipped", Hue::Green),
        StepStatus::Waiting => look('◷', "waits", Hue::Cyan),
        StepStatus::PassedOver => look('»', "passed over", Hue::Dim),
        _ => look('?', "unknown to this build", Hue::Plain),
    }
}

pub(crate) fn effect_word(effect: EffectReport) -> &'static str {
    match effect {
        EffectReport::NotDone => "none",
        EffectReport::InDoubt => "in doubt",
        EffectReport::Done => "stands",
    }
}

/// Only doubt asks for a look.
pub(crate) fn effect_hue(effect: EffectReport) -> Hue {
    match effect {
        EffectReport::NotDone => Hue::Dim,
        EffectReport::InDoubt => Hue::Yellow,
        EffectReport::Done => Hue::Plain,
    }
}
