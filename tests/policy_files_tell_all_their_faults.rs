//! All that is wrong with a policy file is said in one go, each fault with line and column and what to do.
#![cfg(feature = "toml")]
// Helper functions of tests aren't test functions.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod snapshot;

use amends::policy::PolicySet;

fn faults(text: &str) -> Vec<String> {
    match PolicySet::from_toml(text) {
        Ok(_) => Vec::new(),
        Err(error) => error.faults.iter().map(ToString::to_string).collect(),
    }
}

/// The faults of one rule's line, without their place, which is the third line's but for `column`.
fn of_when(when: &str) -> Vec<String> {
    let head = "name = \"p\"\nbase = \"saga\"\n[[rule]]\n";
    faults(&format!(
        "{head}when = {when}\nname = \"r\"\nthen = \"manual\"\n"
    ))
}

fn of_retry(settings: &str) -> Vec<String> {
    faults(&format!("[retry]\n{settings}"))
}

const TEN: &str = r#"# Ten faults, and one more thing that is right.
name = "payments"
base = "sagas"
max_recoverys = 5
otherwise = "manul"

[backoff]
kind = "exponential"
initial = "90s"
cap = "1m"

[[rule]]
name = "fraud needs eyes"
when = { mode = ["policy_securty", "user_permission"], completed_at_least = "3/0" }
then = "manual"

[[rule]]
name = "anything"
then = "compensate"

[[rule]]
name = "too late"
when = { elapsed_at_least = "10 minutes" }
then = "retry_failed"

[[rule]]
name = "never reached"
when = { past_pivot = true }
then = "manual"

[retry]
kind = "linear"
max_attempts = 0
jitter = 0.2
"#;

#[test]
fn ten_faults_give_ten_messages_with_line_and_column() {
    let found = faults(TEN);
    assert_eq!(found.len(), 10, "{found:#?}");
    snapshot::is(
        "tests/snapshots/policy_file_with_ten_faults.txt",
        &format!("{}\n", found.join("\n")),
    );
}

#[test]
fn unknown_keys_are_faults_at_every_depth_and_name_the_nearest() {
    assert_eq!(
        faults(
            "nmae = \"p\"\nname = \"p\"\nbase = \"saga\"\n[[rule]]\nname = \"r\"\nthan = \"manual\"\nthen = \"manual\"\nwhen = { steps = \"a\" }\n\
             [[step]]\nname = \"a\"\nretries = 1\nretry = { kind = \"linear\", stp = \"1s\" }\n"
        ),
        [
            "1:1: unknown key `nmae`: did you mean `name`?",
            "6:1: unknown key `than`: did you mean `then`?",
            "8:10: unknown key `steps`: did you mean `step`?",
            "11:1: unknown key `retries`: did you mean `retry`?",
            "12:28: unknown key `stp`: did you mean `step`?",
        ]
    );
    assert_eq!(
        faults("[retry]\nkind = \"linear\"\nzzz = 1\n"),
        [
            "3:1: unknown key `zzz`: known are `kind`, `initial`, `step`, `factor`, `cap`, `jitter`, `max_attempts`, `total` and `only`"
        ]
    );
}

#[test]
fn values_of_the_wrong_type_are_faults() {
    assert_eq!(
        faults(
            "name = 1\nbase = true\nmax_recoveries = \"5\"\notherwise = [\"manual\"]\nbackoff = \"1s\"\nrule = 3\nretry = 1.5\nstep = [1]\n"
        ),
        [
            "1:8: `name` takes text in quotes, and this is an integer",
            "2:8: `base` takes text in quotes, and this is a boolean",
            "3:18: `max_recoveries` takes a whole number, without quotes, and this is a string",
            "4:13: `otherwise` takes text in quotes, and this is an array",
            "5:11: `backoff` takes a table, and this is a string",
            "6:8: `rule` takes tables, each under `[[rule]]`, and this is an integer",
            "7:9: `retry` takes a table, and this is a float",
            "8:9: `step` takes a table, and this is an integer",
        ]
    );
    assert_eq!(
        of_when(
            "{ past_pivot = \"no\", recoveries_at_least = 2.0, elapsed_at_least = 10, step = 1979-05-27 }"
        ),
        [
            "4:23: `past_pivot` takes true or false, without quotes, and this is a string",
            "4:51: `recoveries_at_least` takes a whole number, without quotes, and this is a float",
            "4:75: `elapsed_at_least` takes a time in quotes, such as \"10s\", and this is an integer",
            "4:86: `step` takes text in quotes, and this is a date",
        ]
    );
}

#[test]
fn numbers_out_of_range_are_faults() {
    assert_eq!(
        faults("name = \"p\"\nbase = \"saga\"\nmax_recoveries = -1\n"),
        ["3:18: `max_recoveries` is -1, and has to be between 0 and 4294967295"]
    );
    assert_eq!(
        of_retry("kind = \"constant\"\nmax_attempts = 4294967296\n"),
        ["3:16: `max_attempts` is 4294967296, and has to be between 0 and 4294967295"]
    );
}

#[test]
fn unknown_words_name_the_nearest_known_one() {
    assert_eq!(
        of_when(
            "{ mode = \"SystemNetwork\", category = \"agnet\", severity_at_least = \"hihg\", effect = \"in-doubt\" }"
        ),
        [
            "4:17: unknown failure mode `SystemNetwork`: did you mean `system_network`?",
            "4:45: unknown category `agnet`: did you mean `agent`?",
            "4:74: unknown severity `hihg`: did you mean `high`?",
            "4:91: unknown effect `in-doubt`: did you mean `in_doubt`?",
        ]
    );
    assert_eq!(
        of_when("{ mode = [\"boom\"] }"),
        [
            "4:18: unknown failure mode `boom`: a mode of your own is a table, such as { custom = \"fraud\", category = \"policy\" }"
        ]
    );
    assert_eq!(
        of_retry("kind = \"fibonacci\"\njitter = \"ful\"\n"),
        [
            "2:8: unknown kind `fibonacci`: known are `exponential`, `linear`, `constant` and `none`",
            "3:10: unknown jitter `ful`: did you mean `full`?",
        ]
    );
    // What other systems call a last resort is no strategy here.
    assert_eq!(
        faults("name = \"p\"\notherwise = \"abort\"\n"),
        [
            "2:13: unknown strategy `abort`: known are `retry_failed`, `retry_from_checkpoint`, `retry_all`, `compensate` and `manual`"
        ]
    );
}

#[test]
fn a_custom_mode_needs_its_name_and_category() {
    assert_eq!(
        of_when("{ mode = [{ custom = \"fraud\", category = \"policy\" }] }"),
        [""; 0]
    );
    assert_eq!(
        of_when(
            "{ mode = [{ custom = \"fraud\" }, { custom = \"x\", category = \"polici\", retryabel = true }] }"
        ),
        [
            "4:18: a mode of your own needs `custom`, its name, and `category`",
            "4:67: unknown category `polici`: did you mean `policy`?",
            "4:77: unknown key `retryabel`: did you mean `retryable`?",
        ]
    );
}

#[test]
fn completions_are_fractions_that_can_be_reached() {
    for (written, why) in [
        ("\"3/0\"", "`completed_at_least`: a completion of 3/0"),
        (
            "\"5/4\"",
            "`completed_at_least`: a completion of 5/4 is more than all, and never reached",
        ),
        (
            "\"0.75\"",
            "`completed_at_least` is a fraction of whole numbers, such as \"3/4\", and this is \"0.75\"",
        ),
        (
            "0.75",
            "`completed_at_least` takes text in quotes, and this is a float",
        ),
        (
            "\"-1/4\"",
            "`completed_at_least` is a fraction of whole numbers, such as \"3/4\", and this is \"-1/4\"",
        ),
    ] {
        assert_eq!(
            of_when(&format!("{{ completed_at_least = {written} }}")),
            [format!("4:31: {why}")]
        );
    }
}

#[test]
fn retries_that_make_no_sense_are_faults_where_they_say_so() {
    assert_eq!(
        of_retry(
            "kind = \"constant\"\nmax_attempts = 0\ncap = \"1s\"\nfactor = 0\nstep = \"1s\"\njitter = \"decorrelated\"\nonly = []\n"
        ),
        [
            "3:16: max_attempts is 0: it counts calls, so that 1 is no retry",
            "4:7: the cap of 1000 ms is below the first wait of 2000 ms: raise the one or lower the other",
            "5:10: the factor is 0: waits would vanish; 1 keeps them as they are",
            "5:10: a factor is set, but only an exponential backoff has one: leave it out",
            "6:8: a step is set, but only a linear backoff has one: leave it out",
            "7:10: decorrelated jitter makes waits grow, but the backoff is constant: take full or equal",
            "8:8: `only` lists no mode: to retry nothing, use none",
        ]
    );
    // The cap is there by default: the first wait is what was written.
    assert_eq!(
        of_retry("kind = \"exponential\"\ninitial = \"1m\"\n"),
        [
            "3:11: the cap of 30000 ms is below the first wait of 60000 ms: raise the one or lower the other"
        ]
    );
    assert_eq!(
        of_retry(
            "kind = \"linear\"\ninitial = \"1 second\"\ntotal = \"1.5h\"\nonly = \"user_cancelled\"\njitter = 0.1\n"
        ),
        [
            "3:11: `initial` is no time: \"1 second\"; write whole numbers with d, h, m, s or ms, the larger units first, such as \"250ms\", \"10s\" or \"1h30m\"",
            "4:9: `total` is no time: \"1.5h\"; write whole numbers with d, h, m, s or ms, the larger units first, such as \"250ms\", \"10s\" or \"1h30m\"",
            "5:8: `only` lists user_cancelled, which is terminal and never retried: leave it out",
            "6:10: `jitter` is a word and no number, one of `none`, `full`, `equal` and `decorrelated`: `equal` is between half of the wait and all of it",
        ]
    );
    assert_eq!(
        of_retry("initial = \"1s\"\n"),
        ["1:1: `retry` has no `kind`: it is one of `exponential`, `linear`, `constant` and `none`"]
    );
    assert_eq!(
        of_retry("kind = \"none\"\nmax_attempts = 3\n"),
        [
            "2:8: a retry of the kind `none` has no other settings: leave them out, or take another kind"
        ]
    );
}

#[test]
fn a_backoff_has_no_limits() {
    assert_eq!(
        faults(
            "name = \"p\"\nbase = \"saga\"\n[backoff]\nkind = \"exponential\"\nmax_attempts = 3\ntotal = \"1h\"\nonly = \"system_oom\"\njitter = \"decorrelated\"\n"
        ),
        [
            "5:1: a backoff has no `max_attempts`: `max_recoveries` and the rules say when it ends",
            "6:1: a backoff has no `total`: `max_recoveries` and the rules say when it ends",
            "7:1: a backoff has no `only`: `max_recoveries` and the rules say when it ends",
            "7:8: `only` lists system_oom, which is terminal and never retried: leave it out",
            "8:10: decorrelated jitter grows from the wait before, and waits between recoveries don't know it: take equal or full",
        ]
    );
    assert_eq!(
        faults("name = \"p\"\nbase = \"saga\"\nbackoff = { kind = \"none\" }\n"),
        ["3:20: a backoff can't be `none`: to recover never, set `max_recoveries` to 0"]
    );
}

#[test]
fn what_is_missing_is_a_fault_where_it_should_be() {
    assert_eq!(
        faults(
            "max_recoveries = 1\n[[rule]]\n[[step]]\nretry = { kind = \"none\" }\n[[step]]\nname = \"a\"\n"
        ),
        [
            "1:1: `name` is missing: explanations in journals call the policy by it",
            "1:1: `otherwise` is missing: say what is done where no rule matches, or take a `base`, `saga` or `by_progress`",
            "2:1: a rule has no `name`: explanations in journals call it by one",
            "2:1: a rule has no `then`: it says one of `retry_failed`, `retry_from_checkpoint`, `retry_all`, `compensate` and `manual`",
            "3:1: a `[[step]]` has no `name`: it is the step's, or a pattern with `*`",
            "5:1: a `[[step]]` says nothing: give it a `retry` or a `compensation_retry`",
        ]
    );
}

#[test]
fn names_that_explanations_could_not_tell_apart_are_faults() {
    let rule = |name: &str, mode: &str| {
        format!("[[rule]]\nname = \"{name}\"\nwhen = {{ mode = \"{mode}\" }}\nthen = \"manual\"\n")
    };
    let text = [
        "name = \"p\"\nbase = \"saga\"\n".to_owned(),
        rule("one", "system_disk"),
        rule("one", "system_oom"),
        rule("not retryable", "user_permission"),
        rule("otherwise", "user_cancelled"),
        rule("", "user_invalid_input"),
    ];
    assert_eq!(
        faults(&text.concat()),
        [
            "8:8: two rules are called `one`: explanations could not tell them apart",
            "12:8: the base has a rule that is called `not retryable`, too: explanations could not tell them apart",
            "16:8: no rule can be called `otherwise`: explanations say that when no rule matched",
            "20:8: `name` is empty: give it a word",
        ]
    );
}

#[test]
fn rules_that_are_never_reached_are_faults() {
    let pair = |first: &str, second: &str| {
        let found = faults(&format!(
            "name = \"p\"\notherwise = \"manual\"\n\
             [[rule]]\nname = \"one\"\nwhen = {first}\nthen = \"manual\"\n\
             [[rule]]\nname = \"two\"\nwhen = {second}\nthen = \"compensate\"\n"
        ));
        let hidden = "7:1: the rule `two` is never reached: whatever it matches, `one` above matches first; put it above, or leave it out";
        match found.as_slice() {
            [] => false,
            [one] if one == hidden => true,
            other => panic!("{other:#?}"),
        }
    };
    for (first, second) in [
        ("{}", "{ terminal = true }"),
        ("{ terminal = true }", "{ terminal = true }"),
        (
            "{ terminal = true }",
            "{ past_pivot = true, terminal = true }",
        ),
        (
            "{ mode = [\"system_oom\", \"system_disk\"] }",
            "{ mode = \"system_disk\", step = \"a\" }",
        ),
        (
            "{ category = \"system\" }",
            "{ mode = [\"system_disk\", \"system_oom\"] }",
        ),
        ("{ terminal = true }", "{ mode = [\"system_oom\"] }"),
        ("{ terminal = false }", "{ mode = [\"system_disk\"] }"),
        (
            "{ severity_at_least = \"high\" }",
            "{ severity_at_least = \"critical\" }",
        ),
        (
            "{ severity_at_least = \"high\" }",
            "{ mode = \"system_disk\" }",
        ),
        ("{ recoveries_at_least = 2 }", "{ recoveries_at_least = 2 }"),
        (
            "{ elapsed_at_least = \"60s\" }",
            "{ elapsed_at_least = \"1m\" }",
        ),
        (
            "{ completed_at_least = \"3/4\" }",
            "{ completed_at_least = \"6/8\" }",
        ),
        ("{ step = \"charge-*\" }", "{ step = \"charge-card\" }"),
        ("{ step = \"*\" }", "{ step = \"charge-*\" }"),
        (
            "{ effect = \"done\" }",
            "{ effect = \"done\", step = \"a\" }",
        ),
    ] {
        assert!(pair(first, second), "{first} hides {second}");
    }
    for (first, second) in [
        (
            "{ past_pivot = true, terminal = true }",
            "{ terminal = true }",
        ),
        (
            "{ mode = \"system_disk\" }",
            "{ mode = [\"system_oom\", \"system_disk\"] }",
        ),
        (
            "{ category = \"system\" }",
            "{ mode = [\"system_disk\", \"user_cancelled\"] }",
        ),
        ("{ terminal = true }", "{ terminal = false }"),
        (
            "{ severity_at_least = \"critical\" }",
            "{ severity_at_least = \"high\" }",
        ),
        ("{ recoveries_at_least = 3 }", "{ recoveries_at_least = 2 }"),
        (
            "{ completed_at_least = \"4/5\" }",
            "{ completed_at_least = \"3/4\" }",
        ),
        ("{ step = \"charge-card\" }", "{ step = \"charge-*\" }"),
        ("{ step = \"a*\" }", "{ step = \"*a\" }"),
        // What is done in part is seen by rules only that name it.
        ("{}", "{ effect = \"done\" }"),
        (
            "{ category = \"agent\" }",
            "{ mode = \"partial_step_failures\" }",
        ),
    ] {
        assert!(!pair(first, second), "{first} does not hide {second}");
    }
    assert_eq!(
        faults("name = \"p\"\nbase = \"saga\"\n[[rule]]\nname = \"all\"\nthen = \"manual\"\n"),
        [
            "3:1: no rule of the base is ever reached: `all` always matches; give it a `when`, or leave `base` out"
        ]
    );
    // Rules of a base are there to be overruled.
    assert_eq!(of_when("{ terminal = true }"), [""; 0]);
}

#[test]
fn a_step_that_an_earlier_pattern_hides_is_a_fault() {
    assert_eq!(
        faults(
            "[[step]]\nname = \"charge-*\"\nretry = { kind = \"none\" }\n\
             [[step]]\nname = \"charge-card\"\nretry = { kind = \"linear\" }\ncompensation_retry = { kind = \"linear\" }\n\
             [[step]]\nname = \"charge-*\"\ncompensation_retry = { kind = \"none\" }\n"
        ),
        [
            "6:9: the retry of `charge-card` is never used: `charge-*` above matches first; put it above"
        ]
    );
}

#[test]
fn one_bracket_where_two_belong_is_said_so() {
    assert_eq!(
        faults(
            "name = \"p\"\nbase = \"saga\"\n[rule]\nname = \"r\"\nwhen = { terminal = true }\nthen = \"manual\"\n"
        ),
        ["3:1: there may be several of these: write `[[rule]]`, with two brackets"]
    );
}

#[test]
fn several_syntax_errors_and_what_is_wrong_elsewhere_are_told_together() {
    let found = faults(
        "name = \"p\nbase = \"saga\"\nmax_recoveries == 5\notherwise = \"manul\"\n[retry\nkind = \"linear\"\n",
    );
    snapshot::is(
        "tests/snapshots/policy_file_with_syntax_errors.txt",
        &format!("{}\n", found.join("\n")),
    );
    let lines: Vec<&str> = found
        .iter()
        .filter_map(|fault| fault.split(':').next())
        .collect();
    assert_eq!(lines, ["1", "3", "4", "5"]);
}

#[test]
fn no_text_makes_the_reader_panic() {
    // Cut here and there, and with something that TOML cares about put in its stead.
    for at in (0..TEN.len()).step_by(3) {
        let _ = PolicySet::from_toml(&TEN[..at]);
        for char in ["\"", "[", "{", "é"] {
            let _ = PolicySet::from_toml(&format!("{}{char}{}", &TEN[..at], &TEN[at + 1..]));
        }
    }
}
