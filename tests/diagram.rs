//! Pictures of definitions: the same for ever, legible for small and large graphs, sound for any name.
// Helper functions outside of tests unwrap too: a definition that fails to build is a failed test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "diagram/xml.rs"]
mod xml;

use amends::{
    Saga, SomeNode, StepContext, StepSpec, diagram, irreversible_fn, read_only_fn, step_fn,
};
use xml::elements;

fn work(name: &str) -> StepSpec<u64, u64> {
    step_fn(
        name,
        async |_: &StepContext, n: &u64| Ok(*n),
        async |_, _, _| Ok(()),
    )
}

fn both(name: &str) -> StepSpec<(u64, u64), u64> {
    step_fn(
        name,
        async |_: &StepContext, n: &(u64, u64)| Ok(n.0 + n.1),
        async |_, _, _| Ok(()),
    )
}

fn look(name: &str) -> StepSpec<u64, u64> {
    read_only_fn(name, async |_: &StepContext, n: &u64| Ok(*n))
}

fn three() -> Saga<u64, u64> {
    let mut saga = Saga::builder::<u64>("place-order");
    let order = saga.input();
    let stock = saga.add(work("reserve-stock"), order);
    let paid = saga.add(both("charge-card"), (order, stock));
    let ship = irreversible_fn("ship", async |_: &StepContext, n: &u64| Ok(*n)).pivot();
    let parcel = saga.add(ship.after(paid), stock.map(|n| n + 1));
    saga.returns(parcel).unwrap()
}

fn diamond() -> Saga<u64, u64> {
    let mut saga = Saga::builder::<u64>("trip").version(3);
    let trip = saga.input();
    let quote = saga.add(look("quote"), trip);
    let flight = saga.add(work("book-flight").checkpoint(), quote);
    let hotel = saga.add(work("book-hotel"), quote.map(|n| n + 1));
    let pay = saga.add(both("pay").pivot().checkpoint(), (flight, hotel));
    let mail = irreversible_fn("send-tickets", async |_: &StepContext, n: &u64| Ok(*n));
    saga.add(look("watch-prices").after(flight), trip);
    saga.add(mail, pay);
    saga.returns(pay).unwrap()
}

/// Eight layers of five steps, tied to two of the layer above and now and then to one further up.
fn forty() -> Saga<u64, ()> {
    let mut saga = Saga::builder::<u64>("nightly");
    let input = saga.input();
    let mut layers: Vec<Vec<amends::Node<u64>>> = Vec::new();
    for layer in 0..8 {
        let mut row = Vec::new();
        for place in 0..5 {
            let name = format!(
                "job-{}{}",
                ["a", "b", "c", "d", "e", "f", "g", "h"][layer],
                place + 1
            );
            let node = match layers.last() {
                None => saga.add(work(&name), input),
                Some(above) => {
                    let (one, two) = (above[place], above[(place + 1) % 5]);
                    let mut step = both(&name);
                    if layer == 4 && place == 2 {
                        step = step.checkpoint();
                    }
                    if layer >= 3 && place == layer % 5 {
                        step = step.after(layers[layer - 3][4 - place]);
                    }
                    saga.add(step, (one, two))
                }
            };
            row.push(node);
        }
        layers.push(row);
    }
    saga.returns(()).unwrap()
}

#[test]
fn three_steps_in_the_terminal() {
    assert_eq!(
        diagram::text(three().graph()),
        "\
place-order, version 1: 3 steps

1 ─── ● reserve-stock  ◂─ input
│
2 ─── ● charge-card    ◂─ input, reserve-stock
│
3 ─── ■ ship           ◂─ map(reserve-stock)  ◂┄ charge-card  [pivot, irreversible]
╞════ point of no return
"
    );
}

#[test]
fn a_diamond_in_the_terminal() {
    assert_eq!(
        diagram::text(diamond().graph()),
        "\
trip, version 3: 6 steps

1 ─── ○ quote         ◂─ input  [read-only]
│
2 ─┬─ ● book-flight   ◂─ quote  [checkpoint]
│  └─ ● book-hotel    ◂─ map(quote)
│
3 ─┬─ ● pay           ◂─ book-flight, book-hotel  [pivot, checkpoint]
│  └─ ○ watch-prices  ◂─ input  ◂┄ book-flight  [read-only]
╞════ point of no return
│
4 ─── ■ send-tickets  ◂─ pay  [irreversible]
"
    );
}

#[test]
fn forty_steps_in_eight_layers_in_the_terminal() {
    assert_eq!(
        diagram::text(forty().graph()),
        "\
nightly, version 1: 40 steps

1 ─┬─ ● job-a1  ◂─ input
│  ├─ ● job-a2  ◂─ input
│  ├─ ● job-a3  ◂─ input
│  ├─ ● job-a4  ◂─ input
│  └─ ● job-a5  ◂─ input
│
2 ─┬─ ● job-b1  ◂─ job-a1, job-a2
│  ├─ ● job-b2  ◂─ job-a2, job-a3
│  ├─ ● job-b3  ◂─ job-a3, job-a4
│  ├─ ● job-b4  ◂─ job-a4, job-a5
│  └─ ● job-b5  ◂─ job-a5, job-a1
│
3 ─┬─ ● job-c1  ◂─ job-b1, job-b2
│  ├─ ● job-c2  ◂─ job-b2, job-b3
│  ├─ ● job-c3  ◂─ job-b3, job-b4
│  ├─ ● job-c4  ◂─ job-b4, job-b5
│  └─ ● job-c5  ◂─ job-b5, job-b1
│
4 ─┬─ ● job-d1  ◂─ job-c1, job-c2
│  ├─ ● job-d2  ◂─ job-c2, job-c3
│  ├─ ● job-d3  ◂─ job-c3, job-c4
│  ├─ ● job-d4  ◂─ job-c4, job-c5  ◂┄ job-a2
│  └─ ● job-d5  ◂─ job-c5, job-c1
│
5 ─┬─ ● job-e1  ◂─ job-d1, job-d2
│  ├─ ● job-e2  ◂─ job-d2, job-d3
│  ├─ ● job-e3  ◂─ job-d3, job-d4  [checkpoint]
│  ├─ ● job-e4  ◂─ job-d4, job-d5
│  └─ ● job-e5  ◂─ job-d5, job-d1  ◂┄ job-b1
│
6 ─┬─ ● job-f1  ◂─ job-e1, job-e2  ◂┄ job-c5
│  ├─ ● job-f2  ◂─ job-e2, job-e3
│  ├─ ● job-f3  ◂─ job-e3, job-e4
│  ├─ ● job-f4  ◂─ job-e4, job-e5
│  └─ ● job-f5  ◂─ job-e5, job-e1
│
7 ─┬─ ● job-g1  ◂─ job-f1, job-f2
│  ├─ ● job-g2  ◂─ job-f2, job-f3  ◂┄ job-d4
│  ├─ ● job-g3  ◂─ job-f3, job-f4
│  ├─ ● job-g4  ◂─ job-f4, job-f5
│  └─ ● job-g5  ◂─ job-f5, job-f1
│
8 ─┬─ ● job-h1  ◂─ job-g1, job-g2
│  ├─ ● job-h2  ◂─ job-g2, job-g3
│  ├─ ● job-h3  ◂─ job-g3, job-g4  ◂┄ job-e3
│  ├─ ● job-h4  ◂─ job-g4, job-g5
│  └─ ● job-h5  ◂─ job-g5, job-g1
"
    );
}

#[test]
fn long_lists_are_broken_under_their_arrow_and_wide_letters_keep_the_columns() {
    let mut saga = Saga::builder::<u64>("出荷");
    let n = saga.input();
    let names = (1..=14).map(|index| format!("倉庫-{index:02}"));
    let all: Vec<SomeNode> = names.map(|name| saga.add(work(&name), n).into()).collect();
    let last = all.into_iter().fold(work("load"), StepSpec::after);
    saga.add(last.pivot(), n);
    let drawn = diagram::text(saga.returns::<()>(()).unwrap().graph());
    let tail: Vec<&str> = drawn.lines().skip(14).collect();
    assert_eq!(
        tail.join("\n"),
        "\
│  ├─ ● 倉庫-13  ◂─ input
│  └─ ● 倉庫-14  ◂─ input
│
2 ─── ● load     ◂─ input  ◂┄ 倉庫-01, 倉庫-02, 倉庫-03, 倉庫-04, 倉庫-05, 倉庫-06, 倉庫-07,
│                   倉庫-08, 倉庫-09, 倉庫-10, 倉庫-11, 倉庫-12, 倉庫-13, 倉庫-14  [pivot]
╞════ point of no return"
    );
}

#[test]
fn a_saga_without_steps_is_drawn_too() {
    let empty = Saga::builder::<()>("nothing").returns::<()>(()).unwrap();
    assert_eq!(
        diagram::text(empty.graph()),
        "nothing, version 1: 0 steps\n"
    );
    assert_eq!(diagram::mermaid(empty.graph()), "flowchart TD\n");
    assert_eq!(
        elements(&diagram::svg(empty.graph())),
        ["svg", "title", "defs", "marker", "path", "rect", "text"]
    );
}

#[test]
fn a_diamond_for_mermaid() {
    assert_eq!(
        diagram::mermaid(diamond().graph()),
        r#"flowchart TD
    s0[/"quote<br/><i>read-only</i>"/]
    s1("book-flight<br/><i>checkpoint</i>")
    s2("book-hotel")
    s3{{"pay<br/><i>pivot, checkpoint</i>"}}
    s4[/"watch-prices<br/><i>read-only</i>"/]
    s5["send-tickets<br/><i>irreversible</i>"]
    s0 --> s1
    s0 --> s2
    s1 --> s3
    s2 --> s3
    s1 -.-> s4
    s3 --> s5
"#
    );
}

#[test]
fn names_that_are_markup_stay_names() {
    let name = r#"<b>&"tom" 'n' #1; `end`"#;
    let mut saga = Saga::builder::<u64>("a<b & \"c\"");
    let n = saga.input();
    saga.add(work(name), n);
    saga.add(work(&"w".repeat(200)), n);
    let saga = saga.returns::<()>(()).unwrap();
    let svg = diagram::svg(saga.graph());
    assert_eq!(
        elements(&svg).iter().filter(|name| *name == "rect").count(),
        3
    );
    assert!(svg.contains("<title>a&lt;b &amp; &quot;c&quot;, version 1</title>"));
    assert!(svg.contains(">&lt;b&gt;&amp;&quot;tom&quot; 'n' #1; `end`</text>"));
    assert!(svg.contains(&format!(">{}…</text>", "w".repeat(31))));
    assert!(
        diagram::mermaid(saga.graph())
            .contains(r##"s0("#60;b#62;#38;#34;tom#34; #39;n#39; #35;1#59; #96;end#96;")"##)
    );
}

#[test]
fn the_picture_is_a_sound_document_with_a_box_a_step_and_an_arrow_an_edge() {
    for (saga, steps, edges) in [
        (three().graph().clone(), 3, 3),
        (diamond().graph().clone(), 6, 6),
        (forty().graph().clone(), 40, 75),
    ] {
        let svg = diagram::svg(&saga);
        let count = |wanted: &str| elements(&svg).iter().filter(|name| *name == wanted).count();
        assert_eq!(count("g"), steps);
        // The background is one more.
        assert_eq!(count("rect"), steps + 1);
        // The legend is one more.
        assert_eq!(svg.matches("marker-end").count(), edges + 1);
        assert_eq!(svg, diagram::svg(&saga), "the same every time");
    }
}

/// No box lies on another, outside of the picture, or on a line that passes.
#[test]
fn boxes_have_room() {
    for saga in [
        three().graph().clone(),
        diamond().graph().clone(),
        forty().graph().clone(),
    ] {
        let svg = diagram::svg(&saga);
        let mut rects = svg.lines().filter_map(rect);
        let page = rects.next().unwrap();
        let boxes: Vec<[i64; 4]> = rects.collect();
        assert_eq!(boxes.len(), saga.steps().len());
        for (index, &[x, y, width, height]) in boxes.iter().enumerate() {
            assert!(x >= 0 && y >= 0 && x + width <= page[2] && y + height <= page[3]);
            for &[left, top, wide, high] in &boxes[..index] {
                let apart = x + width <= left || left + wide <= x;
                assert!(apart || y + height <= top || top + high <= y);
            }
        }
        let passes = svg.lines().flat_map(passes).collect::<Vec<_>>();
        for &(at, from, to) in &passes {
            for &[x, y, width, height] in &boxes {
                assert!(at <= x || x + width <= at || to <= y || y + height <= from);
            }
        }
    }
    assert_eq!(
        diagram::svg(three().graph())
            .lines()
            .flat_map(passes)
            .count(),
        1
    );
    assert_eq!(
        diagram::svg(forty().graph())
            .lines()
            .flat_map(passes)
            .count(),
        10
    );
}

#[test]
fn ten_thousand_steps_are_drawn() {
    let mut saga = Saga::builder::<u64>("long");
    let n = saga.input();
    let first = saga.add(work("first"), n);
    let mut last = first;
    for index in 1..10_000 {
        last = saga.add(work(&index.to_string()).after(first), last);
    }
    let saga = saga.returns::<u64>(last).unwrap();
    assert_eq!(diagram::svg(saga.graph()).matches("<g>").count(), 10_000);
    assert_eq!(diagram::text(saga.graph()).matches(" ● ").count(), 10_000);
}

/// The box of a line of the document, as x, y, width, height.
fn rect(line: &str) -> Option<[i64; 4]> {
    let rect = &line[line.find("<rect ")?..];
    let number = |name: &str| {
        let Some(at) = rect.find(&format!(" {name}=\"")) else {
            return 0;
        };
        let value = &rect[at + name.len() + 3..];
        value[..value.find('"').unwrap()].parse().unwrap()
    };
    Some([number("x"), number("y"), number("width"), number("height")])
}

/// Where the edge of a line of the document runs straight down past a layer: x, from, to.
fn passes(line: &str) -> Vec<(i64, i64, i64)> {
    let Some(path) = line
        .strip_prefix("<path d=\"M")
        .filter(|_| line.contains("fill=\"none\""))
    else {
        return Vec::new();
    };
    let path = &path[..path.find('"').unwrap()];
    let mut passes = Vec::new();
    for piece in path.split('C').skip(1) {
        if let Some((curve, to)) = piece.split_once('V') {
            let ends: Vec<i64> = curve.split(' ').map(|n| n.parse().unwrap()).collect();
            passes.push((ends[4], ends[5], to.parse().unwrap()));
        }
    }
    passes
}
