//! One order, for one name: asked for, proven, signed (RFC 8555 §7.4). Nothing of it is kept: when it breaks off, the next one begins
//! from the start, and an authority reuses what was proven as it likes.

use std::time::Duration;

use bytes::Bytes;
use instant_acme::{
    Account, AuthorizationStatus, CertificateIdentifier, ChallengeHandle, ChallengeType, Error, Identifier, NewOrder, Order, OrderStatus,
    RetryPolicy,
};
use model::Challenge;
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};
use tls::{Issued, Keyring, Pair};

use crate::failure::{Failure, said};
use crate::plan::Fault;

/// From the moment the proof is ready to the authority's decision, and from then to the certificate. It looks from several places.
const DECISION_TIME_MAX: Duration = Duration::from_secs(90);

/// Chain and key of a name, both PEM.
pub(crate) struct Fresh {
    pub(crate) chain: String,
    pub(crate) key: String,
}

/// `replaces`: what it renews, for an authority that wants to know (RFC 9773 §5).
pub(crate) async fn order(
    account: &Account,
    keyring: &Keyring,
    name: &str,
    challenge: Challenge,
    replaces: Option<CertificateIdentifier<'_>>,
) -> Result<Fresh, Failure> {
    let identifiers = [Identifier::Dns(name.to_owned())];
    let plain = NewOrder::new(&identifiers);
    let mut order = match replaces {
        None => account.new_order(&plain).await?,
        Some(replaces) => match account.new_order(&NewOrder::new(&identifiers).replaces(replaces)).await {
            // That it replaces something may be refused (RFC 9773 §5); the order itself stands. Too many are too many, either way.
            Err(Error::Api(problem)) if problem.status != Some(429) => account.new_order(&plain).await?,
            Err(Error::Other(_) | Error::Unsupported(_)) => account.new_order(&plain).await?,
            other => other?,
        },
    };
    prove(&mut order, keyring.issued(), name, challenge).await?;
    // Its own key each time.
    let unmade = |error| Failure::new(Fault::Unreachable, format!("no request for a signature can be made: {error}"));
    let key = KeyPair::generate().map_err(unmade)?;
    let mut request = CertificateParams::new(vec![name.to_owned()]).map_err(unmade)?;
    request.distinguished_name = DistinguishedName::new();
    let request = request.serialize_request(&key).map_err(unmade)?;
    order.finalize_csr(request.der()).await?;
    let chain = order.poll_certificate(&policy()).await?;
    Ok(Fresh { chain, key: key.serialize_pem() })
}

fn policy() -> RetryPolicy {
    RetryPolicy::new().timeout(DECISION_TIME_MAX)
}

/// The proofs stay for as long as the authority may look.
async fn prove(order: &mut Order, issued: &Issued, name: &str, challenge: Challenge) -> Result<(), Failure> {
    let wanted = match challenge {
        Challenge::Http => ChallengeType::Http01,
        Challenge::TlsAlpn => ChallengeType::TlsAlpn01,
    };
    let mut shown = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        match authorization.status {
            // It remembers.
            AuthorizationStatus::Valid => continue,
            AuthorizationStatus::Pending => {}
            other => return Err(Failure::new(Fault::Refused, format!("the authority holds {name} for {other:?}").to_lowercase())),
        }
        let Some(mut offered) = authorization.challenge(wanted.clone()) else {
            let words = format!("the authority takes no proof by {} for {name}", challenge.name());
            return Err(Failure::new(Fault::Refused, words));
        };
        shown.push(Proof::show(issued, name, challenge, &offered)?);
        offered.set_ready().await?;
    }
    if shown.is_empty() && order.state().status == OrderStatus::Ready {
        return Ok(());
    }
    match order.poll_ready(&policy()).await {
        Ok(OrderStatus::Ready) => Ok(()),
        Ok(_) => Err(refusal(order, None).await),
        Err(error) => {
            let failure = Failure::from(error);
            Err(if failure.fault == Fault::Refused && !failure.is_stale { refusal(order, Some(failure)).await } else { failure })
        }
    }
}

/// What the authority saw when it looked stands with the proof, not with the order.
async fn refusal(order: &mut Order, known: Option<Failure>) -> Failure {
    let mut seen = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        let Ok(state) = authorization.refresh().await else { break };
        seen.extend(state.challenges.iter().filter_map(|challenge| challenge.error.as_ref()).map(said));
    }
    if seen.is_empty() {
        return known.unwrap_or_else(|| Failure::new(Fault::Refused, "the authority refused, and does not say why"));
    }
    let retry_after_s = known.and_then(|known| known.retry_after_s);
    Failure { retry_after_s, ..Failure::new(Fault::Refused, format!("the authority says: {}", seen.join("; "))) }
}

/// Shown to the authority while it lives.
enum Proof<'a> {
    Token(&'a Issued, String),
    Certificate(&'a Issued, String),
}

impl<'a> Proof<'a> {
    fn show(issued: &'a Issued, name: &str, challenge: Challenge, offered: &ChallengeHandle<'_>) -> Result<Self, Failure> {
        let proof = offered.key_authorization();
        match challenge {
            Challenge::Http => {
                issued.set_token(&offered.token, Some(Bytes::copy_from_slice(proof.as_str().as_bytes())));
                Ok(Self::Token(issued, offered.token.clone()))
            }
            Challenge::TlsAlpn => {
                let pair = certificate(name, proof.digest().as_ref());
                issued.set_challenge(name, Some(&pair.map_err(|error| Failure::new(Fault::Unreachable, error))?));
                Ok(Self::Certificate(issued, name.to_owned()))
            }
        }
    }
}

impl Drop for Proof<'_> {
    fn drop(&mut self) {
        match self {
            Self::Token(issued, token) => issued.set_token(token, None),
            Self::Certificate(issued, name) => issued.set_challenge(name, None),
        }
    }
}

/// Signed by itself, with the digest that the authority knows (RFC 8737 §3).
fn certificate(name: &str, digest: &[u8]) -> Result<Pair, String> {
    let make = || {
        let key = KeyPair::generate()?;
        let mut certificate = CertificateParams::new(vec![name.to_owned()])?;
        certificate.custom_extensions.push(CustomExtension::new_acme_identifier(digest));
        Ok::<_, rcgen::Error>((certificate.self_signed(&key)?.pem(), key.serialize_pem()))
    };
    let (chain, key) = make().map_err(|error| format!("no proof can be made: {error}"))?;
    Pair::proof_from_pem(chain.as_bytes(), key.as_bytes())
}
