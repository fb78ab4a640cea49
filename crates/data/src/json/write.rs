//! Values to JSON text.

use super::{Json, Node};

/// What stands between the parts of a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style<'a> {
    /// Once for each level in front of a line.
    pub indent: &'a [u8],
    /// At the end of a line.
    pub newline: &'a [u8],
    /// Behind the colon.
    pub space: &'a [u8],
}

/// The text would have more bytes than it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong;

/// A text under construction.
pub struct Writer<'a> {
    pub out: &'a mut Vec<u8>,
    style: Style<'a>,
    /// The length `out` may get.
    most_bytes: usize,
    level: usize,
}

impl Node {
    /// Appends it without any space.
    pub fn write(&self, out: &mut Vec<u8>) {
        let whole = Writer::new(out, Style::default(), usize::MAX).node(self);
        debug_assert!(whole.is_ok(), "there is no bound");
    }

    /// Appends it in a style. Breaks off where `out` would get longer than `most_bytes`.
    pub fn write_in(
        &self,
        style: Style<'_>,
        most_bytes: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), TooLong> {
        Writer::new(out, style, most_bytes).node(self)
    }
}

/// How far a document was written, as a place in it and no borrow of it.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    has_begun: bool,
    /// For each array or object that is open, from the root: how many of its parts were begun.
    open: Vec<usize>,
}

impl Json {
    /// Appends some more of what [`Node::write`] makes of the root, about so many bytes; true when that
    /// was the last of it. The document must be what it was for all parts. No text is cut.
    pub fn write_some(&self, progress: &mut Progress, bytes: usize, out: &mut Vec<u8>) -> bool {
        let end = out.len().saturating_add(bytes.max(1));
        // What is open now.
        let mut nodes: Vec<&Node> = Vec::with_capacity(progress.open.len());
        let mut next = Some(self.root());
        for begun in &progress.open {
            let Some(node) = next else { break };
            nodes.push(node);
            next = begun.checked_sub(1).and_then(|step| node.child(step));
        }
        let begin = |node: &'_ Node, open: &mut Vec<usize>, out: &mut Vec<u8>| {
            let bracket = match node {
                Node::Array(_) => b'[',
                Node::Object(_) => b'{',
                scalar => {
                    scalar.write(out);
                    return false;
                }
            };
            out.push(bracket);
            open.push(0);
            true
        };
        if !std::mem::replace(&mut progress.has_begun, true)
            && begin(self.root(), &mut progress.open, out)
        {
            nodes.push(self.root());
        }
        while out.len() < end {
            let (Some(begun), Some(&node)) = (progress.open.last_mut(), nodes.last()) else {
                break;
            };
            let (part, close) = match node {
                Node::Array(parts) => (parts.get(*begun).map(|part| (None, part)), b']'),
                Node::Object(object) => {
                    (object.member(*begun).map(|(name, part)| (Some(name), part)), b'}')
                }
                _ => unreachable!("only these are open"),
            };
            let Some((name, part)) = part else {
                out.push(close);
                progress.open.pop();
                nodes.pop();
                continue;
            };
            if *begun > 0 {
                out.push(b',');
            }
            *begun += 1;
            if let Some(name) = name {
                Writer::new(out, Style::default(), usize::MAX).text(name);
                out.push(b':');
            }
            if begin(part, &mut progress.open, out) {
                nodes.push(part);
            }
        }
        progress.open.is_empty()
    }
}

impl<'a> Writer<'a> {
    pub fn new(out: &'a mut Vec<u8>, style: Style<'a>, most_bytes: usize) -> Writer<'a> {
        Writer { out, style, most_bytes, level: 0 }
    }

    pub fn node(&mut self, node: &Node) -> Result<(), TooLong> {
        match node {
            Node::Null => self.out.extend_from_slice(b"null"),
            Node::Bool(true) => self.out.extend_from_slice(b"true"),
            Node::Bool(false) => self.out.extend_from_slice(b"false"),
            Node::Int(value) => crate::number::write_i64(self.out, *value),
            Node::Unsigned(value) => self.out.extend_from_slice(value.to_string().as_bytes()),
            Node::Float(value) => {
                self.out.extend_from_slice(ryu::Buffer::new().format(*value).as_bytes());
            }
            Node::Text(text) => self.text(text.as_str()),
            Node::Array(nodes) => return self.array(nodes.iter()),
            Node::Object(object) => {
                return self.object(object.iter(), |writer, node| writer.node(node));
            }
        }
        self.fits(0)
    }

    pub fn array<'n>(&mut self, nodes: impl Iterator<Item = &'n Node>) -> Result<(), TooLong> {
        self.parts(b"[", b"]", nodes, |writer, node| writer.node(node))
    }

    pub fn object<'n, T>(
        &mut self,
        members: impl Iterator<Item = (&'n str, T)>,
        mut value: impl FnMut(&mut Self, T) -> Result<(), TooLong>,
    ) -> Result<(), TooLong> {
        self.parts(b"{", b"}", members, |writer, (name, part)| {
            writer.text(name);
            writer.out.push(b':');
            writer.out.extend_from_slice(writer.style.space);
            value(writer, part)
        })
    }

    fn parts<T>(
        &mut self,
        open: &[u8; 1],
        close: &[u8; 1],
        parts: impl Iterator<Item = T>,
        mut write: impl FnMut(&mut Self, T) -> Result<(), TooLong>,
    ) -> Result<(), TooLong> {
        self.out.extend_from_slice(open);
        self.level += 1;
        let mut any = false;
        for part in parts {
            if any {
                self.out.push(b',');
            }
            any = true;
            self.line()?;
            write(self, part)?;
        }
        self.level -= 1;
        if any {
            self.line()?;
        }
        self.out.extend_from_slice(close);
        self.fits(0)
    }

    fn line(&mut self) -> Result<(), TooLong> {
        self.fits(self.style.newline.len() + self.style.indent.len().saturating_mul(self.level))?;
        self.out.extend_from_slice(self.style.newline);
        (0..self.level).for_each(|_| self.out.extend_from_slice(self.style.indent));
        Ok(())
    }

    fn fits(&self, more: usize) -> Result<(), TooLong> {
        match self.out.len().saturating_add(more) > self.most_bytes {
            true => Err(TooLong),
            false => Ok(()),
        }
    }

    fn text(&mut self, text: &str) {
        self.out.push(b'"');
        let bytes = text.as_bytes();
        let mut from = 0;
        for (at, &byte) in bytes.iter().enumerate() {
            let short = match byte {
                b'"' | b'\\' => byte,
                0x08 => b'b',
                0x09 => b't',
                0x0a => b'n',
                0x0c => b'f',
                0x0d => b'r',
                0..0x20 => 0,
                _ => continue,
            };
            self.out.extend_from_slice(&bytes[from..at]);
            from = at + 1;
            match short {
                0 => self.out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
                short => self.out.extend_from_slice(&[b'\\', short]),
            }
        }
        self.out.extend_from_slice(&bytes[from..]);
        self.out.push(b'"');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_together_what_is_written_at_once() {
        let long =
            format!("[{}]", vec![r#"{"name\n":[1,-2.5,null,true,"text"],"":{}}"#; 50].join(","));
        for text in
            ["1", r#""text""#, "[]", "{}", "[[[]],{}]", r#"{"a":{"b":[]},"c":[[],[1]]}"#, &long]
        {
            let json = Json::parse(text).expect("it is JSON");
            let mut whole = Vec::new();
            json.root().write(&mut whole);
            for bytes in [0, 1, 7, 100, usize::MAX] {
                let (mut progress, mut out) = (Progress::default(), Vec::new());
                let mut parts = 1;
                loop {
                    let before = out.len();
                    let is_last = json.write_some(&mut progress, bytes, &mut out);
                    assert!(out.len() - before < bytes.saturating_add(20));
                    if is_last {
                        break;
                    }
                    parts += 1;
                }
                assert_eq!(out.escape_ascii().to_string(), whole.escape_ascii().to_string());
                assert!(parts >= whole.len() / bytes.saturating_add(20));
            }
        }
    }
}
