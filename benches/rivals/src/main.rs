//! The same saga on `amends` and on its rivals, in one table: see `README.md`, which also says what the numbers do
//! not mean.

mod contenders;
mod engines;
mod machine;
mod options;
mod play;
mod postgres;
mod table;

use measure::Failed;

use crate::options::{Options, USAGE};

fn main() -> Result<(), Failed> {
    // This program calls itself for each cell of its own engines: `rivals ENGINE ORDER`.
    if std::env::args()
        .nth(2)
        .is_some_and(|order| order.starts_with('{'))
    {
        return engines::cell();
    }
    let Some(options) = Options::from_words(std::env::args().skip(1))? else {
        print!("{USAGE}");
        return Ok(());
    };
    if cfg!(debug_assertions) {
        return Err("numbers of a debug build mean nothing: say `cargo run --release`".into());
    }
    let played = play::play(&options)?;
    if options.json {
        table::print_json(&options, &played)
    } else {
        table::print(&options, &played);
        Ok(())
    }
}
