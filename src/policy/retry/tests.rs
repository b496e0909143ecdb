use super::*;
use crate::failure::{Category, CustomMode};

const SECOND: Duration = Duration::from_secs(1);

fn reset() -> Failure {
    Failure::new(FailureMode::SystemNetwork, "connection reset")
}

fn delay(verdict: RetryVerdict) -> Duration {
    match verdict {
        RetryVerdict::Again { after } => after,
        RetryVerdict::GiveUp(reason) => panic!("gave up: {reason}"),
    }
}

fn waits(retry: &Retry, count: u32) -> Vec<u64> {
    let retry = retry.clone().max_attempts(u32::MAX);
    (1..=count)
        .map(|made| delay(retry.verdict(&reset(), made, Duration::ZERO, None, 0)).as_secs())
        .collect()
}

#[test]
fn the_sequences_without_jitter_are_exact() {
    let exponential = Retry::exponential().jitter(Jitter::None);
    assert_eq!(
        waits(&exponential.clone().initial(SECOND), 7),
        [1, 2, 4, 8, 16, 30, 30]
    );
    let steep = exponential.initial(10 * SECOND).factor(3).cap(50 * SECOND);
    assert_eq!(waits(&steep, 4), [10, 30, 50, 50]);
    assert_eq!(waits(&Retry::constant(), 4), [2, 2, 2, 2]);
    assert_eq!(waits(&Retry::linear(), 4), [1, 2, 3, 4]);
    assert_eq!(
        waits(&Retry::linear().step(10 * SECOND), 5),
        [1, 11, 21, 30, 30]
    );
}

#[test]
fn the_defaults_are_those_of_the_table() {
    let plain = |retry: Retry| retry.jitter(Jitter::None);
    let first = |retry: Retry| delay(plain(retry).verdict(&reset(), 1, SECOND, None, 0));
    assert_eq!(first(Retry::default()), Duration::from_millis(200));
    assert_eq!(first(Retry::linear()), SECOND);
    assert_eq!(first(Retry::constant()), 2 * SECOND);
    assert_eq!(first(Retry::compensation()), Duration::from_millis(200));
    assert_eq!(
        waits(&plain(Retry::compensation()), 10)[8..],
        [51, 60],
        "51.2 s, then the cap"
    );
    assert_eq!(Retry::default(), Retry::exponential());
    for retry in [
        Retry::none(),
        Retry::constant(),
        Retry::linear(),
        Retry::exponential(),
        Retry::compensation(),
    ] {
        assert_eq!(retry.faults(), [""; 0]);
    }
}

/// How often a step is called that always fails, and why it is given up.
fn calls(retry: &Retry, failure: &Failure) -> (u32, GiveUp) {
    let mut made = 0;
    loop {
        made += 1;
        if let RetryVerdict::GiveUp(why) = retry.verdict(failure, made, Duration::ZERO, None, 0) {
            return (made, why);
        }
    }
}

#[test]
fn max_attempts_counts_calls() {
    for (max_attempts, expected) in [(0, 1), (1, 1), (2, 2), (3, 3), (10, 10)] {
        let retry = Retry::exponential().max_attempts(max_attempts);
        assert_eq!(
            calls(&retry, &reset()),
            (expected, GiveUp::AttemptsUsedUp),
            "{max_attempts}"
        );
    }
    assert_eq!(calls(&Retry::none(), &reset()).0, 1);
    assert_eq!(calls(&Retry::compensation(), &reset()).0, 10);
}

#[test]
fn a_terminal_mode_is_never_retried() {
    for mode in FailureMode::BUILT_IN {
        let mut failure = Failure::new(mode.clone(), "").retry_after(Some(SECOND));
        // As a journal that was written by other hands might have it.
        failure.retryable = true;
        let retry = Retry::exponential().only([mode.clone()]);
        let expected = if mode.is_terminal() {
            (1, GiveUp::Terminal)
        } else {
            (3, GiveUp::AttemptsUsedUp)
        };
        assert_eq!(calls(&Retry::default(), &failure), expected, "{mode}");
        assert_eq!(calls(&retry, &failure), expected, "{mode}");
    }
}

#[test]
fn without_a_filter_the_failure_decides() {
    for mode in FailureMode::BUILT_IN {
        let failure = Failure::new(mode.clone(), "");
        let retried = calls(&Retry::default(), &failure).0 > 1;
        assert_eq!(retried, mode.is_retryable(), "{mode}");
    }
    let (made, why) = calls(&Retry::default(), &reset().retryable(false));
    assert_eq!((made, why), (1, GiveUp::NotRetryable));
    let disk = Failure::new(FailureMode::SystemDisk, "").retryable(true);
    assert_eq!(calls(&Retry::default(), &disk).0, 3);
}

#[test]
fn a_filter_retries_exactly_its_modes() {
    let retry = Retry::exponential().only([FailureMode::SystemDisk]);
    let disk = Failure::new(FailureMode::SystemDisk, "full");
    assert_eq!(calls(&retry, &disk).0, 3);
    assert_eq!(calls(&retry, &reset()), (1, GiveUp::NotRetryable));

    let fraud = CustomMode::new("fraud", Category::Policy);
    let retry = Retry::exponential().only([fraud.clone().into()]);
    let changed = Failure::new(fraud.partial_results(true).into(), "");
    assert_eq!(calls(&retry, &changed).0, 3, "custom modes match by name");
}

#[test]
fn retry_after_overrides_the_wait_but_not_the_limits() {
    let asking = |wait| reset().retry_after(Some(wait));
    let retry = Retry::exponential().cap(SECOND).jitter(Jitter::None);
    let at = |failure: &Failure, made| retry.verdict(failure, made, Duration::ZERO, None, 0);

    assert_eq!(delay(at(&asking(3600 * SECOND), 1)), 3600 * SECOND);
    assert_eq!(
        delay(at(&asking(Duration::from_millis(5)), 2)),
        Duration::from_millis(5)
    );
    assert_eq!(
        delay(at(&asking(Duration::ZERO), 1)),
        Duration::from_millis(200),
        "zero falls back to the policy"
    );
    assert_eq!(
        at(&asking(SECOND), 3),
        RetryVerdict::GiveUp(GiveUp::AttemptsUsedUp)
    );
    assert_eq!(
        retry
            .clone()
            .total(10 * SECOND)
            .verdict(&asking(11 * SECOND), 1, Duration::ZERO, None, 0),
        RetryVerdict::GiveUp(GiveUp::TimeUsedUp)
    );
    assert_eq!(
        at(&asking(SECOND).retryable(false), 1),
        RetryVerdict::GiveUp(GiveUp::NotRetryable)
    );
}

#[test]
fn no_attempt_begins_after_the_total_time() {
    let retry = Retry::constant().total(10 * SECOND).max_attempts(100);
    let at = |since_first| retry.verdict(&reset(), 1, since_first, None, 0);
    assert_eq!(delay(at(8 * SECOND)), 2 * SECOND, "the limit itself is in");
    assert_eq!(
        at(8 * SECOND + Duration::from_nanos(1)),
        RetryVerdict::GiveUp(GiveUp::TimeUsedUp)
    );
    assert_eq!(at(Duration::MAX), RetryVerdict::GiveUp(GiveUp::TimeUsedUp));
}

/// The shortest and the longest of 10 000 waits in milliseconds, and how many differ from each other.
fn spread(retry: &Retry, made: u32, previous: Option<Duration>) -> (u128, u128, usize) {
    let mut seen: Vec<_> = (0..10_000)
        .map(|seed| {
            delay(retry.verdict(&reset(), made, Duration::ZERO, previous, seed)).as_millis()
        })
        .collect();
    seen.sort_unstable();
    let (shortest, longest) = (seen[0], seen[seen.len() - 1]);
    seen.dedup();
    (shortest, longest, seen.len())
}

#[test]
fn jitter_fills_its_range_and_no_more() {
    let retry = Retry::exponential()
        .initial(Duration::from_millis(100))
        .cap(Duration::from_millis(250))
        .max_attempts(100);
    let full = retry.clone().jitter(Jitter::Full);
    let equal = retry.clone().jitter(Jitter::Equal);
    let decorrelated = retry.jitter(Jitter::Decorrelated);

    assert_eq!(spread(&full, 1, None), (0, 100, 101));
    assert_eq!(spread(&full, 2, None), (0, 200, 201));
    assert_eq!(spread(&full, 9, None), (0, 250, 251), "spread at the cap");
    assert_eq!(spread(&equal, 1, None), (50, 100, 51));
    assert_eq!(spread(&equal, 9, None), (125, 250, 126));
    assert_eq!(spread(&decorrelated, 1, None), (100, 100, 1));
    let previous = |millis| Some(Duration::from_millis(millis));
    assert_eq!(spread(&decorrelated, 2, previous(60)), (100, 180, 81));
    assert_eq!(spread(&decorrelated, 2, previous(200)), (100, 250, 151));
    assert_eq!(
        spread(&decorrelated, 2, previous(10)),
        (100, 100, 1),
        "never below the first wait"
    );
}

#[test]
fn the_wait_depends_on_seed_and_attempt_only() {
    let retry = Retry::exponential()
        .factor(1)
        .initial(30 * SECOND)
        .jitter(Jitter::Full);
    let at = |made, seed| delay(retry.verdict(&reset(), made, Duration::ZERO, None, seed));
    assert_eq!(at(1, 42), at(1, 42));
    assert_ne!(at(1, 42), at(2, 42));
    assert_ne!(at(1, 42), at(1, 43));
}

#[test]
fn the_random_numbers_are_those_of_split_mix() {
    // The published reference values for the seed 1234567.
    let numbers: Vec<_> = (1..=5).map(|nth| split_mix(1_234_567, nth)).collect();
    assert_eq!(
        numbers,
        [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
            4_593_380_528_125_082_431,
            16_408_922_859_458_223_821,
        ]
    );
}

#[test]
fn nothing_overflows() {
    let extreme = [0, 1, u32::MAX - 1];
    for jitter in [
        Jitter::None,
        Jitter::Full,
        Jitter::Equal,
        Jitter::Decorrelated,
    ] {
        for retry in [
            Retry::constant().initial(Duration::MAX),
            Retry::linear().step(Duration::MAX),
            Retry::exponential().factor(u32::MAX),
        ] {
            let retry = retry.jitter(jitter).max_attempts(u32::MAX);
            for made in extreme {
                for seed in [0, u64::MAX] {
                    let previous = Some(Duration::MAX);
                    let capped = retry.clone().cap(SECOND);
                    let after = capped.verdict(&reset(), made, Duration::MAX, previous, seed);
                    assert!(delay(after) <= SECOND);
                    let uncapped = retry.clone().cap(Duration::MAX);
                    delay(uncapped.verdict(&reset(), made, Duration::MAX, previous, seed));
                }
            }
        }
    }
    assert_eq!(between(0, u64::MAX, u64::MAX), u64::MAX);
    assert_eq!(between(0, u64::MAX, 0), 0);
    assert_eq!(between(7, 7, u64::MAX), 7);
}

#[test]
fn faults_are_all_listed() {
    let retry = Retry::constant()
        .max_attempts(0)
        .cap(SECOND)
        .factor(0)
        .step(SECOND)
        .jitter(Jitter::Decorrelated)
        .only([FailureMode::Cancelled]);
    assert_eq!(
        retry.faults(),
        [
            "max_attempts is 0: it counts calls, so that 1 is no retry",
            "the cap of 1000 ms is below the first wait of 2000 ms: raise the one or lower the other",
            "the factor is 0: waits would vanish; 1 keeps them as they are",
            "a factor is set, but only an exponential backoff has one: leave it out",
            "a step is set, but only a linear backoff has one: leave it out",
            "decorrelated jitter makes waits grow, but the backoff is constant: take full or equal",
            "`only` lists user_cancelled, which is terminal and never retried: leave it out",
        ]
    );
    assert_eq!(
        Retry::default().only([]).faults(),
        ["`only` lists no mode: to retry nothing, use none"]
    );
}

#[test]
fn every_reason_prints_and_is_written_as_a_word() {
    for (reason, text, word) in [
        (GiveUp::Terminal, "the failure is terminal", "terminal"),
        (
            GiveUp::NotRetryable,
            "the failure is not retryable",
            "not_retryable",
        ),
        (
            GiveUp::AttemptsUsedUp,
            "all attempts are used up",
            "attempts_used_up",
        ),
        (
            GiveUp::TimeUsedUp,
            "the time for retries is used up",
            "time_used_up",
        ),
    ] {
        assert_eq!(reason.to_string(), text);
        assert_eq!(
            serde_json::to_string(&reason).unwrap(),
            format!("\"{word}\"")
        );
    }
}
