use std::collections::HashSet;

use super::*;

fn count(is: impl Fn(&FailureMode) -> bool) -> usize {
    FailureMode::BUILT_IN.iter().filter(|mode| is(mode)).count()
}

fn wires(is: impl Fn(&FailureMode) -> bool) -> Vec<String> {
    FailureMode::BUILT_IN
        .iter()
        .filter(|mode| is(mode))
        .map(ToString::to_string)
        .collect()
}

#[test]
fn the_totals_are_those_of_the_table() {
    assert_eq!(count(FailureMode::is_retryable), 10);
    assert_eq!(count(FailureMode::is_terminal), 7);
    assert_eq!(count(|mode| !mode.is_retryable() && !mode.is_terminal()), 8);
    assert_eq!(count(FailureMode::has_partial_results), 6);
    let distinct: HashSet<_> = FailureMode::BUILT_IN.into_iter().collect();
    assert_eq!(distinct.len(), 25);
}

#[test]
fn the_wire_values_and_their_order_are_those_of_the_table() {
    assert_eq!(
        wires(|_| true),
        [
            "agent_validation",
            "agent_timeout",
            "agent_logic",
            "agent_contract",
            "agent_state",
            "system_network",
            "system_timeout",
            "system_crash",
            "system_oom",
            "system_disk",
            "resource_tool",
            "resource_api",
            "resource_memory",
            "resource_quota",
            "resource_circuit",
            "policy_security",
            "policy_budget",
            "policy_allowlist",
            "policy_rate_limit",
            "user_invalid_input",
            "user_cancelled",
            "user_permission",
            "partial_tool_failures",
            "partial_step_failures",
            "partial_timeout",
        ]
    );
}

#[test]
fn the_columns_are_those_of_the_table() {
    assert_eq!(
        wires(FailureMode::is_retryable),
        [
            "agent_timeout",
            "system_network",
            "system_timeout",
            "resource_tool",
            "resource_api",
            "resource_circuit",
            "policy_rate_limit",
            "partial_tool_failures",
            "partial_step_failures",
            "partial_timeout",
        ]
    );
    assert_eq!(
        wires(FailureMode::is_terminal),
        [
            "agent_contract",
            "system_crash",
            "system_oom",
            "policy_security",
            "policy_budget",
            "policy_allowlist",
            "user_cancelled",
        ]
    );
    assert_eq!(
        wires(FailureMode::has_partial_results),
        [
            "agent_timeout",
            "system_timeout",
            "resource_quota",
            "partial_tool_failures",
            "partial_step_failures",
            "partial_timeout",
        ]
    );
    assert_eq!(
        wires(|mode| !mode.is_retryable() && !mode.is_terminal()),
        [
            "agent_validation",
            "agent_logic",
            "agent_state",
            "system_disk",
            "resource_memory",
            "resource_quota",
            "user_invalid_input",
            "user_permission",
        ]
    );
}

#[test]
fn severity_follows_the_rule() {
    for mode in FailureMode::BUILT_IN {
        assert_eq!(
            mode.severity(),
            Severity::by_rule(mode.category(), mode.is_terminal()),
            "{mode}"
        );
        assert_eq!(mode.is_terminal(), mode.severity() == Severity::Critical);
        assert!(!(mode.is_terminal() && mode.is_retryable()), "{mode}");
    }
}

#[test]
fn the_category_agrees_with_the_prefix_of_the_wire_value() {
    for mode in FailureMode::BUILT_IN {
        let (prefix, _) = mode.wire().split_once('_').unwrap();
        let expected = if prefix == "partial" { "agent" } else { prefix };
        assert_eq!(mode.category().wire(), expected, "{mode}");
    }
}

#[test]
fn every_mode_survives_the_round_trip() {
    for mode in FailureMode::BUILT_IN {
        let written = serde_json::to_string(&mode).unwrap();
        assert_eq!(written, format!("\"{mode}\""));
        assert_eq!(serde_json::from_str::<FailureMode>(&written).unwrap(), mode);
        assert!(!mode.meaning().is_empty());
    }
}

#[test]
fn a_custom_mode_is_written_with_all_its_properties() {
    let mode = FailureMode::from(
        CustomMode::new("fraud_suspected", Category::Policy).partial_results(true),
    );
    let written = serde_json::to_string(&mode).unwrap();
    assert_eq!(
        written,
        r#"{"custom":"fraud_suspected","category":"policy","retryable":false,"terminal":false,"partial_results":true,"severity":"medium"}"#
    );
    assert_eq!(serde_json::from_str::<FailureMode>(&written).unwrap(), mode);

    let short = r#"{"custom":"odd","category":"agent"}"#;
    assert_eq!(
        serde_json::from_str::<FailureMode>(short).unwrap(),
        CustomMode::new("odd", Category::Step).into()
    );
}

#[test]
fn an_unknown_wire_value_is_refused_with_the_known_ones() {
    let error = serde_json::from_str::<FailureMode>("\"agent_boredom\"").unwrap_err();
    let text = error.to_string();
    assert!(text.contains("`agent_boredom`"), "{text}");
    assert!(text.contains("agent_validation, agent_timeout"), "{text}");
    assert!(serde_json::from_str::<FailureMode>("7").is_err());
    assert!(serde_json::from_str::<FailureMode>(r#"{"custom":"odd"}"#).is_err());
}

#[test]
fn a_custom_mode_is_never_a_built_in_one() {
    let mimic = FailureMode::from(CustomMode::new("system_network", Category::System));
    assert!(!mimic.is_same_mode(&FailureMode::SystemNetwork));
    assert!(FailureMode::SystemNetwork.is_same_mode(&FailureMode::SystemNetwork));
}
