use std::net::TcpListener;

use serde_json::json;
use testkit::ModelServer;

use crate::support::{model, model_at, run};

#[test]
fn the_window_is_what_the_server_says() {
    run(async {
        let served = async |id: &str, pages: &[(&str, serde_json::Value)]| {
            let server = ModelServer::start(vec![]);
            for (path, page) in pages {
                server.serve(path, page.clone());
            }
            model(&server, id)
                .served_window()
                .await
                .map(|window| (window.tokens, window.assumed, window.remedy))
        };
        let show = json!({"model_info": {"general.architecture": "qwen3", "qwen3.context_length": 40_960}, "parameters": "temperature 1\nnum_ctx   8192\n"});
        let plain_show = json!({"model_info": {"qwen3.context_length": 40_960}});
        for (id, pages, expected) in [
            (
                "ollama/qwen3",
                vec![
                    (
                        "/api/ps",
                        json!({"models": [{"name": "other:latest", "context_length": 1}, {"model": "qwen3:latest", "context_length": 4096}]}),
                    ),
                    ("/api/show", show.clone()),
                ],
                Some((4096, false, "OLLAMA_CONTEXT_LENGTH=40960 ollama serve")),
            ),
            (
                "ollama/qwen3:8b",
                vec![("/api/ps", json!({"models": []})), ("/api/show", show)],
                Some((8192, false, "OLLAMA_CONTEXT_LENGTH")),
            ),
            (
                "ollama/qwen3:8b",
                vec![("/api/ps", json!({"models": []})), ("/api/show", plain_show)],
                Some((4096, true, "OLLAMA_CONTEXT_LENGTH")),
            ),
            ("ollama/qwen3", vec![], None),
            (
                "llamacpp/m",
                vec![("/props", json!({"default_generation_settings": {"n_ctx": 4096}, "total_slots": 1}))],
                Some((4096, false, "llama-server -c 65536")),
            ),
            ("llamacpp/m", vec![("/props", json!({"default_generation_settings": {}}))], None),
            (
                "vllm/a/b",
                vec![(
                    "/v1/models",
                    json!({"data": [{"id": "x", "max_model_len": 1}, {"id": "a/b", "max_model_len": 32768}]}),
                )],
                Some((32768, false, "vllm serve a/b --max-model-len 65536")),
            ),
            (
                "lm_studio/m",
                vec![(
                    "/api/v0/models",
                    json!({"data": [{"id": "m", "loaded_context_length": 4096, "max_context_length": 4096}]}),
                )],
                Some((4096, false, "was made for 4096 tokens")),
            ),
            (
                "lm_studio/m",
                vec![("/api/v0/models", json!({"data": [{"id": "m", "max_context_length": 131_072}]}))],
                Some((4096, true, "lms load m --context-length")),
            ),
            ("openai/gpt-5.5", vec![], None),
        ] {
            let found = served(id, &pages).await;
            match (&found, expected) {
                (Some((tokens, assumed, remedy)), Some((wanted, guess, words))) => {
                    assert_eq!((*tokens, *assumed), (wanted, guess), "{id}");
                    assert!(remedy.contains(words), "{id}: {remedy}");
                }
                (None, None) => {}
                other => panic!("{id}: {other:?}"),
            }
        }
    });
}

#[test]
fn a_server_that_does_not_say_is_no_error() {
    run(async {
        // It accepts connections and says nothing.
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", silent.local_addr().unwrap());
        assert_eq!(model_at(&url, "llamacpp/m").served_window().await, None);
        drop(silent);
        assert_eq!(model_at(&url, "llamacpp/m").served_window().await, None);
    });
}
