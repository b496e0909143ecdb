//! Writing a set, so that reading gives the same one.

use std::fmt::Write;
use std::time::Duration;

use serde_json::Value as Json;

use crate::failure::{FailedEffect, FailureMode};
use crate::policy::{Condition, PolicySet, RecoveryPolicy, Retry, Rule, duration};

pub(super) fn write(set: &PolicySet) -> String {
    let mut out = String::new();
    if let Some(policy) = &set.recovery {
        recovery(&mut out, policy);
    }
    if let Some(value) = &set.retry {
        retry(&mut out, "retry", value, true);
    }
    if let Some(value) = &set.compensation_retry {
        retry(&mut out, "compensation_retry", value, true);
    }
    for step in &set.steps {
        line(&mut out, "\n[[step]]");
        line(&mut out, &format!("name = {}", quoted(&step.pattern)));
        if let Some(value) = &step.retry {
            retry(&mut out, "step.retry", value, true);
        }
        if let Some(value) = &step.compensation_retry {
            retry(&mut out, "step.compensation_retry", value, true);
        }
    }
    out.trim_start().to_owned()
}

fn line(out: &mut String, line: &str) {
    out.push_str(line);
    out.push('\n');
}

fn recovery(out: &mut String, policy: &RecoveryPolicy) {
    line(out, &format!("name = {}", quoted(&policy.name)));
    line(out, &format!("otherwise = \"{}\"", policy.otherwise));
    line(out, &format!("max_recoveries = {}", policy.max_recoveries));
    retry(out, "backoff", &policy.backoff, false);
    for rule in &policy.rules {
        line(out, "\n[[rule]]");
        line(out, &format!("name = {}", quoted(&rule.name)));
        if !rule.when.is_empty() {
            line(out, &format!("when = {}", when(rule)));
        }
        line(out, &format!("then = \"{}\"", rule.then));
    }
}

/// One table, or several where a condition is there twice.
fn when(rule: &Rule) -> String {
    let mut tables: Vec<Vec<(&str, String)>> = vec![Vec::new()];
    for one in &rule.when {
        let (key, value) = condition(one);
        let last = tables.len() - 1;
        if tables[last].iter().any(|(known, _)| *known == key) {
            tables.push(vec![(key, value)]);
        } else {
            tables[last].push((key, value));
        }
    }
    let tables: Vec<String> = tables
        .iter()
        .map(|entries| {
            let entries: Vec<String> = entries
                .iter()
                .map(|(key, value)| format!("{key} = {value}"))
                .collect();
            format!("{{ {} }}", entries.join(", "))
        })
        .collect();
    match tables.as_slice() {
        [one] => one.clone(),
        several => format!("[{}]", several.join(", ")),
    }
}

fn condition(condition: &Condition) -> (&'static str, String) {
    let yes = || "true".to_owned();
    let no = || "false".to_owned();
    match condition {
        Condition::Terminal => ("terminal", yes()),
        Condition::NotTerminal => ("terminal", no()),
        Condition::Retryable => ("retryable", yes()),
        Condition::NotRetryable => ("retryable", no()),
        Condition::UsedUp => ("used_up", yes()),
        Condition::NotUsedUp => ("used_up", no()),
        Condition::PastPivot => ("past_pivot", yes()),
        Condition::BeforePivot => ("past_pivot", no()),
        Condition::CompletedAtLeast {
            numerator,
            denominator,
        } => (
            "completed_at_least",
            format!("\"{numerator}/{denominator}\""),
        ),
        Condition::Mode(modes) => ("mode", modes_text(modes)),
        Condition::Category(category) => ("category", quoted(category.wire())),
        Condition::SeverityAtLeast(severity) => ("severity_at_least", quoted(severity.wire())),
        Condition::Step(pattern) => ("step", quoted(pattern)),
        Condition::Effect(FailedEffect::NotDone) => ("effect", quoted("not_done")),
        Condition::Effect(FailedEffect::InDoubt) => ("effect", quoted("in_doubt")),
        Condition::Effect(FailedEffect::Done) => ("effect", quoted("done")),
        Condition::RecoveriesAtLeast(least) => ("recoveries_at_least", least.to_string()),
        Condition::ElapsedAtLeast(least) => ("elapsed_at_least", quoted(&duration::text(*least))),
    }
}

fn modes_text(modes: &[FailureMode]) -> String {
    let modes: Vec<String> = modes.iter().map(mode).collect();
    format!("[{}]", modes.join(", "))
}

fn mode(mode: &FailureMode) -> String {
    let FailureMode::Custom(custom) = mode else {
        return quoted(mode.wire());
    };
    let mut entries = vec![
        format!("custom = {}", quoted(custom.name())),
        format!("category = {}", quoted(mode.category().wire())),
    ];
    for (key, is) in [
        ("retryable", mode.is_retryable()),
        ("terminal", mode.is_terminal()),
        ("partial_results", mode.has_partial_results()),
    ] {
        if is {
            entries.push(format!("{key} = true"));
        }
    }
    entries.push(format!("severity = {}", quoted(mode.severity().wire())));
    format!("{{ {} }}", entries.join(", "))
}

/// A table of a retry, with all its settings, but for those that the place doesn't have.
fn retry(out: &mut String, name: &str, retry: &Retry, limits: bool) {
    line(out, &format!("\n[{name}]"));
    // Its settings are its own affair: the form in journals has them all.
    let Ok(Json::Object(form)) = serde_json::to_value(retry) else {
        return;
    };
    let mut put = |key: &str, value: String| {
        let _ = writeln!(out, "{key} = {value}");
    };
    let text = |key: &str| form.get(key).and_then(Json::as_str).map(quoted);
    let time = |key: &str| {
        let millis = form.get(key).and_then(Json::as_u64)?;
        Some(quoted(&duration::text(Duration::from_millis(millis))))
    };
    let number = |key: &str| {
        form.get(key)
            .and_then(Json::as_u64)
            .map(|it| it.to_string())
    };
    for (key, value) in [
        ("kind", text("backoff")),
        ("initial", time("initial_ms")),
        ("step", time("step_ms")),
        ("factor", number("factor")),
        ("cap", time("cap_ms")),
        ("jitter", text("jitter")),
    ] {
        if let Some(value) = value {
            put(key, value);
        }
    }
    if !limits {
        return;
    }
    for (key, value) in [
        ("max_attempts", number("max_attempts")),
        ("total", time("total_ms")),
        ("only", retry.only_modes().map(modes_text)),
    ] {
        if let Some(value) = value {
            put(key, value);
        }
    }
}

/// A basic string of TOML.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for char in text.chars() {
        match char {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            char if char.is_control() => {
                let _ = write!(out, "\\u{:04X}", u32::from(char));
            }
            char => out.push(char),
        }
    }
    out.push('"');
    out
}
