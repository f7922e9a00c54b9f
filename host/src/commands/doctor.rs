//! What the program needs, and what is missing.

use std::path::Path;

use protocol::SessionId;
use serde::Serialize;
use wall::{Grade, Outcome};

use crate::assemble::Setup;
use crate::cli::DoctorArgs;
use crate::environment::Environment;
use crate::exit::{Exit, Failure};
use crate::managed;
use crate::paths::make_private;
use crate::render::{json, say};
use crate::trust::Word;

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Check {
    name: String,
    verdict: Verdict,
    detail: String,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    Note,
    Problem,
}

pub(super) async fn run(args: DoctorArgs, environment: Environment) -> Result<Exit, Failure> {
    let setup = Setup::in_place(environment, &args.place, Word::of(&args.place))?;
    let mut checks = settings(&setup);
    let policy = managed::notice(&setup.policy);
    let policy = policy.unwrap_or_else(|| "none: this machine is not managed".to_owned());
    checks.push(check("policy", Verdict::Ok, policy));
    checks.extend(network(&setup)?);
    checks.extend(plugins(&setup, &args).await?);
    checks.extend(models(&setup)?);
    checks.extend(enclosure(&setup, &args).await?);
    let problem = checks.iter().any(|check| check.verdict == Verdict::Problem);
    print(&checks, args.json)?;
    Ok(if problem { Exit::Settings } else { Exit::Done })
}

fn check(name: impl Into<String>, verdict: Verdict, detail: impl Into<String>) -> Check {
    Check { name: name.into(), verdict, detail: detail.into() }
}

fn settings(setup: &Setup) -> Vec<Check> {
    let files: Vec<&str> = setup.loaded.layers.iter().map(|layer| layer.name.as_str()).collect();
    let mut out = vec![check("settings", Verdict::Ok, files.join(", "))];
    for (key, why) in setup.loaded.keys_without_effect() {
        out.push(check(format!("settings: {key}"), Verdict::Note, format!("has no effect: {why}")));
    }
    for key in setup.loaded.unknown_keys() {
        out.push(check(format!("settings: {key}"), Verdict::Note, "is not known and ignored"));
    }
    if !setup.project.standing.is_empty() {
        out.push(check("trust", Verdict::Ok, setup.project.standing.clone()));
        out.extend(setup.project.notices.iter().map(|line| check("trust", Verdict::Note, line.clone())));
    }
    out.extend(folders(setup));
    out
}

/// Origins that are really somewhere else, and certificates that would only be read later.
fn network(setup: &Setup) -> Result<Vec<Check>, Failure> {
    let mut out: Vec<Check> = setup
        .rewrites()?
        .iter()
        .map(|rewrite| {
            let credentials = if rewrite.gets_credentials() { "with" } else { "without" };
            let methods = rewrite.methods().join(" and ");
            let detail = format!("is reached at {}: {methods}, {credentials} credentials", rewrite.to());
            check(format!("origin: {}", rewrite.from()), Verdict::Note, detail)
        })
        .collect();
    let files = setup.certificates();
    if !files.is_empty() {
        out.push(match egress::Certificates::read(&files) {
            Ok(_) => check("certificates", Verdict::Ok, "can be read"),
            Err(error) => check("certificates", Verdict::Problem, error.to_string()),
        });
    }
    Ok(out)
}

fn folders(setup: &Setup) -> Vec<Check> {
    let paths = &setup.paths;
    let one = |(name, path): (&str, &Path)| match make_private(path) {
        Ok(()) => check(format!("folder: {name}"), Verdict::Ok, path.display().to_string()),
        Err(error) => {
            check(format!("folder: {name}"), Verdict::Problem, format!("{}: {error}", path.display()))
        }
    };
    [("state", paths.state.as_path()), ("data", &paths.data), ("cache", &paths.cache)].map(one).into()
}

async fn plugins(setup: &Setup, args: &DoctorArgs) -> Result<Vec<Check>, Failure> {
    let egress = setup.egress(true, "doctor", Vec::new())?;
    let (plugins, problems) = setup.plugins(&args.place, egress, &mut |_| {}).await?;
    let ids: Vec<&str> =
        plugins.plugins().iter().map(|plugin| plugin.described.manifest.id.as_str()).collect();
    let mut out = vec![check(
        "plugins",
        Verdict::Ok,
        format!("{} with {} tools", ids.join(", "), plugins.specs().len()),
    )];
    out.extend(problems.iter().map(|problem| check("plugin", Verdict::Problem, problem.to_string())));
    Ok(out)
}

fn models(setup: &Setup) -> Result<Vec<Check>, Failure> {
    let token = match &setup.held().hub {
        Some((_, from)) => check("hugging face", Verdict::Ok, format!("the token is taken from {from}")),
        None => check("hugging face", Verdict::Note, "there is no token: `ml-intern login` stores one"),
    };
    let session = SessionId::from("doctor");
    let providers = setup.providers(&session, setup.egress(true, "doctor", Vec::new())?)?;
    let model = match setup.default_model() {
        Err(error) => return Ok(vec![token, check("model", Verdict::Note, error.to_string())]),
        Ok(model) => model,
    };
    let model = match providers.resolve(&model) {
        Ok(resolved) => {
            let detail = format!("{model} at {}, paid by {}", resolved.route(), resolved.payer());
            check("model", Verdict::Ok, detail)
        }
        Err(error) => check("model", Verdict::Note, error.to_string()),
    };
    Ok(vec![token, model])
}

/// The wall, as it is when commands really run behind it.
async fn enclosure(setup: &Setup, args: &DoctorArgs) -> Result<Vec<Check>, Failure> {
    let (workplace, notice) = setup.workplace(&args.place)?;
    let mut out: Vec<Check> =
        notice.map(|line| check("workspace", Verdict::Note, line)).into_iter().collect();
    if let Some(workspace) = &workplace.workspace {
        out.push(check("workspace", Verdict::Ok, workspace.display().to_string()));
    }
    let id = SessionId::from(uuid::Uuid::new_v4().to_string());
    let dir = setup.store().dir(&id);
    make_private(&dir)?;
    let session = workplace.open(id, &dir)?;
    let probed = session.wall().probe().await;
    session.wall().shutdown().await;
    // The folder was made for the probe alone.
    let _ = std::fs::remove_dir_all(&dir);
    match probed {
        Err(error) => {
            let remedies = error.remedies().join("; ");
            out.push(check("wall", Verdict::Problem, format!("{error}; {remedies}")));
        }
        Ok(report) => {
            if let Err(forbidden) = managed::check_grade(&setup.policy, report.grade) {
                out.push(check("policy", Verdict::Problem, format!("nothing starts here: {forbidden}")));
            }
            let possible = report.acts.iter().filter(|act| act.outcome == Outcome::Possible).count();
            let detail = match report.grade {
                Grade::Full | Grade::Partial => format!(
                    "{}: {} forbidden acts refused, {possible} possible",
                    report.grade.name(),
                    report.acts.len() - possible
                ),
                Grade::External => "external: this container or machine is said to be the wall".to_owned(),
                Grade::None => "none: commands are not confined".to_owned(),
            };
            out.push(check("wall", if possible == 0 { Verdict::Ok } else { Verdict::Problem }, detail));
            if args.wall_acts {
                out.extend(report.acts.iter().map(|act| match &act.outcome {
                    Outcome::Refused(error) => {
                        check(format!("wall: {}", act.name), Verdict::Ok, format!("refused: {error}"))
                    }
                    Outcome::Possible => check(format!("wall: {}", act.name), Verdict::Problem, "POSSIBLE"),
                    Outcome::Untried(why) => {
                        check(format!("wall: {}", act.name), Verdict::Note, format!("not tried: {why}"))
                    }
                }));
            }
            out.extend(
                report.residuals.iter().map(|line| check("wall: left open", Verdict::Note, line.clone())),
            );
        }
    }
    Ok(out)
}

fn print(checks: &[Check], as_json: bool) -> std::io::Result<()> {
    if as_json {
        return json::line(&mut std::io::stdout(), &checks);
    }
    for Check { name, verdict, detail } in checks {
        let mark = match verdict {
            Verdict::Ok => "ok  ",
            Verdict::Note => "note",
            Verdict::Problem => "FAIL",
        };
        say(&format!("{mark}  {name}: {detail}"));
    }
    Ok(())
}
