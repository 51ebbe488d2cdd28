//! The asking end, for the command line: blocking, one question after the other. Knows nothing of how
//! answers are shown.

use super::protocol::{Answer, Question};
use super::{
    Failure, FailureKind, LONGEST_RESPONSE, Request, Response, SandboxInfo, Status, Streamed,
    TailRequest, VERSION,
};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long an answer is waited for: longer than the daemon itself waits, so that it is the one to say
/// what is the matter.
const ANSWERED_WITHIN: Duration = Duration::from_secs(75);

/// For what the daemon answers at once, unless it hangs.
const BRIEFLY: Duration = Duration::from_secs(5);

/// Why there is no answer, or no good one.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error(
        "no daemon listens on {0}; start one with `postern run --policy DIR`, or say where it listens with --admin"
    )]
    NoDaemon(PathBuf),
    /// The socket is root's.
    #[error("may not talk to the daemon on {0}: only root may; try sudo")]
    NotAllowed(PathBuf),
    /// What the daemon says.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// The daemon did not say anything that makes sense.
    #[error("the daemon on {path} does not answer as it should: {what}")]
    Nonsense {
        /// Where.
        path: PathBuf,
        /// What was wrong.
        what: String,
    },
    /// The daemon hangs.
    #[error(
        "the daemon on {0} takes the question and says nothing; its log may say why, and stopping it leaves its sandboxes shut"
    )]
    Silent(PathBuf),
    /// The conversation broke off.
    #[error("the conversation with the daemon on {path} broke off: {source}")]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A conversation with the daemon.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
    path: PathBuf,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// [`ClientError::NoDaemon`], [`ClientError::NotAllowed`], [`ClientError::Io`].
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        Self::connect_for(path, ANSWERED_WITHIN)
    }

    /// Connects, for questions that are answered at once.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub fn connect_briefly(path: &Path) -> Result<Self, ClientError> {
        Self::connect_for(path, BRIEFLY)
    }

    fn connect_for(path: &Path, patience: Duration) -> Result<Self, ClientError> {
        let connected = UnixStream::connect(path).and_then(|stream| {
            stream.set_read_timeout(Some(patience))?;
            stream.set_write_timeout(Some(patience))?;
            Ok(stream)
        });
        match connected {
            Ok(stream) => Ok(Self {
                stream: BufReader::new(stream),
                path: path.to_owned(),
            }),
            Err(source) => Err(match source.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                    ClientError::NoDaemon(path.to_owned())
                }
                io::ErrorKind::PermissionDenied => ClientError::NotAllowed(path.to_owned()),
                _ => ClientError::Io {
                    path: path.to_owned(),
                    source,
                },
            }),
        }
    }

    /// Asks and waits for the answer.
    ///
    /// # Errors
    /// [`ClientError`]; what the daemon refused is [`ClientError::Failed`].
    pub fn ask(&mut self, request: &Request) -> Result<Response, ClientError> {
        let question = Question {
            version: VERSION,
            request,
        };
        let sent = serde_json::to_vec(&question)
            .map_err(io::Error::from)
            .and_then(|mut line| {
                line.push(b'\n');
                self.stream.get_mut().write_all(&line)
            });
        match sent {
            Ok(()) => {}
            // It may have refused already and hung up: then that is the answer.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            Err(source) => return Err(self.broken(source)),
        }
        let line = self.line()?.ok_or_else(|| self.nonsense("it hung up"))?;
        let answer: Answer<Response> = serde_json::from_str(&line)
            .map_err(|error| self.nonsense(&format!("{error}; is it of another version?")))?;
        if answer.version != VERSION {
            let spoken = answer.version;
            return Err(self.nonsense(&format!("it speaks version {spoken}, not {VERSION}")));
        }
        match answer.response {
            Response::Failed { failure } => Err(failure.into()),
            response => Ok(response),
        }
    }

    /// How things stand.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub fn status(&mut self) -> Result<Status, ClientError> {
        match self.ask(&Request::Status)? {
            Response::Status { status } => Ok(*status),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Attaches a cgroup or lets go of some. Returns the sandboxes that it was about.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub fn change(&mut self, request: &Request) -> Result<Vec<SandboxInfo>, ClientError> {
        match self.ask(request)? {
            Response::Attached { sandbox } => Ok(vec![sandbox]),
            Response::Detached { sandboxes } => Ok(sandboxes),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Listens to records from now on.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub fn tail(mut self, request: TailRequest) -> Result<Tail, ClientError> {
        match self.ask(&Request::Tail(request))? {
            Response::Tailing => {}
            other => return Err(self.unexpected(&other)),
        }
        match self.stream.get_ref().set_read_timeout(None) {
            Ok(()) => Ok(Tail(self)),
            Err(source) => Err(self.broken(source)),
        }
    }

    /// `None` at the end.
    fn line(&mut self) -> Result<Option<String>, ClientError> {
        let most = u64::try_from(LONGEST_RESPONSE).unwrap_or(u64::MAX);
        let mut line = String::new();
        match (&mut self.stream).take(most).read_line(&mut line) {
            Ok(0) => Ok(None),
            Ok(_) if line.ends_with('\n') => Ok(Some(line)),
            Ok(_) => Err(self.nonsense("its answer has no end")),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Err(self.nonsense(&format!("no answer within {} s", ANSWERED_WITHIN.as_secs())))
            }
            Err(source) => Err(self.broken(source)),
        }
    }

    fn unexpected(&self, response: &Response) -> ClientError {
        self.nonsense(&format!("it answered another question: {response:?}"))
    }

    fn nonsense(&self, what: &str) -> ClientError {
        ClientError::Nonsense {
            path: self.path.clone(),
            what: what.to_owned(),
        }
    }

    fn broken(&self, source: io::Error) -> ClientError {
        let path = self.path.clone();
        match source.kind() {
            // What a socket says whose time limit is over.
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => ClientError::Silent(path),
            _ => ClientError::Io { path, source },
        }
    }
}

/// Records as they are made.
#[derive(Debug)]
pub struct Tail(Client);

impl Iterator for Tail {
    type Item = Result<Streamed, ClientError>;

    fn next(&mut self) -> Option<Self::Item> {
        let line = match self.0.line() {
            Ok(None) => return None,
            Ok(Some(line)) => line,
            Err(error) => return Some(Err(error)),
        };
        let told = serde_json::from_str(&line);
        Some(told.map_err(|error| self.0.nonsense(&error.to_string())))
    }
}

impl ClientError {
    /// Was it the question's fault, rather than the daemon's or the machine's?
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Failed(failure) => match failure.kind {
                FailureKind::NotFound | FailureKind::Refused => true,
                FailureKind::BadRequest | FailureKind::Failed => false,
            },
            Self::NoDaemon(_)
            | Self::NotAllowed(_)
            | Self::Nonsense { .. }
            | Self::Silent(_)
            | Self::Io { .. } => false,
        }
    }
}
