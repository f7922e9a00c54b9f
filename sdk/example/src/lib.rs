//! Drafts a data set card from a CSV or TSV file of the workspace.

use ml_intern_sdk::{Call, Deserialize, JsonSchema, Output, Tool, ToolError, plural, table};

/// Rows of the file that the card shows.
const SAMPLE: usize = 3;

#[derive(Deserialize, JsonSchema)]
struct DraftCard {
    /// CSV or TSV file with a header line.
    path: String,
    /// Name of the data set (default: the file's).
    title: Option<String>,
}

impl Tool for DraftCard {
    const NAME: &str = "draft_card";
    const DESCRIPTION: &str = "Drafts a data set card from a CSV or TSV file: columns, rows, a sample.";

    fn run(self, call: &Call) -> Result<Output, ToolError> {
        let path = call.path(&self.path);
        let text = std::fs::read_to_string(&path).map_err(|e| ToolError::not_found(format!("{}: {e}", self.path)))?;
        let title = self.title.unwrap_or_else(|| self.path.clone());
        Ok(Output::text(card(&title, &text, if self.path.ends_with(".tsv") { '\t' } else { ',' })))
    }
}

fn card(title: &str, text: &str, separator: char) -> String {
    let mut lines = text.lines();
    let header: Vec<&str> = lines.next().unwrap_or_default().split(separator).collect();
    let rows: Vec<Vec<String>> = lines.map(|line| line.split(separator).map(str::to_owned).collect()).collect();
    let sample = table(&header, &rows[..rows.len().min(SAMPLE)]);
    format!("# {title}\n\n{}, {}.\n\n{sample}", plural(rows.len(), "row"), plural(header.len(), "column"))
}

ml_intern_sdk::export!(DraftCard);

#[cfg(test)]
mod tests {
    use super::card;

    #[test]
    fn a_card_has_the_columns_and_a_sample() {
        let card = card("pets", "name,kind\nRex,dog\nTom,cat\n", ',');
        assert_eq!(card, "# pets\n\n2 rows, 2 columns.\n\n| name | kind |\n| --- | --- |\n| Rex | dog |\n| Tom | cat |\n");
    }
}
