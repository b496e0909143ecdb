//! Which rules are never reached, because an earlier one always matches first.

use crate::failure::{FailedEffect, FailureMode};
use crate::policy::pattern::{is_exact, matches};
use crate::policy::{Condition, Rule};

/// Whether `earlier` matches whatever `later` matches. Says yes only where that is certain.
pub(super) fn hides(earlier: &Rule, later: &Rule) -> bool {
    // What is done in part is no failure: only rules that name it are about it.
    if later.when.iter().any(may_name_a_part) && !earlier.when.iter().any(may_name_a_part) {
        return false;
    }
    earlier
        .when
        .iter()
        .all(|wanted| later.when.iter().any(|given| implies(given, wanted)))
}

/// Whether a rule with this condition may be about a step that is done in part.
fn may_name_a_part(condition: &Condition) -> bool {
    match condition {
        Condition::Effect(effect) => *effect == FailedEffect::Done,
        Condition::Mode(modes) => modes.iter().any(FailureMode::has_partial_results),
        _ => false,
    }
}

/// Whether `wanted` holds whenever `given` does.
fn implies(given: &Condition, wanted: &Condition) -> bool {
    use Condition::{
        Category, CompletedAtLeast, ElapsedAtLeast, Mode, NotTerminal, RecoveriesAtLeast,
        SeverityAtLeast, Step, Terminal,
    };
    if given == wanted {
        return true;
    }
    match (given, wanted) {
        (Mode(given), Mode(wanted)) => given
            .iter()
            .all(|mode| wanted.iter().any(|one| one.is_same_mode(mode))),
        // A custom mode's properties may be declared anew: only built-in modes are certain.
        (Mode(modes), wanted) => {
            let built_in = modes
                .iter()
                .all(|mode| FailureMode::built_in(mode.wire()).is_some());
            let all = |holds: &dyn Fn(&FailureMode) -> bool| modes.iter().all(holds);
            built_in
                && match wanted {
                    Category(category) => all(&|mode| mode.category() == *category),
                    SeverityAtLeast(least) => all(&|mode| mode.severity() >= *least),
                    Terminal => all(&FailureMode::is_terminal),
                    NotTerminal => all(&|mode| !mode.is_terminal()),
                    _ => false,
                }
        }
        (SeverityAtLeast(given), SeverityAtLeast(wanted)) => given >= wanted,
        (RecoveriesAtLeast(given), RecoveriesAtLeast(wanted)) => given >= wanted,
        (ElapsedAtLeast(given), ElapsedAtLeast(wanted)) => given >= wanted,
        (
            CompletedAtLeast {
                numerator,
                denominator,
            },
            CompletedAtLeast {
                numerator: least,
                denominator: of,
            },
        ) => u64::from(*numerator) * u64::from(*of) >= u64::from(*least) * u64::from(*denominator),
        (Step(given), Step(wanted)) => wanted == "*" || (is_exact(given) && matches(wanted, given)),
        _ => false,
    }
}
