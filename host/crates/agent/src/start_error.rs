use audit::RecordsError;

use crate::StoreError;

/// Why a session does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Model(#[from] provider::ResolveError),
    #[error("the session's folders cannot be made: {0}")]
    Folders(#[from] std::io::Error),
    /// The records of the session that it goes on from are not what was written.
    #[error("{0}; what the session ordered cannot be known, so begin a new one (ml-intern audit verify)")]
    Records(RecordsError),
    #[error("{0} has no known price, and --max-budget-usd counts everything; name another model, or none")]
    NoPrice(String),
    #[error(
        "{model} has no known price, and {place} bounds what a run costs; name another model, or its `price` in the settings"
    )]
    NoPriceUnderPolicy { model: String, place: String },
}
