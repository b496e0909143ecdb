use std::path::PathBuf;

use measure::Failed;

use crate::contenders::Contestant;

pub(crate) const USAGE: &str = "\
The same saga on amends and on its rivals, in one table.

cargo run --release --manifest-path benches/rivals/Cargo.toml -- [OPTIONS]

  --seconds N       how long each cell is measured, after a fifth of it to warm up [3]
  --repeats N       how often each cell is measured, all in turn [3]
  --in-flight N,N   how many sagas are in flight [1,16,256]
  --only NAME       only what has NAME in its engine or store, such as `cano` or `sqlite`; may be repeated
  --json            one line a cell instead of the table
  --smoke           a tenth of a second a cell, once: shows that all works, not how fast
  --folder FOLDER   where files are written and removed [the target folder]
  --memory GIB      a cell ends early when its process has grown so large [4]
  --postgres URL    a server for the rows on PostgreSQL, else AMENDS_BENCH_POSTGRES; needs `--features postgres`
";

#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) seconds: f64,
    pub(crate) repeats: usize,
    pub(crate) in_flight: Vec<usize>,
    pub(crate) only: Vec<String>,
    pub(crate) json: bool,
    pub(crate) folder: Option<PathBuf>,
    pub(crate) memory_gib: f64,
    pub(crate) postgres: Option<String>,
}

impl Options {
    /// Nothing where help is asked for.
    pub(crate) fn from_words(words: impl Iterator<Item = String>) -> Result<Option<Self>, Failed> {
        let mut options = Self {
            seconds: 3.0,
            repeats: 3,
            in_flight: vec![1, 16, 256],
            only: Vec::new(),
            json: false,
            folder: None,
            memory_gib: 4.0,
            postgres: std::env::var("AMENDS_BENCH_POSTGRES").ok(),
        };
        let mut words = words.peekable();
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or(format!("{word} wants a value"));
            match word.as_str() {
                "--seconds" => options.seconds = value()?.parse()?,
                "--repeats" => options.repeats = value()?.parse()?,
                "--in-flight" => {
                    let numbers = value()?;
                    let numbers = numbers.split(',').map(str::parse);
                    options.in_flight = numbers.collect::<Result<_, _>>()?;
                }
                "--only" => options.only.push(value()?.to_lowercase()),
                "--json" => options.json = true,
                "--smoke" => (options.seconds, options.repeats) = (0.1, 1),
                "--folder" => options.folder = Some(value()?.into()),
                "--memory" => options.memory_gib = value()?.parse()?,
                "--postgres" => options.postgres = Some(value()?),
                "--help" | "-h" => return Ok(None),
                _ => return Err(format!("no option {word}\n\n{USAGE}").into()),
            }
        }
        let sound = options.seconds > 0.0
            && options.seconds <= 3_600.0
            && options.repeats > 0
            && options.memory_gib > 0.0
            && !options.in_flight.contains(&0);
        if !sound {
            return Err("numbers have to be above zero, and a cell's seconds at most 3600".into());
        }
        if options.postgres.is_some() && !cfg!(feature = "postgres") {
            return Err("a server is named: build with `--features postgres`".into());
        }
        Ok(Some(options))
    }

    pub(crate) fn wants(&self, contestant: &Contestant) -> bool {
        let name = format!("{} {}", contestant.engine, contestant.shown).to_lowercase();
        (contestant.store != "PostgreSQL" || self.postgres.is_some())
            && (self.only.is_empty() || self.only.iter().any(|only| name.contains(only)))
    }
}
