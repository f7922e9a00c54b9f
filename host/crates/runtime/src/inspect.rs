//! What a component says about itself before any of its code has run.

use egress::NetworkGrant;
use manifest::{Capabilities, Manifest, ManifestError};
use sha2::{Digest, Sha256};
use wasmparser::{Encoding, Parser, Payload};

use crate::PluginError;
use crate::limits::{MAX_COMPONENT_BYTES, MAX_DESCRIPTION_BYTES};

/// WASI 0.2 packages that every guest of a standard library imports.
const WASI: [&str; 6] =
    ["wasi:cli/", "wasi:clocks/", "wasi:filesystem/", "wasi:io/", "wasi:random/", "wasi:sockets/"];

const OURS: &str = "ml-intern:plugin/";

/// A component that was read but not run.
#[derive(Clone, Debug)]
pub struct Inspection {
    pub manifest: Manifest,
    /// Names of its imports, as they stand in the file.
    pub imports: Vec<String>,
    /// SHA-256 of the file, in lower-case hex.
    pub digest: String,
}

/// The SHA-256 of some bytes, in lower-case hex.
pub(crate) fn digest(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        for nibble in [byte >> 4, byte & 15] {
            out.push(char::from_digit(u32::from(nibble), 16).unwrap_or('0'));
        }
        out
    })
}

/// Reads a component's manifest and imports, and checks that this host can load it.
///
/// # Errors
/// When the bytes are no component, have no valid manifest, were built for another interface version, or
/// import what is not declared or not offered. `what` names the file in the message.
pub fn inspect(what: &str, bytes: &[u8]) -> Result<Inspection, PluginError> {
    let what = || what.to_owned();
    if bytes.len() as u64 > MAX_COMPONENT_BYTES {
        return Err(PluginError::TooLarge { what: what(), size: bytes.len() as u64 });
    }
    let sections = sections(bytes).map_err(|reason| {
        // The parser shows the bytes it met, one a line.
        let reason = reason.lines().next().unwrap_or_default().trim_end_matches(" - expected=[").to_owned();
        PluginError::NotComponent { what: what(), reason }
    })?;
    check_abi(&what(), &sections)?;
    let manifest = sections.manifest.ok_or_else(|| PluginError::NoManifest { what: what() })?;
    let manifest =
        Manifest::from_json(&manifest).map_err(|source| PluginError::Manifest { what: what(), source })?;
    for rule in &manifest.capabilities.network {
        NetworkGrant::parse(rule).map_err(|e| PluginError::Manifest {
            what: what(),
            source: ManifestError::Network(e.to_string()),
        })?;
    }
    for import in &sections.imports {
        check_import(&what(), import, &manifest.capabilities)?;
    }
    Ok(Inspection { manifest, imports: sections.imports, digest: digest(bytes) })
}

#[derive(Default)]
struct Sections {
    manifest: Option<Vec<u8>>,
    imports: Vec<String>,
    exports: Vec<String>,
}

/// Walks the file. The manifest may lie in the core module inside: a linker section survives there.
fn sections(bytes: &[u8]) -> Result<Sections, String> {
    let mut found = Sections::default();
    let mut depth = 0_usize;
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.map_err(|e| e.message().to_owned())? {
            Payload::Version { encoding: Encoding::Module, .. } if depth == 0 => {
                return Err("it is a core module".to_owned());
            }
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::CustomSection(section) if section.name() == manifest::SECTION => {
                if found.manifest.as_deref().is_some_and(|first| first != section.data()) {
                    return Err("it has two manifests that differ".to_owned());
                }
                if section.data().len() > MAX_DESCRIPTION_BYTES {
                    return Err(format!("its manifest is larger than {MAX_DESCRIPTION_BYTES} bytes"));
                }
                found.manifest = Some(section.data().to_vec());
            }
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section {
                    found.imports.push(import.map_err(|e| e.message().to_owned())?.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                for export in section {
                    found.exports.push(export.map_err(|e| e.message().to_owned())?.name.name.to_owned());
                }
            }
            _ => {}
        }
    }
    Ok(found)
}

fn check_abi(what: &str, sections: &Sections) -> Result<(), PluginError> {
    for name in sections.imports.iter().chain(&sections.exports) {
        let Some((_, version)) = name.strip_prefix(OURS).and_then(|rest| rest.split_once('@')) else {
            continue;
        };
        let numbers: Vec<Option<u64>> = version.split('.').map(|n| n.parse().ok()).collect();
        if let [Some(0), Some(1), Some(_)] = numbers[..] {
            continue;
        }
        let newer =
            numbers.first().copied().flatten() > Some(0) || numbers.get(1).copied().flatten() > Some(1);
        let remedy = if newer { "update ml-intern" } else { "build it again with the SDK of this version" };
        return Err(PluginError::Abi {
            what: what.to_owned(),
            found: version.to_owned(),
            remedy: remedy.to_owned(),
        });
    }
    if sections.exports.iter().any(|name| name.starts_with("ml-intern:plugin/tools@")) {
        return Ok(());
    }
    Err(PluginError::NoTools { what: what.to_owned() })
}

fn check_import(what: &str, import: &str, declared: &Capabilities) -> Result<(), PluginError> {
    if WASI.iter().any(|package| import.starts_with(package)) {
        return Ok(());
    }
    let interface = import.strip_prefix(OURS).and_then(|rest| rest.split('@').next());
    let (is_declared, declare) = match interface {
        Some("types" | "log") => return Ok(()),
        Some("files") => (declared.files, "`files = true` under [capabilities]"),
        Some("exec") => (declared.exec, "`exec = true` under [capabilities]"),
        Some("kv") => (declared.kv, "`kv = true` under [capabilities]"),
        Some("http") => {
            (!declared.network.is_empty(), "`network = [\"https://HOST GET\"]` under [capabilities]")
        }
        _ => {
            return Err(PluginError::ForeignImport { what: what.to_owned(), import: import.to_owned() });
        }
    };
    if is_declared {
        return Ok(());
    }
    Err(PluginError::Undeclared {
        what: what.to_owned(),
        import: import.to_owned(),
        declare: declare.to_owned(),
    })
}
