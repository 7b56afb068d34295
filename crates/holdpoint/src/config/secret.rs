//! Tells what looks like a secret, so that none ends up in a file, a log or a process list.
//! Errs on the side of caution. Must never print, store or send what it looks at.

/// Parts of names whose values are secrets.
const NAME_PARTS: [&str; 13] = [
    "apikey",
    "auth",
    "bearer",
    "cookie",
    "credential",
    "dsn",
    "passphrase",
    "passwd",
    "password",
    "private",
    "pwd",
    "secret",
    "token",
];

/// Whole words in names whose values are secrets.
const NAME_WORDS: [&str; 4] = ["key", "pass", "pat", "jwt"];

/// How well-known secrets begin.
const VALUE_STARTS: [&str; 22] = [
    "sk-",
    "sk_live_",
    "sk_test_",
    "rk_live_",
    "ghp_",
    "gho_",
    "ghu_",
    "ghs_",
    "ghr_",
    "github_pat_",
    "glpat-",
    "xoxb-",
    "xoxp-",
    "xoxa-",
    "xapp-",
    "AKIA",
    "ASIA",
    "AIza",
    "eyJ",
    "npm_",
    "hf_",
    "-----BEGIN",
];

/// True if a variable or header of this name usually holds a secret.
pub fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let joined: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    let mut words = name.split(|found: char| !found.is_ascii_alphanumeric());
    NAME_PARTS.iter().any(|part| joined.contains(part))
        || words.any(|word| NAME_WORDS.contains(&word))
}

/// True if this text looks like a secret, or holds one.
pub fn is_secret_value(text: &str) -> bool {
    let text = text.trim();
    let scheme = text.split_once(' ').map(|(scheme, _)| scheme.to_ascii_lowercase());
    if scheme.is_some_and(|scheme| matches!(scheme.as_str(), "bearer" | "basic")) {
        return true;
    }
    if has_credentials(text) {
        return true;
    }
    // `--option=value` and `NAME=value`: the name or the value may give it away.
    let (name, value) = text.split_once('=').map_or(("", text), |(name, value)| (name, value));
    let named = !value.is_empty() && name.len() <= 64 && is_secret_name(name);
    named || VALUE_STARTS.iter().any(|start| value.starts_with(start))
}

/// True if an option of this name takes a secret as the next argument.
pub fn is_secret_option(argument: &str) -> bool {
    argument.starts_with('-') && !argument.contains('=') && is_secret_name(argument)
}

/// True if this text is certainly harmless: a flag, a number, an absolute path, a plain word.
pub fn is_plain_value(name: &str, text: &str) -> bool {
    if is_secret_name(name) || is_secret_value(text) {
        return false;
    }
    let word = text.len() <= 16 && text.bytes().all(|byte| byte.is_ascii_lowercase());
    let number = text.len() <= 6 && text.bytes().all(|byte| byte.is_ascii_digit());
    !text.is_empty() && (word || number || text.starts_with('/'))
}

/// The environment variable that could hold the value of a header or variable of this name.
pub fn variable_for(name: &str) -> String {
    let upper = name
        .chars()
        .map(|found| if found.is_ascii_alphanumeric() { found.to_ascii_uppercase() } else { '_' });
    upper.collect()
}

/// The text without credentials in a URL.
pub fn masked(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    match authority.rsplit_once('@') {
        Some((credentials, _)) => {
            let rest = rest.get(credentials.len()..).unwrap_or_default();
            format!("{scheme}://***{rest}")
        }
        None => text.to_owned(),
    }
}

fn has_credentials(text: &str) -> bool {
    let Some((_, rest)) = text.split_once("://") else { return false };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    authority.rsplit_once('@').is_some_and(|(credentials, _)| credentials.contains(':'))
}

#[cfg(test)]
mod tests {
    use super::{is_plain_value, is_secret_name, is_secret_option, is_secret_value, masked};

    #[test]
    fn secret_names_are_told_from_others() {
        for name in
            ["GITHUB_TOKEN", "Authorization", "x-api-key", "PGPASSWORD", "DB_PASS", "Cookie"]
        {
            assert!(is_secret_name(name), "{name}");
        }
        for name in ["NODE_ENV", "PATH", "LOG_LEVEL", "Accept", "KEYBOARD", "COMPASS"] {
            assert!(!is_secret_name(name), "{name}");
        }
    }

    #[test]
    fn secret_values_are_told_from_others() {
        for text in [
            "Bearer abc",
            "ghp_16C7e42F",
            "postgres://u:p@host/db",
            "--api-key=abc",
            "sk-proj-1",
            "TOKEN=x",
            "-----BEGIN PRIVATE KEY-----",
        ] {
            assert!(is_secret_value(text), "{text}");
        }
        for text in ["/srv/app", "-y", "@scope/package", "https://host/x@y:z", "--token", "a=b"] {
            assert!(!is_secret_value(text), "{text}");
        }
        assert!(is_secret_option("--token") && !is_secret_option("--verbose"));
    }

    #[test]
    fn only_certainly_harmless_values_are_plain() {
        for (name, text) in [("LOG", "debug"), ("PORT", "8080"), ("HOME", "/srv")] {
            assert!(is_plain_value(name, text), "{name}={text}");
        }
        for (name, text) in [("TOKEN", "debug"), ("X", "hunter2"), ("X", ""), ("X", "12345678")] {
            assert!(!is_plain_value(name, text), "{name}={text}");
        }
    }

    #[test]
    fn credentials_are_masked() {
        assert_eq!(masked("https://u:p@host/x"), "https://***@host/x");
        assert_eq!(masked("https://host/x"), "https://host/x");
    }
}
