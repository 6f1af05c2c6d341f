//! What a listener shows, from files that are good, bad, late and half written.

mod common;

use std::sync::Arc;

use common::{Authority, config, config_for, door, entry, eventually, fresh, meet, settings};
use model::{Acme, ClientAuth, DefaultCertificate};
use rcgen::{DnType, KeyPair, SanType};
use tls::{Keyring, Pair};

fn shown(door: &tls::Door, client: &Arc<rustls::ClientConfig>, name: &str) -> Option<String> {
    meet(config(door)?, client, name).ok().map(|met| met.shown)
}

#[test]
fn the_certificate_is_chosen_by_name() {
    let (folder, authority, keyring) = (tempfile::tempdir().expect("folder"), Authority::new("ca"), Keyring::start().expect("thread"));
    let file = |name: &str, names: &[&str]| authority.certificate(names).write(folder.path(), name);
    let first = file("first", &["a.test", "fallback.test"]);
    let wild = file("wild", &["*.wild.test"]);
    let deep = file("deep", &["deep.wild.test"]);
    let named = file("named", &["x.test"]);
    let mut wanted = settings(vec![entry(&first, &[]), entry(&wild, &[]), entry(&deep, &[]), entry(&named, &["given.test"])]);
    let main = door(&keyring, &wanted);
    let client = fresh(authority.anonymous());
    let ask = |name: &str| shown(&main, &client, name);
    assert_eq!(ask("a.test").as_deref(), Some("a.test"));
    assert_eq!(ask("A.Test").as_deref(), Some("a.test"), "names have no case");
    assert_eq!(ask("one.wild.test").as_deref(), Some("*.wild.test"));
    assert_eq!(ask("deep.wild.test").as_deref(), Some("deep.wild.test"), "exact before wildcard");
    // The client sees a certificate that does not name what it asked for, or none at all.
    for name in ["one.more.wild.test", "wild.test", "unknown.test", "x.test"] {
        assert_eq!(ask(name), None, "{name}");
    }
    let error = meet(config(&main).expect("open"), &client, "unknown.test").expect_err("not named");
    assert!(format!("{error}").contains("not valid for name"), "the first one was shown: {error}");
    let error = meet(config(&main).expect("open"), &client, "given.test").expect_err("not named");
    assert!(format!("{error}").contains("x.test"), "the one that was given the name: {error}");
    // An address is asked for without a name.
    let error = meet(config(&main).expect("open"), &client, "127.0.0.1").expect_err("not named");
    assert!(format!("{error}").contains("a.test"), "{error}");
    wanted.default = DefaultCertificate::Name("one.wild.test".to_owned());
    door(&keyring, &wanted);
    eventually("another default", || {
        meet(config(&main).expect("open"), &client, "127.0.0.1").is_err_and(|error| format!("{error}").contains("*.wild.test"))
    });
    wanted.default = DefaultCertificate::Name("nobody.test".to_owned());
    door(&keyring, &wanted);
    let is_told = |news: &tls::News| news.kind == "certificate_warning" && news.text.contains("are refused");
    eventually("nobody is the default", || keyring.news().iter().any(is_told));
    wanted.default = DefaultCertificate::Nothing;
    door(&keyring, &wanted);
    eventually("no default", || {
        meet(config(&main).expect("open"), &client, "127.0.0.1").is_err_and(|error| format!("{error}").contains("no server certificate"))
    });
    assert_eq!(ask("a.test").as_deref(), Some("a.test"));
}

#[test]
fn a_bad_certificate_takes_only_its_names_away() {
    let (folder, authority, keyring) = (tempfile::tempdir().expect("folder"), Authority::new("ca"), Keyring::start().expect("thread"));
    let good = authority.certificate(&["good.test"]).write(folder.path(), "good");
    let absent = (folder.path().join("absent.pem"), folder.path().join("absent.key"));
    let mixed = authority.certificate(&["mixed.test"]).write(folder.path(), "mixed");
    std::fs::write(&mixed.1, authority.certificate(&["else.test"]).key).expect("written");
    let garbage = (folder.path().join("garbage.pem"), good.1.clone());
    std::fs::write(&garbage.0, "-----BEGIN CERTIFICATE-----\nAAAA\n").expect("written");
    let entries =
        vec![entry(&absent, &["absent.test"]), entry(&mixed, &["mixed.test"]), entry(&garbage, &["garbage.test"]), entry(&good, &[])];
    let main = door(&keyring, &settings(entries));
    let client = fresh(authority.anonymous());
    assert_eq!(shown(&main, &client, "good.test").as_deref(), Some("good.test"));
    for name in ["absent.test", "mixed.test", "garbage.test"] {
        let error = meet(config(&main).expect("open"), &client, name).expect_err("not served");
        assert!(format!("{error}").contains("no server certificate"), "nobody else answers for it: {error}");
    }
    let error = meet(config(&main).expect("open"), &client, "other.test").expect_err("not named");
    assert!(format!("{error}").contains("good.test"), "the first that can be used is the default: {error}");
    let news: Vec<_> = keyring.news().into_iter().filter(|news| news.kind == "certificate_failed").collect();
    let text = format!("{news:?}");
    assert_eq!(news.len(), 3, "{text}");
    for words in [
        "absent.pem is not there",
        "mixed.pem: the key does not belong to the certificate",
        "garbage.pem: its PEM is broken",
        "listener main",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    let unusable = || keyring.states().iter().filter(|state| state.problem.is_some() && state.not_after_s.is_none()).count();
    eventually("three cannot be used", || unusable() == 3);
    // They come later.
    authority.certificate(&["absent.test"]).write(folder.path(), "absent");
    eventually("it is served when it comes", || shown(&main, &client, "absent.test").as_deref() == Some("absent.test"));
}

#[test]
fn files_are_read_again_and_a_half_written_pair_changes_nothing() {
    let (folder, authority, keyring) = (tempfile::tempdir().expect("folder"), Authority::new("ca"), Keyring::start().expect("thread"));
    let files = authority.certificate(&["old.test", "same.test"]).write(folder.path(), "site");
    let main = door(&keyring, &settings(vec![entry(&files, &["same.test"])]));
    let client = fresh(authority.anonymous());
    let ask = || shown(&main, &client, "same.test").expect("always served");
    assert_eq!(ask(), "old.test");
    let next = authority.certificate(&["new.test", "same.test"]);
    // The certificate without its key, and then a file that is cut off.
    std::fs::write(&files.0, &next.chain).expect("written");
    eventually("it is told", || {
        keyring.news().iter().any(|news| news.kind == "certificate_failed" && news.text.contains("the one from before is still shown"))
    });
    assert_eq!(ask(), "old.test");
    eventually("it is seen", || keyring.states()[0].problem.is_some() && keyring.states()[0].not_after_s.is_some());
    std::fs::write(&files.1, &next.key[..next.key.len() / 2]).expect("written");
    assert_eq!(ask(), "old.test");
    std::fs::write(&files.1, &next.key).expect("written");
    eventually("the new one", || ask() == "new.test");
    eventually("it is told", || keyring.news().iter().any(|news| news.kind == "certificate_loaded"));
    // By a rename, as certbot and Kubernetes do it, and of the same length.
    let third = authority.certificate(&["now.test", "same.test"]);
    let (chain, key) = third.write(folder.path(), "aside");
    std::fs::rename(key, &files.1).expect("renamed");
    std::fs::rename(chain, &files.0).expect("renamed");
    eventually("the third one", || ask() == "now.test");
    std::fs::remove_file(&files.0).expect("removed");
    eventually("it is told", || keyring.news().iter().any(|news| news.kind == "certificate_failed"));
    assert_eq!(ask(), "now.test");
}

#[test]
fn an_expired_certificate_is_shown_and_told() {
    let (folder, authority, keyring) = (tempfile::tempdir().expect("folder"), Authority::new("ca"), Keyring::start().expect("thread"));
    let made = authority.with(&["old.test"], KeyPair::generate().expect("key"), |params| {
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    });
    let files = made.write(folder.path(), "old");
    let main = door(&keyring, &settings(vec![entry(&files, &[])]));
    let error = meet(config(&main).expect("open"), &fresh(authority.anonymous()), "old.test").expect_err("expired");
    assert!(format!("{error}").contains("expired"), "{error}");
    let news = keyring.news();
    assert!(news.iter().any(|news| news.kind == "certificate_warning" && news.text.contains("has expired")), "{news:?}");
}

#[test]
fn a_name_may_have_two_kinds_of_keys() {
    let (folder, authority, keyring) = (tempfile::tempdir().expect("folder"), Authority::new("ca"), Keyring::start().expect("thread"));
    let rsa = KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).expect("key");
    let rsa = authority.with(&["rsa.test", "two.test"], rsa, |_| {}).write(folder.path(), "rsa");
    let ecdsa = authority.certificate(&["two.test"]).write(folder.path(), "ecdsa");
    let main = door(&keyring, &settings(vec![entry(&ecdsa, &["two.test"]), entry(&rsa, &["two.test"])]));
    let shown_to = |client| shown(&main, &fresh(client), "two.test").expect("served");
    assert_eq!(shown_to(authority.anonymous()), "two.test", "the first of the list goes first");
    assert_eq!(shown_to(authority.knowing_only_rsa()), "rsa.test");
}

#[test]
fn clients_are_verified_as_the_settings_say() {
    let (folder, authority, keyring) = (tempfile::tempdir().expect("folder"), Authority::new("ca"), Keyring::start().expect("thread"));
    let (people, strangers) = (Authority::new("people"), Authority::new("strangers"));
    let files = authority.certificate(&["a.test"]).write(folder.path(), "site");
    let ca = folder.path().join("people.pem");
    let auth = |required| Some(ClientAuth { ca: ca.clone(), required });
    let mut wanted = settings(vec![entry(&files, &[])]);
    wanted.client_auth = auth(true);
    let main = door(&keyring, &wanted);
    assert!(config(&main).is_none(), "without its authorities nobody gets in");
    assert!(keyring.news().iter().any(|news| news.text.contains("nobody gets in")));
    std::fs::write(&ca, &people.pem).expect("written");
    eventually("they came", || config(&main).is_some());
    let meet_as = |made: Option<&common::Made>| {
        let client = made.map_or_else(|| authority.anonymous(), |made| authority.as_client(made));
        meet(config(&main).expect("open"), &fresh(client), "a.test")
    };
    let ana = people.with(&["ana.test"], KeyPair::generate().expect("key"), |params| {
        params.distinguished_name.push(DnType::CommonName, "Ana, \"the\" Über\r\nX: y");
        params.subject_alt_names.push(SanType::URI("spiffe://home/ana;DNS=root".try_into().expect("uri")));
    });
    let identity = meet_as(Some(&ana)).expect("let in").identity.expect("known");
    assert!(
        identity.field.starts_with("Hash=") && identity.field.contains(";DNS=ana.test;URI=\"spiffe://home/ana;DNS=root\""),
        "{identity:?}"
    );
    assert!(identity.field.contains(r#"Subject="CN=Ana, \"the\" %C3%9Cber%0D%0AX: y""#), "{identity:?}");
    assert!(!identity.has_expired());
    assert!(meet_as(None).is_err(), "a certificate is required");
    assert!(meet_as(Some(&strangers.certificate(&["ana.test"]))).is_err(), "of another authority");
    wanted.client_auth = auth(false);
    door(&keyring, &wanted);
    assert!(meet_as(None).expect("optional now").identity.is_none());
    assert!(meet_as(Some(&ana)).expect("let in").identity.is_some());
    assert!(meet_as(Some(&strangers.certificate(&["ana.test"]))).is_err(), "a wrong one is worse than none");
    wanted.client_auth = auth(true);
    door(&keyring, &wanted);
    assert!(meet_as(None).is_err(), "required, from the moment on that it was said");
    // The authorities are exchanged: whoever came with an earlier one is not let in by it any more.
    let before = Arc::new(authority.as_client(&ana));
    assert!(!meet(config(&main).expect("open"), &before, "a.test").expect("let in").resumed);
    assert!(meet(config(&main).expect("open"), &before, "a.test").expect("let in").resumed);
    std::fs::write(&ca, &strangers.pem).expect("written");
    eventually("exchanged", || meet_as(Some(&ana)).is_err());
    assert!(meet(config(&main).expect("open"), &before, "a.test").is_err(), "its ticket is of before");
}

#[test]
fn a_session_goes_on_in_the_next_process_but_not_at_another_listener() {
    let (folder, authority) = (tempfile::tempdir().expect("folder"), Authority::new("ca"));
    let files = authority.certificate(&["a.test"]).write(folder.path(), "site");
    let wanted = settings(vec![entry(&files, &[])]);
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let client = Arc::new(authority.client_of(&[version]));
        let resumes = |door: &tls::Door| meet(config(door).expect("open"), &client, "a.test").expect("served").resumed;
        let (first, second) = (Keyring::start().expect("thread"), Keyring::start().expect("thread"));
        let main = door(&first, &wanted);
        assert!(!resumes(&main));
        assert!(resumes(&main), "{version:?}");
        let next = door(&second, &wanted);
        assert!(!resumes(&next), "{version:?}: its keys are its own");
        second.adopt_ticket_keys(first.ticket_keys());
        assert!(!resumes(&next), "this ticket was of the keys before");
        assert!(resumes(&main), "{version:?}: whoever comes next can open it");
        assert!(resumes(&next), "{version:?}");
        let other = second.doors(&[("other".to_owned(), wanted.clone())].into()).remove("other").expect("asked for");
        assert!(!resumes(&other), "{version:?}");
    }
}

#[test]
fn an_authority_that_asks_gets_its_proof_and_code_may_bring_certificates() {
    let (folder, authority, keyring) = (tempfile::tempdir().expect("folder"), Authority::new("ca"), Keyring::start().expect("thread"));
    let files = authority.certificate(&["a.test"]).write(folder.path(), "site");
    let acme = Acme {
        domains: vec!["new.test".to_owned(), "second.test".to_owned()],
        email: None,
        directory: "https://ca.test/directory".to_owned(),
        ca: model::Authorities::System,
        challenge: model::Challenge::TlsAlpn,
    };
    let mut wanted = settings(vec![entry(&files, &[])]);
    wanted.acme = Some(acme.clone());
    let main = door(&keyring, &wanted);
    assert_eq!(keyring.asked().borrow().get("main"), Some(&acme));
    let pair = |names: &[&str]| {
        let made = authority.certificate(names);
        Pair::from_pem(made.chain.as_bytes(), made.key.as_bytes()).expect("good")
    };
    keyring.issued().set_challenge("new.test", Some(&pair(&["new.test", "proof.test"])));
    let mut asking = authority.anonymous();
    asking.alpn_protocols = vec![tls::ACME_CHALLENGE.to_vec()];
    let asking = fresh(asking);
    let met = meet(config_for(&main, true).expect("open"), &asking, "new.test").expect("proven");
    assert_eq!((met.shown.as_str(), met.protocol.as_deref()), ("new.test", Some(tls::ACME_CHALLENGE)));
    assert!(meet(config_for(&main, true).expect("open"), &asking, "a.test").is_err(), "not asked to prove");
    let client = fresh(authority.anonymous());
    assert!(shown(&main, &client, "new.test").is_none(), "a proof is for the authority only");
    keyring.issued().set("new.test", Some(&pair(&["new.test"])));
    keyring.issued().set("a.test", Some(&pair(&["code.test", "a.test"])));
    assert_eq!(shown(&main, &client, "new.test").as_deref(), Some("new.test"));
    assert_eq!(shown(&main, &client, "a.test").as_deref(), Some("a.test"), "files go first");
    let not_named = |what: &str| {
        let error = meet(config(&main).expect("open"), &client, "127.0.0.1").err();
        error.is_some_and(|error| format!("{error}").contains(what))
    };
    assert!(not_named("a.test"), "the first of the files is the default");
    let refused = |name: &str| {
        let error = meet(config(&main).expect("open"), &client, name).err();
        error.is_some_and(|error| format!("{error}").contains("no server certificate"))
    };
    assert!(refused("second.test"), "not issued yet: nobody answers for it");
    wanted.certificates.clear();
    keyring.doors(&[("main".to_owned(), wanted.clone())].into());
    eventually("the first that is asked for is the default", || not_named("new.test"));
    wanted.default = DefaultCertificate::Name("second.test".to_owned());
    keyring.doors(&[("main".to_owned(), wanted.clone())].into());
    eventually("another one", || refused("127.0.0.1"));
    keyring.issued().set("second.test", Some(&pair(&["second.test"])));
    assert!(not_named("second.test"));
    let of_asked = |state: &tls::State| (state.names.concat(), state.not_after_s.is_some(), state.problem.is_some());
    let all = vec![("new.test".to_owned(), true, false), ("second.test".to_owned(), true, false)];
    eventually("they are told", || keyring.states().iter().map(of_asked).collect::<Vec<_>>() == all);
    keyring.issued().set("new.test", None);
    assert!(shown(&main, &client, "new.test").is_none());
    // Whoever does not ask for it does not show it.
    wanted.acme = None;
    wanted.certificates = vec![entry(&files, &[])];
    wanted.default = DefaultCertificate::Nothing;
    keyring.doors(&[("main".to_owned(), wanted)].into());
    eventually("not shown", || refused("second.test"));
}
