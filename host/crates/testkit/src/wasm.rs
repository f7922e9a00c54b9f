//! Components made byte by byte: what no compiler would write, for the checks that refuse it.

/// A number in seven bits a byte.
#[must_use]
pub fn number(mut n: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = (n & 0x7f) as u8;
        n >>= 7;
        if n == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

/// A section of a module or a component.
#[must_use]
pub fn section(id: u8, body: &[u8]) -> Vec<u8> {
    [&[id], number(body.len()).as_slice(), body].concat()
}

/// A section that has the same entry many times.
#[must_use]
pub fn repeated(id: u8, count: usize, entry: &[u8]) -> Vec<u8> {
    section(id, &[number(count), entry.repeat(count)].concat())
}

/// A function without arguments that has variables of 64 bits and some code.
#[must_use]
pub fn function(locals: usize, code: &[u8]) -> Vec<u8> {
    let body = [&[1], number(locals).as_slice(), &[0x7e], code, &[0x0b]].concat();
    [number(body.len()), body].concat()
}

/// A core module with the same function many times.
#[must_use]
pub fn functions(count: usize, function: &[u8]) -> Vec<u8> {
    module(&[section(1, &[1, 0x60, 0, 0]), repeated(3, count, &[0]), repeated(10, count, function)])
}

/// A core module.
#[must_use]
pub fn module(sections: &[Vec<u8>]) -> Vec<u8> {
    [b"\0asm\x01\0\0\0".as_slice(), &sections.concat()].concat()
}

/// A component that holds core modules and uses none.
#[must_use]
pub fn component(modules: &[Vec<u8>]) -> Vec<u8> {
    let modules: Vec<Vec<u8>> = modules.iter().map(|module| section(1, module)).collect();
    [b"\0asm\x0d\0\x01\0".as_slice(), &modules.concat()].concat()
}

/// A component that passes for a plugin until it is compiled or described.
#[must_use]
pub fn plugin(manifest: &str, modules: &[Vec<u8>]) -> Vec<u8> {
    let named = |name: &str| [number(name.len()), name.as_bytes().to_vec()].concat();
    let none = section(5, &[1, 1, 0]);
    let tools = [&[1, 0], named("ml-intern:plugin/tools@0.1.0").as_slice(), &[5, 0, 0]].concat();
    let manifest = [named("ml-intern:manifest"), manifest.as_bytes().to_vec()].concat();
    [component(modules), none, section(11, &tools), section(0, &manifest)].concat()
}
