//! How one value of the configuration is read and written: yes/no, numbers, sizes, texts, choices.
//! Knows no directive by name. The values with a shape of their own are in `special.rs`.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// A line of a file or of the command line; `first` if the directive was not given before.
    Line { first: bool },
    /// `CONFIG SET`.
    Client,
}

/// A value that a directive can set.
pub(crate) trait Setting: Default {
    /// What narrows the accepted values, such as a range.
    type Rule;

    /// Whether the directive takes several arguments, which `CONFIG SET` gets as one, separated by
    /// spaces. Otherwise there is exactly one.
    const MULTI: bool = false;

    /// Takes over `args`; the error is a reason in Redis's words.
    fn apply(&mut self, args: &[&[u8]], rule: &Self::Rule, source: Source) -> Result<(), String>;

    /// What `CONFIG GET` answers.
    fn text(&self, rule: &Self::Rule) -> Vec<u8>;

    /// What follows the directive's name in the file, one item for each line.
    fn lines(&self, rule: &Self::Rule) -> Vec<Vec<u8>>;
}

pub(crate) const WRONG_ARGUMENTS: &str = "wrong number of arguments";

/// The one argument of a directive that takes one.
pub(crate) fn single<'a>(args: &[&'a [u8]]) -> Result<&'a [u8], String> {
    match args {
        [value] => Ok(value),
        _ => Err(WRONG_ARGUMENTS.into()),
    }
}

impl Setting for bool {
    type Rule = ();

    fn apply(&mut self, args: &[&[u8]], (): &(), _: Source) -> Result<(), String> {
        let value = single(args)?;
        *self = if value.eq_ignore_ascii_case(b"yes") {
            true
        } else if value.eq_ignore_ascii_case(b"no") {
            false
        } else {
            return Err("argument must be 'yes' or 'no'".into());
        };
        Ok(())
    }

    fn text(&self, (): &()) -> Vec<u8> {
        if *self { b"yes".to_vec() } else { b"no".to_vec() }
    }

    fn lines(&self, rule: &()) -> Vec<Vec<u8>> {
        vec![self.text(rule)]
    }
}

/// How a number is spelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notation {
    Plain,
    /// Bytes, with an optional unit.
    Memory,
    Octal,
}

/// The numbers a directive accepts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Numbers {
    min: i128,
    max: i128,
    /// Accepted values outside of these bounds are silently moved to the nearer one.
    clamp: (i128, i128),
    notation: Notation,
}

pub(crate) const fn range(min: i128, max: i128) -> Numbers {
    Numbers { min, max, clamp: (min, max), notation: Notation::Plain }
}

pub(crate) const fn memory(min: i128, max: i128) -> Numbers {
    Numbers { min, max, clamp: (min, max), notation: Notation::Memory }
}

pub(crate) const fn octal(min: i128, max: i128) -> Numbers {
    Numbers { min, max, clamp: (min, max), notation: Notation::Octal }
}

impl Numbers {
    pub(crate) const fn clamped(self, min: i128, max: i128) -> Numbers {
        Numbers { clamp: (min, max), ..self }
    }

    fn parse(&self, text: &[u8]) -> Result<i128, String> {
        let value = match self.notation {
            Notation::Plain => {
                integer(text).ok_or("argument couldn't be parsed into an integer")?.into()
            }
            Notation::Memory => bytes(text).ok_or("argument must be a memory value")?.into(),
            Notation::Octal => {
                octal_digits(text).ok_or("argument couldn't be parsed as an octal number")?.into()
            }
        };
        if !(self.min..=self.max).contains(&value) {
            return Err(match self.notation {
                Notation::Octal => {
                    format!("argument must be between {:o} and {:o} inclusive", self.min, self.max)
                }
                _ => format!("argument must be between {} and {} inclusive", self.min, self.max),
            });
        }
        Ok(value.clamp(self.clamp.0, self.clamp.1))
    }
}

macro_rules! numbers {
    ($($type:ty)*) => {$(
        impl Setting for $type {
            type Rule = Numbers;

            fn apply(&mut self, args: &[&[u8]], rule: &Numbers, _: Source) -> Result<(), String> {
                let value = rule.parse(single(args)?)?;
                // A row's range is checked to fit its type when the defaults are built.
                *self = value.try_into().map_err(|_| "argument is out of range")?;
                Ok(())
            }

            fn text(&self, rule: &Numbers) -> Vec<u8> {
                match rule.notation {
                    Notation::Octal => format!("{self:o}").into_bytes(),
                    _ => self.to_string().into_bytes(),
                }
            }

            fn lines(&self, rule: &Numbers) -> Vec<Vec<u8>> {
                vec![match rule.notation {
                    Notation::Memory => memory_text(*self as u64).into_bytes(),
                    _ => self.text(rule),
                }]
            }
        }
    )*};
}

numbers!(u16 u32 i32 u64 i64);

/// Digits in their shortest form, with an optional minus.
pub(crate) fn integer(text: &[u8]) -> Option<i64> {
    let shortest = matches!(text, b"0" | [b'1'..=b'9', ..] | [b'-', b'1'..=b'9', ..]);
    if !shortest {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn octal_digits(text: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(text).ok()?;
    u32::from_str_radix(text, 8).ok()
}

/// A size as `100`, `100b`, `1k` (1000) or `1kb` (1024), and likewise `m`, `mb`, `g` and `gb`, in
/// any case. As in Redis the digits may be missing, which means zero.
pub(crate) fn bytes(text: &[u8]) -> Option<u64> {
    let unit_start = text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(unit_start);
    let factor: u64 = match unit.to_ascii_lowercase().as_slice() {
        b"" | b"b" => 1,
        b"k" => 1000,
        b"kb" => 1 << 10,
        b"m" => 1000 * 1000,
        b"mb" => 1 << 20,
        b"g" => 1000 * 1000 * 1000,
        b"gb" => 1 << 30,
        _ => return None,
    };
    // What does not fit is more than any limit; ranges refuse it where that matters.
    let count = match digits {
        b"" => 0,
        digits => std::str::from_utf8(digits).ok()?.parse().unwrap_or(u64::MAX),
    };
    Some(factor.saturating_mul(count))
}

/// A size in the largest unit that divides it.
pub(crate) fn memory_text(value: u64) -> String {
    for (shift, unit) in [(30, "gb"), (20, "mb"), (10, "kb")] {
        if value != 0 && value.is_multiple_of(1 << shift) {
            return format!("{}{unit}", value >> shift);
        }
    }
    value.to_string()
}

/// A text of any bytes: a path, a password.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Text(Vec<u8>);

impl Text {
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn as_path(&self) -> &Path {
        path_of(&self.0)
    }
}

/// Any bytes are a path.
pub(crate) fn path_of(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

impl std::fmt::Display for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl Setting for Text {
    /// Refuses some texts, with a reason.
    type Rule = fn(&[u8]) -> Result<(), String>;

    fn apply(&mut self, args: &[&[u8]], rule: &Self::Rule, _: Source) -> Result<(), String> {
        let value = single(args)?;
        rule(value)?;
        self.0 = value.to_vec();
        Ok(())
    }

    fn text(&self, _: &Self::Rule) -> Vec<u8> {
        self.0.clone()
    }

    fn lines(&self, _: &Self::Rule) -> Vec<Vec<u8>> {
        vec![quoted(&self.0)]
    }
}

pub(crate) fn any_text(_: &[u8]) -> Result<(), String> {
    Ok(())
}

/// A name in the server's directory.
pub(crate) fn file_name(text: &[u8]) -> Result<(), String> {
    if text.contains(&b'/') {
        return Err("dbfilename can't be a path, just a filename".into());
    }
    Ok(())
}

pub(crate) fn append_file_name(text: &[u8]) -> Result<(), String> {
    if text.is_empty() || text.contains(&b'/') {
        return Err("must be a name without a path".into());
    }
    Ok(())
}

/// In double quotes, with the escapes that `resp::split_args` undoes.
pub(crate) fn quoted(bytes: &[u8]) -> Vec<u8> {
    let mut text = String::from("\"");
    for &byte in bytes {
        match byte {
            b'\\' | b'"' => text.extend(['\\', byte as char]),
            b'\n' => text.push_str("\\n"),
            b'\r' => text.push_str("\\r"),
            b'\t' => text.push_str("\\t"),
            0x07 => text.push_str("\\a"),
            0x08 => text.push_str("\\b"),
            b' '..=b'~' => text.push(byte as char),
            _ => write!(text, "\\x{byte:02x}").expect("a string takes everything"),
        }
    }
    text.push('"');
    text.into_bytes()
}

/// A value that is one of a few words.
pub(crate) trait Choice: Copy + Default + PartialEq + 'static {
    const ALL: &'static [(&'static str, Self)];

    fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, value)| *value == self).map_or("", |(name, _)| name)
    }
}

/// Declares an enum whose variants are spelled as given; the first one is its `Default`.
macro_rules! choices {
    ($($(#[$attribute:meta])* $type:ident {
        $first:ident = $first_name:literal $(, $variant:ident = $name:literal)* $(,)?
    })*) => {$(
        $(#[$attribute])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub enum $type {
            #[default]
            $first,
            $($variant),*
        }

        impl $type {
            /// The word that stands for it in the configuration.
            pub fn as_str(self) -> &'static str {
                $crate::config::value::Choice::name(self)
            }
        }

        impl $crate::config::value::Choice for $type {
            const ALL: &'static [(&'static str, Self)] =
                &[($first_name, Self::$first) $(, ($name, Self::$variant))*];
        }

        impl $crate::config::value::Setting for $type {
            type Rule = ();

            fn apply(
                &mut self,
                args: &[&[u8]],
                (): &(),
                _: $crate::config::value::Source,
            ) -> Result<(), String> {
                *self = $crate::config::value::choose(args)?;
                Ok(())
            }

            fn text(&self, (): &()) -> Vec<u8> {
                self.as_str().into()
            }

            fn lines(&self, (): &()) -> Vec<Vec<u8>> {
                vec![self.as_str().into()]
            }
        }
    )*};
}
pub(crate) use choices;

pub(crate) fn choose<C: Choice>(args: &[&[u8]]) -> Result<C, String> {
    let value = single(args)?;
    match C::ALL.iter().find(|(name, _)| value.eq_ignore_ascii_case(name.as_bytes())) {
        Some((_, choice)) => Ok(*choice),
        None => {
            let names: Vec<_> = C::ALL.iter().map(|(name, _)| *name).collect();
            Err(one_of(&names))
        }
    }
}

pub(crate) fn one_of(names: &[&str]) -> String {
    format!("argument(s) must be one of the following: {}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::{bytes, integer, memory_text, quoted};

    #[test]
    fn sizes() {
        for (text, expected) in [
            ("0", Some(0)),
            ("100", Some(100)),
            ("100b", Some(100)),
            ("1k", Some(1000)),
            ("1KB", Some(1024)),
            ("2m", Some(2_000_000)),
            ("2Mb", Some(2 << 20)),
            ("3g", Some(3_000_000_000)),
            ("3gb", Some(3 << 30)),
            ("kb", Some(0)),
            ("-1", None),
            ("1.5gb", None),
            ("1t", None),
            ("0x10", None),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", Some(u64::MAX)),
            ("17179869184gb", Some(u64::MAX)),
        ] {
            assert_eq!(bytes(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn sizes_are_written_in_the_largest_unit() {
        for (value, expected) in
            [(0, "0"), (1000, "1000"), (1024, "1kb"), (64 << 20, "64mb"), (3 << 30, "3gb")]
        {
            assert_eq!(memory_text(value), expected);
            assert_eq!(bytes(expected.as_bytes()), Some(value));
        }
    }

    #[test]
    fn integers_are_strict() {
        assert_eq!(integer(b"-12"), Some(-12));
        for text in ["", "+1", "01", "-0", " 1", "1 ", "0x1", "9223372036854775808"] {
            assert_eq!(integer(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn quoting_is_undone_by_splitting() {
        let every_byte: Vec<u8> = (0..=255).collect();
        assert_eq!(resp::split_args(&quoted(&every_byte)).unwrap(), [every_byte]);
    }
}
