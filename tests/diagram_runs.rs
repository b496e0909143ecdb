//! Pictures of runs: real runs in virtual time, drawn to the same bytes each time and kept as snapshots.
#![cfg(feature = "testkit")]
// Helpers of tests may panic: that is how a test fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "diagram/scripted.rs"]
mod scripted;
#[path = "diagram/xml.rs"]
mod xml;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::{env, fs};

use amends::{Saga, SomeNode, StepSpec, StepStatus, diagram};
use scripted::{
    Act, Cast, Drawn, MESSAGE, MINUTES, SECRET, Script, all, nightly, order, run, trip,
};
use tokio::time::sleep;
use xml::elements;

fn folder(path: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), path].iter().collect()
}

/// Compares with a file, or rewrites it where that is asked for.
fn is_kept(path: &str, drawn: &str) {
    let path = folder(path);
    if env::var_os("AMENDS_UPDATE").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, drawn).unwrap();
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == drawn,
        "{} is drawn otherwise than it is kept: AMENDS_UPDATE=1 rewrites it, then look at it",
        path.display(),
    );
}

/// All pictures that are kept, by their names.
fn gallery() -> BTreeMap<String, String> {
    let mut gallery = BTreeMap::new();
    let cast = Cast::new(Script::default());
    for (name, graph) in [
        ("order", order(&cast).graph()),
        ("trip", trip(&cast).graph()),
        ("nightly", nightly(&cast).graph()),
    ] {
        gallery.insert(format!("{name}.svg"), diagram::svg(graph));
        gallery.insert(format!("{name}.txt"), diagram::text(graph));
        gallery.insert(format!("{name}.mmd"), diagram::mermaid(graph));
        gallery.insert(format!("{name}.dot"), diagram::dot(graph));
    }
    for drawn in all() {
        let kinds = [
            "run.svg",
            "run.txt",
            "run.mmd",
            "run.dot",
            "timeline.svg",
            "timeline.txt",
        ];
        for (kind, picture) in kinds.into_iter().zip(pictures(&drawn)) {
            gallery.insert(format!("{}.{kind}", drawn.name), picture);
        }
    }
    gallery
}

#[test]
fn each_picture_is_drawn_as_it_is_kept() {
    let gallery = gallery();
    assert_eq!(gallery.len(), 3 * 4 + 12 * 6);
    for (name, drawn) in &gallery {
        is_kept(&format!("tests/snapshots/diagram/{name}"), drawn);
    }
    let kept = fs::read_dir(folder("tests/snapshots/diagram")).unwrap();
    assert_eq!(kept.count(), gallery.len(), "what isn't drawn isn't kept");
}

/// The pictures of `docs/diagrams.md`.
const SHOWN: [&str; 5] = [
    "trip.svg",
    "order-compensated.run.svg",
    "trip-parked.run.svg",
    "order-compensated.timeline.svg",
    "order-parked-for-a-day.timeline.svg",
];

/// Those that `diagram_nested` draws.
const SHOWN_ELSEWHERE: [&str; 2] = ["shop.svg", "shop-compensated.run.svg"];

#[test]
fn the_pictures_in_the_docs_are_those_that_are_kept() {
    let page = fs::read_to_string(folder("docs/diagrams.md")).unwrap();
    let links = page.split("(img/").skip(1);
    let shown = links.map(|rest| rest.split(')').next().unwrap());
    let (nested, shown): (Vec<&str>, Vec<&str>) =
        shown.partition(|name| SHOWN_ELSEWHERE.contains(name));
    assert_eq!(
        (&shown[..], &nested[..]),
        (&SHOWN[..], &SHOWN_ELSEWHERE[..])
    );
    let gallery = gallery();
    for name in SHOWN {
        is_kept(&format!("docs/img/{name}"), &gallery[name]);
    }
    assert_eq!(
        fs::read_dir(folder("docs/img")).unwrap().count(),
        SHOWN.len() + SHOWN_ELSEWHERE.len()
    );
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

#[test]
fn no_picture_shows_a_payload_nor_what_is_random() {
    for drawn in all() {
        for picture in pictures(&drawn) {
            assert!(!picture.contains(&SECRET.to_string()));
            assert!(!picture.contains(&drawn.run.trace_id));
            // Only a reason for parking quotes the message of a failure.
            let quotes = picture.matches(MESSAGE).count();
            assert!(drawn.name == "trip-parked" || quotes == 0, "{}", drawn.name);
        }
    }
}

#[test]
fn each_status_is_told_by_a_word_and_a_sign_of_its_own() {
    let all = all();
    let seen: BTreeSet<(String, char)> = all
        .iter()
        .flat_map(|drawn| {
            let text = diagram::timeline_text(&drawn.run);
            let rows = drawn.run.steps.iter().map(move |step| {
                let row = text
                    .lines()
                    .find(|line| line.starts_with(&format!("{} ", step.name)))
                    .unwrap();
                let (_, status) = row.trim_end().rsplit_once("  ").unwrap();
                let (sign, word) = status.split_once(' ').unwrap();
                (word.to_owned(), sign.chars().next().unwrap())
            });
            rows.collect::<Vec<_>>()
        })
        .collect();
    let words: BTreeSet<&str> = seen.iter().map(|(word, _)| word.as_str()).collect();
    let signs: BTreeSet<char> = seen.iter().map(|(_, sign)| *sign).collect();
    assert_eq!(
        words.into_iter().collect::<Vec<_>>(),
        [
            "asked to stop",
            "done",
            "failed",
            "interrupted",
            "pending",
            "running",
            "skipped",
            "undo failed",
            "undone",
            "waits to retry"
        ]
    );
    assert_eq!(signs.len(), 10);
}

/// How often an element has exactly this text.
fn texts(document: &str, text: &str) -> usize {
    document.matches(&format!(">{text}</text>")).count()
}

#[test]
fn what_strikes_the_eye_stands_in_words() {
    let parked = scripted::trip_parked();
    let svg = diagram::run_svg(&parked.graph, &parked.run);
    assert_eq!(texts(&svg, "parked"), 1);
    assert_eq!(texts(&svg, "failing step: agent_validation"), 1);
    assert_eq!(texts(&svg, "undo failed: agent_validation"), 1);
    assert_eq!(texts(&svg, "effect in doubt"), 1);
    assert_eq!(texts(&svg, "undo failed · 2 attempts · 3 undos"), 1);
    assert_eq!(texts(&svg, "undone"), 2, "a step, and the legend");
    assert!(svg.contains(">parked (compensation_failed): the undo failed for good of"));

    let order = scripted::order_parked_for_a_day();
    let svg = diagram::timeline_svg(&order.run);
    assert_eq!(
        [
            "1 manual",
            "2 parked",
            "3 resolved",
            "4 retry_failed",
            "5 completed"
        ]
        .map(|flag| texts(&svg, flag)),
        [1; 5]
    );
    assert_eq!(
        (texts(&svg, "1 d 2 h"), texts(&svg, "2 min")),
        (2, 1),
        "how long is left out"
    );
    assert_eq!(svg.matches(" are left out</title>").count(), 2);
    // One bar a call, and one in the legend for each kind.
    assert_eq!(svg.matches(": execute, attempt").count(), 7);
}

#[test]
fn each_document_is_sound_and_nothing_is_outside_of_its_page() {
    let hostile = hostile();
    let wide = wide();
    for drawn in all().iter().chain([&hostile, &wide]) {
        for svg in [
            diagram::svg(&drawn.graph),
            diagram::run_svg(&drawn.graph, &drawn.run),
            diagram::timeline_svg(&drawn.run),
        ] {
            assert_eq!(elements(&svg)[..2], ["svg", "title"], "{}", drawn.name);
            inside(&svg, drawn.name);
        }
        let timeline = diagram::timeline_svg(&drawn.run);
        let width: u32 = attribute(&timeline, "width").unwrap().parse().unwrap();
        assert!(width < 1_400, "{}: {width}", drawn.name);
    }
}

/// The value of an attribute of the element that begins here.
fn attribute<'a>(element: &'a str, name: &str) -> Option<&'a str> {
    let tag = &element[..element.find('>').unwrap()];
    let at = tag.find(&format!(" {name}=\""))?;
    let value = &tag[at + name.len() + 3..];
    value.split('"').next()
}

/// Texts of one letter width lie on the page, however long their names are.
fn inside(svg: &str, name: &str) {
    let number = |element: &str, name: &str| -> Option<f64> {
        attribute(element, name).map(|value| value.parse().unwrap())
    };
    let (width, height) = (
        number(svg, "width").unwrap(),
        number(svg, "height").unwrap(),
    );
    let mut seen = 0;
    for text in svg.split("<text ").skip(1) {
        let text = format!("<text {text}");
        let content = text.split('>').nth(1).unwrap().split('<').next().unwrap();
        let letters = content.replace("&amp;", "&").replace("&quot;", "\"");
        let letters = letters
            .replace("&lt;", "<")
            .replace("&gt;", ">")
            .chars()
            .count();
        let size = number(&text, "font-size").unwrap_or(14.0);
        let wide = attribute(&text, "font-family").is_some();
        // Letters of one width take 0.602 em in the fonts that are named; others at least half of that.
        let long =
            f64::from(u32::try_from(letters).unwrap()) * size * if wide { 0.602 } else { 0.3 };
        let x = number(&text, "x").unwrap();
        let left = match attribute(&text, "text-anchor") {
            Some("middle") => x - long / 2.0,
            Some("end") => x - long,
            _ => x,
        };
        let y = number(&text, "y").unwrap();
        assert!(
            left >= 0.0 && left + long <= width && y > size * 0.8 && y <= height,
            "{name}: `{content}` at {left}, {y} of {width} by {height}"
        );
        seen += 1;
    }
    assert!(seen > 0);
}

/// Names that are markup, and names that are a page long.
fn hostile() -> Drawn {
    let cast = Cast::new(Script::default().on("x", [Act::Refused(5)]));
    let mut saga = Saga::builder::<u64>(format!("<a & \"b\"> {}", "long ".repeat(36)));
    let input = saga.input();
    for name in [
        "x",
        "<b>&\"tom\" 'n' \\ #1; `end`",
        &"w".repeat(200),
        "倉庫",
        "<text>&lt;<svg>",
    ] {
        saga.add(cast.step::<u64>(name), input);
    }
    let saga = saga.returns::<()>(()).unwrap();
    run("hostile", &saga, async |_, _| sleep(MINUTES(60)).await)
}

/// Two hundred steps, all after one, most of them at once.
fn wide() -> Drawn {
    let cast =
        Cast::new(Script::default().on("step-150", [Act::Busy(9), Act::Doubt(8), Act::Refused(7)]));
    let mut saga = Saga::builder::<u64>("wide");
    let input = saga.input();
    let first = saga.add(cast.step::<u64>("first"), input);
    let all: Vec<SomeNode> = (1..=198)
        .map(|index| {
            saga.add(cast.step::<u64>(&format!("step-{index}")), first)
                .into()
        })
        .collect();
    let last = all
        .into_iter()
        .fold(cast.step::<u64>("last"), StepSpec::after);
    saga.add(last, first);
    let saga = saga.returns::<()>(()).unwrap();
    run("wide", &saga, async |_, _| sleep(MINUTES(60)).await)
}

#[test]
fn two_hundred_steps_are_drawn_each_in_a_place_of_its_own() {
    let drawn = wide();
    assert_eq!(drawn.run.steps.len(), 200);
    let svg = diagram::run_svg(&drawn.graph, &drawn.run);
    assert_eq!(svg.matches("<g>").count(), 200);
    let timeline = diagram::timeline_svg(&drawn.run);
    let calls: usize = drawn.run.steps.iter().map(|step| step.calls.len()).sum();
    assert_eq!(timeline.matches(", attempt ").count(), calls);
    assert_eq!(
        diagram::run_text(&drawn.graph, &drawn.run)
            .matches(" ● ")
            .count(),
        200
    );
}

#[test]
fn names_that_are_markup_stay_names_in_every_form() {
    let drawn = hostile();
    let [svg, text, mermaid, dot, timeline, _] = pictures(&drawn);
    for document in [&svg, &timeline] {
        assert!(document.contains(">&lt;b&gt;&amp;&quot;tom&quot; 'n'"));
        assert!(document.contains(">&lt;text&gt;&amp;lt;&lt;svg&gt;</text>"));
    }
    assert!(text.contains("● <b>&\"tom\" 'n' \\ #1; `end`"));
    assert!(
        mermaid.contains(
            r##"s1("#60;b#62;#38;#34;tom#34; #39;n#39; #92; #35;1#59; #96;end#96;<br/>"##
        )
    );
    assert!(dot.contains(r#"s1 [label="<b>&amp;\"tom\" 'n' \\ #1; `end`\n"#));
    // Each quote in a line of a node is escaped or ends a value.
    for line in dot.lines().filter(|line| line.contains("[label=")) {
        let plain = line.replace("\\\\", "").replace("\\\"", "");
        assert_eq!(plain.matches('"').count() % 2, 0, "{line}");
    }
}

#[test]
fn texts_of_a_timeline_keep_to_a_hundred_columns_or_to_what_is_asked_for() {
    for drawn in all().iter().chain([&hostile(), &wide()]) {
        for line in diagram::timeline_text(&drawn.run).lines() {
            assert!(line.chars().count() <= 100, "{}: {line}", drawn.name);
        }
        for line in diagram::timeline_text_within(&drawn.run, 80).lines() {
            assert!(line.chars().count() <= 80, "{}: {line}", drawn.name);
        }
    }
}

#[test]
fn a_picture_of_a_run_without_its_graph_or_with_another_is_still_drawn() {
    let drawn = scripted::order_completed();
    let other = scripted::trip_parked();
    let svg = diagram::run_svg(&other.graph, &drawn.run);
    // The steps of the graph, and the legend.
    assert_eq!(texts(&svg, "pending"), other.graph.steps().len() + 1);
    let nothing = Saga::builder::<u64>("nothing").returns::<()>(()).unwrap();
    let empty = run("empty", &nothing, async |_, _| sleep(MINUTES(1)).await);
    for svg in [
        diagram::run_svg(&empty.graph, &empty.run),
        diagram::timeline_svg(&empty.run),
    ] {
        elements(&svg);
    }
    assert_eq!(
        diagram::timeline_text(&empty.run).lines().next(),
        Some("nothing, version 1: run nothing-1, ✓ completed")
    );
}

/// A step that is tried without end, as steps after the pivot may be.
#[test]
fn a_step_that_was_tried_a_thousand_times_is_drawn_with_what_is_kept() {
    let saga = {
        let cast = Cast::new(Script::default().on("ship", vec![Act::Busy(3); 1_200]));
        let mut saga = Saga::builder::<u64>("patient");
        let input = saga.input();
        let patient = amends::Retry::constant()
            .initial(MINUTES(10))
            .max_attempts(1_201);
        let ship = saga.add(cast.step::<u64>("ship").retry(patient), input);
        saga.returns::<u64>(ship).unwrap()
    };
    let drawn = run("patient", &saga, async |_, _| sleep(MINUTES(20_000)).await);
    let step = &drawn.run.steps[0];
    assert_eq!(
        (step.status, step.attempts, step.calls.len()),
        (StepStatus::Done, 1_201, 1_000)
    );
    let svg = diagram::timeline_svg(&drawn.run);
    elements(&svg);
    // Those that would lie on one another are drawn once, and counted.
    let drawn_once = svg.matches(", attempt ").count();
    let counts = svg.split("; and ").skip(1);
    let more: usize = counts
        .map(|rest| rest.split(' ').next().unwrap().parse::<usize>().unwrap())
        .sum();
    assert_eq!(drawn_once + more, 1_000);
    assert!(drawn_once < 90, "{drawn_once}");
    assert!(diagram::timeline_text(&drawn.run).contains("✓ done"));
}
