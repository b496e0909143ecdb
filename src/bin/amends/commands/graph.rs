//! `amends graph`.

use amends::diagram;
use amends::operator::{Operator, RunView};
use amends::store::RunFilter;
use clap::ValueEnum;
use serde::Serialize;

use crate::error::{CliError, Exit};
use crate::near;
use crate::session::{self, Session};

/// Draws a run, or the saga of one
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The run
    #[arg(
        value_name = "RUN",
        required_unless_present = "saga",
        conflicts_with = "saga"
    )]
    run: Option<String>,
    /// Draw this saga, as its newest run has it
    #[arg(long, value_name = "NAME")]
    saga: Option<String>,
    /// The form of the picture
    #[arg(long, value_name = "FORM", default_value = "text")]
    format: Format,
}

/// The form of a picture.
// Without help of their own: see `Colour`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Svg,
    Mermaid,
    Dot,
}

/// The JSON form.
#[derive(Serialize)]
struct Form<'a> {
    saga: &'a str,
    version: u32,
    run: Option<&'a str>,
    format: &'static str,
    picture: String,
}

pub(crate) async fn run(args: &Args, session: &Session) -> Result<Exit, CliError> {
    let operator = session.operator().await?;
    let view = match (&args.run, &args.saga) {
        (Some(run), _) => session::view(&operator, run).await?,
        (None, saga) => newest_of(&operator, saga.as_deref().unwrap_or_default()).await?,
    };
    let graph = view.graph();
    let picture = match (args.format, &args.run) {
        (Format::Text, Some(_)) => diagram::run_text(graph, &view.partial()),
        (Format::Svg, Some(_)) => diagram::run_svg(graph, &view.partial()),
        (Format::Mermaid, Some(_)) => diagram::run_mermaid(graph, &view.partial()),
        (Format::Dot, Some(_)) => diagram::run_dot(graph, &view.partial()),
        (Format::Text, None) => diagram::text(graph),
        (Format::Svg, None) => diagram::svg(graph),
        (Format::Mermaid, None) => diagram::mermaid(graph),
        (Format::Dot, None) => diagram::dot(graph),
    };
    let out = &session.out;
    if out.is_json() {
        out.document(&Form {
            saga: graph.saga(),
            version: graph.version(),
            run: args.run.as_deref(),
            format: match args.format {
                Format::Text => "text",
                Format::Svg => "svg",
                Format::Mermaid => "mermaid",
                Format::Dot => "dot",
            },
            picture,
        })?;
    } else {
        out.text(&picture)?;
        if !picture.ends_with('\n') {
            out.line("")?;
        }
    }
    Ok(Exit::Done)
}

/// The newest run of a saga whose definition the store has.
async fn newest_of(operator: &Operator, saga: &str) -> Result<RunView, CliError> {
    let filter = RunFilter::all().saga(saga).newest_first();
    if let Some(entry) = operator.list(&filter, None, 1).await?.first() {
        return session::view(operator, entry.run.as_str()).await;
    }
    let error = CliError::new(
        Exit::NotFound,
        format!("this store has no run of a saga `{saga}`"),
    );
    let newest = operator
        .list(&RunFilter::all().newest_first(), None, 2_000)
        .await?;
    let mut sagas: Vec<&str> = newest.iter().map(|entry| entry.saga.as_str()).collect();
    sagas.sort_unstable();
    sagas.dedup();
    let near = near::near(saga, sagas.iter().copied());
    Err(if near.is_empty() {
        sagas.truncate(20);
        error.hint(format!("its newest runs are of {}", sagas.join(", ")))
    } else {
        error.hint(format!("did you mean {}?", near::either(&near)))
    })
}
