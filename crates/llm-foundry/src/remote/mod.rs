//! Data files of other machines: `http://`, `https://` and `s3://`. They are read in blocks, which are kept in a cache
//! on this machine's disk.

mod blocks;
mod http;
mod s3;
mod sign;
#[cfg(test)]
mod tests;

use crate::cache_dir::cache_dir;
use crate::failure::{Failure, Outcome};
use foundry_data::DataFile;
use http::{HttpFile, HttpProblem, agent};
use s3::Store;
use std::path::PathBuf;
use std::sync::Arc;

/// The files that an address stands for. `key`: the configuration key, for messages; `get` reads the environment.
pub(crate) fn find(key: &str, address: &str, get: impl Fn(&str) -> Option<String>) -> Outcome<Vec<DataFile>> {
    let cache = cache(&get);
    let agent = agent();
    let refused = |name: &str, problem: HttpProblem| {
        let message = format!("{key}: {name}: {problem}");
        if problem.is_of_the_world() { Failure::Run(message) } else { Failure::Input(message) }
    };
    let wrong = |what: &str| Failure::Input(format!("{key}: {}: {what}", without_query(address)));
    if let Some(rest) = address.strip_prefix("s3://") {
        let Some((bucket, path)) = rest.split_once('/').filter(|(b, path)| !b.is_empty() && !path.is_empty())
        else {
            return Err(wrong("an address of an object store is s3://BUCKET/KEY"));
        };
        let store = Store::new(bucket, get).map_err(|problem| wrong(&problem))?;
        let keys = store.keys(&agent, path).map_err(|problem| refused(address, problem))?;
        if keys.is_empty() {
            return Err(wrong("nothing of this name is in the store"));
        }
        let open = |path: &String| {
            let (name, store, path) = (format!("s3://{bucket}/{path}"), store.clone(), path.clone());
            let signed = Box::new(move || store.address(&path));
            let file = HttpFile::open(agent.clone(), &name, signed, &cache);
            file.map(|file| DataFile::remote(&name, Arc::new(file)))
                .map_err(|problem| refused(&name, problem))
        };
        return keys.iter().map(open).collect();
    }
    let host = address.split("://").nth(1).and_then(|rest| rest.split('/').next()).unwrap_or_default();
    if host.contains('@') {
        return Err(wrong("a password in an address ends up in logs; use an address that is signed"));
    }
    let name = without_query(address);
    if name.contains('*') {
        return Err(wrong("a web server has no list of its files; name each of them"));
    }
    let whole = address.to_owned();
    let file = HttpFile::open(agent, &name, Box::new(move || whole.clone()), &cache);
    let file = file.map_err(|problem| refused(&name, problem))?;
    Ok(vec![DataFile::remote(&name, Arc::new(file))])
}

/// Without what follows `?`, which may be a signature.
fn without_query(address: &str) -> String {
    address.split('?').next().unwrap_or_default().to_owned()
}

/// The part of the cache for data.
fn cache(get: &impl Fn(&str) -> Option<String>) -> PathBuf {
    cache_dir(get).join("data")
}
