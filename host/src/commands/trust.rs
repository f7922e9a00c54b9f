use std::io::IsTerminal as _;
use std::path::Path;

use crate::cli::TrustArgs;
use crate::environment::Environment;
use crate::exit::{Exit, Failure};
use crate::managed;
use crate::paths::Paths;
use crate::render::style::Style;
use crate::render::{card, plain, say};
use crate::trust::{self, Sheet, Store};
use crate::workspace;

pub(super) fn run(args: &TrustArgs, environment: &Environment) -> Result<Exit, Failure> {
    let paths = Paths::find(environment)?;
    if args.list {
        return list(&paths);
    }
    if args.revoke {
        return revoke(&paths, args.directory.as_deref());
    }
    let folder = match workspace::of(args.directory.as_deref(), &paths)? {
        (Some(folder), _) => folder,
        (None, notice) => return Err(Failure::usage(notice.unwrap_or_default())),
    };
    managed::read()?.project_files("trusting a folder")?;
    let sheet = trust::look(&paths, &folder)?;
    if !sheet.has_news() {
        sheet.lines(false).iter().for_each(|line| say(line));
        say(&match &sheet.entry {
            Some(entry) => format!("trusted since {}: nothing changed", entry.since),
            None => format!("{}: there is nothing to trust", folder.display()),
        });
        return Ok(Exit::Done);
    }
    let is_terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let trusted = if args.yes {
        show(&sheet, false)?;
        true
    } else if is_terminal {
        ask(&sheet, Style::of(&std::io::stdout(), environment))?
    } else {
        show(&sheet, false)?;
        return Err(Failure::usage("there is no terminal to ask at; if you trust what is shown, say --yes"));
    };
    if trusted {
        trust::give(&paths, &sheet)?;
        say(&format!("trusted: {} (take it back with ml-intern trust --revoke)", folder.display()));
    } else {
        say("not trusted");
    }
    Ok(Exit::Done)
}

/// Shows a sheet and asks. Enter alone, like anything but a clear yes, leaves things as they are.
pub(super) fn ask(sheet: &Sheet, style: Style) -> std::io::Result<bool> {
    use std::io::Write as _;
    show(sheet, false)?;
    let mut out = std::io::stdout();
    loop {
        write!(out, "  {} ", style.bold("t trust it as it is · n or Enter not now · s show it whole:"))?;
        out.flush()?;
        match card::key(&mut out, &['t', 'n', 's'], Some('n'))? {
            Some('s') => show(sheet, true)?,
            Some('t') => return Ok(true),
            _ => return Ok(false),
        }
    }
}

fn show(sheet: &Sheet, whole: bool) -> std::io::Result<()> {
    use std::io::Write as _;
    let mut out = std::io::stdout();
    let head = match sheet.entry {
        None => "This folder has files that would tell this program what to do. You have not trusted it",
        Some(_) => "Files of this folder changed or came since you trusted it",
    };
    writeln!(out, "{head}: {}", plain(&sheet.folder.display().to_string()))?;
    sheet.lines(whole).iter().try_for_each(|line| writeln!(out, "{}", plain(line)))
}

fn list(paths: &Paths) -> Result<Exit, Failure> {
    for entry in Store::new(&paths.state).all()? {
        let files: Vec<&str> = entry.files.keys().map(String::as_str).collect();
        let gone = if entry.is_same() { "" } else { " (gone, or another folder now)" };
        say(&format!("{}{gone}  since {}  [{}]", entry.path.display(), entry.since, files.join(", ")));
    }
    Ok(Exit::Done)
}

fn revoke(paths: &Paths, directory: Option<&Path>) -> Result<Exit, Failure> {
    let folder = match directory {
        Some(directory) => std::path::absolute(directory)?,
        None => std::env::current_dir()?,
    };
    // One that is gone is taken back by the name it had.
    let folder = folder.canonicalize().unwrap_or(folder);
    say(&match trust::take_back(paths, &folder)? {
        Some(_) => format!("not trusted any more: {}", folder.display()),
        None => format!("{} was not trusted", folder.display()),
    });
    Ok(Exit::Done)
}
