//! Pictures of steps that have steps inside: real runs in virtual time, kept as snapshots.
#![cfg(feature = "testkit")]
// Helpers of tests may panic: that is how a test fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "diagram/nested.rs"]
mod nested;
#[path = "diagram/scripted.rs"]
mod scripted;
mod snapshot;
#[path = "diagram/xml.rs"]
mod xml;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use amends::{StepStatus, diagram};
use nested::{all, crowd, deal, shop};
use scripted::{Cast, Drawn, MESSAGE, SECRET, Script};
use xml::elements;

const FOLDER: &str = "tests/snapshots/diagram_nested";

/// All pictures that are kept, by their names.
fn gallery() -> BTreeMap<String, String> {
    let mut gallery = BTreeMap::new();
    let cast = Cast::new(Script::default());
    let (shop, crowd, deal) = (shop(&cast), crowd(&cast), deal(&cast));
    for (name, graph) in [
        ("shop", shop.graph()),
        ("crowd", crowd.graph()),
        ("deal", deal.graph()),
    ] {
        gallery.insert(format!("{name}.svg"), diagram::svg(graph));
        gallery.insert(format!("{name}.txt"), diagram::text(graph));
        gallery.insert(format!("{name}.mmd"), diagram::mermaid(graph));
        gallery.insert(format!("{name}.dot"), diagram::dot(graph));
    }
    for Drawn { name, graph, run } in &all() {
        gallery.insert(format!("{name}.run.svg"), diagram::run_svg(graph, run));
        gallery.insert(format!("{name}.run.txt"), diagram::run_text(graph, run));
        gallery.insert(format!("{name}.run.mmd"), diagram::run_mermaid(graph, run));
        gallery.insert(format!("{name}.run.dot"), diagram::run_dot(graph, run));
        gallery.insert(format!("{name}.timeline.svg"), diagram::timeline_svg(run));
        gallery.insert(format!("{name}.timeline.txt"), diagram::timeline_text(run));
    }
    gallery
}

#[test]
fn each_picture_is_drawn_as_it_is_kept() {
    let gallery = gallery();
    assert_eq!(gallery.len(), 3 * 4 + 7 * 6);
    for (name, drawn) in &gallery {
        snapshot::is(&format!("{FOLDER}/{name}"), drawn);
    }
    // The pictures of `docs/diagrams.md`.
    for name in ["shop.svg", "shop-compensated.run.svg"] {
        snapshot::is(&format!("docs/img/{name}"), &gallery[name]);
    }
    let folder = format!("{}/{FOLDER}", env!("CARGO_MANIFEST_DIR"));
    let kept = fs::read_dir(folder).unwrap().count();
    assert_eq!(kept, gallery.len(), "what isn't drawn isn't kept");
}

#[test]
fn no_picture_shows_a_payload_nor_what_is_random() {
    for drawn in &all() {
        assert!(!drawn.run.trace_id.is_empty());
        for picture in pictures(drawn) {
            assert!(!picture.contains(&SECRET.to_string()), "{}", drawn.name);
            assert!(!picture.contains(&drawn.run.trace_id), "{}", drawn.name);
            // Only a reason for parking quotes the message of a failure, and once.
            let quotes = picture.matches(MESSAGE).count();
            assert!(quotes == 0 || drawn.name == "shop-parked", "{}", drawn.name);
        }
    }
}

/// All pictures of a run.
fn pictures(Drawn { graph, run, .. }: &Drawn) -> [String; 6] {
    [
        diagram::run_svg(graph, run),
        diagram::run_text(graph, run),
        diagram::run_mermaid(graph, run),
        diagram::run_dot(graph, run),
        diagram::timeline_svg(run),
        diagram::timeline_text(run),
    ]
}

/// A rectangle: left, top, width, height.
type Rect = [i64; 4];

/// The boxes and frames of a picture, its page first.
fn rects(svg: &str) -> Vec<Rect> {
    let lines = svg.split("<rect ").skip(1);
    let number = |rect: &str, name: &str| {
        let at = rect.find(&format!("{name}=\""))?;
        let value = &rect[at + name.len() + 2..];
        value[..value.find('"')?].parse().ok()
    };
    lines
        .map(|rect| {
            let rect = &format!(" {}", &rect[..rect.find('>').unwrap()]);
            [" x", " y", " width", " height"].map(|name| number(rect, name).unwrap_or(0))
        })
        .collect()
}

fn is_in([x, y, width, height]: Rect, [left, top, wide, high]: Rect) -> bool {
    x >= left && y >= top && x + width <= left + wide && y + height <= top + high
}

fn is_apart([x, y, width, height]: Rect, [left, top, wide, high]: Rect) -> bool {
    x + width <= left || left + wide <= x || y + height <= top || top + high <= y
}

#[test]
fn each_box_lies_in_the_frame_of_its_step_and_on_no_other() {
    for drawn in &all() {
        for (svg, depths) in [
            (diagram::svg(&drawn.graph), 3),
            (diagram::run_svg(&drawn.graph, &drawn.run), 5),
        ] {
            assert_eq!(elements(&svg)[..2], ["svg", "title"], "{}", drawn.name);
            let rects = rects(&svg);
            let mut deepest = 0;
            for (index, &one) in rects.iter().enumerate() {
                assert!(is_in(one, rects[0]), "{}: {one:?}", drawn.name);
                let around = rects.iter().filter(|&&other| is_in(one, other)).count();
                deepest = deepest.max(around);
                for &other in &rects[..index] {
                    // A frame is drawn before what is inside it.
                    let nested = is_in(one, other);
                    assert!(nested || is_apart(one, other), "{one:?} {other:?}");
                }
            }
            // The page, and frames in frames: of parcels that haven't begun none are shown.
            let least = match drawn.name {
                "shop-waiting" => 3,
                name if name.starts_with("shop") => depths,
                _ => 2,
            };
            assert!(deepest >= least, "{}: {deepest}", drawn.name);
        }
        elements(&diagram::timeline_svg(&drawn.run));
    }
}

#[test]
fn what_is_passed_over_or_failed_inside_strikes_the_eye_where_it_stands() {
    let parked = nested::shop_parked();
    let svg = diagram::run_svg(&parked.graph, &parked.run);
    let texts = |text: &str| svg.matches(&format!(">{text}</text>")).count();
    assert_eq!(texts("failing step: agent_validation"), 1);
    // The label, all labels, the parcel, all parcels.
    assert_eq!(texts("undo failed: agent_validation"), 4);
    assert_eq!(texts("passed over"), 3, "two steps, and the legend");
    assert!(
        svg.contains("failed for good of `ship[0]/label[1]` (the other side said no)"),
        "what it is parked for names the step whose undo failed"
    );
    let statuses = |name: &str| parked.run.step(name).unwrap().status;
    assert_eq!(statuses("pay/invoice"), StepStatus::PassedOver);
    assert_eq!(statuses("insure"), StepStatus::PassedOver);
    assert_eq!(statuses("ship[0]"), StepStatus::UndoFailed);
}

#[test]
fn of_many_items_those_are_shown_that_somebody_would_look_for_and_the_others_are_counted() {
    let drawn = nested::crowd_under_way();
    let text = diagram::run_text(&drawn.graph, &drawn.run);
    let shown: BTreeSet<usize> = text
        .split(" greet[")
        .skip(1)
        .map(|rest| rest[..rest.find(']').unwrap()].parse().unwrap())
        .collect();
    assert_eq!(
        shown,
        BTreeSet::from([17, 31, 40, 147, 148, 149, 150, 151, 152, 153])
    );
    assert!(text.contains("● greet × 400  ▶ running · 144 of 400 done, 8 running, 2 failed\n"));
    assert!(text.contains("└─ 390 more: 144 done, 246 pending\n"));
    // The page, the frame, ten items, one box for the others, and the step after them.
    let svg = diagram::run_svg(&drawn.graph, &drawn.run);
    assert_eq!(rects(&svg).len(), 14);

    let most = diagram::rows(&drawn.run, 3);
    assert_eq!(most.len(), 1 + 3 + 1 + 1);
    let every = diagram::rows(&drawn.run, usize::MAX);
    assert_eq!(every.len(), 402);
}

#[test]
fn an_arrow_to_or_from_a_step_with_steps_inside_ends_at_its_frame() {
    let cast = Cast::new(Script::default());
    let dot = diagram::dot(shop(&cast).graph());
    assert!(dot.contains(", compound=true]"));
    for edge in [
        "    s0_1 -> s2 [ltail=cluster_s0]\n",
        "    s1 -> s3_0 [style=dashed, lhead=cluster_s3]\n",
        "    s3_1 -> s4 [style=dashed, ltail=cluster_s3]\n",
        "    s4 -> s5_0 [style=dashed, lhead=cluster_s5]\n",
    ] {
        assert!(dot.contains(edge), "{edge}\n{dot}");
    }
    let mermaid = diagram::mermaid(shop(&cast).graph());
    assert!(mermaid.contains("    s3_0 -. if it fails .-> s3_1\n    end\n"));
    assert!(mermaid.contains("\n    s0 --> s2\n"));
    // Each frame is closed, and each node has a name of its own.
    let opened = mermaid.matches("subgraph ").count();
    assert_eq!((opened, mermaid.matches("    end\n").count()), (3, 3));
    let ids: Vec<&str> = mermaid
        .lines()
        .filter(|line| line.contains('"'))
        .map(|line| line.trim().trim_start_matches("subgraph "))
        .map(|line| &line[..line.find(['[', '(', '{']).unwrap()])
        .collect();
    assert_eq!(ids.len(), 14);
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), 14);
}
