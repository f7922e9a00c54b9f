//! Official clients, judged by what they got: `ML_INTERN_CLIENTS` names a virtual environment that has them. A
//! test whose client is not there says so.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::world::{Parts, Server, TOKEN, World, answer, file};

/// A client of the environment, or of the machine.
#[expect(clippy::disallowed_methods, reason = "where the clients are is said to the tests alone")]
fn client(name: &str) -> Option<PathBuf> {
    let folders = std::env::var_os("ML_INTERN_CLIENTS").map(|folder| PathBuf::from(folder).join("bin"));
    let machine = ["/usr/bin", "/usr/local/bin"].map(PathBuf::from);
    let found = folders.into_iter().chain(machine).map(|folder| folder.join(name)).find(|path| path.exists());
    if found.is_none() {
        println!("NOT TRIED: `{name}` is not in the environment that ML_INTERN_CLIENTS names");
    }
    found
}

/// Runs a client as a command would: with a home of its own, and nothing of this one's environment.
async fn run_client(
    program: PathBuf,
    home: &Path,
    arguments: &[String],
    variables: &[(&str, String)],
) -> Output {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .current_dir(home)
        .env_clear()
        .env("HOME", home)
        .env("PATH", "/usr/bin:/bin")
        .env("PIP_CONFIG_FILE", "/dev/null")
        .env("PIP_DISABLE_PIP_VERSION_CHECK", "1")
        .env("UV_NO_CONFIG", "1")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("HF_HUB_DISABLE_XET", "1")
        .env("HF_HUB_DISABLE_TELEMETRY", "1")
        .envs(variables.iter().map(|(name, value)| (*name, value)))
        .stdin(Stdio::null());
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

fn told(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn strings<const N: usize>(words: [&str; N]) -> Vec<String> {
    words.map(str::to_owned).to_vec()
}

fn on_threads<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

/// A wheel with one module, which may need another.
fn wheel(name: &str, needs: &str) -> Vec<u8> {
    let info = format!("{name}-1.0.dist-info");
    let metadata = metadata(name, needs);
    let record = format!("{name}.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n");
    zip(&[
        (format!("{name}.py"), "answer = 42\n".to_owned()),
        (format!("{info}/METADATA"), metadata),
        (
            format!("{info}/WHEEL"),
            "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n".to_owned(),
        ),
        (format!("{info}/RECORD"), record),
    ])
}

fn metadata(name: &str, needs: &str) -> String {
    let needs = if needs.is_empty() { String::new() } else { format!("Requires-Dist: {needs}\n") };
    format!("Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{needs}")
}

/// An archive whose files are stored as they are.
fn zip(files: &[(String, String)]) -> Vec<u8> {
    let (mut all, mut directory) = (Vec::new(), Vec::new());
    for (name, text) in files {
        let mut sum = flate2::Crc::new();
        sum.update(text.as_bytes());
        let mut about = vec![20, 0, 0, 0, 0, 0, 0, 0, 33, 0];
        about.extend(sum.sum().to_le_bytes());
        for number in [text.len() as u32, text.len() as u32] {
            about.extend(number.to_le_bytes());
        }
        about.extend((name.len() as u16).to_le_bytes());
        about.extend([0, 0]);
        let place = all.len() as u32;
        all.extend(b"PK\x03\x04".iter().chain(&about).chain(name.as_bytes()).chain(text.as_bytes()));
        directory.extend(b"PK\x01\x02\x14\x00".iter().chain(&about));
        directory.extend([0; 10]);
        directory.extend(place.to_le_bytes());
        directory.extend(name.as_bytes());
    }
    let (size, place) = (directory.len() as u32, all.len() as u32);
    all.extend(&directory);
    all.extend(b"PK\x05\x06\x00\x00\x00\x00");
    all.extend((files.len() as u16).to_le_bytes().repeat(2));
    all.extend(size.to_le_bytes().iter().chain(&place.to_le_bytes()));
    all.extend([0, 0]);
    all
}

/// An index of two packages, of which only one has its metadata beside it, and where their files are.
async fn python_world() -> (World, Server) {
    let index = Server::start(|got| match got.path() {
        "/simple/first/" => answer(
            200,
            "content-type: text/html\r\n",
            "<!DOCTYPE html><a href=\"https://files.pythonhosted.org/packages/first-1.0-py3-none-any.whl\" \
             data-core-metadata=\"true\">first-1.0-py3-none-any.whl</a>",
        ),
        "/simple/second/" => answer(
            200,
            "content-type: application/vnd.pypi.simple.v1+json\r\n",
            r#"{"meta":{"api-version":"1.0"},"name":"second","files":[{"filename":"second-1.0-py3-none-any.whl","url":"https://files.pythonhosted.org/packages/second-1.0-py3-none-any.whl","hashes":{}}]}"#,
        ),
        _ => answer(404, "", ""),
    })
    .await;
    let files = Server::start(|got| match got.path() {
        "/packages/first-1.0-py3-none-any.whl" => file(got, "", &wheel("first", "second")),
        "/packages/first-1.0-py3-none-any.whl.metadata" => answer(200, "", metadata("first", "second")),
        "/packages/second-1.0-py3-none-any.whl" => file(got, "", &wheel("second", "")),
        _ => answer(404, "", ""),
    })
    .await;
    let mirrors = vec![("https://pypi.org", index.url()), ("https://files.pythonhosted.org", files.url())];
    (World::start(Parts { mirrors, ..Parts::default() }).await, files)
}

#[test]
fn pip_downloads_a_package_and_what_it_needs() {
    let Some(pip) = client("pip") else { return };
    on_threads(async {
        let (world, _files) = python_world().await;
        let home = tempfile::tempdir().unwrap();
        let index = format!("http://127.0.0.1:{}/simple/", world.pypi);
        let arguments = strings(["download", "--no-cache-dir", "-d", "out", "first"]);
        let output = run_client(pip, home.path(), &arguments, &[("PIP_INDEX_URL", index)]).await;
        assert!(output.status.success(), "{}", told(&output));
        for (name, needs) in [("first", "second"), ("second", "")] {
            let got = std::fs::read(home.path().join(format!("out/{name}-1.0-py3-none-any.whl"))).unwrap();
            assert_eq!(got, wheel(name, needs));
        }
    });
}

#[test]
fn uv_installs_a_package_and_what_it_needs() {
    let (Some(uv), Some(python)) = (client("uv"), client("python3")) else { return };
    on_threads(async {
        let (world, files) = python_world().await;
        let home = tempfile::tempdir().unwrap();
        let index = format!("http://127.0.0.1:{}/simple", world.pypi);
        let mut arguments = strings(["pip", "install", "--no-cache", "--target", "out", "first", "--python"]);
        arguments.push(python.to_str().unwrap().to_owned());
        let output = run_client(uv, home.path(), &arguments, &[("UV_INDEX_URL", index)]).await;
        assert!(output.status.success(), "{}", told(&output));
        for name in ["first", "second"] {
            let module = home.path().join(format!("out/{name}.py"));
            assert_eq!(std::fs::read_to_string(module).unwrap(), "answer = 42\n");
        }
        let lines = files.lines();
        assert!(
            lines.contains(&"GET /packages/first-1.0-py3-none-any.whl.metadata HTTP/1.1".to_owned()),
            "{lines:?}"
        );
        assert!(files.got().iter().any(|got| got.header("range").is_some()), "{lines:?}");
    });
}

/// A Hub with a gated model, whose large file lies elsewhere.
async fn gated_world() -> World {
    let hub = Server::start(|got| {
        if got.header("authorization") != Some(&format!("Bearer {TOKEN}")) {
            return answer(401, "x-error-code: GatedRepo\r\nx-error-message: gated\r\n", "");
        }
        let sha = "0123456789012345678901234567890123456789";
        let commit = format!("x-repo-commit: {sha}\r\n");
        match got.path() {
            "/org/gated/resolve/main/weights.bin"
            | "/org/gated/resolve/0123456789012345678901234567890123456789/weights.bin" => {
                let linked = "x-linked-size: 3000000\r\nx-linked-etag: \"abc\"\r\nx-xet-hash: 7\r\n";
                let link = "link: <https://huggingface.co/api/models/org/gated/xet-read-token/main>; rel=\"xet-auth\"\r\n";
                answer(302, &format!("{commit}{linked}{link}location: https://cdn-lfs.hf.co/w?s=1\r\n"), "")
            }
            "/org/gated/resolve/main/config.json"
            | "/org/gated/resolve/0123456789012345678901234567890123456789/config.json" => {
                file(got, &format!("{commit}etag: \"c\"\r\n"), b"{}")
            }
            "/api/models/org/gated/revision/main" | "/api/models/org/gated" => answer(
                200,
                "content-type: application/json\r\n",
                format!(
                    r#"{{"id":"org/gated","sha":"{sha}","siblings":[{{"rfilename":"config.json"}},{{"rfilename":"weights.bin"}}]}}"#
                ),
            ),
            path if path.starts_with("/api/models/org/gated/tree/") => answer(
                200,
                "content-type: application/json\r\n",
                r#"[{"type":"file","oid":"c","size":2,"path":"config.json"},{"type":"file","oid":"abc","size":3000000,"path":"weights.bin"}]"#,
            ),
            _ => answer(404, "x-error-code: EntryNotFound\r\n", ""),
        }
    })
    .await;
    let storage = Server::start(|got| {
        assert_eq!(got.header("authorization"), None);
        file(got, "", &vec![7; 3_000_000])
    })
    .await;
    let mirrors = vec![("https://huggingface.co", hub.url()), ("https://cdn-lfs.hf.co", storage.url())];
    World::start(Parts { mirrors, ..Parts::default() }).await
}

#[test]
fn hf_downloads_a_gated_model_without_a_token() {
    let Some(hf) = client("hf") else { return };
    on_threads(async {
        let world = gated_world().await;
        let home = tempfile::tempdir().unwrap();
        let endpoint = [("HF_ENDPOINT", format!("http://127.0.0.1:{}", world.hub))];
        for (folder, arguments) in [
            ("one", strings(["download", "org/gated", "weights.bin", "--local-dir", "one"])),
            ("all", strings(["download", "org/gated", "--local-dir", "all"])),
        ] {
            let output = run_client(hf.clone(), home.path(), &arguments, &endpoint).await;
            assert!(output.status.success(), "{}\n{:?}", told(&output), world.refusals());
            let weights = std::fs::read(home.path().join(folder).join("weights.bin")).unwrap();
            assert!(weights == vec![7; 3_000_000], "{}", weights.len());
        }
        assert_eq!(std::fs::read(home.path().join("all/config.json")).unwrap(), b"{}");
        assert!(world.refusals().is_empty(), "{:?}", world.refusals());
    });
}

#[test]
fn git_clones_a_repository() {
    let Some(git) = client("git") else { return };
    on_threads(async {
        let home = tempfile::tempdir().unwrap();
        let origin = home.path().join("origin");
        let identity = ["-c", "user.name=t", "-c", "user.email=t@t.test", "-C", origin.to_str().unwrap()];
        std::fs::create_dir(&origin).unwrap();
        std::fs::write(origin.join("README.md"), "cloned\n").unwrap();
        for words in [&["init", "-q"][..], &["add", "."], &["commit", "-q", "-m", "first"]] {
            let arguments: Vec<String> =
                identity.iter().chain(words).map(|word| (*word).to_owned()).collect();
            let output = run_client(git.clone(), home.path(), &arguments, &[]).await;
            assert!(output.status.success(), "{}", told(&output));
        }
        let program = git.clone();
        let hub = Server::start(move |got| {
            let serve = |arguments: &[&str], input: &[u8]| {
                use std::io::Write as _;
                let mut child = Command::new(&program)
                    .args(["upload-pack", "--stateless-rpc"])
                    .args(arguments)
                    .arg(&origin)
                    .env("GIT_PROTOCOL", got.header("git-protocol").unwrap_or_default())
                    .stdin(Stdio::piped())
                    .stdout(Stdio::piped())
                    .spawn()
                    .unwrap();
                child.stdin.take().unwrap().write_all(input).unwrap();
                child.wait_with_output().unwrap().stdout
            };
            match got.path() {
                "/org/m/info/refs?service=git-upload-pack" => {
                    let mut refs = b"001e# service=git-upload-pack\n0000".to_vec();
                    refs.extend(serve(&["--advertise-refs"], b""));
                    answer(200, "content-type: application/x-git-upload-pack-advertisement\r\n", refs)
                }
                "/org/m/git-upload-pack" => answer(
                    200,
                    "content-type: application/x-git-upload-pack-result\r\n",
                    serve(&[], &got.body),
                ),
                _ => answer(404, "", ""),
            }
        })
        .await;
        let mirrors = vec![("https://huggingface.co", hub.url())];
        let world = World::start(Parts { mirrors, ..Parts::default() }).await;
        let url = format!("http://127.0.0.1:{}/org/m", world.hub);
        let output = run_client(git, home.path(), &strings(["clone", "-q", &url, "copy"]), &[]).await;
        assert!(output.status.success(), "{}", told(&output));
        assert_eq!(std::fs::read_to_string(home.path().join("copy/README.md")).unwrap(), "cloned\n");
        assert!(hub.got().iter().all(|got| got.header("authorization").is_some()), "{:?}", hub.got());
    });
}
