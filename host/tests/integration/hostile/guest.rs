//! Components written by hand, so that each part of the binary interface can be hostile.

use std::path::Path;

use serde_json::{Value, json};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// What a guest answers unless it says otherwise, and where its parts lie in its memory.
const DESCRIBED: usize = 1_024;
const ANSWER: usize = 4_096;
const BLOCK: usize = 4_200;
const TEXT: usize = 4_400;
const SPECS: usize = 8_192;

/// A plugin in the text form of WebAssembly. Every field that is code may loop, trap or lie.
pub(crate) struct Guest {
    pub(crate) id: String,
    pub(crate) tools: Vec<String>,
    pub(crate) capabilities: Value,
    /// Imports of the core module: before all else.
    pub(crate) imports: String,
    /// Memories, tables, functions and the start.
    pub(crate) parts: String,
    /// Pages of memory at the beginning, and at most.
    pub(crate) memory: String,
    pub(crate) realloc: String,
    pub(crate) describe: String,
    pub(crate) described: String,
    /// May use `$name`, the address of the tool's name, and leaves nothing on the stack.
    pub(crate) invoke: String,
    pub(crate) invoked: String,
    /// Bytes of its memory beside those of the description.
    pub(crate) data: Vec<(usize, Vec<u8>)>,
}

impl Guest {
    pub(crate) fn new(id: &str) -> Self {
        Self {
            id: id.to_owned(),
            tools: vec!["go".to_owned()],
            capabilities: json!({}),
            imports: String::new(),
            parts: String::new(),
            memory: "4".to_owned(),
            realloc: String::new(),
            describe: String::new(),
            described: String::new(),
            invoke: String::new(),
            invoked: String::new(),
            data: Vec::new(),
        }
    }

    /// An invocation that answers the text at an address.
    pub(crate) fn answers(address: usize, length: usize) -> String {
        format!(
            "(i32.store (i32.const {}) (i32.const {address})) (i32.store (i32.const {}) (i32.const {length}))",
            BLOCK + 4,
            BLOCK + 8
        )
    }

    /// Stores one byte of the answer, counted from its beginning.
    pub(crate) fn spoils(offset: usize, value: u32) -> String {
        format!("(i32.store8 (i32.const {}) (i32.const {value}))", ANSWER + offset)
    }

    /// Stores one word of the answer's only block, counted from its beginning.
    pub(crate) fn spoils_block(offset: usize, value: u32) -> String {
        format!("(i32.store (i32.const {}) (i32.const {value}))", BLOCK + offset)
    }

    fn manifest(&self) -> Value {
        let tools: serde_json::Map<String, Value> = self
            .tools
            .iter()
            .map(|name| (name.clone(), json!({"tier": "read", "wall_time_s": 20})))
            .collect();
        json!({
            "id": self.id, "version": "1.0.0", "description": "Hostile.",
            "capabilities": self.capabilities, "tools": tools,
        })
    }

    fn module(&self) -> String {
        let Self { imports, parts, memory, realloc, describe, described, invoke, invoked, .. } = self;
        let data: String = self
            .memory_bytes()
            .iter()
            .map(|(at, bytes)| format!("(data (i32.const {at}) \"{}\")", escaped(bytes)))
            .collect();
        format!(
            r#"(module
                {imports}
                (memory (export "memory") {memory})
                (global $at (mut i32) (i32.const 131072))
                {parts}
                (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
                    {realloc}
                    (global.set $at (i32.and (i32.add (global.get $at) (i32.const 7)) (i32.const -8)))
                    (global.get $at)
                    (global.set $at (i32.add (global.get $at) (local.get 3))))
                (func (export "ml-intern:plugin/tools@0.1.0#describe") (result i32)
                    {describe} (i32.const {DESCRIBED}))
                (func (export "cabi_post_ml-intern:plugin/tools@0.1.0#describe") (param i32) {described})
                (func (export "ml-intern:plugin/tools@0.1.0#invoke")
                    (param i32 i32) (param $name i32) (param i32 i32 i32 i32 i32 i32 i32) (result i32)
                    {invoke} (i32.const {ANSWER}))
                (func (export "cabi_post_ml-intern:plugin/tools@0.1.0#invoke") (param i32) {invoked})
                {data})"#
        )
    }

    fn memory_bytes(&self) -> Vec<(usize, Vec<u8>)> {
        const SPEC: usize = 60;
        let mut strings = Vec::new();
        let mut specs = vec![0_u8; SPEC * self.tools.len()];
        let text_at = SPECS + specs.len();
        let mut put = |specs: &mut Vec<u8>, at: usize, text: &str| {
            let address = u32::try_from(text_at + strings.len()).unwrap();
            specs[at..at + 4].copy_from_slice(&address.to_le_bytes());
            specs[at + 4..at + 8].copy_from_slice(&u32::try_from(text.len()).unwrap().to_le_bytes());
            strings.extend_from_slice(text.as_bytes());
        };
        for (k, tool) in self.tools.iter().enumerate() {
            put(&mut specs, k * SPEC, tool);
            put(&mut specs, k * SPEC + 20, "Does things.");
            put(&mut specs, k * SPEC + 28, r#"{"type":"object","properties":{}}"#);
        }
        let words = |words: &[usize]| -> Vec<u8> {
            words.iter().flat_map(|word| u32::try_from(*word).unwrap().to_le_bytes()).collect()
        };
        let mut bytes = vec![
            (DESCRIBED, words(&[0, SPECS, self.tools.len()])),
            (ANSWER, words(&[0, BLOCK, 1, 0, 0, 0, 0, 0, 0, 0])),
            (BLOCK, words(&[0, TEXT, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0])),
            (TEXT, b"ok".to_vec()),
            (SPECS, specs),
            (text_at, strings),
        ];
        bytes.extend(self.data.iter().cloned());
        bytes
    }

    /// The component, with its manifest.
    pub(crate) fn component(&self) -> Vec<u8> {
        let text = self.module();
        let mut module = wat::parse_str(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
        let mut resolve = Resolve::default();
        let wit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../wit/frozen/0.1.0");
        let (package, _) = resolve.push_dir(wit).unwrap();
        let world = resolve.packages[package].worlds["plugin"];
        embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
        let component = ComponentEncoder::default().module(&module).unwrap().encode().unwrap();
        with_section(component, "ml-intern:manifest", self.manifest().to_string().as_bytes())
    }
}

fn escaped(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("\\{byte:02x}")).collect()
}

/// A component with one more custom section.
pub(crate) fn with_section(mut component: Vec<u8>, name: &str, data: &[u8]) -> Vec<u8> {
    let mut section = leb(name.len());
    section.extend_from_slice(name.as_bytes());
    section.extend_from_slice(data);
    component.push(0);
    component.extend(leb(section.len()));
    component.extend(section);
    component
}

pub(crate) fn leb(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = u8::try_from(number & 0x7f).unwrap();
        number >>= 7;
        if number == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

/// The probe with another manifest: it declares all that it imports, and the origins of the test.
pub(crate) fn probe(capabilities: &Value) -> Vec<u8> {
    probe_within(capabilities, 20)
}

/// The same, whose calls may take so many seconds.
pub(crate) fn probe_within(capabilities: &Value, wall_time_s: u32) -> Vec<u8> {
    let mut declared = json!({
        "exec": true, "files": true, "kv": true, "paths": ["workspace", "tmp", "data"],
        "network": ["http://127.0.0.1:1 GET"],
    });
    if let Some(network) = capabilities.get("network") {
        declared["network"] = network.clone();
    }
    let mut bytes = std::fs::read(guests::component("probe")).unwrap();
    let (name, other) = (b"ml-intern:manifest", b"ml-intern:manifesd");
    while let Some(at) = bytes.windows(name.len()).position(|part| part == name) {
        bytes[at..at + name.len()].copy_from_slice(other);
    }
    let tools: serde_json::Map<String, Value> = ["probe", "look", "attack"]
        .map(|tool| (tool.to_owned(), json!({"tier": "write", "wall_time_s": wall_time_s})))
        .into_iter()
        .collect();
    let manifest = json!({
        "id": "probe", "version": "1.0.0", "description": "Hostile.",
        "capabilities": declared, "tools": tools,
    });
    with_section(bytes, "ml-intern:manifest", manifest.to_string().as_bytes())
}
