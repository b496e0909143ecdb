//! What ends a subcommand early, and the exit codes that scripts go by.

use std::error::Error;
use std::io;
use std::process::ExitCode;

use amends::GetError;
use amends::operator::OperatorError;
use amends::store::{LoadError, StoreError, SubmitError};

/// How the program ends. The numbers are documented, so they stay as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done.
    Done = 0,
    /// Reading or writing went wrong.
    Failed = 1,
    /// The arguments are wrong.
    Usage = 2,
    /// There is no such run, step or saga.
    NotFound = 3,
    /// The run doesn't take this verb now.
    Refused = 4,
    /// The store can't be opened.
    Store = 5,
    /// Problems were found.
    Problems = 6,
    /// Handed in, and not carried out yet.
    Waiting = 7,
}

impl Exit {
    /// The word for it, in the JSON form of errors.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Exit::Done => "done",
            Exit::Failed => "failed",
            Exit::Usage => "usage",
            Exit::NotFound => "not_found",
            Exit::Refused => "refused",
            Exit::Store => "store",
            Exit::Problems => "problems",
            Exit::Waiting => "waiting",
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

/// What happened, and what the reader can do.
#[derive(Debug)]
pub(crate) struct CliError {
    exit: Exit,
    message: String,
    hints: Vec<String>,
    closed_pipe: bool,
}

impl CliError {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        CliError {
            exit,
            message: message.into(),
            hints: Vec::new(),
            closed_pipe: false,
        }
    }

    /// The arguments are wrong, in a way that only the subcommand can tell.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        CliError::new(Exit::Usage, message)
    }

    /// Something failed; the message ends with all its causes.
    pub(crate) fn failed(what: &str, error: &dyn Error) -> Self {
        CliError::new(Exit::Failed, format!("{what}: {}", with_causes(error)))
    }

    /// What the reader can do; said again, what else.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }

    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    pub(crate) fn hints(&self) -> &[String] {
        &self.hints
    }

    /// Whether nobody reads our output any more.
    pub(crate) fn is_closed_pipe(&self) -> bool {
        self.closed_pipe
    }
}

/// An error and all that is behind it, in one line.
pub(crate) fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        // A transparent error says the same as its source.
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

/// An error of writing our own output.
impl From<io::Error> for CliError {
    fn from(error: io::Error) -> Self {
        CliError {
            closed_pipe: error.kind() == io::ErrorKind::BrokenPipe,
            ..CliError::failed("writing the output", &error)
        }
    }
}

impl From<StoreError> for CliError {
    fn from(error: StoreError) -> Self {
        let exit = match &error {
            StoreError::InUse { .. } | StoreError::Foreign { .. } | StoreError::Dead { .. } => {
                Exit::Store
            }
            _ => Exit::Failed,
        };
        CliError::new(exit, with_causes(&error))
    }
}

impl From<LoadError> for CliError {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::Store(error) => error.into(),
            error => CliError::new(Exit::Failed, with_causes(&error))
                .hint("`amends verify` says what else of the store is damaged"),
        }
    }
}

impl From<GetError> for CliError {
    fn from(error: GetError) -> Self {
        match error {
            GetError::Load(error) => error.into(),
            GetError::Store(error) => error.into(),
            error @ GetError::NoDefinition { .. } => CliError::new(Exit::Failed, error.to_string())
                .hint("a coordinator that registers this definition puts it into the store")
                .hint("`amends journal RUN` needs no definition"),
            error => CliError::new(Exit::Failed, with_causes(&error)),
        }
    }
}

impl From<OperatorError> for CliError {
    fn from(error: OperatorError) -> Self {
        match error {
            OperatorError::NoSuchRun { .. } => CliError::new(Exit::NotFound, error.to_string()),
            OperatorError::Refused { ref legal, .. } => {
                let legal: Vec<&str> = legal.iter().map(|verb| verb.as_str()).collect();
                let refused = CliError::new(Exit::Refused, error.to_string());
                if legal.is_empty() {
                    refused
                } else {
                    refused.hint(format!("it takes now: {}", legal.join(", ")))
                }
            }
            OperatorError::Get(error) => error.into(),
            OperatorError::Store(error) => error.into(),
            OperatorError::Submit(error) => error.into(),
            error => CliError::new(Exit::Failed, with_causes(&error)),
        }
    }
}

impl From<SubmitError> for CliError {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::NoSuchRun { .. } => CliError::new(Exit::NotFound, error.to_string()),
            SubmitError::TokenTaken { .. } => CliError::new(Exit::Refused, error.to_string()),
            SubmitError::Store(error) => error.into(),
            error => CliError::new(Exit::Failed, with_causes(&error)),
        }
    }
}
