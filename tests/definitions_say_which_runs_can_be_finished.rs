//! What a binary can do with the open runs of a store, before and after it is deployed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)] // Helpers of tests; the lints know test functions only.

mod evolving;

use amends::Saga;
use amends::journal::Standing;
use amends::operator::{Fate, Operator};
use evolving::{Code, Disk, Then, order, until};

/// `reserve`, then a step of this name.
fn saga(code: &Code, version: u32, second: &str, then: Then) -> Saga<String, String> {
    let mut saga = order(version);
    let order = saga.input();
    let stock = saga.add(code.step("reserve", "reserve", Then::Done), order);
    let paid = saga.add(code.step(second, "second", then), stock);
    saga.returns(paid).unwrap()
}

#[tokio::test]
async fn each_definition_with_open_runs_is_told_by_what_becomes_of_them() {
    for disk in Disk::all() {
        let code = Code::default();
        // Version 1 with two structures, version 2, and version 3, which stays.
        for (version, second, then, runs) in [
            (1, "bill", Then::Refused, ["c", "d"]),
            (1, "charge", Then::Hangs, ["a", "b"]),
            (2, "charge", Then::Hangs, ["e", "f"]),
            (3, "charge", Then::Done, ["g", "h"]),
        ] {
            let saga = saga(&code, version, second, then);
            let binary = disk.binary().register(&saga).build().await.unwrap();
            for run in runs {
                binary.start(&saga, run, run.to_owned()).await.unwrap();
                let standing = match then {
                    Then::Hangs => Standing::Running,
                    Then::Done => Standing::Completed,
                    _ => Standing::Parked,
                };
                until(&binary, run, standing).await;
            }
            binary.shutdown().await;
        }

        let (one, three) = (
            saga(&code, 1, "pay", Then::Done),
            saga(&code, 3, "charge", Then::Done),
        );
        let store = disk.open();
        let operator = Operator::new(store.clone());
        let outlines = [one.outline(), three.outline()];
        let before = operator.definitions_with(&outlines).await.unwrap();
        let last = operator.definitions().await.unwrap();
        let binary = amends::Coordinator::builder_shared(store)
            .register(&one)
            .register(&three);
        let binary = binary.build().await.unwrap();
        // Runs of a changed definition are parked as soon as they are seen.
        for run in ["a", "b", "c", "d"] {
            until(&binary, run, Standing::Parked).await;
        }
        let after = binary.definitions().await.unwrap();
        assert_eq!(operator.definitions().await.unwrap(), after);

        for report in [&before, &after] {
            let versions: Vec<u32> = report.versions.iter().map(|of| of.version).collect();
            assert_eq!(versions, [1, 2, 3]);
            assert_eq!((report.finishable(), report.stuck()), (0, 6));
            assert!(!report.all_finish());
            let ended: Vec<u64> = report.versions.iter().map(|of| of.ended).collect();
            assert_eq!(ended, [0, 0, 2]);
            let first = &report.versions[0].definitions;
            assert_eq!(first.len(), 3, "two of the past, one of now");
            for of_past in ["charge", "bill"] {
                let old = saga(&code, 1, of_past, Then::Done);
                let told = first.iter().find(|of| of.fingerprint == old.fingerprint());
                let told = told.unwrap();
                assert_eq!(told.open, 2);
                assert_eq!(
                    told.fate,
                    Fate::Changed {
                        differences: vec![
                            format!("step `{of_past}` is gone"),
                            "step `pay` is new".to_owned(),
                        ]
                    }
                );
            }
            let now = first.iter().find(|of| of.fingerprint == one.fingerprint());
            assert_eq!(
                (now.unwrap().open, &now.unwrap().fate),
                (0, &Fate::Finishes)
            );
            let second = &report.versions[1].definitions;
            let versions = vec![1, 3];
            assert_eq!(
                (second.len(), second[0].open, &second[0].fate),
                (1, 2, &Fate::NotRegistered { versions })
            );
            let third = &report.versions[2].definitions;
            assert_eq!((third[0].open, &third[0].fate), (0, &Fate::Finishes));
        }
        let parked = |report: &amends::operator::DefinitionsReport| -> Vec<u64> {
            let definitions = report.versions.iter().flat_map(|of| &of.definitions);
            definitions
                .map(|of| of.parked)
                .filter(|&of| of > 0)
                .collect()
        };
        assert_eq!(parked(&before), [2], "those whose step was refused");
        assert_eq!(parked(&after), [2, 2]);

        // Before it was built, the store knew of the one before.
        let fates = |report: &amends::operator::DefinitionsReport| -> Vec<bool> {
            let definitions = report.versions.iter().flat_map(|of| &of.definitions);
            definitions.map(|of| of.fate.finishes()).collect()
        };
        assert_eq!(fates(&last), [false, false, false, true]);
        binary.shutdown().await;
    }
}

#[tokio::test]
async fn a_report_reads_as_a_person_would_say_it() {
    let code = Code::default();
    let disk = Disk::all().remove(0);
    let old = saga(&code, 1, "charge", Then::Refused);
    let first = disk.binary().register(&old).build().await.unwrap();
    for run in ["a", "b"] {
        first.start(&old, run, run.to_owned()).await.unwrap();
        until(&first, run, Standing::Parked).await;
    }
    let whole = first.definitions().await.unwrap();
    assert!(whole.all_finish());
    let text = "order version 1: 2 open (2 parked), 0 ended: can be finished\n";
    assert_eq!(whole.to_string(), text);

    let other = saga(&code, 1, "bill", Then::Done).outline();
    let operator = Operator::new(disk.open());
    let told = operator
        .definitions_with(&[other])
        .await
        .unwrap()
        .to_string();
    let old = &old.fingerprint()[..8];
    let changed = format!(
        "order version 1 ({old}): 2 open (2 parked): changed under the same version: \
         step `charge` is gone; step `bill` is new"
    );
    assert!(told.lines().any(|line| line == changed), "{told}");

    let second = saga(&code, 2, "charge", Then::Done).outline();
    let told = operator.definitions_with(&[second]).await.unwrap();
    assert_eq!(
        told.to_string(),
        "order version 1: 2 open (2 parked), 0 ended: not registered, only version 2\n\
         order version 2: 0 open, 0 ended: can be finished\n"
    );
}
