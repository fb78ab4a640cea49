//! Documents: values of the module type that RedisJSON has, whose content is JSON text.
//!
//! A value of a module is the id of its type and what the module wrote, each part behind a word
//! that says of what kind it is. Written is what versions 2.0 to 8.6 of RedisJSON read and write
//! (encoding 3), read is encoding 2, too, which had the name of a search index behind the text.

use std::io::Read;

use data::Json;
use data::json::Progress;

use super::decode::{module_id, module_name};
use super::encode::{Encoder, put_length};
use super::source::Source;
use super::{Fault, part};

const NAME: &[u8; 9] = b"ReJSON-RL";
const ENCODING: u64 = 3;
const ENCODING_WITH_INDEX: u64 = 2;

pub fn put(json: &Json, encoder: &mut Encoder, out: &mut Vec<u8>) {
    let mut text = Vec::new();
    json.root().write(&mut text);
    put_head(out);
    encoder.string(&text, out);
    put_length(part::END, out);
}

fn put_head(out: &mut Vec<u8>) {
    put_length(module_id(NAME, ENCODING), out);
    put_length(part::STRING, out);
}

/// A document that is written in parts. Its length stands before its text, so that is made twice.
pub enum Text {
    /// So many bytes were counted, up to there.
    Count(u64, Progress),
    Put(Progress),
}

impl Text {
    pub fn begin(out: &mut Vec<u8>) -> Text {
        put_head(out);
        Text::Count(0, Progress::default())
    }

    /// Some more, of about so many bytes; `None` when that was the last of it.
    pub fn put(
        self,
        json: &Json,
        bytes: usize,
        encoder: &mut Encoder,
        out: &mut Vec<u8>,
    ) -> Option<Text> {
        match self {
            Text::Count(before, mut progress) => {
                let scratch = &mut encoder.packed;
                scratch.clear();
                let is_last = json.write_some(&mut progress, bytes, scratch);
                let count = before + scratch.len() as u64;
                if !is_last {
                    return Some(Text::Count(count, progress));
                }
                put_length(count, out);
                Some(Text::Put(Progress::default()))
            }
            Text::Put(mut progress) => {
                if !json.write_some(&mut progress, bytes, out) {
                    return Some(Text::Put(progress));
                }
                put_length(part::END, out);
                None
            }
        }
    }
}

/// Reads the value of a module: a document, or it is refused by name.
pub fn read<R: Read>(source: &mut Source<R>, scratch: &mut Vec<u8>) -> Result<Json, Fault> {
    let id = source.length()?;
    let encoding = id & 0x3ff;
    if id != module_id(NAME, encoding) {
        let name = module_name(id);
        return Err(Fault::NotBuilt(format!("a value of the module type '{name}'")));
    }
    if !(ENCODING_WITH_INDEX..=ENCODING).contains(&encoding) {
        return Err(Fault::NotBuilt(format!("a JSON document in the encoding {encoding}")));
    }
    expect(source, part::STRING)?;
    source.string(scratch)?;
    let Some(json) = std::str::from_utf8(scratch).ok().and_then(|text| Json::parse(text).ok())
    else {
        return Fault::corrupt("the text of a document is no JSON");
    };
    if encoding == ENCODING_WITH_INDEX {
        expect(source, part::UNSIGNED)?;
        if source.length()? > 0 {
            for _ in 0..2 {
                expect(source, part::STRING)?;
                source.skip_string()?;
            }
        }
    }
    expect(source, part::END)?;
    Ok(json)
}

fn expect<R: Read>(source: &mut Source<R>, part: u64) -> Result<(), Fault> {
    match source.length()? == part {
        true => Ok(()),
        false => Fault::corrupt("a document is not made of the parts it should be"),
    }
}
