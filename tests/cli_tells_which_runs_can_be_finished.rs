//! `amends definitions` says which open runs can be finished and by what the others are held up, and
//! `amends migrate` helps those for which a migration is declared.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)] // Helpers of tests; the lints know test functions only.

mod cli_store;
mod evolving;

use amends::journal::Standing;
use amends::{Migration, RunId, Saga};
use cli_store::Runs;
use evolving::{Code, Disk, Then, order, until};

/// `reserve`, then a step of this name.
fn saga(version: u32, second: &str, then: Then) -> Saga<String, String> {
    let code = Code::default();
    let mut saga = order(version);
    let order = saga.input();
    let stock = saga.add(code.step("reserve", "reserve", Then::Done), order);
    let paid = saga.add(code.step(second, "second", then), stock);
    saga.returns(paid).unwrap()
}

/// A store with two parked runs of version 1, one of version 2, and one completed run of version 3.
async fn runs() -> (Runs, Disk) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sagas.db");
    let kept = tempfile::tempdir().unwrap();
    let disk = Disk::Sqlite(dir);
    for (version, then, ids) in [
        (1, Then::Refused, &["a", "b"][..]),
        (2, Then::Refused, &["c"]),
        (3, Then::Done, &["d"]),
    ] {
        let saga = saga(version, "charge", then);
        let binary = disk.binary().register(&saga).build().await.unwrap();
        for id in ids {
            binary.start(&saga, *id, "x".to_owned()).await.unwrap();
            let standing = if then == Then::Done {
                Standing::Completed
            } else {
                Standing::Parked
            };
            until(&binary, id, standing).await;
        }
        binary.shutdown().await;
    }
    (Runs { dir: kept, path }, disk)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_last_coordinator_has_not_is_held_up() {
    let (runs, disk) = runs().await;
    let changed = saga(1, "pay", Then::Done);
    let third = saga(3, "charge", Then::Done);
    let declared = Migration::from_version(2).to(&third);
    let binary = disk.binary().register(&changed).register(&third);
    let binary = binary.migrate(declared).build().await.unwrap();
    let said = runs.says("definitions");
    assert_eq!((said.code, said.err.as_str()), (6, ""));
    let (old, new) = (saga(1, "charge", Then::Done), &changed);
    let of = |saga: &Saga<String, String>| saga.fingerprint()[..8].to_owned();
    let mut first = [
        (
            of(&old),
            format!(
                "order  1 ({})  2     2       -      definition changed",
                of(&old)
            ),
        ),
        (
            of(new),
            format!(
                "order  1 ({})  0     0       -      can be finished",
                of(new)
            ),
        ),
    ];
    first.sort();
    let wanted = format!(
        "saga   version       open  parked  ended  its open runs\n\
         {}\n{}\n\
         order  2             1     1       0      wait for `migrate`\n\
         order  3             0     0       1      can be finished\n\
         \n\
         2 runs of order version 1\n\
         \x20 the last coordinator has another structure under this version:\n\
         \x20 - step `charge` is gone\n\
         \x20 - step `pay` is new\n\
         \x20 register the old structure, give the new one another version, or declare a migration\n\
         \n\
         1 run of order version 2\n\
         \x20 the last coordinator has declared a migration to version 3:\n\
         \x20 `amends migrate RUN` carries it out, and `amends retry RUN` lets the run go on\n",
        first[0].1, first[1].1
    );
    assert_eq!(said.out, wanted);

    let said = runs.says("definitions --json");
    assert_eq!(said.code, 6);
    let form: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(
        (&form["finishable"], &form["held_up"]),
        (&0.into(), &3.into())
    );
    let definitions = form["definitions"].as_array().unwrap();
    let fates: Vec<&str> = definitions
        .iter()
        .map(|of| of["fate"].as_str().unwrap())
        .collect();
    assert_eq!(fates[2..], ["migrates", "finishes"]);
    assert!(fates[..2].contains(&"changed") && fates[..2].contains(&"finishes"));
    assert_eq!(definitions[2]["to"], 3);

    // A run of a definition that is there has nothing to migrate; nor has one for which nothing is declared.
    let refused = runs.says("migrate a");
    assert_eq!(refused.code, 4, "{refused:?}");
    assert!(
        refused
            .err
            .contains("no migration of saga `order` version 1 is declared"),
        "{refused:?}"
    );
    let taken = runs.says("migrate c --to 3 --reason 'v3 is out'");
    assert_eq!(
        (taken.code, taken.out.as_str()),
        (0, "c: migrate accepted\n"),
        "{taken:?}"
    );
    let journal = runs.says("journal c").well();
    assert!(journal.contains("migrated from v2 to v3"), "{journal}");
    let retried = runs.says("retry c");
    assert_eq!(retried.code, 0, "{retried:?}");
    until(&binary, "c", Standing::Completed).await;
    assert_eq!(
        binary.get(&RunId::new("c")).await.unwrap().unwrap().version,
        3
    );
    binary.shutdown().await;
    let verified = runs.says("verify");
    assert_eq!(verified.code, 0, "{verified:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_file_has_is_compared_before_it_is_deployed() {
    let (runs, disk) = runs().await;
    let file = runs.dir.path().join("outlines.json");
    let write = |outlines: &[amends::Outline]| {
        std::fs::write(&file, serde_json::to_string(outlines).unwrap()).unwrap();
    };
    let ask = format!("definitions --outlines {}", file.display());
    let all = [1, 2, 3].map(|version| saga(version, "charge", Then::Done).outline());
    write(&all);
    let said = runs.says(&ask);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(said.out.matches("can be finished").count(), 3);
    write(&all[1..]);
    let said = runs.says(&ask);
    assert_eq!(said.code, 6);
    let why = format!(
        "2 runs of order version 1\n  {} has version 2, 3 only: register this one beside it, or declare a migration\n",
        file.display()
    );
    assert!(said.out.ends_with(&why), "{}", said.out);
    // One outline needs no list.
    std::fs::write(&file, serde_json::to_string(&all[0]).unwrap()).unwrap();
    assert!(runs.says(&ask).out.contains("1 run of order version 2"));
    std::fs::write(&file, "{}").unwrap();
    let said = runs.says(&ask);
    assert_eq!(said.code, 1);
    assert!(said.err.contains("holds no outlines"), "{said:?}");
    drop(disk);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_nobody_has_told_says_so() {
    let runs = Runs::of_each_kind().await;
    let said = runs.says("definitions");
    assert_eq!(said.code, 6);
    let told = "No coordinator has told this store yet what it has registered.\n";
    assert_eq!(said.err, told);
}
