use std::net::TcpListener;
use std::time::Duration;

use ml_intern_provider::{Delta, ProviderError, retry_wait};
use testkit::{Gate, ModelServer, Step};

use crate::support::{WIRES, ask, model, model_at, plain, run, streaming, tool, user};

#[test]
fn a_refusal_is_an_error_with_the_servers_words() {
    run(async {
        for id in WIRES {
            for options in [streaming(), plain()] {
                let body = r#"{"error":{"type":"rate_limit_error","message":"slow down, vendor-secret custom-secret"}}"#;
                let server = ModelServer::start(vec![Step::error(429, body).header("retry-after", "7")]);
                let error = ask(&model(&server, id), &options).await.unwrap_err();
                assert!(matches!(error, ProviderError::RateLimited { .. }), "{id}: {error}");
                assert_eq!(retry_wait(&error, 1), Some(Duration::from_secs(7)));
                assert_eq!(error.status(), Some(429));
                assert_eq!(error.complaint().origin, server.url());
                let message = &error.complaint().message;
                assert!(message.starts_with("slow down") && message.contains("[key]"), "{message}");
            }
        }
    });
}

#[test]
fn a_stream_that_breaks_off_is_an_error_after_the_text_it_gave() {
    run(async {
        for id in WIRES {
            for step in [
                Step::text("a long text that breaks off").cut_after(2),
                Step::text("a long text").omit_done(),
            ] {
                let server = ModelServer::start(vec![step]);
                let model = model(&server, id);
                let mut prompt = model.prompt("", &[]);
                prompt.push(&user("hello"));
                let mut stream = model.complete(&prompt, &streaming()).await.unwrap();
                let mut text = String::new();
                let error = loop {
                    match stream.next().await {
                        Ok(Some(Delta::Text(piece))) => text.push_str(&piece),
                        Ok(other) => panic!("{id}: {other:?}"),
                        Err(error) => break error,
                    }
                };
                assert!(text.starts_with("a long t"), "{id}: {text}");
                assert_eq!(stream.partial_text(), text);
                let broken =
                    matches!(error, ProviderError::Transient { .. } | ProviderError::Truncated { .. });
                assert!(broken, "{id}: {error}");
                assert_eq!(stream.next().await, Ok(None));
            }
        }
    });
}

#[test]
fn an_end_mark_is_not_needed_where_the_reason_was_told() {
    run(async {
        let chat = "data: {\"choices\":[{\"delta\":{\"content\":\"x\"},\"finish_reason\":\"stop\"}]}\n\n";
        let server = ModelServer::start(vec![Step::raw_sse([chat])]);
        assert_eq!(ask(&model(&server, "chat/m"), &streaming()).await.unwrap().text, "x");
    });
}

#[test]
fn a_connection_that_closes_without_an_answer_may_be_tried_again() {
    run(async {
        let server = ModelServer::start(vec![Step::hang_up().repeat(9)]);
        let error = ask(&model(&server, "chat/m"), &streaming()).await.unwrap_err();
        assert!(matches!(error, ProviderError::Transient { .. }), "{error}");
        assert_eq!(retry_wait(&error, 1), Some(Duration::from_secs(5)));
    });
}

#[test]
fn an_error_inside_of_a_stream_is_told_by_its_words() {
    run(async {
        for id in WIRES {
            let overloaded = r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#;
            let server =
                ModelServer::start(vec![Step::text("a long enough text").stream_error(1, overloaded)]);
            let error = ask(&model(&server, id), &streaming()).await.unwrap_err();
            assert!(matches!(error, ProviderError::Overloaded { .. }), "{id}: {error}");
        }
        let failed = r#"{"type":"response.failed","response":{"status":"failed","error":{"code":"server_error","message":"oops"}}}"#;
        let server =
            ModelServer::start(vec![Step::raw_sse([format!("event: response.failed\ndata: {failed}\n\n")])]);
        let error = ask(&model(&server, "openai/gpt-5.5"), &streaming()).await.unwrap_err();
        assert!(matches!(error, ProviderError::Transient { .. }), "{error}");
        let server =
            ModelServer::start(vec![Step::error(200, r#"{"error":{"message":"prompt is too long"}}"#)]);
        let error = ask(&model(&server, "chat/m"), &plain()).await.unwrap_err();
        assert!(error.is_overflow(), "{error}");
    });
}

#[test]
fn one_bad_event_is_skipped_and_nothing_but_bad_ones_is_an_error() {
    run(async {
        let good = "data: {\"choices\":[{\"delta\":{\"content\":\"hi\"},\"finish_reason\":\"stop\"}]}\n\n";
        let pieces: [&[u8]; 4] =
            [b"data: {\"choices\": [\n\n", b"data: \xff\xff\n\n", good.as_bytes(), b"data: [DONE]\n\n"];
        let server = ModelServer::start(vec![Step::raw_sse(pieces)]);
        assert_eq!(ask(&model(&server, "chat/m"), &streaming()).await.unwrap().text, "hi");
        for id in WIRES {
            let server =
                ModelServer::start(vec![Step::raw_sse(["data: nonsense\n\n", "data: <b>\u{1b}[2J\n\n"])]);
            let error = ask(&model(&server, id), &streaming()).await.unwrap_err();
            assert!(matches!(error, ProviderError::Protocol { .. }), "{id}: {error}");
            assert!(error.to_string().contains("nonsense"), "{error}");
        }
    });
}

#[test]
fn what_is_no_answer_at_all_is_an_error() {
    run(async {
        for id in WIRES {
            for options in [streaming(), plain()] {
                let page = "<html><head><title>Welcome to the proxy</title></head></html>";
                let server = ModelServer::start(vec![Step::error(200, page)]);
                let error = ask(&model(&server, id), &options).await.unwrap_err();
                assert!(matches!(error, ProviderError::Protocol { .. }), "{id}: {error}");
                assert!(error.to_string().contains("Welcome to the proxy"), "{error}");
            }
        }
        let server = ModelServer::start(vec![Step::raw_sse([""; 0])]);
        let error = ask(&model(&server, "chat/m"), &streaming()).await.unwrap_err();
        assert!(matches!(error, ProviderError::Truncated { .. }), "{error}");
    });
}

#[test]
fn an_endless_event_is_refused() {
    run(async {
        let megabyte = "x".repeat(1 << 20);
        let server = ModelServer::start(vec![Step::raw_sse(vec![megabyte; 10])]);
        let error = ask(&model(&server, "chat/m"), &streaming()).await.unwrap_err();
        assert!(error.to_string().contains("longer than 8 MiB"), "{error}");
    });
}

#[test]
fn a_redirect_is_not_followed() {
    run(async {
        let elsewhere = ModelServer::start(vec![]);
        let step =
            Step::error(307, "").header("location", format!("{}/v1/chat/completions", elsewhere.url()));
        let server = ModelServer::start(vec![step]);
        let error = ask(&model(&server, "chat/m"), &streaming()).await.unwrap_err();
        assert!(matches!(error, ProviderError::Refused { .. }), "{error}");
        assert_eq!(elsewhere.completions(), 0);
    });
}

#[test]
fn a_server_that_is_not_there_is_named_with_what_would_start_it() {
    run(async {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let url = format!("http://127.0.0.1:{port}");
        let error = ask(&model_at(&url, "ollama/qwen3"), &streaming()).await.unwrap_err();
        assert!(matches!(error, ProviderError::Connect { .. }), "{error}");
        let message = error.user_message();
        for word in [url.as_str(), "ollama serve", "OLLAMA_BASE_URL"] {
            assert!(message.contains(word), "{word}: {message}");
        }
    });
}

#[test]
fn waiting_for_a_piece_can_be_given_up_and_taken_up_again() {
    run(async {
        for id in WIRES {
            let gate = Gate::new();
            let server =
                ModelServer::start(vec![Step::text("one two three four five").stall_after(1, &gate)]);
            let model = model(&server, id);
            let mut prompt = model.prompt("", &[tool("bash")]);
            prompt.push(&user("hello"));
            let mut stream = model.complete(&prompt, &streaming()).await.unwrap();
            assert!(matches!(stream.next().await, Ok(Some(Delta::Text(_)))));
            gate.reached().await;
            let first = stream.partial_text().to_owned();
            // Nothing comes: the wait is dropped, as an interrupt would.
            let waited = tokio::time::timeout(Duration::from_millis(20), stream.next()).await;
            assert!(waited.is_err(), "{id}: {waited:?}");
            assert_eq!(stream.partial_text(), first);
            gate.open();
            while stream.next().await.unwrap().is_some() {}
            assert_eq!(stream.finish().text.as_deref(), Some("one two three four five"), "{id}");
        }
    });
}

#[test]
fn a_prompt_of_another_model_is_refused_before_anything_is_sent() {
    run(async {
        let server = ModelServer::start(vec![]);
        let prompt = model(&server, "chat/m").prompt("", &[]);
        let error = model(&server, "openai/gpt-5.5").complete(&prompt, &streaming()).await.unwrap_err();
        assert!(matches!(error, ProviderError::Refused { .. }), "{error}");
        assert_eq!(server.completions(), 0);
    });
}
