//! Error replies. Their texts are a wire contract: clients match on them, so they stand in this
//! one file wherever more than one handler uses them.

use std::borrow::Cow;

/// An error reply with its code, without the leading `-`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error(pub Cow<'static, str>);

/// What handlers answer: the reply is in the call, or this error takes its place.
pub type Result<T = ()> = std::result::Result<T, Error>;

macro_rules! texts {
    ($($name:ident = $text:literal;)*) => {
        impl Error { $(pub const $name: Error = Error(Cow::Borrowed($text));)* }
    };
}

texts! {
    SYNTAX = "ERR syntax error";
    WRONG_TYPE = "WRONGTYPE Operation against a key holding the wrong kind of value";
    NOT_INTEGER = "ERR value is not an integer or out of range";
    NOT_FLOAT = "ERR value is not a valid float";
    NOT_POSITIVE = "ERR value is out of range, must be positive";
    NO_KEY = "ERR no such key";
    INDEX_RANGE = "ERR index out of range";
    OFFSET_RANGE = "ERR offset is out of range";
    OVERFLOW = "ERR increment or decrement would overflow";
    NAN_OR_INFINITY = "ERR increment would produce NaN or Infinity";
    STRING_TOO_LONG = "ERR string exceeds maximum allowed size (proto-max-bulk-len)";
    TIMEOUT_NOT_FLOAT = "ERR timeout is not a float or out of range";
    TIMEOUT_NEGATIVE = "ERR timeout is negative";
    TIMEOUT_RANGE = "ERR timeout is out of range";
    SAME_OBJECT = "ERR source and destination objects are the same";
    DB_INDEX = "ERR DB index is out of range";
    DB_INVALID = "ERR invalid DB index";
    NUMKEYS_POSITIVE = "ERR numkeys should be greater than 0";
    CURSOR = "ERR invalid cursor";
    MIN_MAX_FLOAT = "ERR min or max is not a float";
    MIN_MAX_LEX = "ERR min or max not valid string range item";
    LIMIT_ALONE = "ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX";
    OOM = "OOM command not allowed when used memory > 'maxmemory'.";
    STOPPED = "ERR the command was stopped with its script";
    NO_AUTH = "NOAUTH Authentication required.";
    NO_SCRIPT = "NOSCRIPT No matching script. Please use EVAL.";
}

impl Error {
    /// An error that this one place gives.
    pub const fn of(text: &'static str) -> Error {
        Error(Cow::Borrowed(text))
    }

    pub fn new(text: String) -> Error {
        Error(Cow::Owned(text))
    }

    /// The code before the first space, as errorstats counts it.
    pub fn code(&self) -> &str {
        self.0.split(' ').next().unwrap_or("ERR")
    }

    pub fn arity(name: &str) -> Error {
        Error::new(format!("ERR wrong number of arguments for '{name}' command"))
    }

    pub fn invalid_expire(name: &str) -> Error {
        Error::new(format!("ERR invalid expire time in '{name}' command"))
    }
}

impl From<engine::WrongType> for Error {
    fn from(_: engine::WrongType) -> Error {
        Error::WRONG_TYPE
    }
}
