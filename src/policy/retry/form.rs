//! The written form of a retry policy: durations in whole milliseconds, what is missing by default.

use serde::{Deserialize, Serialize};

use super::{Backoff, Jitter, Retry};
use crate::failure::FailureMode;

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Shape {
    Constant,
    Linear,
    Exponential,
}

/// A policy is written by people too, so an unknown key is a typing error and refused.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Form {
    backoff: Shape,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    initial_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    step_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    factor: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cap_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    jitter: Option<Jitter>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_attempts: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    total_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    only: Option<Vec<FailureMode>>,
}

impl From<Retry> for Form {
    fn from(retry: Retry) -> Self {
        Self {
            backoff: match retry.backoff {
                Backoff::Constant => Shape::Constant,
                Backoff::Linear => Shape::Linear,
                Backoff::Exponential => Shape::Exponential,
            },
            initial_ms: Some(retry.initial_ms),
            step_ms: retry.step_ms,
            factor: retry.factor,
            cap_ms: retry.cap_ms,
            jitter: Some(retry.jitter),
            max_attempts: Some(retry.max_attempts),
            total_ms: retry.total_ms,
            only: retry.only,
        }
    }
}

impl From<Form> for Retry {
    fn from(form: Form) -> Self {
        let default = match form.backoff {
            Shape::Constant => Retry::constant(),
            Shape::Linear => Retry::linear(),
            Shape::Exponential => Retry::exponential(),
        };
        Self {
            backoff: default.backoff,
            initial_ms: form.initial_ms.unwrap_or(default.initial_ms),
            step_ms: form.step_ms.or(default.step_ms),
            factor: form.factor.or(default.factor),
            cap_ms: form.cap_ms.or(default.cap_ms),
            jitter: form.jitter.unwrap_or(default.jitter),
            max_attempts: form.max_attempts.unwrap_or(default.max_attempts),
            total_ms: form.total_ms,
            only: form.only,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_policy_survives_the_round_trip() {
        let policies = [
            Retry::none(),
            Retry::constant().jitter(Jitter::Full),
            Retry::linear()
                .step(Duration::from_micros(1500))
                .total(Duration::from_secs(60)),
            Retry::exponential()
                .factor(3)
                .cap(Duration::MAX)
                .jitter(Jitter::Decorrelated)
                .only([FailureMode::SystemNetwork]),
            Retry::compensation(),
        ];
        for policy in policies {
            let written = serde_json::to_string(&policy).unwrap();
            assert_eq!(
                serde_json::from_str::<Retry>(&written).unwrap(),
                policy,
                "{written}"
            );
        }
    }

    #[test]
    fn the_written_form_is_stable() {
        assert_eq!(
            serde_json::to_string(&Retry::default()).unwrap(),
            r#"{"backoff":"exponential","initial_ms":200,"factor":2,"cap_ms":30000,"jitter":"equal","max_attempts":3}"#
        );
    }

    #[test]
    fn what_is_missing_is_by_default() {
        let read = |json| serde_json::from_str::<Retry>(json);
        assert_eq!(
            read(r#"{"backoff":"linear","max_attempts":7}"#).unwrap(),
            Retry::linear().max_attempts(7)
        );
        assert_eq!(
            read(r#"{"backoff":"constant"}"#).unwrap(),
            Retry::constant()
        );
    }

    #[test]
    fn an_unknown_key_is_refused() {
        let error =
            serde_json::from_str::<Retry>(r#"{"backoff":"linear","max_attemps":7}"#).unwrap_err();
        assert!(error.to_string().contains("`max_attemps`"), "{error}");
        assert!(serde_json::from_str::<Retry>(r#"{"backoff":"fibonacci"}"#).is_err());
    }
}
