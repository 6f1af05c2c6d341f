//! What is kept in the store: accounts, certificates with their keys, and tries; one row each.
//!
//! **Invariant**: a key is durable before anybody sees what was made with it.

use serde::{Deserialize, Serialize};
use store::{Batch, Store, StoreError};
use tls::Pair;

use crate::plan::{self, Life, Tries, Window};

pub(crate) const CERTIFICATES: &str = "acme/certificate/";
pub(crate) const TRIES: &str = "acme/tries/";
const ACCOUNTS: &str = "acme/account/";

/// Who we are to an authority; its key is all of it.
#[derive(Serialize, Deserialize)]
pub(crate) struct Account {
    /// PKCS#8, PEM.
    pub(crate) key: String,
    /// What the authority was told.
    pub(crate) email: Option<String>,
}

/// A certificate that was issued.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Certificate {
    /// Who was asked.
    pub(crate) directory: String,
    /// PEM, the leaf first.
    pub(crate) chain: String,
    /// PKCS#8, PEM.
    pub(crate) key: String,
    /// By the clock of this machine.
    pub(crate) came_s: i64,
    /// The authority wanted the one before to be renewed early.
    pub(crate) hurried: bool,
    /// When the authority wants it to be renewed.
    pub(crate) window: Option<Window>,
    /// When it is asked that again, in seconds since 1970.
    pub(crate) look_s: i64,
}

/// The same, read.
#[derive(Clone)]
pub(crate) struct Held {
    pub(crate) kept: Certificate,
    pub(crate) pair: Pair,
}

impl Held {
    /// An error is what is wrong with it, in words.
    pub(crate) fn read(kept: Certificate) -> Result<Self, String> {
        Pair::from_pem(kept.chain.as_bytes(), kept.key.as_bytes()).map(|pair| Self { kept, pair })
    }

    /// `asks`: with what the authority said.
    pub(crate) fn renewal_s(&self, name: &str, asks: bool) -> i64 {
        let life = Life { not_before_s: self.pair.not_before_s(), not_after_s: self.pair.not_after_s() };
        plan::renewal_s(life, self.kept.came_s, self.kept.hurried, self.kept.window.filter(|_| asks), name)
    }
}

pub(crate) fn certificate_key(name: &str) -> String {
    format!("{CERTIFICATES}{name}")
}

pub(crate) fn tries_key(name: &str) -> String {
    format!("{TRIES}{name}")
}

fn row<T: Serialize>(key: String, value: &T) -> (String, String) {
    (key, serde_json::to_string(value).expect("plain data"))
}

pub(crate) async fn keep_tries(store: &Store, name: &str, tries: &Tries) -> Result<(), StoreError> {
    store.commit(Batch { puts: vec![row(tries_key(name), tries)], ..Batch::default() }).await
}

/// Its tries are over.
pub(crate) async fn keep_issued(store: &Store, name: &str, certificate: &Certificate) -> Result<(), StoreError> {
    let puts = vec![row(certificate_key(name), certificate)];
    store.commit(Batch { puts, deletes: vec![tries_key(name)], ..Batch::default() }).await
}

pub(crate) async fn keep_certificate(store: &Store, name: &str, certificate: &Certificate) -> Result<(), StoreError> {
    store.commit(Batch { puts: vec![row(certificate_key(name), certificate)], ..Batch::default() }).await
}

pub(crate) async fn forget(store: &Store, name: &str) -> Result<(), StoreError> {
    store.commit(Batch { deletes: vec![certificate_key(name), tries_key(name)], ..Batch::default() }).await
}

/// The account with an authority; none when there is none that can be read.
pub(crate) async fn account(store: &Store, directory: &str) -> Result<Option<Account>, StoreError> {
    let key = format!("{ACCOUNTS}{directory}");
    // It may be the beginning of another one's.
    let found = store.values_in_time(&key).await?.into_iter().find(|(it, _)| *it == key);
    Ok(found.and_then(|(_, text)| serde_json::from_str(&text).ok()))
}

pub(crate) async fn keep_account(store: &Store, directory: &str, account: &Account) -> Result<(), StoreError> {
    store.commit(Batch { puts: vec![row(format!("{ACCOUNTS}{directory}"), account)], ..Batch::default() }).await
}
