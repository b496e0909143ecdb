//! What became of a run, for people.

use amends::{PartialResult, StepReport, StepStatus};

/// Prints a run as a tree: each step with how it stands, and what it gave or why it failed.
pub(crate) fn tell(run: &PartialResult) {
    println!("\n{}: {}", run.run, run.hint());
    for (place, step) in run.steps.iter().enumerate() {
        let made_of_others = (run.steps.get(place + 1))
            .and_then(|next| next.name.strip_prefix(&step.name))
            .is_some_and(|inside| inside.starts_with(['/', '[']));
        let depth = step.name.matches(['/', '[']).count();
        let place = step.name.rfind(['/', '[']).unwrap_or(0);
        let name = step.name[place..].trim_start_matches('/');
        let name = format!("{:indent$}{name}", "", indent = 2 * depth);
        let words = words(run, step, made_of_others);
        let line = format!("  {} {name:<24} {words}", sign(step.status));
        println!("{}", line.trim_end());
    }
}

fn sign(status: StepStatus) -> char {
    match status {
        StepStatus::Done => '✓',
        StepStatus::Undone => '↶',
        StepStatus::Failed => '✗',
        StepStatus::PassedOver => '–',
        _ => '·',
    }
}

fn words(run: &PartialResult, step: &StepReport, made_of_others: bool) -> String {
    let output = || serde_json::to_string(step.output.as_ref()?).ok();
    let undone = run.compensations.iter().any(|undo| undo.step == step.name);
    match (step.status, &step.failure) {
        (StepStatus::Pending, _) => String::new(),
        (StepStatus::Done, _) if made_of_others => String::new(),
        (StepStatus::Done, _) => output().unwrap_or_default() + &again(step),
        (StepStatus::PassedOver, _) => "passed over".to_owned(),
        (StepStatus::Failed, Some(failure)) if undone => format!("{}: undone", failure.message),
        (StepStatus::Failed, Some(failure)) => failure.message.clone(),
        (status, _) => format!("{status:?}").to_lowercase(),
    }
}

/// What it took to get it done.
fn again(step: &StepReport) -> String {
    let failures = step.history.iter().filter_map(|call| call.failure.as_ref());
    let failures = failures.map(|failure| format!(", after: {}", failure.message));
    failures.collect()
}
