//! Any text is parsed or refused as a document, and any other as a path. What was parsed is written
//! and parsed again to the same; a path finds places that are there; edits at them are undone.
//!
//! The input is a path, a zero byte, bytes that choose edits, a zero byte, and a document.
#![no_main]

use data::json::{DEPTH_MAX, Json, Node, Path};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let mut parts = input.splitn(3, |byte| *byte == 0);
    let path = parts.next().and_then(|text| std::str::from_utf8(text).ok());
    let edits = parts.next().unwrap_or_default();
    let text = parts.next().and_then(|text| std::str::from_utf8(text).ok());
    let path = path.and_then(|text| Path::parse(text).ok());
    let Some(mut json) = text.and_then(|text| Json::parse(text).ok()) else { return };
    assert!(json.root().depth() <= DEPTH_MAX);
    let mut written = Vec::new();
    json.root().write(&mut written);
    let again = Json::parse(std::str::from_utf8(&written).expect("text")).expect("what is written");
    assert!(again == json);

    let Some(path) = path else { return };
    let Ok(places) = path.locate(&json) else { return };
    let nodes = path.select(&json).expect("it was located");
    assert_eq!(nodes.len(), places.len());
    for (place, node) in places.iter().zip(nodes) {
        assert!(json.at(place).is_some_and(|found| std::ptr::eq(found, node)));
        assert!(json.spell(place).is_some());
    }
    let parents = path.locate_parents(&json).unwrap_or_default();
    let before = json.clone();
    let mut inverses = Vec::new();
    let targets = places.iter().chain(&parents).rev();
    for (place, &edit) in targets.zip(edits.iter().cycle()).take(64) {
        let Some(node) = json.at(place) else { continue };
        let index = usize::from(edit >> 3);
        let inverse = match (edit % 8, node) {
            (0, _) if !place.is_empty() => json.remove(place),
            (1, _) => json.replace(place, Node::Int(i64::MIN)),
            (_, Node::Array(nodes)) => {
                let len = nodes.len();
                match edit % 2 {
                    0 => json.insert(place, index.min(len), vec![Node::Null, Node::text("more")]),
                    _ => json.take(place, index.min(len)..(index + 2).min(len)),
                }
            }
            (_, Node::Object(object)) => match object.find("new") {
                Some(number) => {
                    let mut member = place.clone();
                    member.push(number);
                    json.remove(&member)
                }
                None => json.add(place, "new", Node::text("a text that is not short")),
            },
            (_, Node::Text(_)) => json.append_text(place, "ä and more than fits"),
            _ => json.replace(place, Node::text("text")),
        };
        inverses.push(inverse);
    }
    inverses.into_iter().rev().for_each(|inverse| json.undo(inverse));
    assert!(json == before);
});
