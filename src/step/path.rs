//! Paths of steps: `fulfil/pack`, `reserve[3]`.

use std::borrow::Cow;

/// A path without the places of items, so that there are no more of them than a definition has: `reserve[]`.
pub(crate) fn items_as_one(path: &str) -> Cow<'_, str> {
    let Some((first, rest)) = path.split_once('[') else {
        return Cow::Borrowed(path);
    };
    let mut as_one = first.to_owned();
    for part in rest.split('[') {
        as_one.push('[');
        as_one.push_str(part.trim_start_matches(|c: char| c.is_ascii_digit()));
    }
    Cow::Owned(as_one)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_items_of_a_fan_out_are_one_step() {
        assert_eq!(
            items_as_one("ship[12]/items[0]/label"),
            "ship[]/items[]/label"
        );
        assert_eq!(items_as_one("step-7"), "step-7");
    }
}
