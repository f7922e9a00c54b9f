//! Credentials that are kept for the user: put there, listed, removed. A value is never shown, and never
//! an argument: arguments stand in the shell's history and in the list of processes.

use audit::Act;
use secrecy::{ExposeSecret as _, SecretString};

use crate::assemble::Setup;
use crate::cli::LoginArgs;
use crate::environment::{Environment, clean};
use crate::exit::{Exit, Failure};
use crate::hub::whose;
use crate::render::{plain, say, warn};
use crate::secret_input::ask;
use crate::secrets::{HUB, Stored};

/// Where Hugging Face tokens are made.
const TOKENS: &str = "https://huggingface.co/settings/tokens";

pub(super) async fn run(args: LoginArgs, environment: Environment) -> Result<Exit, Failure> {
    let setup = Setup::read(environment, None)?;
    let stored = Stored::of(&setup.paths);
    if args.list {
        let names = stored.names();
        names.iter().for_each(|name| say(name));
        if names.is_empty() {
            say(
                "nothing is stored; `ml-intern login` stores a Hugging Face token, `ml-intern login NAME` another credential",
            );
        }
        return Ok(Exit::Done);
    }
    if let Some(name) = &args.remove {
        return remove(&setup, &stored, checked(name)?);
    }
    let name = checked(args.name.as_deref().unwrap_or(HUB))?;
    if args.check && name != HUB {
        return Err(Failure::usage(
            "--check asks Hugging Face whose a token is; other credentials cannot be checked",
        ));
    }
    let value = tokio::task::spawn_blocking({
        let asked =
            if name == HUB { format!("Hugging Face token ({TOKENS})") } else { format!("value of {name}") };
        move || ask(&asked)
    });
    let value = value.await.map_err(|e| Failure::from(anyhow::anyhow!("standard input: {e}")))??;
    let value = shaped(name, &value)?;
    let path = stored.path(name);
    // First: what cannot be put on record is not done.
    record(&setup, name, true)?;
    stored.put(name, &value).map_err(|e| Failure::settings(anyhow::anyhow!("{}: {e}", path.display())))?;
    say(&format!("stored in {}", path.display()));
    if name == HUB {
        if let Some((_, from)) =
            setup.held().hub.as_ref().filter(|(used, _)| used.expose_secret() != value.expose_secret())
        {
            warn(&format!("it is not used while there is another one in {from}"));
        }
    } else {
        say(&format!("a plugin gets it by: ml-intern plugin grant ID --credential NAME=stored:{name}"));
    }
    if args.check {
        check(&setup, value).await;
    }
    Ok(Exit::Done)
}

/// A name of a credential. What is none is not repeated: it may be the value.
fn checked(name: &str) -> Result<&str, Failure> {
    if manifest::is_credential_name(name) {
        return Ok(name);
    }
    Err(Failure::usage(
        "this is no name of a credential (a-z, 0-9 and `-`, at most 32 characters). A value is never given as an argument: \
         `ml-intern login NAME` asks for it, or reads it from standard input",
    ))
}

fn remove(setup: &Setup, stored: &Stored, name: &str) -> Result<Exit, Failure> {
    if !stored.names().iter().any(|known| known == name) {
        return Err(Failure::usage(format!(
            "nothing is stored as `{name}`; `ml-intern login --list` names what is"
        )));
    }
    record(setup, name, false)?;
    stored
        .remove(name)
        .map_err(|e| Failure::settings(anyhow::anyhow!("{}: {e}", stored.path(name).display())))?;
    say(&format!("removed {name}"));
    Ok(Exit::Done)
}

fn record(setup: &Setup, name: &str, stored: bool) -> Result<(), Failure> {
    let act = Act::Login { credential: name.to_owned(), stored };
    setup.audit().user(act).map_err(|error| Failure::new(Exit::Failed, error))?;
    Ok(())
}

/// The value as it can be used: one line of a sensible length and, for Hugging Face, of its shape.
fn shaped(name: &str, given: &str) -> Result<SecretString, Failure> {
    let refuse =
        |reason: &str| Failure::new(Exit::Credentials, anyhow::anyhow!("{reason}; nothing was stored"));
    let given = given.trim();
    if given.chars().any(char::is_control) {
        return Err(refuse("a credential is one line of text"));
    }
    let value = clean(given).ok_or_else(|| refuse("there is no value"))?;
    let text = value.expose_secret();
    if text.len() < redact::MIN_BYTES {
        return Err(refuse(
            "it is too short to be kept from showing up in answers: eight characters at least",
        ));
    }
    let is_token = |rest: &str| {
        rest.len() >= 16 && rest.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
    };
    if name == HUB && !text.strip_prefix("hf_").is_some_and(is_token) {
        return Err(refuse(&format!("a Hugging Face token begins with `hf_`; there are some at {TOKENS}")));
    }
    Ok(value)
}

/// Asks Hugging Face whose token it is. That it cannot be asked is no failure.
async fn check(setup: &Setup, value: SecretString) {
    let told = match setup.egress(false, "login", Vec::new()) {
        Ok(egress) => whose(&egress, "login", value).await,
        Err(failure) => Err(failure.error),
    };
    match told {
        Ok(name) => say(&format!("it is the token of {}", plain(&name))),
        Err(error) => warn(&format!("it could not be checked: {error:#}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_a_credential_is_not_stored() {
        assert!(shaped(HUB, " hf_abcdefghijklmnop0123\r\n").is_ok());
        assert!(shaped("github", "ghp_abcdefgh").is_ok());
        for (name, value) in [
            (HUB, "ghp_abcdefghijklmnop0123"),
            (HUB, "hf_short"),
            (HUB, "hf_abcdefghijklm nop0123"),
            ("github", "seven77"),
            ("github", ""),
            ("github", "two\nlines-of-it"),
        ] {
            let error = shaped(name, value).unwrap_err().to_string();
            assert!(value.is_empty() || !error.contains(value), "{error}");
        }
    }
}
