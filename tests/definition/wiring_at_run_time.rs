//! Typed wiring at work: what a step is handed when a run reaches it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use amends::policy::{Condition, Rule};
use amends::store::MemoryStore;
use amends::{
    Action, Coordinator, Effect, EffectReport, FailureMode, Outcome, Payload, RecoveryPolicy,
    RecoveryStrategy, Saga, Step, StepContext, StepError, StepStatus, irreversible_fn, read_only,
    read_only_fn, step, step_fn, step_with,
};
use serde::{Deserialize, Serialize};

async fn run<I: Payload, O: Payload>(saga: &Saga<I, O>, input: I) -> Outcome<O> {
    let coordinator = Coordinator::builder(MemoryStore::new())
        .register(saga)
        .build()
        .await
        .unwrap();
    let run = coordinator.start(saga, "run", input).await.unwrap();
    let outcome = run.outcome().await.unwrap();
    coordinator.shutdown().await;
    outcome
}

/// A value that counts its own clones.
#[derive(Debug, Serialize, Deserialize)]
struct Large {
    bytes: Vec<u8>,
    #[serde(skip)]
    clones: Arc<AtomicUsize>,
}

impl Clone for Large {
    fn clone(&self) -> Self {
        self.clones.fetch_add(1, Ordering::SeqCst);
        Large {
            bytes: self.bytes.clone(),
            clones: Arc::clone(&self.clones),
        }
    }
}

/// Where a step saw its input.
type Seen = Arc<Mutex<Vec<(String, usize)>>>;

fn at(value: &Large) -> usize {
    std::ptr::from_ref(value).addr()
}

fn saw(seen: &Seen, who: impl Into<String>, value: &Large) {
    seen.lock().unwrap().push((who.into(), at(value)));
}

fn looker(name: &str, seen: &Seen) -> amends::StepSpec<Large, ()> {
    step_with(
        name,
        Arc::clone(seen),
        async |seen, cx: &StepContext, large: &Large| {
            saw(seen, cx.step(), large);
            Ok(())
        },
        async |seen, cx, large, _| {
            saw(seen, format!("undo {}", cx.step()), large);
            Ok(())
        },
    )
}

#[tokio::test]
async fn a_single_node_hands_on_the_very_value_that_was_made_to_all_and_to_the_undo() {
    let seen = Seen::default();
    let mut saga = Saga::builder::<Large>("one");
    let large = saga.input();
    let kept = saga.add(looker("first", &seen), large);
    let made = saga.add(
        read_only_fn("make", async |_: &StepContext, (): &()| {
            Ok(Large {
                bytes: vec![1; 1000],
                clones: Arc::default(),
            })
        }),
        kept,
    );
    let a = saga.add(looker("a", &seen), made);
    let b = saga.add(looker("b", &seen).after(a), made);
    saga.add(
        read_only_fn("fail", async |_: &StepContext, large: &Large| {
            match large.clones.load(Ordering::SeqCst) {
                0 => Err::<(), _>(StepError::rejected("no clones")),
                clones => Err(StepError::rejected(format!("{clones} clones"))),
            }
        })
        .after(b),
        made,
    );
    let saga = saga.returns::<()>(()).unwrap();

    let clones = Arc::new(AtomicUsize::new(0));
    let input = Large {
        bytes: vec![0; 1000],
        clones: Arc::clone(&clones),
    };
    let Outcome::Compensated(partial) = run(&saga, input).await else {
        panic!("the last step fails");
    };
    assert_eq!(clones.load(Ordering::SeqCst), 0);
    let failed = partial.step("fail").unwrap().failure.as_ref().unwrap();
    assert_eq!(failed.message, "no clones");
    let seen = seen.lock().unwrap();
    let who: Vec<&str> = seen.iter().map(|(who, _)| who.as_str()).collect();
    assert_eq!(who, ["first", "a", "b", "undo b", "undo a", "undo first"]);
    let place = |name: &str| seen.iter().find(|(who, _)| who == name).unwrap().1;
    assert_eq!(place("first"), place("undo first"));
    assert_eq!(place("a"), place("b"));
    assert_eq!(place("a"), place("undo a"));
    assert_eq!(place("b"), place("undo b"));
    assert_ne!(place("a"), place("first"));
}

#[tokio::test]
async fn a_tuple_clones_each_part_once() {
    let mut saga = Saga::builder::<Large>("two");
    let large = saga.input();
    let seen = saga.add(
        read_only_fn(
            "pair",
            async |_: &StepContext, (one, two): &(Large, Large)| {
                Ok((one.clones.load(Ordering::SeqCst), at(one) == at(two)))
            },
        ),
        (large, large),
    );
    let saga = saga.returns(seen).unwrap();
    let input = Large {
        bytes: vec![0; 10],
        clones: Arc::default(),
    };
    let seen: Option<(usize, bool)> = run(&saga, input).await.completed();
    assert_eq!(seen, Some((2, false)));
}

/// A key stands for one request: another input under it would be refused, or worse, be taken for the first.
#[tokio::test(start_paused = true)]
async fn a_map_is_asked_once_a_round_so_that_retries_and_the_undo_see_one_input() {
    let asked = Arc::new(AtomicUsize::new(0));
    let inputs = Arc::new(Mutex::new(Vec::new()));
    let mut saga = Saga::builder::<()>("impure");
    let input = saga.input();
    let counter = Arc::clone(&asked);
    let number = input.map(move |()| counter.fetch_add(1, Ordering::SeqCst));
    let step = step_with(
        "use",
        Arc::clone(&inputs),
        async |inputs, cx: &StepContext, n: &usize| {
            inputs.lock().unwrap().push(*n);
            if cx.attempt() < 3 {
                return Err(StepError::in_doubt("no answer").with_mode(FailureMode::SystemNetwork));
            }
            Err::<(), _>(StepError::rejected("no"))
        },
        async |inputs, _, n, _| {
            inputs.lock().unwrap().push(*n);
            Ok(())
        },
    );
    let used = saga.add(step, number);
    let saga = saga.returns::<()>(used).unwrap();
    assert_eq!(run(&saga, ()).await.word(), "compensated");
    // Three attempts and the undo.
    assert_eq!(*inputs.lock().unwrap(), [0, 0, 0, 0]);
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_map_is_asked_again_when_what_feeds_it_was_undone() {
    let made = Arc::new(AtomicUsize::new(0));
    let inputs = Arc::new(Mutex::new(Vec::new()));
    let policy = RecoveryPolicy::new("again", RecoveryStrategy::RetryAll)
        .rule(Rule::new("used up", RecoveryStrategy::Manual).when(Condition::UsedUp))
        .max_recoveries(1);
    let mut saga = Saga::builder::<()>("again").policy(policy);
    let number = saga.add(
        step_with(
            "make",
            made,
            async |made, _, (): &()| Ok(made.fetch_add(1, Ordering::SeqCst)),
            async |_, _, (), _| Ok(()),
        ),
        (),
    );
    let used = saga.add(
        step_with(
            "use",
            Arc::clone(&inputs),
            async |inputs, _, n: &usize| {
                inputs.lock().unwrap().push(*n);
                if *n == 10 {
                    return Err(StepError::rejected("not ten"));
                }
                Ok(())
            },
            async |_, _, _, _| Ok(()),
        ),
        number.map(|n| n + 10),
    );
    let saga = saga.returns::<()>(used).unwrap();
    assert_eq!(run(&saga, ()).await.word(), "completed");
    assert_eq!(*inputs.lock().unwrap(), [10, 11]);
}

#[tokio::test]
async fn an_arc_is_shared_in_a_tuple_too() {
    let mut saga = Saga::builder::<()>("shared");
    let made = saga.add(
        read_only_fn("make", async |_: &StepContext, (): &()| {
            Ok(Arc::new(Large {
                bytes: vec![7],
                clones: Arc::default(),
            }))
        }),
        (),
    );
    let alone = saga.add(
        read_only_fn("alone", async |_: &StepContext, large: &Arc<Large>| {
            Ok(at(large))
        }),
        made,
    );
    let both = saga.add(
        read_only_fn(
            "both",
            async |_: &StepContext, (alone, one, two): &(usize, Arc<Large>, Arc<Large>)| {
                Ok((
                    Arc::ptr_eq(one, two),
                    at(one) == *alone,
                    one.clones.load(Ordering::SeqCst),
                ))
            },
        ),
        (alone, made, made),
    );
    let saga = saga.returns::<(bool, bool, usize)>(both).unwrap();
    assert_eq!(run(&saga, ()).await.completed(), Some((true, true, 0)));
}

#[tokio::test]
async fn up_to_eight_parts_arrive_in_order_and_tuples_nest() {
    type Eight = (u8, u8, u8, u8, u8, u8, u8, String);
    let mut saga = Saga::builder::<u8>("eight");
    let n = saga.input();
    let next = |name: &str| read_only_fn(name, async |_: &StepContext, n: &u8| Ok(n + 1));
    let b = saga.add(next("b"), n);
    let c = saga.add(next("c"), b);
    let eight = saga.add(
        read_only_fn("eight", async |_: &StepContext, all: &Eight| {
            Ok(format!("{all:?}"))
        }),
        (
            n,
            b,
            c,
            n.map(|n| n * 10),
            b.map(|n| n * 10),
            c,
            b,
            c.map(u8::to_string),
        ),
    );
    let one = saga.add(
        read_only_fn("one", async |_: &StepContext, (n,): &(u8,)| Ok(*n)),
        (c,),
    );
    let nested = saga.add(
        read_only_fn(
            "nested",
            async |_: &StepContext, ((a, b), (), (c,)): &((u8, u8), (), (u8,))| {
                Ok(vec![*a, *b, *c])
            },
        ),
        ((n, b), (), (one,)),
    );
    let saga = saga.returns::<(String, (Vec<u8>, u8))>((eight, (nested, n)));
    assert_eq!(
        run(&saga.unwrap(), 1).await.completed(),
        Some((
            "(1, 2, 3, 10, 20, 3, 2, \"3\")".to_owned(),
            (vec![1, 2, 3], 1)
        ))
    );
}

#[tokio::test]
async fn a_map_that_panics_is_a_failed_step_with_the_message_and_nothing_stands() {
    let mut saga = Saga::builder::<u64>("mapped");
    let n = saga.input();
    let held = saga.add(
        step_fn(
            "hold",
            async |_: &StepContext, n: &u64| Ok(*n),
            async |_, _, _| Ok(()),
        ),
        n,
    );
    let half = held.map(|n| {
        if *n % 2 == 0 {
            n / 2
        } else {
            panic!("{n} is odd")
        }
    });
    let used = saga.add(
        step_fn(
            "use",
            async |_: &StepContext, n: &u64| Ok(*n),
            async |_, _, _| Ok(()),
        ),
        half,
    );
    let saga = saga.returns::<u64>(used).unwrap();
    assert_eq!(run(&saga, 8).await.completed(), Some(4));
    let Outcome::Compensated(partial) = run(&saga, 7).await else {
        panic!("no input, no step");
    };
    let failure = partial.step("use").unwrap().failure.as_ref().unwrap();
    assert_eq!(
        failure.message,
        "its input can't be made: the `map` that makes an input panicked: 7 is odd"
    );
    assert_eq!(failure.mode, FailureMode::StepLogic);
    assert_eq!(partial.step("use").unwrap().effect, EffectReport::NotDone);
    assert_eq!(partial.step("hold").unwrap().status, StepStatus::Undone);
}

async fn reserve(_: &StepContext, n: &u64) -> Result<String, StepError> {
    Ok(format!("reserved {n}"))
}

async fn release(_: &StepContext, _: &u64, _: Effect<&String>) -> Result<(), StepError> {
    Ok(())
}

#[expect(
    clippy::ptr_arg,
    reason = "an input is borrowed as the type that it is"
)]
async fn read(_: &StepContext, text: &String) -> Result<usize, StepError> {
    Ok(text.len())
}

struct Gateway;

impl Gateway {
    async fn charge(&self, key: &str, amount: u64) -> Result<u64, std::io::Error> {
        assert!(!key.is_empty());
        tokio::task::yield_now().await;
        Ok(amount * 2)
    }
}

struct Double;

impl Step for Double {
    type Input = (u64, usize);
    type Output = u64;

    async fn execute(&self, _: &StepContext, (n, length): &Self::Input) -> Result<u64, StepError> {
        Ok(n * 2 + u64::try_from(*length).unwrap())
    }

    async fn compensate(
        &self,
        _: &StepContext,
        _: &Self::Input,
        _: Effect<&u64>,
    ) -> Result<(), StepError> {
        Ok(())
    }
}

struct Show;

impl Action for Show {
    type Input = u64;
    type Output = String;

    async fn execute(&self, _: &StepContext, n: &u64) -> Result<String, StepError> {
        Ok(format!("<{n}>"))
    }
}

/// Functions, closures with state, structs and shared structs, side by side in one builder.
#[tokio::test]
async fn every_form_of_a_step_is_wired_the_same_way() {
    let mut saga = Saga::builder::<u64>("forms");
    let n = saga.input();
    let reserved = saga.add(step_fn("fns", reserve, release), n);
    let length = saga.add(read_only_fn("fn", read), reserved);
    let charged = saga.add(
        step_with(
            "state",
            Gateway,
            async |gateway, cx, (n, _reserved): &(u64, String)| {
                Ok(gateway.charge(cx.idempotency_key(), *n).await?)
            },
            async |gateway, cx, _, effect| {
                if let Effect::Done(charged) = effect {
                    gateway.charge(cx.effect_key(), *charged).await?;
                }
                Ok(())
            },
        ),
        (n, reserved),
    );
    let doubled = saga.add(step("struct", Arc::new(Double)), (charged, length));
    let shown = saga.add(read_only("action", Arc::new(Show)), doubled);
    let sent = saga.add(
        irreversible_fn(
            "last",
            async |_: &StepContext, text: &String| Ok(text.len()),
        )
        .pivot(),
        shown,
    );
    let saga = saga.returns((sent, shown)).unwrap();
    let given: Option<(usize, String)> = run(&saga, 5).await.completed();
    // 5 is charged as 10, doubled to 20, plus the ten letters of "reserved 5".
    assert_eq!(given, Some((4, "<30>".to_owned())));
}
