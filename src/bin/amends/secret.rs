//! Passwords that came in with an address don't go out again.

/// What stands in place of a password.
const HIDDEN: &str = "***";

/// A text without the passwords of the addresses in it.
///
/// It rather hides too much than too little: an address that was mistyped is printed, too, to say so.
pub(crate) fn hidden(text: &str) -> String {
    let lines: Vec<String> = text.split('\n').map(|line| named(&in_url(line))).collect();
    lines.join("\n")
}

/// What is between the user and the last `@` of `scheme://user:password@host`.
fn in_url(line: &str) -> String {
    let Some((scheme, rest)) = line.split_once("://") else {
        return line.to_owned();
    };
    let Some((user, host)) = rest.rsplit_once('@') else {
        return format!("{scheme}://{}", in_url(rest));
    };
    match user.split_once(':') {
        Some((user, _)) => format!("{scheme}://{user}:{HIDDEN}@{host}"),
        None => line.to_owned(),
    }
}

/// What follows `password=`, in single quotes or as far as the word goes.
fn named(line: &str) -> String {
    const NAME: &str = "password";
    let mut out = String::new();
    let mut rest = line;
    while let Some(at) = rest.to_ascii_lowercase().find(NAME) {
        let (before, value) = rest.split_at(at + NAME.len());
        out.push_str(before);
        rest = value;
        let Some(value) = value.trim_start().strip_prefix('=') else {
            continue;
        };
        out.push('=');
        out.push_str(HIDDEN);
        let value = value.trim_start();
        let end = match value.strip_prefix('\'') {
            // Whatever is quoted inside, the last quote ends it.
            Some(quoted) => quoted.rfind('\'').map_or(value.len(), |end| end + 2),
            None => value
                .find(|c: char| c.is_whitespace() || c == '&')
                .unwrap_or(value.len()),
        };
        rest = &value[end..];
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_hidden_wherever_an_address_stands() {
        for (text, shown) in [
            ("nothing to hide: a://b/c", "nothing to hide: a://b/c"),
            (
                "`postgre://ada:s3cret@db/shop` is not a store",
                "`postgre://ada:***@db/shop` is not a store",
            ),
            ("a://ada:s3@cr:et@db/shop", "a://ada:***@db/shop"),
            ("a://ada@db/shop", "a://ada@db/shop"),
            ("a://b and a://ada:s3cret@db", "a://b and a:***@db"),
            (
                "host=db password=s3cret user=ada",
                "host=db password=*** user=ada",
            ),
            ("PASSWORD = 's3 c\\'ret' user=ada", "PASSWORD=*** user=ada"),
            ("password='s3 cret", "password=***"),
            (
                "a://db/shop?password=s3cret&user=ada",
                "a://db/shop?password=***&user=ada",
            ),
            (
                "password authentication failed",
                "password authentication failed",
            ),
            ("one\na://ada:s3cret@db\ntwo", "one\na://ada:***@db\ntwo"),
        ] {
            assert_eq!(hidden(text), shown);
        }
    }
}
