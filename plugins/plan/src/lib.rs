//! The tool `plan_tool`.

use schemars::JsonSchema;
use sdk::{Call, Output, Tool, ToolError};
use serde::{Deserialize, Serialize};

/// Arguments of `plan_tool`.
#[derive(Deserialize, JsonSchema)]
struct Plan {
    /// The whole plan, every time.
    todos: Vec<Todo>,
}

#[derive(Deserialize, JsonSchema, Serialize)]
struct Todo {
    /// Short and stable, such as "1".
    id: String,
    content: String,
    status: Status,
}

#[derive(Clone, Copy, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Status {
    Pending,
    InProgress,
    Completed,
}

impl Tool for Plan {
    const NAME: &'static str = "plan_tool";
    const DESCRIPTION: &'static str = "Keeps the plan of work with three or more steps. Send the whole list every time; exactly \
        one item is in_progress; an item is completed only when it fully succeeded. Update it as soon as a step is done.";

    fn run(self, _: &Call) -> Result<Output, ToolError> {
        let structured = serde_json::json!({ "plan": self.todos });
        Ok(Output::text(render(&self.todos)).with_structured(structured))
    }
}

fn render(todos: &[Todo]) -> String {
    if todos.is_empty() {
        return "Plan is empty.".to_owned();
    }
    let mut out = "Plan updated:\n\n".to_owned();
    for (status, mark) in [(Status::Completed, "[x]"), (Status::InProgress, "[~]"), (Status::Pending, "[ ]")]
    {
        for todo in todos.iter().filter(|todo| todo.status == status) {
            out.push_str(&format!("  {mark} {}. {}\n", todo.id, todo.content));
        }
    }
    let done = todos.iter().filter(|todo| todo.status == Status::Completed).count();
    out + &format!("\n{done}/{} done", todos.len())
}

sdk::export!(Plan);

#[cfg(test)]
mod tests {
    use super::*;

    fn todo(id: &str, content: &str, status: Status) -> Todo {
        Todo { id: id.to_owned(), content: content.to_owned(), status }
    }

    #[test]
    fn the_plan_is_listed_by_status() {
        let todos = [
            todo("1", "read", Status::Pending),
            todo("2", "write", Status::Completed),
            todo("3", "test", Status::InProgress),
        ];
        assert_eq!(
            render(&todos),
            "Plan updated:\n\n  [x] 2. write\n  [~] 3. test\n  [ ] 1. read\n\n1/3 done"
        );
        assert_eq!(render(&[]), "Plan is empty.");
    }
}
