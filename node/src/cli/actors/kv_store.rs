//! Data beside the state, read and written piece by piece.

use ciborium::Value;
use clinch_actor::{Any, Ctx, Error};
use serde::{Deserialize, Serialize};

/// A key-value store under a name.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct KvStore {}

#[clinch_actor::actor(name = "kvStore", crate = "clinch_actor")]
impl KvStore {
    #[action]
    fn put(&mut self, c: &Ctx<Self>, key: String, value: Option<Any>) -> Result<bool, Error> {
        c.kv().put(&key, &value)?;
        Ok(true)
    }

    #[action]
    fn get(&self, c: &Ctx<Self>, key: String) -> Result<Option<Any>, Error> {
        c.kv().get(&key)
    }

    #[action]
    fn del(&mut self, c: &Ctx<Self>, key: String) -> Result<bool, Error> {
        c.kv().delete(&key)?;
        Ok(true)
    }

    #[action]
    fn put_batch(&mut self, c: &Ctx<Self>, entries: Vec<(String, Any)>) -> Result<usize, Error> {
        let len = entries.len();
        let encode = |(key, value): (String, Any)| Ok((key, clinch_actor::encode(&value)?));
        let entries: Vec<(String, Vec<u8>)> =
            entries.into_iter().map(encode).collect::<Result<_, Error>>()?;
        c.kv().put_batch(entries)?;
        Ok(len)
    }

    #[action]
    fn get_batch(&self, c: &Ctx<Self>, keys: Vec<String>) -> Result<Vec<Option<Any>>, Error> {
        let values = c.kv().get_batch(&keys)?;
        let decode = |value: Option<bytes::Bytes>| {
            value
                .map(|bytes| clinch_actor::decode("the KV value", &bytes))
                .transpose()
        };
        values.into_iter().map(decode).collect()
    }

    /// Keys that begin with the prefix, without it, and their values.
    #[action]
    fn list(&self, c: &Ctx<Self>, prefix: String) -> Result<Vec<(String, Any)>, Error> {
        let entries = c.kv().list(&prefix)?;
        entries
            .into_iter()
            .filter_map(|entry| {
                // Keys are text here: all of them were written by `put`.
                let key = entry.key_str()?.to_owned();
                Some(entry.decode().map(|value| (key, value)))
            })
            .collect()
    }

    #[action]
    fn put_bytes(&mut self, c: &Ctx<Self>, key: String, bytes: Vec<u8>) -> Result<usize, Error> {
        let len = bytes.len();
        c.kv().put_bytes(&key, bytes)?;
        Ok(len)
    }

    #[action]
    fn get_bytes(&self, c: &Ctx<Self>, key: String) -> Result<Option<Any>, Error> {
        Ok(c.kv()
            .get_bytes(&key)?
            .map(|bytes| Any(Value::Bytes(bytes.to_vec()))))
    }
}
