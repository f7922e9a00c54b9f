use ml_intern_provider::{CompletionOptions, FinishReason, ProviderError};
use serde_json::json;
use testkit::{ModelServer, Step};

use crate::support::{ask, model, plain, run, streaming};

const HERMES: &str =
    "Let me see.\n<tool_call>\n{\"name\": \"bash\", \"arguments\": {\"command\": \"ls\"}}\n</tool_call>";

#[test]
fn a_call_in_the_text_of_a_local_model_is_a_call() {
    run(async {
        for id in ["llamacpp/m", "vllm/m", "chat/m"] {
            for options in [streaming(), plain()] {
                let server = ModelServer::start(vec![Step::text(HERMES).piece_chars(3)]);
                let seen = ask(&model(&server, id), &options).await.unwrap();
                assert_eq!(seen.text, "Let me see.\n", "{id}");
                assert_eq!(seen.completion.finish, FinishReason::ToolCalls);
                let call = &seen.completion.tool_calls[0];
                assert_eq!(
                    (call.id.as_str(), call.name.as_str(), call.arguments.as_str()),
                    ("call_1", "bash", r#"{"command":"ls"}"#)
                );
            }
        }
    });
}

#[test]
fn vendors_and_answers_with_proper_calls_are_left_alone() {
    run(async {
        let server = ModelServer::start(vec![Step::text(HERMES)]);
        let seen = ask(&model(&server, "openai/gpt-5.5"), &streaming()).await.unwrap();
        assert_eq!((seen.text.as_str(), seen.completion.tool_calls.len()), (HERMES, 0));
        let server = ModelServer::start(vec![Step::calls([("bash", json!({}))]).saying(HERMES)]);
        let seen = ask(&model(&server, "ollama/m"), &streaming()).await.unwrap();
        assert_eq!((seen.text.as_str(), seen.completion.tool_calls.len()), (HERMES, 1));
        let server = ModelServer::start(vec![Step::text(HERMES)]);
        let no_tools = CompletionOptions { tools: false, ..streaming() };
        let seen = ask(&model(&server, "ollama/m"), &no_tools).await.unwrap();
        assert_eq!((seen.text.as_str(), seen.completion.tool_calls.len()), (HERMES, 0));
    });
}

#[test]
fn reasoning_in_the_text_is_reasoning() {
    run(async {
        for options in [streaming(), plain()] {
            let server = ModelServer::start(vec![Step::text("<think>\nhm\n</think>\n\nfour").piece_chars(2)]);
            let seen = ask(&model(&server, "ollama/m"), &options).await.unwrap();
            assert_eq!((seen.text.as_str(), seen.reasoning.trim()), ("four", "hm"));
            assert_eq!(seen.completion.text.as_deref(), Some("four"));
        }
    });
}

#[test]
fn a_model_that_cannot_call_tools_is_named_with_a_remedy() {
    run(async {
        for (id, step, remedy) in [
            ("llamacpp/tiny", Step::text("<tool_call>{oops}</tool_call>"), "--jinja"),
            (
                "vllm/m",
                Step::text("<tool_call>{\"name\":\"fly\",\"arguments\":{}}</tool_call>"),
                "--tool-call-parser",
            ),
            ("ollama/gemma", Step::error(400, r#"{"error":"gemma does not support tools"}"#), "ollama show"),
            (
                "llamacpp/m",
                Step::error(500, r#"{"error":{"message":"tools param requires --jinja flag"}}"#),
                "--jinja",
            ),
        ] {
            let server = ModelServer::start(vec![step]);
            let error = ask(&model(&server, id), &streaming()).await.unwrap_err();
            assert!(matches!(error, ProviderError::Unfit { .. }), "{id}: {error}");
            let message = error.user_message();
            assert!(message.contains(id) && message.contains(remedy), "{message}");
        }
    });
}

#[test]
fn a_call_that_the_limit_cut_off_is_not_the_models_fault() {
    run(async {
        let text = "<tool_call>{\"name\":\"bash\",\"arguments\":{\"command\":\"echo ";
        let server = ModelServer::start(vec![Step::text(text).finish("length")]);
        let completion = ask(&model(&server, "llamacpp/m"), &streaming()).await.unwrap().completion;
        assert_eq!(completion.finish, FinishReason::Length);
        assert_eq!(completion.tool_calls[0].name, "bash");
    });
}
