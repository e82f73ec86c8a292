//! URLs of servers that hold a password: what is wrong with one, said without showing any of it.
//!
//! A password may hold any character, a URL may not: `/`, `?` and `#` end the part that the password is in, and what
//! is left of it is taken for a host and a port. That is found here and named, before a server is asked in vain.

/// What is wrong with a URL of one or several hosts, in words that follow its key; `None`: nothing that can be seen.
pub(super) fn fault(url: &str, example: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?; // a missing scheme is said elsewhere
    // the one fragment that means something: certificates are not checked
    let fragment_less =
        if scheme.starts_with("postgres") { rest } else { rest.trim_end_matches("#insecure") };
    if let Some((character, code)) = unencoded(fragment_less) {
        return Some(format!(
            "contains `{character}` where it must be encoded. If it belongs to the user or the password, write it as {code}; {ENCODE}, for example {example}"
        ));
    }
    let (authority, tail) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let (user, hosts) = authority.rsplit_once('@').map_or(("", authority), |(user, hosts)| (user, hosts));
    let at = if user.is_empty() { "" } else { "@" };
    let parsed = |host| url::Url::parse(&format!("{scheme}://{user}{at}{host}{tail}"));
    let error = hosts.split(',').find_map(|host| parsed(host).err())?;
    Some(format!(
        "is not a URL: {error}. If the password contains a character like / ? # @ [ or ], {ENCODE}, for example {example}"
    ))
}

const ENCODE: &str = "characters there are percent-encoded: / is %2F, ? is %3F, # is %23, @ is %40, % is %25";

/// The character that ended user and password too early. Of what is behind the `@` of a good URL, nothing holds
/// another one but the values of a query, and nothing holds a `#`.
fn unencoded(rest: &str) -> Option<(char, &'static str)> {
    if rest.contains('#') {
        return Some(('#', "%23"));
    }
    let end = rest.find(['/', '?'])?;
    let (path, query) = rest[end..].split_once('?').unwrap_or((&rest[end..], ""));
    // in a query only a value may hold it: name=value
    let is_loose = |part: &str| part.split_once('@').is_some_and(|(before, _)| !before.contains('='));
    let is_cut = path.contains('@') || query.split('&').any(is_loose);
    is_cut.then_some(if rest[end..].starts_with('/') { ('/', "%2F") } else { ('?', "%3F") })
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = "postgres://app_user:p%23ss@db/name";

    #[test]
    fn a_password_that_is_not_encoded_is_found_and_the_character_named() {
        for (url, wanted) in [
            ("postgres://u:pa#tweety@db:5432/octo", "`#`"),
            ("postgres://u:#tweety@db/octo", "`#`"),
            ("postgres://u:tweety#@db1,db2:5433/octo", "`#`"),
            ("postgres://u:pa/tweety@db:5432/octo", "`/`"),
            ("postgres://u:123/tweety@db/octo", "`/`"), // what is left is a good host and port
            ("postgres://u:/tweety@db/octo", "`/`"),
            ("postgres://u:pa?tweety@db:5432/octo", "`?`"),
            ("postgres://u:12?tweety@db/octo", "`?`"),
            ("postgres://u:p@a/tweety@db/octo", "`/`"), // what is left even has a user
            ("postgres://u:p@a?tweety@db/octo", "`?`"),
            ("redis://:tweety/x@cache:6379/0", "`/`"),
            ("redis://:tweety#x@cache:6379", "`#`"),
            ("rediss://user:tweety?x@cache:6380/1", "`?`"),
        ] {
            let said = fault(url, EXAMPLE).unwrap_or_else(|| panic!("{url} passes"));
            assert!(said.contains(wanted) && said.contains("percent-encoded"), "{url}: {said}");
            assert!(said.contains(EXAMPLE) && !said.contains("tweety"), "{url}: {said}");
        }
    }

    #[test]
    fn a_url_that_is_none_says_why_and_nothing_of_itself() {
        for url in [
            "postgres://u:tweety@db:port/octo",
            "postgres://u:tweety@db:99999/octo",
            "postgres://u:tweety@a,b:port,c/octo",
            "postgres://u:tweety@[::1/octo",
            "postgres://u:tweety@d b/octo",
            "postgres://u:tweety@d[b/octo",
            "postgres://u:twe%zzety@db:5432x/octo",
            "redis://:tweety@cache:x",
        ] {
            let said = fault(url, EXAMPLE).unwrap_or_else(|| panic!("{url} passes"));
            assert!(said.contains("is not a URL: ") && said.contains(EXAMPLE), "{url}: {said}");
            assert!(!said.contains("tweety"), "{url}: {said}");
        }
    }

    #[test]
    fn good_urls_pass() {
        for url in [
            "postgres://db/octo",
            "postgres://app_user@db:5432/octo",
            "postgres://u:p%23%2F%3F%40%25@db:5432/octo",
            "postgres://u:p@ss@db/octo", // the last @ counts
            "postgres://u:p:a:s:s@db/octo",
            "postgres://u:p!$&'()*+,;=-._~@db/octo",
            "postgres://u:p@db1,db2:5433,[::1]:5434/octo?sslmode=require",
            "postgres:///octo?host=/run/postgresql&user=u&password=p@ss/x?y",
            "postgres://u@localhost/octo?host=%2Frun%2Fpostgresql",
            "postgres://%2Frun%2Fpostgresql/octo",
            "postgres://u:p@db/octo?application_name=a@b&options=-c%20jit%3Doff",
            "postgresql://u:p@db",
            "redis://cache",
            "redis://:p%40ss@cache:6379/1",
            "rediss://user:p@cache:6380/0#insecure",
            "redis+unix:///run/redis.sock?db=1",
        ] {
            assert_eq!(fault(url, EXAMPLE), None, "{url}");
        }
    }
}
