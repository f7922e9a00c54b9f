//! Token counts in the shapes that providers give them; what is missing is 0.

use protocol::Usage;
use serde_json::Value;

/// A count, whatever kind of number it was written as.
pub(crate) fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_f64().filter(|n| *n >= 0.0).map(|n| n as u64))
}

/// `prompt_tokens` and `completion_tokens`, with cached ones in either of the two usual places.
pub(crate) fn of_chat(usage: &Value) -> Usage {
    let details = &usage["prompt_tokens_details"];
    let first = |candidates: &[&Value]| candidates.iter().find_map(|value| number(value)).unwrap_or(0);
    total(Usage {
        prompt_tokens: first(&[&usage["prompt_tokens"]]),
        completion_tokens: first(&[&usage["completion_tokens"]]),
        total_tokens: first(&[&usage["total_tokens"]]),
        cache_read_tokens: first(&[
            &usage["cache_read_input_tokens"],
            &details["cached_tokens"],
            &usage["prompt_cache_hit_tokens"],
        ]),
        cache_creation_tokens: first(&[
            &usage["cache_creation_input_tokens"],
            &details["cache_write_tokens"],
        ]),
    })
}

/// `input_tokens` of the Responses API, which include the cached ones.
pub(crate) fn of_responses(usage: &Value) -> Usage {
    let details = &usage["input_tokens_details"];
    let count = |value: &Value| number(value).unwrap_or(0);
    total(Usage {
        prompt_tokens: count(&usage["input_tokens"]),
        completion_tokens: count(&usage["output_tokens"]),
        total_tokens: count(&usage["total_tokens"]),
        cache_read_tokens: count(&details["cached_tokens"]),
        cache_creation_tokens: count(&details["cache_write_tokens"]),
    })
}

/// `input_tokens` of the Messages API, which leave the cached ones out. They come twice, and either time
/// may lack some.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct MessagesUsage {
    input: u64,
    output: u64,
    cache_read: u64,
    cache_creation: u64,
}

impl MessagesUsage {
    pub(crate) fn update(&mut self, usage: &Value) {
        for (field, name) in [
            (&mut self.input, "input_tokens"),
            (&mut self.output, "output_tokens"),
            (&mut self.cache_read, "cache_read_input_tokens"),
            (&mut self.cache_creation, "cache_creation_input_tokens"),
        ] {
            if let Some(count) = number(&usage[name]).filter(|count| *count > 0) {
                *field = count;
            }
        }
    }

    pub(crate) fn total(self) -> Usage {
        total(Usage {
            prompt_tokens: self.input.saturating_add(self.cache_read).saturating_add(self.cache_creation),
            completion_tokens: self.output,
            total_tokens: 0,
            cache_read_tokens: self.cache_read,
            cache_creation_tokens: self.cache_creation,
        })
    }
}

fn total(usage: Usage) -> Usage {
    let total_tokens = match usage.total_tokens {
        0 => usage.prompt_tokens.saturating_add(usage.completion_tokens),
        given => given,
    };
    Usage { total_tokens, ..usage }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn figures(usage: Usage) -> [u64; 5] {
        let Usage {
            prompt_tokens,
            completion_tokens,
            total_tokens,
            cache_read_tokens,
            cache_creation_tokens,
        } = usage;
        [prompt_tokens, completion_tokens, total_tokens, cache_read_tokens, cache_creation_tokens]
    }

    #[test]
    fn chat_counts_in_every_shape() {
        for (usage, expected) in [
            (json!({"prompt_tokens": 10, "completion_tokens": 3, "total_tokens": 13}), [10, 3, 13, 0, 0]),
            (json!({"prompt_tokens": 10, "completion_tokens": 3.0}), [10, 3, 13, 0, 0]),
            (
                json!({"prompt_tokens": 10, "prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 5}}),
                [10, 0, 10, 4, 5],
            ),
            (
                json!({"prompt_tokens": 10, "cache_read_input_tokens": 6, "cache_creation_input_tokens": 1,
                       "prompt_tokens_details": {"cached_tokens": 4}}),
                [10, 0, 10, 6, 1],
            ),
            (
                json!({"prompt_tokens": 10, "prompt_cache_hit_tokens": 8, "prompt_tokens_details": null}),
                [10, 0, 10, 8, 0],
            ),
            (json!({}), [0; 5]),
        ] {
            assert_eq!(figures(of_chat(&usage)), expected, "{usage}");
        }
    }

    #[test]
    fn cached_tokens_of_messages_are_part_of_the_prompt() {
        let mut usage = MessagesUsage::default();
        usage.update(
            &json!({"input_tokens": 5, "cache_read_input_tokens": 100, "cache_creation_input_tokens": 20,
                             "output_tokens": 1}),
        );
        usage.update(&json!({"output_tokens": 30, "input_tokens": 0}));
        assert_eq!(figures(usage.total()), [125, 30, 155, 100, 20]);
    }

    #[test]
    fn responses_counts() {
        let usage =
            json!({"input_tokens": 9, "output_tokens": 2, "input_tokens_details": {"cached_tokens": 7}});
        assert_eq!(figures(of_responses(&usage)), [9, 2, 11, 7, 0]);
    }
}
