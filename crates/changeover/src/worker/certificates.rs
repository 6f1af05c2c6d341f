//! What happens to certificates is told: in the events, and on the standard error of `up`.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::sync::watch;

/// As often as the keyring looks at files.
const LISTEN_EVERY: Duration = Duration::from_secs(1);

/// What files say, for ever.
pub(super) async fn tell(keyring: tls::Keyring, engine: engine::Handle) {
    let mut ticks = tokio::time::interval(LISTEN_EVERY);
    loop {
        ticks.tick().await;
        keyring.news().into_iter().for_each(|tls::News { kind, text }| told(&engine, kind, text));
    }
}

/// Who asks authorities for certificates; shows those that are kept already.
pub(super) async fn clerk(keyring: &tls::Keyring, engine: &engine::Handle, open: watch::Receiver<BTreeSet<String>>) -> acme::Clerk {
    let teller = engine.clone();
    let told = Box::new(move |kind, text| told(&teller, kind, text));
    acme::Clerk::open(acme::Needs { store: engine.store().clone(), keyring: keyring.clone(), open, told }).await
}

/// As the API shows them.
pub(super) fn list(keyring: &tls::Keyring, board: &acme::Board) -> Vec<control::Certificate> {
    let one = |state: tls::State| {
        let of_name = state.names.first().filter(|_| state.source == tls::Source::Authority).and_then(|name| board.of(name));
        let file = match &state.source {
            tls::Source::File(file) => Some(file.display().to_string()),
            tls::Source::Authority => None,
        };
        control::Certificate {
            listener: state.listener,
            names: state.names,
            file,
            expires_s: state.not_after_s,
            failures: of_name.as_ref().map_or(0, |it| it.failures),
            next_s: of_name.as_ref().map(|it| it.next_s),
            problem: of_name.as_ref().and_then(|it| it.problem.clone()).or(state.problem),
            directory: of_name.map(|it| it.directory),
        }
    };
    keyring.states().into_iter().map(one).collect()
}

fn told(engine: &engine::Handle, kind: &str, text: String) {
    match kind {
        "certificate_failed" => eprintln!("error: {text}"),
        "certificate_warning" => eprintln!("warning: {text}"),
        _ => {}
    }
    engine.told(kind, text);
}
