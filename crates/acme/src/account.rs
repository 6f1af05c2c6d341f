//! Our account with an authority: made once, found again by its key (RFC 8555 §7.3.1).

use instant_acme::Key;
use rcgen::KeyPair;
use store::Store;
use tls::pki_types::PrivatePkcs8KeyDer;
use tls::pki_types::pem::PemObject;

use crate::failure::Failure;
use crate::kept;
use crate::plan::Fault;
use crate::wire::Wire;

/// Opens it, or makes it. One after another: two at once would make two.
pub(crate) async fn open(store: &Store, wire: &Wire, directory: &str, email: Option<&str>) -> Result<instant_acme::Account, Failure> {
    let unkept = |error| Failure::new(Fault::Unreachable, format!("the account cannot be kept: {error}"));
    let mut kept = match kept::account(store, directory).await.map_err(unkept)? {
        Some(account) => account,
        None => {
            let key = KeyPair::generate().map_err(|error| Failure::new(Fault::Unreachable, format!("no key can be made: {error}")))?;
            let account = kept::Account { key: key.serialize_pem(), email: None };
            kept::keep_account(store, directory, &account).await.map_err(unkept)?;
            account
        }
    };
    let unreadable = |error: String| Failure::new(Fault::Unreachable, format!("the account's key cannot be read: {error}"));
    let der = PrivatePkcs8KeyDer::from_pem_slice(kept.key.as_bytes()).map_err(|error| unreadable(error.to_string()))?;
    let key = Key::from_pkcs8_der(der.clone_key()).map_err(|error| unreadable(error.to_string()))?;
    let builder = instant_acme::Account::builder_with_http(Box::new(wire.clone()));
    let (account, _) = builder.create_from_key((key, der.into()), directory.to_owned()).await?;
    if kept.email.as_deref() != email {
        let contact = email.map(|email| format!("mailto:{email}"));
        let contacts: Vec<&str> = contact.iter().map(String::as_str).collect();
        account.update_contacts(&contacts).await?;
        kept.email = email.map(str::to_owned);
        kept::keep_account(store, directory, &kept).await.map_err(unkept)?;
    }
    Ok(account)
}
