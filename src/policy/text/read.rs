//! Reading: every fault is noted and reading goes on, so that all are found in one go.

use std::collections::BTreeSet;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeInteger, DeTable, DeValue};

use super::PolicyFileError;
use super::place::{Found, instead, line_and_column, listed, nearest};
use super::reach::hides;
use crate::failure::{Category, CustomMode, FailedEffect, FailureMode, Severity};
use crate::policy::recovery::{DECORRELATED, OTHERWISE};
use crate::policy::{
    Condition, Jitter, PolicySet, RecoveryPolicy, RecoveryStrategy, Retry, Rule, StepRetries,
    duration, pattern,
};

type Value<'t> = Spanned<DeValue<'t>>;

const CATEGORIES: [Category; 5] = [
    Category::Step,
    Category::System,
    Category::Resource,
    Category::Policy,
    Category::User,
];

const SEVERITIES: [Severity; 4] = [
    Severity::Low,
    Severity::Medium,
    Severity::High,
    Severity::Critical,
];

const EFFECTS: [(&str, FailedEffect); 3] = [
    ("not_done", FailedEffect::NotDone),
    ("in_doubt", FailedEffect::InDoubt),
    ("done", FailedEffect::Done),
];

const JITTERS: [(&str, Jitter); 4] = [
    ("none", Jitter::None),
    ("full", Jitter::Full),
    ("equal", Jitter::Equal),
    ("decorrelated", Jitter::Decorrelated),
];

/// A word, and what makes the thing that it names.
type Made<T> = (&'static str, fn() -> T);

const BASES: [Made<RecoveryPolicy>; 2] = [
    ("saga", RecoveryPolicy::saga),
    ("by_progress", RecoveryPolicy::by_progress),
];

const KINDS: [Made<Retry>; 4] = [
    ("exponential", Retry::exponential),
    ("linear", Retry::linear),
    ("constant", Retry::constant),
    ("none", Retry::none),
];

/// The keys of a file that say something about recovery.
const RECOVERY: [&str; 6] = [
    "name",
    "base",
    "max_recoveries",
    "otherwise",
    "backoff",
    "rule",
];

const CONDITIONS: [&str; 12] = [
    "mode",
    "category",
    "severity_at_least",
    "step",
    "effect",
    "completed_at_least",
    "recoveries_at_least",
    "elapsed_at_least",
    "past_pivot",
    "retryable",
    "terminal",
    "used_up",
];

/// A rule with its place.
struct Placed {
    rule: Rule,
    at: usize,
}

pub(super) fn read(text: &str) -> Result<PolicySet, PolicyFileError> {
    let (document, errors) = DeTable::parse_recoverable(text);
    let mut reader = Reader { found: Vec::new() };
    let set = reader.set(document.get_ref());
    let mut found = reader.found;
    if !errors.is_empty() {
        let broken = Broken::new(text, &errors);
        found.retain(|found| !found.missing && !broken.hides(found.at));
        found.extend(broken.faults);
    }
    if found.is_empty() {
        return Ok(set);
    }
    found.sort_by_key(|found| found.at);
    Err(PolicyFileError {
        faults: found.into_iter().map(|found| found.placed(text)).collect(),
    })
}

/// What is not TOML. What a broken line was meant to say is unknown, so that its value isn't judged; nor
/// are the keys below a broken header.
struct Broken<'t> {
    text: &'t str,
    /// The first of each line: what follows is mostly the same fault.
    faults: Vec<Found>,
    lines: BTreeSet<usize>,
}

impl<'t> Broken<'t> {
    fn new(text: &'t str, errors: &[toml::de::Error]) -> Self {
        let mut broken = Broken {
            text,
            faults: Vec::new(),
            lines: BTreeSet::new(),
        };
        for error in errors {
            let at = error.span().map_or(text.len(), |span| span.start);
            if broken.lines.insert(line_and_column(text, at).0) {
                broken.faults.push(Found {
                    at,
                    missing: false,
                    message: format!("this is not TOML: {}", error.message().replace('\n', ", ")),
                });
            }
        }
        broken
    }

    fn hides(&self, at: usize) -> bool {
        let line = line_and_column(self.text, at).0;
        let header = |line: &usize| {
            let text = self.text.lines().nth(line - 1).unwrap_or_default();
            text.trim_start().starts_with('[')
        };
        let above = (1..=line).rev().find(header);
        self.lines.contains(&line) || above.is_some_and(|header| self.lines.contains(&header))
    }
}

struct Reader {
    found: Vec<Found>,
}

impl Reader {
    fn fault(&mut self, at: usize, message: impl Into<String>) {
        self.found.push(Found {
            at,
            missing: false,
            message: message.into(),
        });
    }

    fn missing(&mut self, at: usize, message: impl Into<String>) {
        self.found.push(Found {
            at,
            missing: true,
            message: message.into(),
        });
    }

    fn set(&mut self, file: &DeTable<'_>) -> PolicySet {
        let others = ["retry", "compensation_retry", "step"];
        let known: Vec<&str> = RECOVERY.iter().chain(&others).copied().collect();
        self.only_known(file, &known);
        let mut set = PolicySet::new();
        if RECOVERY.iter().any(|key| file.contains_key(*key)) {
            set.recovery = Some(self.recovery(file));
        }
        set.retry = file.get("retry").and_then(|it| self.retry("retry", it));
        set.compensation_retry = file
            .get("compensation_retry")
            .and_then(|it| self.retry("compensation_retry", it));
        if let Some(steps) = file.get("step") {
            set.steps = self.steps(steps);
        }
        set
    }

    fn recovery(&mut self, file: &DeTable<'_>) -> RecoveryPolicy {
        let why = "`name` is missing: explanations in journals call the policy by it";
        let name = self.name_in(file, 0, why);
        let base = file
            .get("base")
            .and_then(|base| self.one_of("base", "base", base, &BASES));
        let otherwise = file
            .get("otherwise")
            .and_then(|it| self.strategy("otherwise", it));
        if !file.contains_key("otherwise") && !file.contains_key("base") {
            self.missing(
                0,
                "`otherwise` is missing: say what is done where no rule matches, or take a `base`, \
                 `saga` or `by_progress`",
            );
        }
        let base_policy = base.map(|make| make());
        let mut policy = match &base_policy {
            Some(base) => base.clone(),
            None => RecoveryPolicy::new("", RecoveryStrategy::Manual),
        };
        policy.name = name.unwrap_or_default();
        policy.otherwise = otherwise.unwrap_or(policy.otherwise);
        if let Some(most) = file.get("max_recoveries") {
            policy.max_recoveries = self
                .whole("max_recoveries", most)
                .unwrap_or(policy.max_recoveries);
        }
        if let Some(backoff) = file.get("backoff")
            && let Some(backoff) = self.backoff(backoff)
        {
            policy.backoff = backoff;
        }
        if let Some(rules) = file.get("rule") {
            let rules = self.rules(rules, base_policy.as_ref());
            policy.rules.splice(0..0, rules);
        }
        policy.changed()
    }

    fn rules(&mut self, value: &Value<'_>, base: Option<&RecoveryPolicy>) -> Vec<Rule> {
        let mut rules: Vec<Placed> = Vec::new();
        let mut names: Vec<String> = Vec::new();
        for table in self.tables("rule", value) {
            let read = self.rule(table);
            let Some(name) = read.name else { continue };
            if names.contains(&name.0) {
                self.fault(
                    name.1,
                    format!(
                        "two rules are called `{}`: explanations could not tell them apart",
                        name.0
                    ),
                );
            }
            names.push(name.0.clone());
            let in_base = base.is_some_and(|base| base.rules.iter().any(|it| it.name == name.0));
            if in_base {
                self.fault(
                    name.1,
                    format!(
                        "the base has a rule that is called `{}`, too: explanations could not tell \
                         them apart",
                        name.0
                    ),
                );
            }
            let (Some(when), Some(then)) = (read.when, read.then) else {
                continue;
            };
            let rule = Rule {
                name: name.0,
                when,
                then,
            };
            if let Some(hiding) = rules.iter().find(|placed| hides(&placed.rule, &rule)) {
                let hiding = &hiding.rule.name;
                self.fault(
                    read.at,
                    format!(
                        "the rule `{}` is never reached: whatever it matches, `{hiding}` above \
                         matches first; put it above, or leave it out",
                        rule.name
                    ),
                );
            }
            rules.push(Placed { rule, at: read.at });
        }
        if base.is_some()
            && let Some(always) = rules.iter().find(|placed| placed.rule.when.is_empty())
        {
            let name = &always.rule.name;
            let message = format!(
                "no rule of the base is ever reached: `{name}` always matches; give it a `when`, or \
                 leave `base` out"
            );
            self.fault(always.at, message);
        }
        rules.into_iter().map(|placed| placed.rule).collect()
    }

    fn rule(&mut self, value: &Value<'_>) -> RuleRead {
        let at = value.span().start;
        let mut read = RuleRead {
            at,
            name: None,
            when: Some(Vec::new()),
            then: None,
        };
        let Some(table) = self.table("rule", value) else {
            return read;
        };
        self.only_known(table, &["name", "when", "then"]);
        match table.get("name") {
            Some(name) => {
                read.name = self
                    .named("name", name)
                    .map(|word| (word, name.span().start));
            }
            None => self.missing(
                at,
                "a rule has no `name`: explanations in journals call it by one",
            ),
        }
        if let Some((word, at)) = &read.name
            && word == OTHERWISE
        {
            self.fault(
                *at,
                format!(
                    "no rule can be called `{OTHERWISE}`: explanations say that when no rule matched"
                ),
            );
        }
        match table.get("then") {
            Some(then) => read.then = self.strategy("then", then),
            None => self.missing(
                at,
                format!(
                    "a rule has no `then`: it says one of {}",
                    listed(&strategies())
                ),
            ),
        }
        if let Some(when) = table.get("when") {
            read.when = self.when(when);
        }
        read
    }

    /// All conditions, in the order in which they are written; nothing where one of them is faulty, so
    /// that a rule isn't taken for a wider one.
    fn when(&mut self, value: &Value<'_>) -> Option<Vec<Condition>> {
        let tables: Vec<&Value<'_>> = match value.get_ref() {
            DeValue::Array(tables) => tables.iter().collect(),
            _ => vec![value],
        };
        let mut conditions = Some(Vec::new());
        for table in tables {
            let Some(table) = self.table("when", table) else {
                conditions = None;
                continue;
            };
            if !self.only_known(table, &CONDITIONS) {
                conditions = None;
            }
            let mut entries: Vec<_> = table
                .iter()
                .filter(|(key, _)| CONDITIONS.contains(&key.get_ref().as_ref()))
                .collect();
            entries.sort_by_key(|(key, _)| key.span().start);
            for (key, value) in entries {
                let condition = self.condition(key.get_ref(), value);
                match (&mut conditions, condition) {
                    (Some(conditions), Some(condition)) => conditions.push(condition),
                    (_, None) => conditions = None,
                    (None, Some(_)) => {}
                }
            }
        }
        conditions
    }

    fn condition(&mut self, key: &str, value: &Value<'_>) -> Option<Condition> {
        let either = |yes, no| move |is: bool| if is { yes } else { no };
        let condition = match key {
            "terminal" => self
                .yes_or_no(key, value)
                .map(either(Condition::Terminal, Condition::NotTerminal)),
            "retryable" => self
                .yes_or_no(key, value)
                .map(either(Condition::Retryable, Condition::NotRetryable)),
            "used_up" => self
                .yes_or_no(key, value)
                .map(either(Condition::UsedUp, Condition::NotUsedUp)),
            "past_pivot" => self
                .yes_or_no(key, value)
                .map(either(Condition::PastPivot, Condition::BeforePivot)),
            "completed_at_least" => self.completion(key, value),
            "mode" => self.modes(key, value).map(Condition::Mode),
            "category" => self
                .one_of(
                    key,
                    "category",
                    value,
                    &CATEGORIES.map(|it| (it.wire(), it)),
                )
                .map(Condition::Category),
            "severity_at_least" => self
                .one_of(
                    key,
                    "severity",
                    value,
                    &SEVERITIES.map(|it| (it.wire(), it)),
                )
                .map(Condition::SeverityAtLeast),
            "step" => self.text(key, value).map(Condition::Step),
            "effect" => self
                .one_of(key, "effect", value, &EFFECTS)
                .map(Condition::Effect),
            "recoveries_at_least" => self.whole(key, value).map(Condition::RecoveriesAtLeast),
            "elapsed_at_least" => self.duration(key, value).map(Condition::ElapsedAtLeast),
            _ => None,
        }?;
        match condition.fault() {
            None => Some(condition),
            Some(fault) => {
                self.fault(value.span().start, format!("`{key}`: {fault}"));
                None
            }
        }
    }

    fn completion(&mut self, key: &str, value: &Value<'_>) -> Option<Condition> {
        let written = self.text(key, value)?;
        let parts = written
            .split_once('/')
            .and_then(|(upper, lower)| Some((upper.parse().ok()?, lower.parse().ok()?)));
        let Some((numerator, denominator)) = parts else {
            self.fault(
                value.span().start,
                format!("`{key}` is a fraction of whole numbers, such as \"3/4\", and this is \"{written}\""),
            );
            return None;
        };
        Some(Condition::CompletedAtLeast {
            numerator,
            denominator,
        })
    }

    fn steps(&mut self, value: &Value<'_>) -> Vec<StepRetries> {
        let mut steps: Vec<StepRetries> = Vec::new();
        for value in self.tables("step", value) {
            let at = value.span().start;
            let Some(table) = self.table("step", value) else {
                continue;
            };
            self.only_known(table, &["name", "retry", "compensation_retry"]);
            let why = "a `[[step]]` has no `name`: it is the step's, or a pattern with `*`";
            let name = self.name_in(table, at, why);
            let mut step = StepRetries::new(name.clone().unwrap_or_default());
            for key in ["retry", "compensation_retry"] {
                let Some(value) = table.get(key) else {
                    continue;
                };
                let said = self.retry(key, value);
                let slot = |step: &StepRetries| match key {
                    "retry" => step.retry.is_some(),
                    _ => step.compensation_retry.is_some(),
                };
                let hiding = steps
                    .iter()
                    .find(|earlier| slot(earlier) && covers(&earlier.pattern, &step.pattern));
                if let (Some(hiding), Some(name)) = (hiding, &name) {
                    let message = format!(
                        "the {key} of `{name}` is never used: `{}` above matches first; put it above",
                        hiding.pattern
                    );
                    self.fault(value.span().start, message);
                }
                match key {
                    "retry" => step.retry = said,
                    _ => step.compensation_retry = said,
                }
            }
            if !table.contains_key("retry") && !table.contains_key("compensation_retry") {
                self.missing(
                    at,
                    "a `[[step]]` says nothing: give it a `retry` or a `compensation_retry`",
                );
            }
            if name.is_some() {
                steps.push(step);
            }
        }
        steps
    }

    fn backoff(&mut self, value: &Value<'_>) -> Option<Retry> {
        let before = self.found.len();
        let table = self.table("backoff", value)?;
        for key in ["max_attempts", "total", "only"] {
            if let Some((key, _)) = table.get_key_value(key) {
                let (at, key) = (key.span().start, key.get_ref());
                let why = format!(
                    "a backoff has no `{key}`: `max_recoveries` and the rules say when it ends"
                );
                self.fault(at, why);
            }
        }
        let retry = self.waits("backoff", value.span().start, table);
        if let Some(kind) = table.get("kind")
            && kind.get_ref().as_str() == Some("none")
        {
            let why = "a backoff can't be `none`: to recover never, set `max_recoveries` to 0";
            self.fault(kind.span().start, why);
        }
        if let Some(jitter) = table.get("jitter")
            && jitter.get_ref().as_str() == Some("decorrelated")
        {
            self.fault(jitter.span().start, DECORRELATED);
        }
        (self.found.len() == before).then(|| retry.without_limits())
    }

    fn retry(&mut self, name: &str, value: &Value<'_>) -> Option<Retry> {
        let table = self.table(name, value)?;
        Some(self.waits(name, value.span().start, table))
    }

    fn waits(&mut self, name: &str, at: usize, table: &DeTable<'_>) -> Retry {
        let known = [
            "kind",
            "initial",
            "step",
            "factor",
            "cap",
            "jitter",
            "max_attempts",
            "total",
            "only",
        ];
        self.only_known(table, &known);
        let Some(kind) = table.get("kind") else {
            let kinds = KINDS.map(|(kind, _)| kind);
            self.missing(
                at,
                format!("`{name}` has no `kind`: it is one of {}", listed(&kinds)),
            );
            return Retry::default();
        };
        let Some(make) = self.one_of("kind", "kind", kind, &KINDS) else {
            // The other keys are still looked at, those that only some kinds have as well.
            self.settings(table, Retry::default(), false);
            return Retry::default();
        };
        let none = kind.get_ref().as_str() == Some("none");
        if none && table.len() > 1 {
            let why = "a retry of the kind `none` has no other settings: leave them out, or take \
                       another kind";
            self.fault(kind.span().start, why);
        }
        self.settings(table, make(), !none)
    }

    fn settings(&mut self, table: &DeTable<'_>, mut retry: Retry, judge: bool) -> Retry {
        for (key, set) in [
            ("initial", Retry::initial as fn(Retry, Duration) -> Retry),
            ("step", Retry::step),
            ("cap", Retry::cap),
            ("total", Retry::total),
        ] {
            if let Some(value) = table.get(key)
                && let Some(time) = self.duration(key, value)
            {
                retry = set(retry, time);
            }
        }
        for (key, set) in [
            ("factor", Retry::factor as fn(Retry, u32) -> Retry),
            ("max_attempts", Retry::max_attempts),
        ] {
            if let Some(value) = table.get(key)
                && let Some(number) = self.whole(key, value)
            {
                retry = set(retry, number);
            }
        }
        if let Some(value) = table.get("jitter")
            && let Some(jitter) = self.jitter(value)
        {
            retry = retry.jitter(jitter);
        }
        if let Some(value) = table.get("only")
            && let Some(modes) = self.modes("only", value)
        {
            retry = retry.only(modes);
        }
        if judge {
            for (key, fault) in retry.faults_by_key() {
                // A fault needs its key, but for a cap by default that is below a first wait.
                let blamed = table.get(key).or_else(|| table.get("initial"));
                let at = blamed.map_or(0, |value| value.span().start);
                self.fault(at, fault);
            }
        }
        retry
    }

    fn jitter(&mut self, value: &Value<'_>) -> Option<Jitter> {
        if let DeValue::Integer(_) | DeValue::Float(_) = value.get_ref() {
            self.fault(
                value.span().start,
                format!(
                    "`jitter` is a word and no number, one of {}: `equal` is between half of the wait \
                     and all of it",
                    listed(&JITTERS.map(|(word, _)| word))
                ),
            );
            return None;
        }
        self.one_of("jitter", "jitter", value, &JITTERS)
    }

    fn modes(&mut self, key: &str, value: &Value<'_>) -> Option<Vec<FailureMode>> {
        let values: Vec<&Value<'_>> = match value.get_ref() {
            DeValue::Array(values) => values.iter().collect(),
            _ => vec![value],
        };
        let read: Vec<Option<FailureMode>> =
            values.into_iter().map(|it| self.mode(key, it)).collect();
        read.into_iter().collect()
    }

    fn mode(&mut self, key: &str, value: &Value<'_>) -> Option<FailureMode> {
        if let DeValue::Table(table) = value.get_ref() {
            return self.custom_mode(value.span().start, table);
        }
        let word = self.text(key, value)?;
        if let Some(mode) = FailureMode::built_in(&word) {
            return Some(mode);
        }
        let known: Vec<String> = FailureMode::BUILT_IN
            .iter()
            .map(|mode| mode.wire().to_owned())
            .collect();
        let known: Vec<&str> = known.iter().map(String::as_str).collect();
        let hint = match nearest(&word, &known) {
            Some(nearest) => format!("did you mean `{nearest}`?"),
            None => "a mode of your own is a table, such as { custom = \"fraud\", category = \"policy\" }"
                .to_owned(),
        };
        self.fault(
            value.span().start,
            format!("unknown failure mode `{word}`: {hint}"),
        );
        None
    }

    fn custom_mode(&mut self, at: usize, table: &DeTable<'_>) -> Option<FailureMode> {
        let known = [
            "custom",
            "category",
            "retryable",
            "terminal",
            "partial_results",
            "severity",
        ];
        self.only_known(table, &known);
        let (Some(name), Some(category)) = (table.get("custom"), table.get("category")) else {
            let why = "a mode of your own needs `custom`, its name, and `category`";
            self.missing(at, why);
            return None;
        };
        let name = self.named("custom", name);
        let category = self.one_of(
            "category",
            "category",
            category,
            &CATEGORIES.map(|it| (it.wire(), it)),
        );
        let mut mode = CustomMode::new(name?, category?);
        for (key, set) in [
            (
                "retryable",
                CustomMode::retryable as fn(CustomMode, bool) -> CustomMode,
            ),
            ("terminal", CustomMode::terminal),
            ("partial_results", CustomMode::partial_results),
        ] {
            if let Some(value) = table.get(key) {
                mode = set(mode, self.yes_or_no(key, value)?);
            }
        }
        if let Some(value) = table.get("severity") {
            let severities = SEVERITIES.map(|it| (it.wire(), it));
            mode = mode.severity(self.one_of("severity", "severity", value, &severities)?);
        }
        Some(mode.into())
    }

    fn strategy(&mut self, key: &str, value: &Value<'_>) -> Option<RecoveryStrategy> {
        self.one_of(
            key,
            "strategy",
            value,
            &RecoveryStrategy::ALL.map(|it| (it.as_str(), it)),
        )
    }

    /// `key` is where the word is, and `what` is what it names.
    fn one_of<T: Copy>(
        &mut self,
        key: &str,
        what: &str,
        value: &Value<'_>,
        known: &[(&str, T)],
    ) -> Option<T> {
        let word = self.text(key, value)?;
        let found = known.iter().find(|(known, _)| *known == word);
        if found.is_none() {
            let words: Vec<&str> = known.iter().map(|(word, _)| *word).collect();
            self.fault(
                value.span().start,
                format!("unknown {what} `{word}`: {}", instead(&word, &words)),
            );
        }
        found.map(|(_, value)| *value)
    }

    /// The table's `name`; `why` where it has none.
    fn name_in(&mut self, table: &DeTable<'_>, at: usize, why: &str) -> Option<String> {
        if let Some(name) = table.get("name") {
            return self.named("name", name);
        }
        self.missing(at, why);
        None
    }

    fn named(&mut self, key: &str, value: &Value<'_>) -> Option<String> {
        let name = self.text(key, value)?;
        if name.is_empty() {
            self.fault(
                value.span().start,
                format!("`{key}` is empty: give it a word"),
            );
            return None;
        }
        Some(name)
    }

    fn duration(&mut self, key: &str, value: &Value<'_>) -> Option<Duration> {
        let written = match value.get_ref() {
            DeValue::String(written) => written,
            other => {
                self.wrong(key, value, "a time in quotes, such as \"10s\"", other);
                return None;
            }
        };
        let duration = duration::parse(written);
        if duration.is_none() {
            self.fault(
                value.span().start,
                format!(
                    "`{key}` is no time: \"{written}\"; write whole numbers with d, h, m, s or ms, the \
                     larger units first, such as \"250ms\", \"10s\" or \"1h30m\""
                ),
            );
        }
        duration
    }

    fn text(&mut self, key: &str, value: &Value<'_>) -> Option<String> {
        match value.get_ref() {
            DeValue::String(text) => Some(text.clone().into_owned()),
            other => {
                self.wrong(key, value, "text in quotes", other);
                None
            }
        }
    }

    fn yes_or_no(&mut self, key: &str, value: &Value<'_>) -> Option<bool> {
        match value.get_ref() {
            DeValue::Boolean(is) => Some(*is),
            other => {
                self.wrong(key, value, "true or false, without quotes", other);
                None
            }
        }
    }

    fn whole(&mut self, key: &str, value: &Value<'_>) -> Option<u32> {
        let number = match value.get_ref() {
            DeValue::Integer(number) => number,
            other => {
                self.wrong(key, value, "a whole number, without quotes", other);
                return None;
            }
        };
        let read = unsigned(number);
        if read.is_none() {
            self.fault(
                value.span().start,
                format!(
                    "`{key}` is {number}, and has to be between 0 and {}",
                    u32::MAX
                ),
            );
        }
        read
    }

    fn wrong(&mut self, key: &str, value: &Value<'_>, wanted: &str, found: &DeValue<'_>) {
        let article = match found.type_str() {
            kind @ ("integer" | "array") => format!("an {kind}"),
            "datetime" => "a date".to_owned(),
            kind => format!("a {kind}"),
        };
        self.fault(
            value.span().start,
            format!("`{key}` takes {wanted}, and this is {article}"),
        );
    }

    fn table<'v, 't>(&mut self, key: &str, value: &'v Value<'t>) -> Option<&'v DeTable<'t>> {
        match value.get_ref() {
            DeValue::Table(table) => Some(table),
            other => {
                self.wrong(key, value, "a table", other);
                None
            }
        }
    }

    /// The tables of `[[key]]`.
    fn tables<'v, 't>(&mut self, key: &str, value: &'v Value<'t>) -> Vec<&'v Value<'t>> {
        match value.get_ref() {
            DeValue::Array(tables) => tables.iter().collect(),
            DeValue::Table(_) => {
                self.fault(
                    value.span().start,
                    format!("there may be several of these: write `[[{key}]]`, with two brackets"),
                );
                vec![value]
            }
            other => {
                self.wrong(
                    key,
                    value,
                    &format!("tables, each under `[[{key}]]`"),
                    other,
                );
                Vec::new()
            }
        }
    }

    /// Whether all keys are known.
    fn only_known(&mut self, table: &DeTable<'_>, known: &[&str]) -> bool {
        let mut all = true;
        for key in table.keys() {
            let word = key.get_ref();
            if !known.contains(&word.as_ref()) {
                all = false;
                self.fault(
                    key.span().start,
                    format!("unknown key `{word}`: {}", instead(word, known)),
                );
            }
        }
        all
    }
}

/// What could be read of a rule.
struct RuleRead {
    at: usize,
    name: Option<(String, usize)>,
    when: Option<Vec<Condition>>,
    then: Option<RecoveryStrategy>,
}

fn strategies() -> Vec<&'static str> {
    RecoveryStrategy::ALL.map(RecoveryStrategy::as_str).to_vec()
}

/// Whether the one pattern matches all that the other does. Says yes only where that is certain.
fn covers(earlier: &str, later: &str) -> bool {
    earlier == later
        || earlier == "*"
        || (pattern::is_exact(later) && pattern::matches(earlier, later))
}

fn unsigned(number: &DeInteger<'_>) -> Option<u32> {
    u32::from_str_radix(number.as_str(), number.radix()).ok()
}
