use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Characters of a command line that are told.
const MAX_CHARS: usize = 160;

/// The commands of a session: those that run, and the last one that did, which may have left something running.
#[derive(Debug, Default)]
pub struct CommandList(Mutex<List>);

#[derive(Debug, Default)]
struct List {
    next: u64,
    running: Vec<(u64, String)>,
    last: Option<String>,
    has_fetched: bool,
}

impl CommandList {
    /// The newest that runs, or else the last that did; on one line.
    #[must_use]
    pub fn newest(&self) -> Option<String> {
        let list = self.list();
        list.running.last().map(|(_, line)| line.clone()).or_else(|| list.last.clone())
    }

    /// Notes that one of them gets something from outside this machine.
    pub fn fetches(&self) {
        self.list().has_fetched = true;
    }

    /// Whether one of them got something from outside this machine.
    #[must_use]
    pub fn has_fetched(&self) -> bool {
        self.list().has_fetched
    }

    /// A command runs until what this gives is dropped.
    pub(crate) fn begin(self: &Arc<Self>, program: &str, args: &[String]) -> Listed {
        // Of a shell's line the script says most.
        let line = match args {
            [flag, script] if flag == "-c" => script.clone(),
            _ => {
                std::iter::once(program).chain(args.iter().map(String::as_str)).collect::<Vec<_>>().join(" ")
            }
        };
        let line: String =
            line.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(MAX_CHARS).collect();
        let mut list = self.list();
        list.next += 1;
        let id = list.next;
        list.running.push((id, line));
        Listed { list: Arc::clone(self), id }
    }

    fn list(&self) -> MutexGuard<'_, List> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A command's place in the list.
pub(crate) struct Listed {
    list: Arc<CommandList>,
    id: u64,
}

impl Drop for Listed {
    fn drop(&mut self) {
        let mut list = self.list.list();
        if let Some(at) = list.running.iter().position(|(id, _)| *id == self.id) {
            list.last = Some(list.running.remove(at).1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_is_told_and_after_it_the_last() {
        let list = Arc::new(CommandList::default());
        assert_eq!(list.newest(), None);
        let args = |args: &[&str]| args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>();
        let first = list.begin("bash", &args(&["-c", "pip install\n  numpy"]));
        let second = list.begin("uv", &args(&["lock", "--check"]));
        assert_eq!(list.newest().as_deref(), Some("uv lock --check"));
        drop(second);
        assert_eq!(list.newest().as_deref(), Some("pip install numpy"));
        drop(first);
        assert_eq!(list.newest().as_deref(), Some("pip install numpy"));
    }
}
