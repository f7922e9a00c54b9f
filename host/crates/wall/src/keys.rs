//! What looks like a credential: by its name, and by itself.

/// Last letters of a part of a name (parts are divided by `_`) that make it look like a credential.
const CREDENTIAL_ENDINGS: [&str; 14] = [
    "TOKEN",
    "TOKENS",
    "SECRET",
    "SECRETS",
    "PASSWORD",
    "PASSWD",
    "PASSPHRASE",
    "KEY",
    "KEYS",
    "CREDENTIAL",
    "CREDENTIALS",
    "CREDS",
    "AUTH",
    "COOKIE",
];

/// Parts of a name that make it look like a credential as they are; as endings they are other words'.
const CREDENTIAL_WORDS: [&str; 9] = ["PAT", "PASS", "PW", "PWD", "DSN", "CRED", "JWT", "PGPASS", "SSHPASS"];

/// Names of the shell's that hold such a part.
const HARMLESS_NAMES: [&str; 2] = ["PWD", "OLDPWD"];

/// What keys of well-known services begin with.
const KEY_BEGINNINGS: [&str; 16] = [
    "AIza",
    "AKIA",
    "ASIA",
    "ghp_",
    "gho_",
    "ghr_",
    "ghs_",
    "ghu_",
    "github_pat_",
    "glpat-",
    "hf_",
    "npm_",
    "pypi-",
    "sk-",
    "xoxb-",
    "xoxp-",
];

/// Characters a key has at least.
const KEY_LENGTH: usize = 20;

/// Whether a variable is a credential, by its name or by itself.
#[must_use]
pub fn is_credential(name: &str, value: &str) -> bool {
    names_a_credential(name) || looks_like_key(value)
}

/// Whether a part of the name is a word for credentials or ends as they do: `HF_TOKEN`, `MY_APIKEY_2`,
/// `DB_PASS`, but not `TOKENIZERS_PARALLELISM` or `BYPASS`.
#[must_use]
pub fn names_a_credential(name: &str) -> bool {
    if HARMLESS_NAMES.contains(&name) {
        return false;
    }
    let name = name.to_ascii_uppercase();
    name.split('_').any(|part| {
        let part = part.trim_end_matches(|c: char| c.is_ascii_digit());
        CREDENTIAL_WORDS.contains(&part) || CREDENTIAL_ENDINGS.iter().any(|ending| part.ends_with(ending))
    })
}

/// Whether a value is a key of a well-known service, whatever its name.
#[must_use]
pub fn looks_like_key(value: &str) -> bool {
    let value = value.trim();
    value.len() >= KEY_LENGTH
        && KEY_BEGINNINGS.iter().any(|beginning| value.starts_with(beginning))
        && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
        && value.bytes().any(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_for_credentials_count_alone_and_between_underscores() {
        for name in [
            "GITHUB_PAT",
            "PAT",
            "AZURE_PAT_2",
            "DB_PASS",
            "PASS_DB",
            "MYSQL_PWD",
            "db_pwd",
            "MY_PASSWD",
            "SMTP_PW",
            "SENTRY_DSN",
            "GOOGLE_APPLICATION_CREDENTIALS",
            "SSHPASS",
            "API_JWT",
        ] {
            assert!(names_a_credential(name), "{name}");
        }
        for name in ["PWD", "OLDPWD", "PATH", "PYTHONPATH", "PATTERN", "BYPASS", "PASSES", "HTTP_PATCH"] {
            assert!(!names_a_credential(name), "{name}");
        }
    }

    #[test]
    fn names_of_keys_and_keys_themselves() {
        for name in
            ["HF_TOKEN", "ANTHROPIC_API_KEY", "AWS_SECRET_ACCESS_KEY", "github_pat", "SSH_KEY", "DB_PASSWORD"]
        {
            assert!(names_a_credential(name), "{name}");
        }
        for name in ["HOME", "KEYBOARD", "TOKENIZERS_PARALLELISM", "MAX_TOKENIZED"] {
            assert!(!names_a_credential(name), "{name}");
        }
        for key in ["hf_AbCdEfGhIjKlMnOpQr1", "sk-ant-api03-abcdefghijk", "AKIAIOSFODNN7EXAMPLE"] {
            assert!(looks_like_key(key), "{key}");
        }
        for word in [
            "",
            "hf_short1",
            "sk-learn-is-not-a-key-at-all",
            "WORK_KEY",
            "https://huggingface.co/x/y/z1",
            "${HF_TOKEN}",
        ] {
            assert!(!looks_like_key(word), "{word}");
        }
    }
}
