//! A policy file and the Rust types say the same, there and back.
#![cfg(feature = "toml")]
// Helper functions of tests aren't test functions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::time::Duration;

use amends::failure::{Category, CustomMode, FailedEffect, Severity};
use amends::policy::{Condition, Jitter, PolicySet, Rule, StepRetries};
use amends::{FailureMode, RecoveryPolicy, RecoveryStrategy, Retry};

fn read(text: &str) -> PolicySet {
    PolicySet::from_toml(text).unwrap_or_else(|error| panic!("{error}\nin:\n{text}"))
}

fn there_and_back(set: &PolicySet) {
    assert_eq!(set.faults(), Vec::<String>::new());
    let written = set.to_toml();
    assert_eq!(&read(&written), set, "{written}");
}

/// The TOML blocks of a page, in order.
fn blocks(page: &str) -> Vec<&str> {
    page.split("```toml\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap())
        .collect()
}

const PAGE: &str = include_str!("../docs/policies.md");

#[test]
fn the_example_of_the_page_says_what_the_same_in_rust_says() {
    let in_rust = PolicySet::new()
        .recovery(
            RecoveryPolicy::saga()
                .named("payments")
                .max_recoveries(5)
                .backoff(
                    Retry::exponential()
                        .initial(Duration::from_secs(2))
                        .cap(Duration::from_secs(300)),
                )
                .first(
                    Rule::new("a night is enough", RecoveryStrategy::Compensate)
                        .when(Condition::ElapsedAtLeast(Duration::from_secs(12 * 3600)))
                        .when(Condition::BeforePivot),
                )
                .first(
                    Rule::new("fraud needs eyes", RecoveryStrategy::Manual)
                        .when(Condition::Mode(vec![
                            FailureMode::SecurityViolation,
                            FailureMode::PermissionDenied,
                        ]))
                        .when(Condition::Step("charge-*".to_owned())),
                ),
        )
        .retry(Retry::exponential().max_attempts(4))
        .step(
            StepRetries::new("charge-*")
                .retry(
                    Retry::constant()
                        .initial(Duration::from_secs(1))
                        .max_attempts(2)
                        .only([FailureMode::SystemNetwork]),
                )
                .compensation_retry(Retry::compensation().max_attempts(20)),
        );
    let of_the_page = read(blocks(PAGE)[0]);
    assert_eq!(of_the_page, in_rust);
    assert_eq!(
        of_the_page.recovery_policy().unwrap().digest(),
        in_rust.recovery_policy().unwrap().digest()
    );
}

#[test]
fn every_example_of_the_page_can_be_read() {
    let blocks = blocks(PAGE);
    assert_eq!(blocks.len(), 4);
    for block in blocks {
        read(block);
    }
}

#[test]
fn the_page_lists_every_condition_strategy_and_built_in_mode() {
    for strategy in RecoveryStrategy::ALL {
        assert!(PAGE.contains(&format!("`{strategy}`")), "{strategy}");
    }
    for mode in FailureMode::BUILT_IN {
        assert!(PAGE.contains(&format!("`{mode}`")), "{mode}");
    }
    let error = PolicySet::from_toml(
        "name = \"p\"\nbase = \"saga\"\n[[rule]]\nname = \"r\"\nwhen = { zzzzzz = 1 }\nthen = \"manual\"",
    )
    .unwrap_err();
    let known: Vec<&str> = error.faults[0]
        .message
        .split('`')
        .skip(3)
        .step_by(2)
        .collect();
    assert_eq!(known.len(), 12, "{error}");
    for key in known {
        assert!(PAGE.contains(&format!("| `{key} = ")), "{key}");
    }
}

#[test]
fn the_presets_survive_the_round_trip() {
    there_and_back(&PolicySet::new());
    there_and_back(&PolicySet::new().recovery(RecoveryPolicy::saga()));
    there_and_back(&PolicySet::new().recovery(RecoveryPolicy::by_progress()));
}

#[test]
fn every_condition_survives_the_round_trip_in_its_order() {
    let custom = CustomMode::new("fraud_suspected", Category::User)
        .retryable(true)
        .partial_results(true)
        .severity(Severity::Critical);
    let conditions = [
        Condition::Terminal,
        Condition::NotTerminal,
        Condition::Retryable,
        Condition::NotRetryable,
        Condition::UsedUp,
        Condition::NotUsedUp,
        Condition::PastPivot,
        Condition::BeforePivot,
        Condition::CompletedAtLeast {
            numerator: 3,
            denominator: 4,
        },
        Condition::Mode(vec![FailureMode::RateLimited, custom.into()]),
        Condition::Mode(FailureMode::BUILT_IN.to_vec()),
        Condition::Category(Category::Step),
        Condition::SeverityAtLeast(Severity::High),
        Condition::Step("a\"b\\*\u{7}\n é".to_owned()),
        Condition::Effect(FailedEffect::InDoubt),
        Condition::Effect(FailedEffect::NotDone),
        Condition::Effect(FailedEffect::Done),
        Condition::RecoveriesAtLeast(7),
        Condition::ElapsedAtLeast(Duration::from_millis(93_784_005)),
    ];
    let mut policy = RecoveryPolicy::new("all of \"them\"", RecoveryStrategy::RetryAll);
    for (index, condition) in conditions.iter().enumerate() {
        policy = policy.rule(
            Rule::new(format!("rule {index}"), RecoveryStrategy::ALL[index % 5])
                .when(condition.clone()),
        );
    }
    // All at once, forwards and backwards: each condition that is there twice opens a table of its own.
    let both = [conditions.to_vec(), conditions.into_iter().rev().collect()];
    for (index, all) in both.into_iter().enumerate() {
        let rule = Rule::new(format!("all {index}"), RecoveryStrategy::Manual);
        let set = PolicySet::new().recovery(
            RecoveryPolicy::new("p", RecoveryStrategy::Manual)
                .rule(all.into_iter().fold(rule, Rule::when)),
        );
        there_and_back(&set);
    }
    there_and_back(&PolicySet::new().recovery(policy));
}

#[test]
fn every_retry_survives_the_round_trip() {
    let retries = [
        Retry::none(),
        Retry::constant().jitter(Jitter::Full),
        Retry::linear()
            .step(Duration::from_micros(1500))
            .total(Duration::from_secs(60)),
        Retry::exponential()
            .factor(3)
            .cap(Duration::MAX)
            .jitter(Jitter::Decorrelated)
            .max_attempts(u32::MAX)
            .only([FailureMode::SystemNetwork]),
        Retry::compensation(),
        Retry::exponential()
            .initial(Duration::ZERO)
            .jitter(Jitter::None),
    ];
    for retry in retries {
        there_and_back(
            &PolicySet::new()
                .retry(retry.clone())
                .compensation_retry(retry.clone())
                .step(StepRetries::new("a").retry(retry.clone()))
                .step(StepRetries::new("b*").compensation_retry(retry.clone()))
                .step(
                    StepRetries::new("*")
                        .retry(Retry::none())
                        .compensation_retry(retry),
                ),
        );
    }
}

#[test]
fn backoffs_survive_the_round_trip_without_the_limits_that_they_do_not_have() {
    for backoff in [Retry::constant(), Retry::linear(), Retry::exponential()] {
        there_and_back(
            &PolicySet::new().recovery(
                RecoveryPolicy::saga()
                    .max_recoveries(0)
                    .backoff(backoff.total(Duration::from_secs(9)).max_attempts(2)),
            ),
        );
    }
}

#[test]
fn what_a_base_says_stays_where_the_file_says_nothing() {
    let set = read("name = \"mine\"\nbase = \"by_progress\"\n");
    assert_eq!(
        set.recovery_policy(),
        Some(&RecoveryPolicy::by_progress().named("mine"))
    );
    let set =
        read("name = \"mine\"\nbase = \"saga\"\notherwise = \"manual\"\nmax_recoveries = 9\n");
    let policy = set.recovery_policy().unwrap();
    assert_eq!(policy.rules(), RecoveryPolicy::saga().rules());
    assert_eq!(policy.otherwise(), RecoveryStrategy::Manual);
    assert_eq!(policy.recoveries(), 9);
}

#[test]
fn rules_of_a_file_go_before_those_of_its_base() {
    let set = read(
        "name = \"mine\"\nbase = \"saga\"\n\
         [[rule]]\nname = \"one\"\nwhen = { terminal = true }\nthen = \"compensate\"\n\
         [[rule]]\nname = \"two\"\nwhen = { past_pivot = false }\nthen = \"retry_all\"\n",
    );
    let names: Vec<&str> = set
        .recovery_policy()
        .unwrap()
        .rules()
        .iter()
        .map(Rule::name)
        .collect();
    assert_eq!(
        names,
        [
            "one",
            "two",
            "terminal",
            "used up past the pivot",
            "retryable past the pivot",
            "past the pivot",
            "not retryable",
            "used up"
        ]
    );
}

#[test]
fn retries_alone_leave_recovery_to_the_definition() {
    let set =
        read("[retry]\nkind = \"linear\"\n[[step]]\nname = \"a\"\nretry = { kind = \"none\" }\n");
    assert_eq!(set.recovery_policy(), None);
    assert_eq!(set.retry_of("a"), Some(&Retry::none()));
    assert_eq!(set.retry_of("b"), Some(&Retry::linear()));
    assert_eq!(set.compensation_retry_of("a"), None);
}

#[test]
fn the_first_step_that_matches_and_says_it_counts() {
    let set = read(
        "[[step]]\nname = \"charge-card\"\ncompensation_retry = { kind = \"constant\" }\n\
         [[step]]\nname = \"charge-*\"\nretry = { kind = \"linear\" }\ncompensation_retry = { kind = \"none\" }\n\
         [[step]]\nname = \"*\"\nretry = { kind = \"none\" }\n",
    );
    assert_eq!(set.retry_of("charge-card"), Some(&Retry::linear()));
    assert_eq!(
        set.compensation_retry_of("charge-card"),
        Some(&Retry::constant())
    );
    assert_eq!(
        set.compensation_retry_of("charge-fee"),
        Some(&Retry::none())
    );
    assert_eq!(set.retry_of("ship"), Some(&Retry::none()));
    assert_eq!(set.compensation_retry_of("ship"), None);
}

#[test]
fn a_settled_kind_gives_the_defaults_of_the_retry_table() {
    for (kind, retry) in [
        ("exponential", Retry::exponential()),
        ("linear", Retry::linear()),
        ("constant", Retry::constant()),
        ("none", Retry::none()),
    ] {
        let set = read(&format!("[retry]\nkind = \"{kind}\"\n"));
        assert_eq!(set.retry_of("a"), Some(&retry));
    }
}
