//! Just enough RESP for a load generator: encode commands, templates whose numbers are filled in
//! for every copy, and a scanner that finds where a reply ends without building it.
//!
//! Knows neither sockets nor workloads. Called by `load`, `server` and `workloads`.

/// Appends one command as an array of bulk strings.
pub fn encode(out: &mut Vec<u8>, args: &[&[u8]]) {
    out.extend_from_slice(format!("*{}\r\n", args.len()).as_bytes());
    for arg in args {
        out.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        out.extend_from_slice(arg);
        out.extend_from_slice(b"\r\n");
    }
}

/// Where the numbers of a template come from.
pub enum Numbers {
    /// Uniform below each slot's range; the same sequence for the same seed.
    Random(u64),
    /// 0, 1, 2, … in every slot, modulo its range.
    Counting(u64),
}

impl Numbers {
    fn below(&mut self, range: u64) -> u64 {
        match self {
            Numbers::Random(state) => {
                // xorshift64: cheap, and the low bits are good enough for choosing keys.
                *state ^= *state << 13;
                *state ^= *state >> 7;
                *state ^= *state << 17;
                *state % range
            }
            Numbers::Counting(next) => *next % range,
        }
    }

    /// Moves a counting source to the next number; random ones move by themselves.
    fn advance(&mut self) {
        if let Numbers::Counting(next) = self {
            *next += 1;
        }
    }
}

const DIGITS: usize = 12;

/// An encoded command with slots of twelve digits. A fixed width keeps the lengths in the
/// encoding right and makes a copy one memcpy.
#[derive(Clone)]
pub struct Template {
    bytes: Vec<u8>,
    slots: Vec<(usize, u64)>,
}

impl Template {
    /// Each `{N}` in an argument becomes a slot for numbers below N.
    pub fn new(args: &[&str]) -> Template {
        let mut bytes = format!("*{}\r\n", args.len()).into_bytes();
        let mut slots = Vec::new();
        for arg in args {
            let mut text = Vec::new();
            let mut own = Vec::new();
            let mut rest = *arg;
            while let Some((before, range, after)) = next_slot(rest) {
                text.extend_from_slice(before.as_bytes());
                own.push((text.len(), range));
                text.extend_from_slice(&[b'0'; DIGITS]);
                rest = after;
            }
            text.extend_from_slice(rest.as_bytes());
            bytes.extend_from_slice(format!("${}\r\n", text.len()).as_bytes());
            slots.extend(own.into_iter().map(|(at, range)| (bytes.len() + at, range)));
            bytes.extend_from_slice(&text);
            bytes.extend_from_slice(b"\r\n");
        }
        Template { bytes, slots }
    }

    /// Appends a copy with the next numbers.
    pub fn append(&self, out: &mut Vec<u8>, numbers: &mut Numbers) {
        let start = out.len();
        out.extend_from_slice(&self.bytes);
        for (at, range) in &self.slots {
            let mut number = numbers.below(*range);
            for digit in out[start + at..start + at + DIGITS].iter_mut().rev() {
                *digit = b'0' + (number % 10) as u8;
                number /= 10;
                if number == 0 {
                    break;
                }
            }
        }
        numbers.advance();
    }
}

/// Splits at the first `{digits}`; other braces are text, for JSON and Lua.
fn next_slot(text: &str) -> Option<(&str, u64, &str)> {
    let mut from = 0;
    loop {
        let open = from + text[from..].find('{')?;
        let close = open + text[open..].find('}')?;
        if let Ok(range) = text[open + 1..close].parse() {
            return Some((&text[..open], range, &text[close + 1..]));
        }
        from = open + 1;
    }
}

/// The end of the reply that starts at `at`, or `None` while bytes are missing.
///
/// # Errors
/// Bytes that are no RESP.
pub fn reply_end(bytes: &[u8], at: usize) -> Result<Option<usize>, String> {
    let mut at = at;
    // Replies still to come at this level and those above it, flattened to one number.
    let mut pending = 1_u64;
    while pending > 0 {
        let Some(line) = line_end(bytes, at) else { return Ok(None) };
        let header = &bytes[at..line - 2];
        at = line;
        pending -= 1;
        match header.first() {
            Some(b'+' | b'-' | b':' | b'_' | b',' | b'#' | b'(') => {}
            Some(b'$' | b'=' | b'!') => {
                let length = number(header)?;
                if length >= 0 {
                    at += length as usize + 2;
                    if at > bytes.len() {
                        return Ok(None);
                    }
                }
            }
            Some(b'*' | b'~' | b'>') => pending += number(header)?.max(0) as u64,
            Some(b'%') => pending += 2 * number(header)?.max(0) as u64,
            other => return Err(format!("not a reply: {:?}", other.map(|byte| *byte as char))),
        }
    }
    Ok(Some(at))
}

fn line_end(bytes: &[u8], at: usize) -> Option<usize> {
    let found = bytes.get(at..)?.iter().position(|byte| *byte == b'\n')?;
    Some(at + found + 1)
}

fn number(header: &[u8]) -> Result<i64, String> {
    std::str::from_utf8(&header[1..])
        .ok()
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(|| format!("not a length: {:?}", String::from_utf8_lossy(header)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_fills_its_slots() {
        let template = Template::new(&["SET", "key:{10}", "{\"a\":{1000}}"]);
        let mut out = Vec::new();
        let mut numbers = Numbers::Counting(12);
        template.append(&mut out, &mut numbers);
        template.append(&mut out, &mut numbers);
        let expected = "*3\r\n$3\r\nSET\r\n$16\r\nkey:000000000002\r\n$18\r\n{\"a\":000000000012}\r\n\
             *3\r\n$3\r\nSET\r\n$16\r\nkey:000000000003\r\n$18\r\n{\"a\":000000000013}\r\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn the_end_of_a_reply_is_found_only_when_all_of_it_is_there() {
        let replies: [&[u8]; 8] = [
            b"+OK\r\n",
            b"-ERR no\r\n",
            b":-12\r\n",
            b"$5\r\na\r\nbc\r\n",
            b"$-1\r\n",
            b"*3\r\n:1\r\n*2\r\n+a\r\n$1\r\nb\r\n*-1\r\n",
            b"%1\r\n+k\r\n~2\r\n,1.5\r\n#t\r\n",
            b"*0\r\n",
        ];
        for reply in replies {
            for cut in 0..reply.len() {
                assert_eq!(reply_end(&reply[..cut], 0), Ok(None), "{reply:?} cut at {cut}");
            }
            let mut followed = reply.to_vec();
            followed.extend_from_slice(b"+next\r\n");
            assert_eq!(reply_end(&followed, 0), Ok(Some(reply.len())));
        }
        assert!(reply_end(b"what\r\n", 0).is_err());
        assert!(reply_end(b"$x\r\n", 0).is_err());
    }
}
