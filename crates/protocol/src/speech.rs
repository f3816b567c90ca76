//! What agents say while they work: words as they are written, and the calls of tools between them.
//!
//! It is for whoever watches, and is kept for a while only. What an agent came to is in its task, what
//! it asked and did is in the task's records; both are on disk, and a stream is not. So a reader can
//! miss a part of it ([`Heard::lost`]), and begins anew when its server does ([`Heard::anew`]), and is
//! told so both times.
//!
//! An answer of a model that broke off is asked for again: each try is a turn with a number of its
//! own, and only a turn that has [ended](Said::TurnEnded) whole was said. Deliberately absent: what
//! tools returned, which may be large and may be secret.

use domain::error::{Code, Error};
use domain::id::TaskId;
use domain::limits::{SAID_ARGUMENT_BYTES_MAX, SAID_BYTES_MAX, SAID_PIECES_MAX};
use domain::name::Name;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// How far a reader of a run's stream is: in which stream, and after which piece of it. It is what
/// the reader was given last, as it was; a stream that begins anew has another.
///
/// ```
/// use protocol::speech::Cursor;
///
/// let cursor: Cursor = "18f3a.42".parse()?;
/// assert_eq!((cursor.stream, cursor.position), (0x18f3a, 42));
/// assert_eq!(cursor.to_string(), "18f3a.42");
/// assert_eq!("42".parse::<Cursor>().unwrap_err().code.as_str(), "value.out_of_range");
/// # Ok::<(), protocol::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cursor {
    /// Which stream of the run: another one after a restart.
    pub stream: u64,
    /// The last piece that was read, from 1; 0 before the first.
    pub position: u64,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}.{}", self.stream, self.position)
    }
}

impl FromStr for Cursor {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        let read = |text: &str| {
            let (stream, position) = text.split_once('.')?;
            Some(Self {
                stream: u64::from_str_radix(stream, 16).ok()?,
                position: position.parse().ok()?,
            })
        };
        read(text.trim()).ok_or_else(|| {
            let text = "this is not a position of a run's stream";
            Error::new(Code::OutOfRange, text)
                .hint("Send the `id` of the last piece that arrived, or `next`, as it was.")
        })
    }
}

impl From<Cursor> for String {
    fn from(cursor: Cursor) -> Self {
        cursor.to_string()
    }
}

impl TryFrom<String> for Cursor {
    type Error = Error;
    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

#[cfg(feature = "schema")]
impl utoipa::PartialSchema for Cursor {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        utoipa::openapi::ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::Type::String)
            .pattern(Some("^[0-9a-f]+\\.[0-9]+$"))
            .description(Some(
                "A position in one of a run's streams: send it back as it was.",
            ))
            .into()
    }
}
#[cfg(feature = "schema")]
impl utoipa::ToSchema for Cursor {}

/// What is said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Said {
    /// A model is asked, for the first time or again.
    TurnBegan {
        /// The turn's number within the attempt; each try has its own.
        turn: u32,
    },
    /// Words of a model, in the order they come.
    Text {
        /// In which turn.
        turn: u32,
        /// The words.
        text: String,
    },
    /// A model has answered, or broke off.
    TurnEnded {
        /// Which turn.
        turn: u32,
        /// Its words are an answer; if not, they are to be forgotten, and another turn may follow.
        whole: bool,
    },
    /// A tool is called.
    ToolCall {
        /// Which.
        tool: String,
        /// With what: JSON, cut after 1,024 bytes.
        arguments: String,
    },
    /// A call goes on.
    ToolProgress {
        /// Of which tool.
        tool: String,
        /// How far it is, in its own words: somebody else's, perhaps.
        text: String,
    },
    /// A call came to its end.
    ToolResult {
        /// Of which tool.
        tool: String,
        /// It did what was asked.
        succeeded: bool,
        /// Bytes that it gave back.
        bytes: u64,
    },
    /// Something for people.
    Note {
        /// In words.
        text: String,
    },
    /// The worker dropped pieces of its attempt here, because nobody took them in time.
    Dropped {
        /// How many.
        pieces: u64,
    },
}

impl Said {
    /// The kind's name: that of its event in a stream.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::TurnBegan { .. } => "turn_began",
            Self::Text { .. } => "text",
            Self::TurnEnded { .. } => "turn_ended",
            Self::ToolCall { .. } => "tool_call",
            Self::ToolProgress { .. } => "tool_progress",
            Self::ToolResult { .. } => "tool_result",
            Self::Note { .. } => "note",
            Self::Dropped { .. } => "dropped",
        }
    }

    /// Bytes of text in it.
    pub const fn bytes(&self) -> usize {
        match self {
            Self::Text { text, .. } | Self::Note { text } => text.len(),
            Self::ToolCall { tool, arguments } => tool.len() + arguments.len(),
            Self::ToolProgress { tool, text } => tool.len() + text.len(),
            Self::ToolResult { tool, .. } => tool.len(),
            Self::TurnBegan { .. } | Self::TurnEnded { .. } | Self::Dropped { .. } => 0,
        }
    }
}

/// Who says what, within an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Utterance {
    /// Who: an agent's name.
    pub agent: Name,
    /// What.
    pub said: Said,
}

/// What an attempt says at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Say {
    /// The task.
    pub task_id: TaskId,
    /// The fencing token.
    pub attempt: u32,
    /// In order; at most 256, with at most 64 KiB of text.
    pub pieces: Vec<Utterance>,
}

impl Say {
    /// Refuses what is more than one request may have.
    ///
    /// # Errors
    /// [`Code::LimitExceeded`], naming both numbers.
    pub fn check(&self) -> Result<(), Error> {
        if self.pieces.len() > SAID_PIECES_MAX {
            let count = self.pieces.len();
            return Err(Error::limit("pieces said at once", count, SAID_PIECES_MAX));
        }
        let bytes = self.pieces.iter().map(|piece| piece.said.bytes()).sum();
        if bytes > SAID_BYTES_MAX {
            return Err(Error::limit("bytes said at once", bytes, SAID_BYTES_MAX));
        }
        let long = |piece: &Utterance| match &piece.said {
            Said::ToolCall { tool, arguments } => tool.len().max(arguments.len()),
            Said::ToolResult { tool, .. } => tool.len(),
            _ => 0,
        };
        let longest = self.pieces.iter().map(long).max().unwrap_or(0);
        if longest > SAID_ARGUMENT_BYTES_MAX {
            let what = "bytes in a tool's name or arguments";
            return Err(Error::limit(what, longest, SAID_ARGUMENT_BYTES_MAX));
        }
        Ok(())
    }
}

/// A piece of a run's stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Piece {
    /// Its place in the stream, from 1 and growing by one.
    pub position: u64,
    /// The task.
    pub task_id: TaskId,
    /// Which attempt of it; another one begins its turns from 1.
    pub attempt: u32,
    /// Who.
    pub agent: Name,
    /// What.
    pub said: Said,
}

/// What a reader of a run's stream hears.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Heard {
    /// The stream is not the one that the reader was in: forget what was half said.
    pub anew: bool,
    /// Pieces before these that are not kept any more.
    pub lost: u64,
    /// In order, without a gap among them; at most 256, or about 64 KiB.
    pub pieces: Vec<Piece>,
    /// Where to go on; nothing while nothing was ever said.
    pub next: Option<Cursor>,
    /// The run has ended, and there is nothing after these.
    pub ended: bool,
}
