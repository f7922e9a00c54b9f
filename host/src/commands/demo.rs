//! A scripted model, said to be scripted, through the real loop, the real plugins and the real wall.

mod script;
mod server;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::assemble::{self, Setup};
use crate::cli::{DemoArgs, PlaceArgs, RunArgs, SessionArgs};
use crate::commands::headless;
use crate::diagnostics;
use crate::environment::Environment;
use crate::exit::{Exit, Failure};
use crate::render::style::Style;
use crate::settings::{ProviderEntry, Wire};
use crate::signals::Signals;

const DATA: &str = include_str!("../../../configs/demo/reviews.tsv");

const PROMPT: &str =
    "reviews.tsv is a small sentiment data set. Audit it for duplicates, clean it, and score a baseline.";

pub(super) async fn run(args: DemoArgs, environment: Environment) -> Result<Exit, Failure> {
    let mut signals = Signals::new()?;
    let mut setup = Setup::read(environment, None)?;
    diagnostics::start(&setup, false);
    let (folder, keep) = folder(args.directory.as_deref())?;
    std::fs::write(folder.join("reviews.tsv"), DATA)?;
    let url = server::start().await?;
    let provider = ProviderEntry {
        wire: Wire::Chat,
        base_url: url,
        key_env: None,
        headers: BTreeMap::new(),
        ca: None,
        client_certificate: None,
        client_key: None,
        context_window: None,
        price: None,
        payer: Some("nobody (a script)".to_owned()),
    };
    setup.loaded.settings.providers.insert("demo".to_owned(), provider);
    let session = SessionArgs {
        model: Some("demo/script".to_owned()),
        effort: Some("off".to_owned()),
        ..SessionArgs::default()
    };
    let place = PlaceArgs { directory: Some(folder.clone()), offline: args.offline, ..PlaceArgs::default() };
    let style = Style::of(&std::io::stderr(), &setup.environment);
    say(&style.bold(
        "This is a demo: the model is a script. The loop, the plugins and the wall are the real ones.",
    ));
    let mut notice = say_owned;
    let assembled = assemble::session(&setup, &session, &place, false, &mut notice);
    let assembled = signals.unless(assembled).await.unwrap_or_else(|exit| Err(headless::stopped(exit)))?;
    let run = RunArgs { json: args.json, ..RunArgs::default() };
    let exit = headless::work(&setup, run, assembled, PROMPT.to_owned(), style, signals).await;
    if keep {
        say(&style.dim(&format!("The files are in {}", folder.display())));
    } else {
        std::fs::remove_dir_all(&folder)?;
    }
    exit
}

/// An empty folder to work in, and whether it is kept.
fn folder(given: Option<&Path>) -> Result<(PathBuf, bool), Failure> {
    let Some(path) = given else {
        let path = std::env::temp_dir().join(format!("ml-intern-demo-{}", uuid::Uuid::new_v4().simple()));
        std::fs::create_dir(&path)?;
        return Ok((path.canonicalize()?, false));
    };
    std::fs::create_dir_all(path).map_err(|e| Failure::usage(format!("-C {}: {e}", path.display())))?;
    if std::fs::read_dir(path)?.next().is_some() {
        return Err(Failure::usage(format!("-C {}: it is not empty", path.display())));
    }
    Ok((path.canonicalize()?, true))
}

fn say(line: &str) {
    use std::io::Write as _;
    // Styled: it is this program's own text.
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

fn say_owned(line: String) {
    say(&line);
}
