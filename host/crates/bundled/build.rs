//! Compiles the shipped plugins to machine code for the target's baseline processor and describes them.
#![allow(clippy::disallowed_methods, reason = "cargo speaks to build scripts through the environment")]

use std::error::Error;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

use flate2::Compression;
use flate2::write::ZlibEncoder;
use runtime::{Target, compile_for};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if let Err(error) = embed().await {
        println!("cargo::error=the plugins cannot be embedded: {error}");
    }
}

async fn embed() -> Result<(), Box<dyn Error>> {
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("no OUT_DIR")?);
    let target = env::var("TARGET")?;
    let mut code = "/// The shipped plugins, in the order their tools are offered.\npub static PLUGINS: &[Bundled] = &[\n".to_owned();
    for name in guests::SHIPPED {
        let path = guests::component(name);
        println!("cargo::rerun-if-changed={}", path.display());
        let bytes = fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        let compiled = compile_for(Target::Baseline(&target), name, &bytes).await?;
        let mut compressed = ZlibEncoder::new(Vec::new(), Compression::best());
        compressed.write_all(&bytes)?;
        write(&out, name, "component", &compressed.finish()?)?;
        write(&out, name, "code", &compiled.code)?;
        write(&out, name, "json", &serde_json::to_vec(&compiled.described)?)?;
        writeln!(
            code,
            "    Bundled {{\n        id: {id:?},\n        component: include_bytes!(concat!(env!(\"OUT_DIR\"), \"/{name}.component\")),\n        \
             code: include_bytes!(concat!(env!(\"OUT_DIR\"), \"/{name}.code\")),\n        \
             described: include_str!(concat!(env!(\"OUT_DIR\"), \"/{name}.json\")),\n    }},",
            id = compiled.described.manifest.id,
        )?;
    }
    code.push_str("];\n");
    fs::write(out.join("bundled.rs"), code)?;
    Ok(())
}

fn write(out: &Path, name: &str, kind: &str, bytes: &[u8]) -> Result<(), String> {
    let path = out.join(format!("{name}.{kind}"));
    fs::write(&path, bytes).map_err(|e| format!("{}: {e}", path.display()))
}
