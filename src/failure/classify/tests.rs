use std::fmt;

use super::*;
use crate::failure::{Category, CustomMode, WordRules};

type Boxed = Box<dyn Error + Send + Sync>;

/// A wrapper as `thiserror` makes it.
#[derive(Debug, thiserror::Error)]
#[error("failed to do it")]
struct Wrapper(#[source] Boxed);

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Plain(&'static str);

/// A user's classifier that knows `Plain("declined")` only.
#[derive(Debug)]
struct Own;

fn declined() -> FailureMode {
    CustomMode::new("declined", Category::User).into()
}

impl Classify for Own {
    fn classify(&self, error: &(dyn Error + 'static)) -> Option<Classification> {
        (error.downcast_ref::<Plain>()?.0 == "declined")
            .then(|| Classification::new(declined(), FailedEffect::NotDone))
    }
}

/// Knows every error.
#[derive(Debug)]
struct Everything;

impl Classify for Everything {
    fn classify(&self, _: &(dyn Error + 'static)) -> Option<Classification> {
        Some(Classification::new(
            FailureMode::StepState,
            FailedEffect::NotDone,
        ))
    }
}

fn unknown() -> Classification {
    Classification::new(FailureMode::StepLogic, FailedEffect::InDoubt)
}

fn wrappings(depth: usize, error: impl Fn() -> Boxed) -> [Boxed; 4] {
    [
        |inner| Box::new(Wrapper(inner)) as Boxed,
        |inner| Box::new(io::Error::other(inner)) as Boxed,
        |inner| Box::new(Arc::<dyn Error + Send + Sync>::from(inner)) as Boxed,
        |inner| Box::new(Wrapper(Box::new(Arc::new(io::Error::other(inner))))) as Boxed,
    ]
    .map(|wrap: fn(Boxed) -> Boxed| (0..depth).fold(error(), |inner, _| wrap(inner)))
}

#[test]
fn wrapping_never_changes_the_answer() {
    let classifier = Classifier::new().with(Own);
    let errors: [(fn() -> Boxed, Classification); 5] = [
        (
            || Box::new(io::Error::from(io::ErrorKind::ConnectionRefused)),
            Classification::new(FailureMode::ApiUnavailable, FailedEffect::NotDone),
        ),
        (
            || Box::new(io::Error::from(io::ErrorKind::ConnectionReset)),
            Classification::new(FailureMode::SystemNetwork, FailedEffect::InDoubt),
        ),
        (
            || Box::new(io::Error::new(io::ErrorKind::TimedOut, "with words")),
            Classification::new(FailureMode::SystemTimeout, FailedEffect::InDoubt),
        ),
        (
            || Box::new(Plain("declined")),
            Classification::new(declined(), FailedEffect::NotDone),
        ),
        (|| Box::new(Plain("who knows")), unknown()),
    ];
    for (error, expected) in errors {
        for depth in 0..=4 {
            for wrapped in wrappings(depth, error) {
                assert_eq!(
                    classifier.classify(&*wrapped),
                    expected,
                    "depth {depth}: {wrapped:?}"
                );
            }
        }
    }
}

#[test]
fn pointers_to_io_errors_are_seen_through() {
    let reset = || io::Error::from(io::ErrorKind::ConnectionReset);
    let expected = Classification::new(FailureMode::SystemNetwork, FailedEffect::InDoubt);
    let classifier = Classifier::new();
    assert_eq!(classifier.classify(&Arc::new(reset())), expected);
    assert_eq!(classifier.classify(&Box::new(reset())), expected);
}

#[test]
fn the_outermost_known_error_decides() {
    let inner = io::Error::from(io::ErrorKind::ConnectionRefused);
    let outer = io::Error::new(io::ErrorKind::TimedOut, inner);
    assert_eq!(
        Classifier::new().classify(&outer).mode,
        FailureMode::SystemTimeout
    );
}

#[test]
fn a_known_payload_of_an_io_error_goes_before_the_kind() {
    let classifier = Classifier::new().with(Own);
    let payload = io::Error::new(io::ErrorKind::InvalidData, Plain("declined"));
    assert_eq!(classifier.classify(&payload).mode, declined());
    let twice = io::Error::new(io::ErrorKind::TimedOut, payload);
    assert_eq!(classifier.classify(&twice).mode, declined());
    // What is only a cause of the payload lies deeper than the kind.
    let deeper = io::Error::new(
        io::ErrorKind::InvalidData,
        Wrapper(Box::new(Plain("declined"))),
    );
    assert_eq!(
        classifier.classify(&deeper).mode,
        FailureMode::StepValidation
    );
}

#[test]
fn users_classifiers_go_before_the_adapters_and_in_order() {
    let error = io::Error::from(io::ErrorKind::ConnectionReset);
    let classifier = Classifier::new().with(Own).with(Everything);
    assert_eq!(classifier.classify(&error).mode, FailureMode::StepState);
    assert_eq!(classifier.classify(&Plain("declined")).mode, declined());
    let classifier = Classifier::default().with(Everything).with(Own);
    assert_eq!(
        classifier.classify(&Plain("declined")).mode,
        FailureMode::StepState
    );
}

#[test]
fn nothing_is_guessed_from_words() {
    for message in [
        "boom",
        "Invalid timeout value",
        "in memory of",
        "quota exceeded",
        "connection reset by peer",
        "rate limit",
        "permission denied",
    ] {
        assert_eq!(Classifier::new().classify(&Plain(message)), unknown());
        let other = io::Error::other(message);
        assert_eq!(Classifier::new().classify(&other), unknown());
    }
    assert!(!unknown().retryable);
}

#[test]
fn word_rules_are_the_last_resort_wherever_they_were_added() {
    let words = WordRules::new()
        .whole_word("declined", FailureMode::Cancelled)
        .whole_word("do", FailureMode::StepTimeout);
    let classifier = Classifier::new().with(words).with(Own);
    // The word stands in the outer message, but the type of the inner error is known.
    let refused = Wrapper(Box::new(io::Error::from(io::ErrorKind::ConnectionRefused)));
    assert_eq!(
        classifier.classify(&refused).mode,
        FailureMode::ApiUnavailable
    );
    assert_eq!(classifier.classify(&Plain("declined")).mode, declined());
    let only_words = classifier.classify(&Wrapper(Box::new(Plain("who knows"))));
    assert_eq!(
        only_words,
        Classification::new(FailureMode::StepTimeout, FailedEffect::InDoubt)
    );
}

#[test]
fn a_transparent_error_hides_its_inside_until_it_is_classified() {
    #[derive(Debug, thiserror::Error)]
    #[error(transparent)]
    struct Transparent(io::Error);

    #[derive(Debug)]
    struct Opened;
    impl Classify for Opened {
        fn classify(&self, error: &(dyn Error + 'static)) -> Option<Classification> {
            let inner = &error.downcast_ref::<Transparent>()?.0;
            Some(Classifier::new().classify(inner))
        }
    }

    let error = Transparent(io::ErrorKind::ConnectionRefused.into());
    assert_eq!(Classifier::new().classify(&error), unknown());
    assert_eq!(
        Classifier::new().with(Opened).classify(&error).mode,
        FailureMode::ApiUnavailable
    );
}

#[test]
fn an_endless_chain_is_given_up() {
    #[derive(Debug)]
    struct Endless;
    impl fmt::Display for Endless {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("again")
        }
    }
    impl Error for Endless {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(self)
        }
    }
    assert_eq!(Classifier::new().with(Own).classify(&Endless), unknown());
}

#[test]
fn the_limit_is_64_errors() {
    let at = |position: usize| {
        let innermost: Boxed = Box::new(Plain("declined"));
        (1..position).fold(innermost, |inner, _| Box::new(Wrapper(inner)))
    };
    let classifier = Classifier::new().with(Own);
    assert_eq!(classifier.classify(&*at(64)).mode, declined());
    assert_eq!(classifier.classify(&*at(65)), unknown());
}

#[test]
fn a_terminal_mode_is_never_retryable() {
    let made =
        Classification::new(FailureMode::StepContract, FailedEffect::NotDone).retryable(true);
    assert!(!made.retryable);
    let made = Classification::new(FailureMode::StepState, FailedEffect::NotDone).retryable(true);
    assert!(made.retryable);
}
