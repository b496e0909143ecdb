use super::*;

use std::sync::Arc;

use crate::step::{ContextParts, Keys, Pulse, Reports, StepIx};
use crate::trace_context::RunTrace;

const NOW: Timestamp = Timestamp::from_micros(1_000_000_000);
const MINUTE: Duration = Duration::from_secs(60);

/// A call of the run `run` with this effect key and fence.
fn call(kind: CallKind, run: &str, key: &str, fence: u64) -> StepContext {
    StepContext::new(ContextParts {
        run: RunId::new(run),
        trace: RunTrace::new(&"".into(), None, None),
        call: kind,
        fence,
        step: "withdraw".into(),
        round: 1,
        attempt: 1,
        keys: Keys {
            call: key.into(),
            effect: key.into(),
        },
        timeout: MINUTE,
        deadline: NOW.after(MINUTE),
        stop: Arc::default(),
        pulse: Pulse::new(
            StepIx(0),
            None,
            tokio::time::Instant::now(),
            &Arc::new(Reports::default()),
        ),
        progress: None,
    })
}

fn execute(run: &str, key: &str) -> StepContext {
    call(CallKind::Execute, run, key, 1)
}

fn taken(current: Option<&SemanticLock>, cx: &StepContext, now: Timestamp) -> Taken {
    SemanticLock::take(current, cx, MINUTE, now).unwrap()
}

fn lock() -> SemanticLock {
    taken(None, &execute("a", "aa/withdraw/1"), NOW).lock
}

#[test]
fn a_free_row_is_taken_for_as_long_as_was_asked() {
    let taken = taken(None, &execute("a", "aa/withdraw/1"), NOW);
    assert_eq!(taken.how, TakenHow::Fresh);
    let json = serde_json::to_string(&taken.lock).unwrap();
    assert_eq!(
        json,
        r#"{"run":"a","key":"aa/withdraw/1","fence":1,"until":1060000000}"#
    );
    assert_eq!(
        serde_json::from_str::<SemanticLock>(&json).unwrap(),
        taken.lock
    );
}

#[test]
fn another_run_is_told_who_has_it_and_for_how_long() {
    let other = execute("b", "bb/withdraw/1");
    for (wait, asks_for) in [
        (Duration::ZERO, None),
        (Duration::from_millis(58_999), None),
        (Duration::from_secs(59), Some(Duration::from_secs(1))),
        (
            Duration::from_micros(59_999_999),
            Some(Duration::from_micros(1)),
        ),
    ] {
        let refused = SemanticLock::take(Some(&lock()), &other, MINUTE, NOW.after(wait));
        let error = refused.unwrap_err();
        assert_eq!(
            error,
            LockError::Held {
                by: "a".into(),
                until: NOW.after(MINUTE),
                left: MINUTE.checked_sub(wait).unwrap(),
            }
        );
        assert_eq!(error.retry_after(), asks_for, "{wait:?}");
    }
}

#[test]
fn at_its_deadline_the_lock_is_taken_over_and_the_taker_is_told_whose_it_was() {
    let other = execute("b", "bb/withdraw/1");
    let over = taken(Some(&lock()), &other, NOW.after(MINUTE));
    assert_eq!(over.how, TakenHow::Expired(lock()));
    assert_eq!((over.lock.run.as_str(), over.lock.fence), ("b", 1));
    assert_eq!(over.lock.until, NOW.after(2 * MINUTE));
}

#[test]
fn the_same_effect_takes_it_again_and_never_for_less_long() {
    let cx = execute("a", "aa/withdraw/1");
    let later = taken(Some(&lock()), &cx, NOW.after(MINUTE / 2));
    assert_eq!(later.how, TakenHow::Again);
    assert_eq!(later.lock.until, NOW.after(MINUTE * 3 / 2));

    let shorter = SemanticLock::take(Some(&lock()), &cx, Duration::ZERO, NOW).unwrap();
    assert_eq!(shorter.lock, lock());

    // Its time is up, but nobody has been here.
    let late = taken(Some(&lock()), &cx, NOW.after(MINUTE * 9));
    assert_eq!(late.how, TakenHow::Again);
    assert_eq!(late.lock.until, NOW.after(MINUTE * 10));
}

#[test]
fn another_step_of_the_run_joins_and_leaves_it_to_the_first_to_undo() {
    let joined = taken(Some(&lock()), &execute("a", "aa/approve/1"), NOW);
    assert_eq!((joined.how, joined.lock), (TakenHow::Joined, lock()));

    let undo = |key| call(CallKind::Compensate, "a", key, 1);
    assert_eq!(
        SemanticLock::release(Some(&lock()), &undo("aa/approve/1")),
        Ok(Released::Kept(lock()))
    );
    assert_eq!(
        SemanticLock::release(Some(&lock()), &undo("aa/withdraw/1")),
        Ok(Released::Freed)
    );
}

#[test]
fn a_later_round_makes_the_lock_of_an_earlier_one_its_own() {
    let second = taken(Some(&lock()), &execute("a", "aa/withdraw/2"), NOW);
    assert_eq!(second.how, TakenHow::Joined);
    assert_eq!(second.lock.key, "aa/withdraw/2");
}

#[test]
fn a_run_of_the_same_name_in_another_store_is_another_run() {
    let namesake = execute("a", "ff/withdraw/1");
    assert!(!lock().is_of(&namesake));
    assert!(matches!(
        SemanticLock::take(Some(&lock()), &namesake, MINUTE, NOW),
        Err(LockError::Held { .. })
    ));
    assert_eq!(
        SemanticLock::release(Some(&lock()), &namesake),
        Ok(Released::Kept(lock()))
    );
}

#[test]
fn a_lower_fence_of_the_same_run_is_refused_everywhere_and_a_higher_one_is_kept() {
    let new = call(CallKind::Execute, "a", "aa/withdraw/1", 3);
    let raised = taken(Some(&lock()), &new, NOW).lock;
    assert_eq!(raised.fence, 3);
    let stale = LockError::Stale {
        run: "a".into(),
        fence: 2,
        seen: 3,
    };
    for kind in [CallKind::Execute, CallKind::Compensate] {
        let old = call(kind, "a", "aa/withdraw/1", 2);
        // However late it is: an old owner never gets in through the deadline.
        for now in [NOW, NOW.after(9 * MINUTE)] {
            let take = SemanticLock::take(Some(&raised), &old, MINUTE, now);
            assert_eq!(take.unwrap_err(), stale);
            let keep = SemanticLock::keep(Some(&raised), &old, MINUTE, now);
            assert_eq!(keep.unwrap_err(), stale);
        }
        let release = SemanticLock::release(Some(&raised), &old);
        assert_eq!(release.unwrap_err(), stale);
    }
    // The fence of another run says nothing.
    let low = call(CallKind::Execute, "b", "bb/withdraw/1", 1);
    let over = taken(Some(&raised), &low, raised.until);
    assert_eq!((over.how, over.lock.fence), (TakenHow::Expired(raised), 1));
}

#[test]
fn a_step_that_relies_on_the_lock_is_told_when_it_is_lost() {
    let later = execute("a", "aa/approve/1");
    let kept = SemanticLock::keep(Some(&lock()), &later, 2 * MINUTE, NOW).unwrap();
    assert_eq!(kept.until, NOW.after(2 * MINUTE));
    assert_eq!(kept.key, lock().key);
    let asked = SemanticLock::keep(Some(&lock()), &later, Duration::ZERO, NOW.after(MINUTE));
    assert_eq!(asked, Ok(lock()));

    let others = taken(None, &execute("b", "bb/withdraw/1"), NOW).lock;
    for (current, by, says) in [
        (None, None, "nobody does"),
        (Some(&others), Some("b".into()), "run `b` does"),
    ] {
        let lost = SemanticLock::keep(current, &later, MINUTE, NOW).unwrap_err();
        assert_eq!(
            lost.to_string(),
            format!("run `a` does not hold the lock any more: {says}")
        );
        let run = RunId::new("a");
        assert_eq!(lost, LockError::Lost { run, by });
    }
}

#[test]
fn a_release_frees_what_is_its_own_and_says_what_the_row_has_to_hold() {
    let later = execute("a", "aa/approve/1");
    let freed = SemanticLock::release(Some(&lock()), &later).unwrap();
    assert_eq!((freed.clone(), freed.left()), (Released::Freed, None));
    let already = SemanticLock::release(None, &later).unwrap();
    assert_eq!((already.clone(), already.left()), (Released::Already, None));
    let kept = SemanticLock::release(Some(&lock()), &execute("b", "bb/approve/1")).unwrap();
    assert_eq!(kept, Released::Kept(lock()));
    assert_eq!(kept.left(), Some(lock()));
}

#[test]
fn a_lock_for_ever_does_not_run_out() {
    let cx = execute("a", "aa/withdraw/1");
    let taken = SemanticLock::take(None, &cx, Duration::MAX, NOW).unwrap();
    let late = NOW.after(Duration::from_secs(60 * 60 * 24 * 365 * 10_000));
    assert!(!taken.lock.is_expired(late));
}
