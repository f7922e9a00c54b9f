use crate::bindings::ml_intern::plugin::kv::{Entry, Host, Page};
use crate::bindings::ml_intern::plugin::types::{Error, ErrorKind};
use crate::host::error;
use crate::kv::KvError;
use crate::state::{Call, CallState};

impl CallState {
    fn kv_call(&mut self, namespace: &str) -> Result<&mut Call, Error> {
        let call = self.granted("kv", |call| call.capabilities.kv)?;
        if namespace != "session" {
            let message = format!("there is no namespace `{namespace}`; use `session`");
            return Err(error(ErrorKind::InvalidArgs, "unknown-namespace", message));
        }
        Ok(call)
    }
}

fn refused(reason: KvError) -> Error {
    match reason {
        KvError::TooLarge => {
            error(ErrorKind::TooLarge, "kv-limit", "the key, the value or all values together are too large")
        }
        KvError::Conflict { version } => {
            error(ErrorKind::Conflict, "kv-version", format!("the entry has version {version}"))
        }
        KvError::Io(reason) => {
            error(ErrorKind::Internal, "kv-io", format!("the value cannot be kept: {reason}"))
        }
    }
}

impl Host for CallState {
    async fn get(&mut self, namespace: String, key: String) -> Result<Option<Entry>, Error> {
        let call = self.kv_call(&namespace)?;
        let entry = call.session.kv().get(&call.owner, &key).map_err(refused)?;
        Ok(entry.map(|entry| Entry { value: entry.value, version: entry.version }))
    }

    async fn set(
        &mut self,
        namespace: String,
        key: String,
        value: Vec<u8>,
        if_version: Option<u64>,
        ttl_s: Option<u32>,
    ) -> Result<u64, Error> {
        let limit = self.limits.kv_bytes;
        let call = self.kv_call(&namespace)?;
        call.session.kv().set(&call.owner, &key, value, if_version, ttl_s, limit).map_err(refused)
    }

    async fn delete(&mut self, namespace: String, key: String) -> Result<bool, Error> {
        let call = self.kv_call(&namespace)?;
        call.session.kv().delete(&call.owner, &key).map_err(refused)
    }

    async fn keys(
        &mut self,
        namespace: String,
        prefix: String,
        cursor: Option<String>,
        limit: u16,
    ) -> Result<Page, Error> {
        let call = self.kv_call(&namespace)?;
        let page = call.session.kv().keys(&call.owner, &prefix, cursor.as_deref(), limit.into());
        let (keys, next) = page.map_err(refused)?;
        Ok(Page { keys, next })
    }
}
