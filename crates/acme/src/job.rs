//! A job: speaks to an authority for one name, once.

use std::sync::Arc;
use std::time::Duration;

use instant_acme::{Account, CertificateIdentifier, Error, Key};
use jiff::Timestamp;
use model::Authorities;
use tls::Pair;
use tls::pki_types::Der;

use crate::account;
use crate::clerk::{Done, House, Wanted, now_s};
use crate::failure::Failure;
use crate::kept::{self, Certificate, Held};
use crate::order::{self, Fresh};
use crate::plan::{self, Fault, Tries, Window};
use crate::wire::Wire;

/// A number that was not taken is followed by another try so often; a few in a hundred are met in tests.
const STALE_MAX: u32 = 4;
/// What was issued is kept: the store is asked again and again, with this pause.
const KEEP_PAUSE: Duration = Duration::from_secs(10);

pub(crate) struct Job {
    pub(crate) house: Arc<House>,
    pub(crate) name: String,
    pub(crate) wanted: Wanted,
    pub(crate) held: Option<Held>,
    pub(crate) tries: Option<Tries>,
    /// That the store refuses.
    pub(crate) is_told: bool,
}

impl Job {
    /// Asks for a certificate.
    pub(crate) async fn order(self) -> Done {
        let before = self.tries.clone().unwrap_or_default();
        let mut tries = before.clone();
        tries.begin(&self.wanted.question(), now_s(), fastrand::f64());
        if let Err(error) = kept::keep_tries(&self.house.store, &self.name, &tries).await {
            // Nobody is asked who would be asked again after a crash.
            if !self.is_told {
                (self.house.told)("certificate_failed", format!("no authority is asked for {}: {error}", self.name));
            }
            return Done::Failed { tries: before, is_kept: false };
        }
        match self.obtain().await {
            Ok(held) => {
                self.keep(&held).await;
                self.house.keyring.issued().set(&self.name, Some(&held.pair));
                let from = if held.pair.issuer().is_empty() { String::new() } else { format!(" by {}", held.pair.issuer()) };
                let text = format!("certificate of {} issued{from}, good until {}", self.name, moment(held.pair.not_after_s()));
                (self.house.told)("certificate_issued", text);
                Done::Issued(held)
            }
            Err(failure) => {
                let pause_s = tries.fail(now_s(), failure.fault, failure.retry_after_s, failure.words.clone(), fastrand::f64());
                let is_kept = kept::keep_tries(&self.house.store, &self.name, &tries).await.is_ok();
                (self.house.told)("certificate_failed", self.words(&failure, pause_s));
                Done::Failed { tries, is_kept }
            }
        }
    }

    fn words(&self, failure: &Failure, pause_s: u64) -> String {
        let (name, words, again) = (&self.name, &failure.words, span(pause_s));
        let Some(held) = &self.held else {
            return format!("no certificate for {name}, which is not served over TLS: {words}; tried again in {again}");
        };
        let end_s = held.pair.not_after_s();
        let present = if end_s > now_s() { "is good until" } else { "is still shown, though it expired" };
        format!(
            "the certificate of {name} could not be renewed: {words}; the present one {present} {}; tried again in {again}",
            moment(end_s)
        )
    }

    async fn obtain(&self) -> Result<Held, Failure> {
        let mut stale = 0;
        let fresh = loop {
            match self.ask().await {
                Err(failure) if failure.is_stale && stale < STALE_MAX => stale += 1,
                other => break other?,
            }
        };
        let held = Held::read(Certificate {
            directory: self.wanted.directory.clone(),
            chain: fresh.chain,
            key: fresh.key,
            came_s: now_s(),
            // By our own plan it would not be time yet.
            hurried: self.held.as_ref().is_some_and(|held| held.kept.window.is_some() && held.renewal_s(&self.name, false) > now_s()),
            window: None,
            // At once.
            look_s: 0,
        });
        let held = held.map_err(|error| Failure::new(Fault::Refused, format!("the authority's certificate cannot be used: {error}")))?;
        if !held.pair.names().contains(&self.name) {
            return Err(Failure::new(Fault::Refused, "the authority's certificate is for another name"));
        }
        if held.pair.not_after_s() <= now_s() {
            return Err(Failure::new(Fault::Refused, "the authority's certificate has expired; is the clock of this machine right?"));
        }
        Ok(held)
    }

    async fn ask(&self) -> Result<Fresh, Failure> {
        let wire = self.wire().await?;
        let asked = async {
            let account = self.account(&wire).await?;
            // Who says when to renew wants to know what is renewed.
            let replaces = self.held.as_ref().filter(|held| held.kept.window.is_some()).and_then(|held| identifier(&held.pair));
            order::order(&account, &self.house.keyring, &self.name, self.wanted.challenge, replaces).await
        };
        asked.await.map_err(|failure: Failure| Failure { retry_after_s: failure.retry_after_s.or(wire.retry_after_s()), ..failure })
    }

    async fn account(&self, wire: &Wire) -> Result<Account, Failure> {
        let _one = self.house.opening.lock().await;
        account::open(&self.house.store, wire, &self.wanted.directory, self.wanted.email.as_deref()).await
    }

    async fn wire(&self) -> Result<Wire, Failure> {
        let ca = self.wanted.ca.clone();
        let read = tokio::task::spawn_blocking(move || tls::client_config(&ca)).await;
        let config = read.map_err(|error| Failure::new(Fault::Unreachable, error.to_string()))?;
        let config = config.map_err(|error| {
            let whose = if self.wanted.ca == Authorities::System { "" } else { "`ca` of `acme`: " };
            Failure::new(Fault::Unreachable, format!("{whose}{error}"))
        })?;
        Ok(Wire::new(config))
    }

    /// For as long as the store refuses: what an authority has given is not asked for twice.
    async fn keep(&self, held: &Held) {
        let mut is_told = false;
        while let Err(error) = kept::keep_issued(&self.house.store, &self.name, &held.kept).await {
            if !std::mem::replace(&mut is_told, true) {
                let text = format!("the certificate of {} was issued and cannot be kept: {error}; it is not used before it is", self.name);
                (self.house.told)("certificate_failed", text);
            }
            tokio::time::sleep(KEEP_PAUSE).await;
        }
    }

    /// Asks when to renew (RFC 9773).
    pub(crate) async fn look(self, mut held: Held) -> Done {
        let pause_s = match self.window(&held.pair).await {
            Ok(Some((window, asked_s))) => {
                held.kept.window = Some(window);
                plan::look_pause_s(asked_s)
            }
            Ok(None) => plan::look_pause_s(u64::MAX),
            // It is no harm: there is a plan without it.
            Err(_) => plan::LOOK_AGAIN_S,
        };
        held.kept.look_s = now_s() + pause_s as i64;
        let is_kept = kept::keep_certificate(&self.house.store, &self.name, &held.kept).await.is_ok();
        Done::Looked { held, is_kept }
    }

    /// `None`: the authority does not say such things.
    async fn window(&self, pair: &Pair) -> Result<Option<(Window, u64)>, Failure> {
        let Some(number) = identifier(pair) else { return Ok(None) };
        let wire = self.wire().await?;
        // Everybody may ask: no account signs it.
        let (_, key) = Key::generate_pkcs8()?;
        let anybody = Account::builder_with_http(Box::new(wire)).from_parts(String::new(), key, self.wanted.directory.clone()).await?;
        match anybody.renewal_info(&number).await {
            Ok((info, pause)) => {
                let window = info.suggested_window;
                let window = Window { start_s: window.start.unix_timestamp(), end_s: window.end.unix_timestamp() };
                Ok(Some((window, pause.as_secs())))
            }
            Err(Error::Unsupported(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

fn identifier(pair: &Pair) -> Option<CertificateIdentifier<'static>> {
    let (issuer, serial) = pair.number()?;
    Some(CertificateIdentifier::new(Der::from_slice(issuer), Der::from_slice(serial)).into_owned())
}

fn moment(s: i64) -> String {
    Timestamp::from_second(s).map_or_else(|_| s.to_string(), |moment| moment.to_string())
}

/// As people say it.
fn span(s: u64) -> String {
    match s {
        ..120 => format!("{s} s"),
        120..7_200 => format!("{} min", s / 60),
        _ => format!("{} h", s / 3_600),
    }
}
