//! What a component may have, counted before any of it is compiled: a file of a few kilobytes can take a
//! compiler minutes and gigabytes.

use wasmparser::{FunctionBody, Operator, Parser, Payload};

use crate::PluginError;
use crate::limits::{Limits, MAX_TABLE_ELEMENTS};

/// Core modules and components inside. Python with its extension modules has some dozens.
const MAX_PARTS: usize = 200;

/// Functions of all modules; an engine for JavaScript has thirty thousand.
const MAX_FUNCTIONS: usize = 200_000;

/// Types, imports and exports, each of all modules.
const MAX_NAMES: usize = 100_000;

/// Bytes of one function. The interpreter loop of Python has two hundred thousand.
const MAX_BODY_BYTES: usize = 1 << 20;

/// Variables of one function. The time to allocate registers grows faster than they do.
const MAX_LOCALS: u64 = 10_000;

/// Blocks inside each other: one per case of the largest `match`.
const MAX_NESTING: usize = 4_000;

const PAGE_BYTES: u64 = 64 << 10;

/// Refuses a component with more of anything than an honest one has.
pub(crate) fn check(what: &str, bytes: &[u8]) -> Result<(), PluginError> {
    count(bytes).map_err(|reason| PluginError::Oversized { what: what.to_owned(), reason })
}

#[derive(Default)]
struct Counted {
    parts: usize,
    functions: usize,
    types: usize,
    imports: usize,
    exports: usize,
    memory_pages: u64,
    table_elements: u64,
}

fn count(bytes: &[u8]) -> Result<(), String> {
    let mut counted = Counted::default();
    let broken = |e: wasmparser::BinaryReaderError| e.message().to_owned();
    for payload in Parser::new(0).parse_all(bytes) {
        counted.take(payload.map_err(broken)?)?;
    }
    Ok(())
}

impl Counted {
    fn take(&mut self, payload: Payload<'_>) -> Result<(), String> {
        let broken = |e: wasmparser::BinaryReaderError| e.message().to_owned();
        match payload {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => {
                at_most(&mut self.parts, 1, MAX_PARTS, "modules and components inside")?;
            }
            Payload::TypeSection(section) => {
                at_most(&mut self.types, section.count() as usize, MAX_NAMES, "types")?;
            }
            Payload::ComponentTypeSection(section) => {
                at_most(&mut self.types, section.count() as usize, MAX_NAMES, "types")?;
            }
            Payload::ImportSection(section) => {
                at_most(&mut self.imports, section.count() as usize, MAX_NAMES, "imports")?;
            }
            Payload::ComponentImportSection(section) => {
                at_most(&mut self.imports, section.count() as usize, MAX_NAMES, "imports")?;
            }
            Payload::ExportSection(section) => {
                at_most(&mut self.exports, section.count() as usize, MAX_NAMES, "exports")?;
            }
            Payload::ComponentExportSection(section) => {
                at_most(&mut self.exports, section.count() as usize, MAX_NAMES, "exports")?;
            }
            Payload::FunctionSection(section) => {
                at_most(&mut self.functions, section.count() as usize, MAX_FUNCTIONS, "functions")?;
            }
            Payload::MemorySection(section) => {
                for memory in section {
                    self.memory_pages = self.memory_pages.saturating_add(memory.map_err(broken)?.initial);
                }
                let limit = Limits::default().memory_bytes as u64;
                if self.memory_pages.saturating_mul(PAGE_BYTES) > limit {
                    return Err(format!("its memories begin with more than {} MiB", limit >> 20));
                }
            }
            Payload::TableSection(section) => {
                for table in section {
                    let initial = table.map_err(broken)?.ty.initial;
                    self.table_elements = self.table_elements.saturating_add(initial);
                }
                if self.table_elements > MAX_TABLE_ELEMENTS as u64 {
                    return Err(format!("its tables begin with more than {MAX_TABLE_ELEMENTS} elements"));
                }
            }
            Payload::CodeSectionEntry(body) => check_function(&body)
                .map_err(|reason| format!("its function at byte {} {reason}", body.range().start))?,
            _ => {}
        }
        Ok(())
    }
}

fn at_most(sum: &mut usize, more: usize, limit: usize, name: &str) -> Result<(), String> {
    *sum = sum.saturating_add(more);
    if *sum > limit { Err(format!("it has more than {limit} {name}")) } else { Ok(()) }
}

fn check_function(body: &FunctionBody<'_>) -> Result<(), String> {
    let broken = |e: wasmparser::BinaryReaderError| format!("cannot be read: {}", e.message());
    let range = body.range();
    if range.len() > MAX_BODY_BYTES {
        return Err(format!("is larger than {} KiB", MAX_BODY_BYTES >> 10));
    }
    let mut locals = 0_u64;
    for group in body.get_locals_reader().map_err(broken)? {
        locals = locals.saturating_add(group.map_err(broken)?.0.into());
    }
    if locals > MAX_LOCALS {
        return Err(format!("has more than {MAX_LOCALS} variables"));
    }
    let mut depth = 0_usize;
    let mut operators = body.get_operators_reader().map_err(broken)?;
    while !operators.eof() {
        match operators.read().map_err(broken)? {
            Operator::Block { .. }
            | Operator::Loop { .. }
            | Operator::If { .. }
            | Operator::TryTable { .. } => {
                depth += 1;
            }
            Operator::End => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_NESTING {
            return Err(format!("has more than {MAX_NESTING} blocks inside each other"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use testkit::wasm::{component, function, functions, module, repeated, section};

    use super::*;

    const NOP: u8 = 0x01;
    const BLOCK: [u8; 2] = [0x02, 0x40];
    const END: u8 = 0x0b;

    fn refusal(module: Vec<u8>) -> String {
        count(&component(&[module])).unwrap_err()
    }

    #[test]
    fn what_an_honest_component_does_not_have_is_refused_uncompiled() {
        let one = |locals, code: &[u8]| functions(1, &function(locals, code));
        assert!(refusal(one(40_000, &[])).contains("has more than 10000 variables"));
        let nested = [BLOCK.repeat(5_000), vec![END; 5_000]].concat();
        assert!(refusal(one(0, &nested)).contains("4000 blocks inside each other"));
        assert!(refusal(one(0, &[NOP; 2 << 20])).contains("larger than 1024 KiB"));
        assert!(refusal(functions(200_001, &function(0, &[]))).contains("more than 200000 functions"));
        // Memories without a maximum that begin with 4097 and with 200 pages, tables with ten million elements.
        assert!(refusal(module(&[section(5, &[1, 0, 0x81, 0x20])])).contains("more than 256 MiB"));
        assert!(refusal(module(&[repeated(5, 30, &[0, 0xc8, 0x01])])).contains("more than 256 MiB"));
        let table = [1, 0x70, 0, 0x80, 0xad, 0xe2, 0x04];
        assert!(refusal(module(&[section(4, &table)])).contains("more than 100000 elements"));
        let types = repeated(1, 100_001, &[0x60, 0, 0]);
        assert!(refusal(module(&[types])).contains("more than 100000 types"));
        let modules = count(&component(&vec![module(&[]); 201])).unwrap_err();
        assert!(modules.contains("more than 200 modules"));
    }

    #[test]
    fn our_own_plugins_pass() {
        for name in guests::SHIPPED {
            let bytes = std::fs::read(guests::component(name)).unwrap();
            assert_eq!(count(&bytes), Ok(()), "{name}");
        }
    }
}
