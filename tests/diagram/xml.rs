//! Just enough of XML to tell whether a picture is a sound document.
#![allow(unreachable_pub)]

/// The elements of an XML document in the order of their beginnings; panics where it isn't well-formed.
pub fn elements(document: &str) -> Vec<String> {
    let (mut names, mut open) = (Vec::new(), Vec::<String>::new());
    let mut rest = document.trim_end();
    while let Some(at) = rest.find('<') {
        let (text, tag) = rest.split_at(at);
        sound_text(text);
        let end = tag.find('>').expect("a tag ends");
        let (inside, after) = (&tag[1..end], &tag[end + 1..]);
        rest = after;
        if let Some(name) = inside.strip_prefix('/') {
            assert_eq!(
                open.pop().as_deref(),
                Some(name),
                "what was opened last is closed"
            );
            continue;
        }
        let (inside, empty) = match inside.strip_suffix('/') {
            Some(inside) => (inside, true),
            None => (inside, false),
        };
        let (name, attributes) = inside.split_once(' ').unwrap_or((inside, ""));
        assert!(name.bytes().all(|byte| byte.is_ascii_lowercase()), "{name}");
        let mut seen = Vec::new();
        let mut attributes = attributes.trim();
        while !attributes.is_empty() {
            let (key, value) = attributes.split_once("=\"").expect("values are quoted");
            let (value, more) = value.split_once('"').expect("quotes end");
            sound_text(value);
            assert!(!seen.contains(&key), "{key} twice");
            seen.push(key);
            attributes = more.trim_start();
        }
        names.push(name.to_owned());
        if !empty {
            open.push(name.to_owned());
        }
    }
    assert!(open.is_empty() && rest.is_empty());
    names
}

fn sound_text(text: &str) {
    for entity in text.split('&').skip(1) {
        let (name, _) = entity.split_once(';').expect("entities end");
        assert!(["amp", "lt", "gt", "quot"].contains(&name), "{name}");
    }
    assert!(!text.contains('>'));
}
