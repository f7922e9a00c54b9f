//! The model of a run that names none.

use crate::assemble::Setup;
use crate::exit::{Exit, Failure};

impl Setup {
    /// The model that is used when none is named: the first that can work.
    pub(crate) fn default_model(&self) -> Result<String, Failure> {
        let named = self.loaded.layers.iter().skip(1).any(|layer| layer.value.get("model_name").is_some());
        let bundled = &self.settings().model_name;
        if named || self.hf_token().is_some() {
            return Ok(bundled.clone());
        }
        let vendors =
            [("ANTHROPIC_API_KEY", "anthropic/claude-opus-4-8"), ("OPENAI_API_KEY", "openai/gpt-5.5")];
        let with_key = vendors.iter().find(|(variable, _)| self.environment.secret(variable).is_some());
        with_key.map(|(_, model)| (*model).to_owned()).ok_or_else(no_model)
    }
}

fn no_model() -> Failure {
    Failure::new(
        Exit::Credentials,
        anyhow::anyhow!(
            "there is no model to work with yet. Three ways:\n  \
             1. a key: `ml-intern login` or HF_TOKEN for any model of the Hugging Face router\n     \
                (https://huggingface.co/settings/tokens), ANTHROPIC_API_KEY, or OPENAI_API_KEY\n  \
             2. a local server: -m ollama/NAME, llamacpp/NAME, vllm/NAME or lm_studio/NAME\n  \
             3. neither: `ml-intern demo` shows the program at work with a scripted model"
        ),
    )
}
