use ml_intern_provider::{CompletionOptions, Effort, FinishReason};
use protocol::{Assistant, Item, ToolCall, Usage};
use serde_json::json;
use testkit::{ModelServer, Step};

use crate::support::{WIRES, ask, drain, model, plain, result, run, streaming, tool, user};

#[test]
fn a_text_comes_on_every_wire_in_pieces_and_as_a_whole() {
    run(async {
        for id in WIRES {
            for options in [streaming(), plain()] {
                let step = Step::text("grüße ☃ from afar").thinking("let me think").usage(50, 7, 30, 20);
                let server = ModelServer::start(vec![step]);
                let seen = ask(&model(&server, id), &options).await.unwrap();
                assert_eq!(seen.text, "grüße ☃ from afar", "{id}");
                assert_eq!(seen.completion.text.as_deref(), Some("grüße ☃ from afar"));
                assert_eq!(seen.completion.finish, FinishReason::Stop);
                assert_eq!(seen.deltas > 2, options.stream, "{id}: {}", seen.deltas);
                let expected = if id.starts_with("openai") && !options.stream { "" } else { "let me think" };
                assert_eq!(seen.reasoning, expected, "{id}");
                assert_eq!(
                    seen.completion.usage,
                    Usage {
                        prompt_tokens: 100,
                        completion_tokens: 7,
                        total_tokens: 107,
                        cache_read_tokens: 30,
                        cache_creation_tokens: if id.starts_with("openai") { 0 } else { 20 },
                    },
                    "{id}"
                );
                assert_eq!(server.violations(), [""; 0]);
            }
        }
    });
}

#[test]
fn calls_come_in_parallel_and_in_pieces() {
    run(async {
        for id in WIRES {
            for options in [streaming(), plain()] {
                let calls = [
                    ("bash", json!({"command": "ls -l /tmp"})),
                    ("bash", json!({"count": 2})),
                    ("bash", json!({})),
                ];
                let server = ModelServer::start(vec![Step::calls(calls).saying("I look.")]);
                let seen = ask(&model(&server, id), &options).await.unwrap();
                let arguments: Vec<_> =
                    seen.completion.tool_calls.iter().map(|call| call.arguments.as_str()).collect();
                assert_eq!(arguments, [r#"{"command":"ls -l /tmp"}"#, r#"{"count":2}"#, "{}"], "{id}");
                assert_eq!(seen.completion.text.as_deref(), Some("I look."));
                assert_eq!(seen.completion.finish, FinishReason::ToolCalls);
            }
        }
    });
}

/// Steps of a turn: every answer calls a tool once or twice, the last one is a text.
fn turn(steps: usize) -> Vec<Step> {
    let mut script: Vec<Step> = (0..steps)
        .map(|number| {
            let one = ("bash", json!({"command": format!("echo {number}")}));
            let calls =
                if number % 3 == 0 { vec![one, ("bash", json!({"count": number}))] } else { vec![one] };
            Step::calls(calls).thinking(format!("step {number}")).saying(if number % 2 == 0 {
                ""
            } else {
                "so"
            })
        })
        .collect();
    script.push(Step::text("finished"));
    script
}

#[test]
fn twenty_steps_with_thinking_break_no_rule_of_any_wire() {
    run(async {
        for id in WIRES.into_iter().chain(["messages/anything", "responses/anything", "ollama/qwen3"]) {
            for stream in [true, false] {
                let server = ModelServer::start(turn(20));
                let model = model(&server, id);
                let options =
                    CompletionOptions { stream, effort: Some(Effort::High), ..CompletionOptions::default() };
                let mut prompt = model.prompt("be brief", &[tool("bash"), tool("read")]);
                prompt.push(&user("go"));
                let mut steps = 0;
                loop {
                    let completion =
                        drain(model.complete(&prompt, &options).await.unwrap()).await.unwrap().completion;
                    let calls = completion.tool_calls.clone();
                    prompt.push(&Item::Assistant(Assistant {
                        content: completion.text,
                        tool_calls: completion.tool_calls,
                        reasoning: completion.reasoning,
                        summary: false,
                    }));
                    steps += 1;
                    for call in &calls {
                        prompt.push(&result(call.id.as_str(), "done"));
                    }
                    if calls.is_empty() {
                        break;
                    }
                }
                assert_eq!(steps, 21, "{id}");
                assert_eq!(server.violations(), [""; 0], "{id}");
            }
        }
    });
}

#[test]
fn reasoning_goes_back_as_it_came() {
    run(async {
        for (id, needle) in [
            ("chat/scripted", r#""reasoning_content":"because""#),
            (
                "anthropic/claude-opus-4-8",
                r#"{"type":"thinking","thinking":"because","signature":"c2lnbmF0dXJl0"}"#,
            ),
            ("openai/gpt-5.5", r#""encrypted_content":"ZW5jcnlwdGVk0""#),
        ] {
            let first = Step::calls([("bash", json!({}))]).thinking("because");
            let server = ModelServer::start(vec![first, Step::text("ok")]);
            let model = model(&server, id);
            let mut prompt = model.prompt("", &[tool("bash")]);
            prompt.push(&user("go"));
            let completion =
                drain(model.complete(&prompt, &streaming()).await.unwrap()).await.unwrap().completion;
            let call = completion.tool_calls[0].id.clone();
            prompt.push(&Item::Assistant(Assistant {
                tool_calls: completion.tool_calls,
                reasoning: completion.reasoning,
                ..Assistant::default()
            }));
            prompt.push(&result(call.as_str(), "done"));
            drain(model.complete(&prompt, &streaming()).await.unwrap()).await.unwrap();
            assert!(server.requests()[1].contains(needle), "{id}: {}", server.requests()[1].body());
        }
    });
}

#[test]
fn an_answer_to_a_question_keeps_no_reasoning_of_a_chat() {
    run(async {
        let server = ModelServer::start(vec![Step::text("four").thinking("two and two")]);
        let seen = ask(&model(&server, "chat/scripted"), &streaming()).await.unwrap();
        assert_eq!(seen.completion.reasoning, None);
    });
}

#[test]
fn missing_and_repeated_ids_are_replaced() {
    run(async {
        for options in [streaming(), plain()] {
            let calls = || {
                Step::calls([
                    ("bash", json!({"count": 1})),
                    ("bash", json!({"count": 2})),
                    ("bash", json!({"count": 3})),
                ])
            };
            let server = ModelServer::start(vec![
                calls().call_ids(["", "call_1", "call_1"]),
                calls().call_ids(["call_1", "", "x"]),
            ]);
            let model = model(&server, "chat/scripted");
            let mut prompt = model.prompt("", &[tool("bash")]);
            prompt.push(&user("go"));
            let mut ids = Vec::new();
            for _ in 0..2 {
                let completion =
                    drain(model.complete(&prompt, &options).await.unwrap()).await.unwrap().completion;
                let calls: Vec<ToolCall> = completion.tool_calls;
                assert_eq!(calls.len(), 3);
                prompt
                    .push(&Item::Assistant(Assistant { tool_calls: calls.clone(), ..Assistant::default() }));
                for call in calls {
                    prompt.push(&result(call.id.as_str(), "done"));
                    ids.push(call.id.to_string());
                }
            }
            let mut distinct = ids.clone();
            distinct.sort();
            distinct.dedup();
            assert_eq!(distinct.len(), 6, "{ids:?}");
            assert!(ids.contains(&"call_1".to_owned()) && ids.contains(&"x".to_owned()), "{ids:?}");
        }
    });
}

/// Streams of servers that do it their own way, and the calls that are meant.
#[test]
fn pieces_of_calls_are_joined_however_they_come() {
    let chunk = |delta: serde_json::Value| {
        format!("data: {}\n\n", json!({"choices": [{"index": 0, "delta": delta}]}))
    };
    let calls = |calls: serde_json::Value| chunk(json!({"tool_calls": calls}));
    let bash =
        |id: &str, arguments: &str| json!({"id": id, "function": {"name": "bash", "arguments": arguments}});
    let cases = [
        // Complete, without an index.
        vec![calls(json!([bash("a", "{\"count\":1}"), bash("b", "{\"count\":2}")]))],
        vec![calls(json!([bash("a", "{\"count\":1}")])), calls(json!([bash("b", "{\"count\":2}")]))],
        // Every one with index 0.
        vec![
            calls(
                json!([{"index": 0, "id": "a", "function": {"name": "bash", "arguments": "{\"count\":1}"}}]),
            ),
            calls(
                json!([{"index": 0, "id": "b", "function": {"name": "bash", "arguments": "{\"count\":2}"}}]),
            ),
        ],
        // The name with every piece, the id late.
        vec![
            calls(json!([{"index": 0, "function": {"name": "bash", "arguments": "{\"cou"}}])),
            calls(json!([{"index": 0, "id": "a", "function": {"name": "bash", "arguments": "nt\":1}"}}])),
            calls(json!([{"index": 1, "id": "b", "function": {"name": "bash"}}])),
            calls(
                json!([{"index": 1, "id": "b", "function": {"name": "bash", "arguments": "{\"count\":2}"}}]),
            ),
        ],
        // Names in pieces, interleaved, out of order.
        vec![
            calls(json!([{"index": 1, "id": "b", "function": {"name": "ba", "arguments": ""}}])),
            calls(json!([{"index": 0, "id": "a", "function": {"name": "ba"}}])),
            calls(
                json!([{"index": 0, "function": {"name": "sh", "arguments": "{\"count\":"}}, {"index": 1, "function": {"name": "sh"}}]),
            ),
            calls(
                json!([{"index": 1, "function": {"arguments": "{\"count\":2}"}}, {"index": 0, "function": {"arguments": "1}"}}]),
            ),
        ],
        // No id at all, arguments as an object.
        vec![calls(json!([
            {"function": {"name": "bash", "arguments": {"count": 1}}},
            {"function": {"name": "bash", "arguments": {"count": 2}}},
        ]))],
    ];
    run(async {
        for mut pieces in cases {
            pieces.push(
                "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"tool_calls\"}]}\n\ndata: [DONE]\n\n"
                    .to_owned(),
            );
            let script = pieces.join("");
            let server = ModelServer::start(vec![Step::raw_sse(pieces)]);
            let calls =
                ask(&model(&server, "chat/scripted"), &streaming()).await.unwrap().completion.tool_calls;
            let arguments: Vec<_> =
                calls.iter().map(|call| (call.name.as_str(), call.arguments.as_str())).collect();
            assert_eq!(arguments, [("bash", "{\"count\":1}"), ("bash", "{\"count\":2}")], "{script}");
        }
    });
}

#[test]
fn the_reason_for_the_end_is_told_in_one_language() {
    run(async {
        for id in WIRES {
            for options in [streaming(), plain()] {
                for (word, reason) in
                    [("length", FinishReason::Length), ("content_filter", FinishReason::ContentFilter)]
                {
                    let server = ModelServer::start(vec![Step::text("cut").finish(word)]);
                    let seen = ask(&model(&server, id), &options).await.unwrap();
                    assert_eq!(seen.completion.finish, reason, "{id}");
                    assert_eq!(seen.completion.finish.as_str(), word);
                }
            }
        }
    });
}

#[test]
fn missing_counts_are_zero() {
    run(async {
        for id in WIRES {
            for options in [streaming(), plain()] {
                let server = ModelServer::start(vec![Step::text("x").omit_usage()]);
                assert_eq!(
                    ask(&model(&server, id), &options).await.unwrap().completion.usage,
                    Usage::default(),
                    "{id}"
                );
            }
        }
    });
}

#[test]
fn servers_that_stream_unasked_or_do_not_when_asked_are_understood() {
    run(async {
        for id in WIRES {
            let server =
                ModelServer::start(vec![Step::calls([("bash", json!({"count": 1}))]).always_plain()]);
            let seen = ask(&model(&server, id), &streaming()).await.unwrap();
            assert_eq!(seen.completion.tool_calls[0].arguments, r#"{"count":1}"#, "{id}");
        }
        let sse = "data: {\"choices\":[{\"delta\":{\"content\":\"hi\"},\"finish_reason\":\"stop\"}]}\n\n";
        let server = ModelServer::start(vec![Step::raw_sse([sse])]);
        assert_eq!(ask(&model(&server, "chat/scripted"), &plain()).await.unwrap().text, "hi");
    });
}

#[test]
fn one_connection_serves_a_whole_turn() {
    run(async {
        for id in WIRES {
            let server = ModelServer::start(vec![Step::text("again").repeat(5)]);
            let model = model(&server, id);
            for _ in 0..5 {
                ask(&model, &streaming()).await.unwrap();
            }
            assert_eq!(server.connections(), 1, "{id}");
        }
    });
}

#[test]
fn interleaved_blocks_of_a_message_go_back_in_their_order() {
    let event = |value: serde_json::Value| format!("data: {value}\n\n");
    let start = |index: u32, block: serde_json::Value| {
        event(json!({"type": "content_block_start", "index": index, "content_block": block}))
    };
    let stream = [
        event(json!({"type": "message_start", "message": {"usage": {"input_tokens": 1}}})),
        start(0, json!({"type": "thinking", "thinking": "a", "signature": "s1"})),
        start(1, json!({"type": "text", "text": "first"})),
        start(2, json!({"type": "redacted_thinking", "data": "r"})),
        start(3, json!({"type": "text", "text": "second"})),
        start(4, json!({"type": "tool_use", "id": "t1", "name": "bash", "input": {"count": 1}})),
        event(
            json!({"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 5}}),
        ),
        event(json!({"type": "message_stop"})),
    ];
    run(async {
        let server = ModelServer::start(vec![Step::raw_sse(stream), Step::text("ok")]);
        let model = model(&server, "anthropic/claude-opus-4-8");
        let mut prompt = model.prompt("", &[tool("bash")]);
        prompt.push(&user("go"));
        let completion =
            drain(model.complete(&prompt, &streaming()).await.unwrap()).await.unwrap().completion;
        assert_eq!(completion.text.as_deref(), Some("firstsecond"));
        assert_eq!(completion.tool_calls[0].arguments, r#"{"count":1}"#);
        prompt.push(&Item::Assistant(Assistant {
            content: completion.text,
            tool_calls: completion.tool_calls,
            reasoning: completion.reasoning,
            summary: false,
        }));
        prompt.push(&result("t1", "done"));
        drain(model.complete(&prompt, &streaming()).await.unwrap()).await.unwrap();
        let content = server.requests()[1].body()["messages"][1]["content"].clone();
        let kinds: Vec<_> = content
            .as_array()
            .unwrap()
            .iter()
            .map(|block| block["type"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(kinds, ["thinking", "text", "redacted_thinking", "text", "tool_use"]);
        assert_eq!(content[3]["text"], json!("second"));
    });
}

#[test]
fn completions_can_be_waited_for_on_any_thread() {
    fn sendable<T: Send>(value: T) -> T {
        value
    }
    run(async {
        let server = ModelServer::start(vec![Step::text("hi")]);
        let model = sendable(model(&server, "chat/scripted"));
        let prompt = sendable(model.prompt("", &[]));
        let options = streaming();
        let mut stream = sendable(sendable(model.complete(&prompt, &options)).await.unwrap());
        assert!(sendable(stream.next()).await.unwrap().is_some());
        assert!(sendable(model.served_window()).await.is_none());
    });
}
