//! How far an attempt has come, by its own word.

use crate::machine::scope::NodeState;
use crate::step::Value;

impl NodeState {
    /// Folds a report. News between interruptions is progress, and a step that comes on is not what brings
    /// the process down (rule F3); the same report again is none.
    pub(super) fn progressed(&mut self, value: &Value) {
        if self.interruptions > 0 && self.progress.as_ref() != Some(value) {
            self.interruptions = 0;
        }
        self.progress = Some(value.clone());
    }
}
