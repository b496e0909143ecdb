//! Rules E1 to E7: what an attempt leaves behind, and how a doubt is settled.

// The helpers of this file aren't test functions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use amends::*;
use common::*;

#[test]
fn e6_a_read_only_step_is_not_undone() {
    let world = World::new();
    let mut saga = Saga::builder::<u64>("pair");
    let n = saga.input();
    let a = saga.add(world.read_only("a"), n);
    let b = saga.add(world.step("b"), a);
    let c = saga.add(world.step("c"), b);
    let saga = saga.returns(c).unwrap();
    world.plan("do c", [Act::rejected()]);
    let outcome = world.run_to_rest(&saga, 5);
    assert_eq!(outcome.word(), "compensated");
    assert_eq!(world.log(), ["do a", "do b", "do c", "undo b (done 1)"]);
}
