//! `acme` in `tls` of a listener: which names an authority is asked for, and how it sees that they are ours.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use model::{Acme, Authorities, Challenge, Listener, ListenerName};

use crate::node::{At, Node};
use crate::problems::Problems;
use crate::table::Table;
use crate::tls::authorities;
use crate::values::{choice, is_host, list, text};

const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";
const LETS_ENCRYPT_STAGING: &str = "https://acme-staging-v02.api.letsencrypt.org/directory";
/// Of a listener. Let's Encrypt gives 300 new certificates in three hours.
const DOMAINS_MAX: usize = 100;
const DOMAINS_HINT: &str = "such as `domains: [example.com, www.example.com]`";

/// What is known only when all listeners are.
pub(crate) struct Open {
    at: At,
    challenge: Option<Challenge>,
}

pub(crate) fn acme(node: &Node, listener: &str, folder: &Path, problems: &mut Problems) -> Option<(Acme, Open)> {
    let mut table = Table::open(node, format!("`acme` of {listener}"), problems)?;
    let directory = table.take("directory").map_or(Some(LETS_ENCRYPT.to_owned()), |node| directory(node, problems));
    let is_lets_encrypt = matches!(directory.as_deref(), Some(LETS_ENCRYPT | LETS_ENCRYPT_STAGING));
    let domains = match table.take("domains") {
        Some(node) => domains(node, is_lets_encrypt, problems),
        None => {
            table.missing("domains", DOMAINS_HINT, problems);
            None
        }
    };
    let email = table.take("email").map_or(Some(None), |node| email(node, problems).map(Some));
    let ca = table.take("ca").map_or(Some(Authorities::System), |node| authorities(node, folder, problems));
    let known = [("http-01", Challenge::Http), ("tls-alpn-01", Challenge::TlsAlpn)];
    let challenge = table.take("challenge").map_or(Some(None), |node| challenge(node, &known, problems).map(Some));
    let switch = [("true", true), ("false", false)];
    let agreed = table.take("terms_agreed").map_or(Some(false), |node| choice(node, "`terms_agreed`", &switch, problems));
    if agreed == Some(false) {
        let hint =
            "read the terms of the authority (Let's Encrypt: https://letsencrypt.org/repository/); who agrees says `terms_agreed: true`";
        problems.add(&table.at, format!("{} does not agree to the authority's terms", table.place), Some(hint.to_owned()));
    }
    table.finish(problems);
    let challenge = challenge?;
    let open = Open { at: node.at.clone(), challenge };
    let challenge = challenge.unwrap_or(Challenge::TlsAlpn);
    Some((Acme { domains: domains?, email: email?, directory: directory?, ca: ca?, challenge }, open))
}

fn challenge(node: &Node, known: &[(&str, Challenge)], problems: &mut Problems) -> Option<Challenge> {
    if text(node, "`challenge`", problems)? == "dns-01" {
        let hint = "say `http-01` or `tls-alpn-01`; with `certificates`, another program may bring what DNS has proven";
        problems.add(&node.at, "`dns-01` is not there", Some(hint.to_owned()));
        return None;
    }
    choice(node, "`challenge`", known, problems)
}

fn domains(node: &Node, is_lets_encrypt: bool, problems: &mut Problems) -> Option<Vec<String>> {
    let items = list(node, "`domains`", problems)?;
    if items.is_empty() {
        problems.add(&node.at, "`domains` is empty", Some(DOMAINS_HINT.to_owned()));
    }
    if items.len() > DOMAINS_MAX {
        problems.add(&node.at, format!("{} names in `domains`; {DOMAINS_MAX} at most", items.len()), None);
    }
    let mut seen = BTreeSet::new();
    let all: Vec<_> = items
        .iter()
        .map(|node| {
            let name = domain(node, is_lets_encrypt, problems)?;
            if !seen.insert(name.clone()) {
                problems.add(&node.at, format!("`{name}` stands twice in `domains`"), None);
            }
            Some(name)
        })
        .collect();
    all.into_iter().collect()
}

/// What an authority can be asked for without DNS's help.
fn domain(node: &Node, is_lets_encrypt: bool, problems: &mut Problems) -> Option<String> {
    let name = text(node, "a name of `domains`", problems)?.to_ascii_lowercase();
    let mut refuse = |message: String, hint: &str| {
        problems.add(&node.at, message, Some(hint.to_owned()));
        None
    };
    if name.contains('*') {
        let hint = "name each host; a wildcard can come from files, in `certificates`";
        return refuse(format!("`{name}`: an authority gives a wildcard only for a proof in DNS, which is not there"), hint);
    }
    if name.parse::<std::net::IpAddr>().is_ok() || name.starts_with('[') {
        return refuse(format!("a name of `domains` must be a name, found the address `{name}`"), DOMAINS_HINT);
    }
    if !name.is_ascii() {
        return refuse(format!("`{name}` must be written in ASCII"), "as `xn--…`: what `idn` or a browser's address line makes of it");
    }
    let edge = |label: &str| label.starts_with('-') || label.ends_with('-');
    if !is_host(&name) || name.contains('_') || name.split('.').any(edge) {
        let port = name.rsplit_once(':').filter(|(host, _)| is_host(host)).map(|(host, _)| format!("leave the port out: `{host}`"));
        let hint = port.unwrap_or_else(|| "such as `example.com`".to_owned());
        return refuse(format!("a name of `domains` must be a host, found `{name}`"), &hint);
    }
    if is_lets_encrypt && !name.contains('.') {
        let hint = "Let's Encrypt is for names that the whole internet knows; an authority of your own stands in `directory`";
        return refuse(format!("`{name}` is no public name"), hint);
    }
    Some(name)
}

fn email(node: &Node, problems: &mut Problems) -> Option<String> {
    let email = text(node, "`email`", problems)?;
    let is_plain = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_graphic() && !b"@,:<>?".contains(&byte));
    if email.split_once('@').is_some_and(|(user, host)| is_plain(user) && is_plain(host)) {
        return Some(email);
    }
    problems.add(&node.at, format!("`email` must be one address, found `{email}`"), Some("such as `ops@example.com`".to_owned()));
    None
}

fn directory(node: &Node, problems: &mut Problems) -> Option<String> {
    let given = text(node, "`directory`", problems)?;
    match given.as_str() {
        "letsencrypt" => return Some(LETS_ENCRYPT.to_owned()),
        "staging" => return Some(LETS_ENCRYPT_STAGING.to_owned()),
        _ => {}
    }
    let authority = given.strip_prefix("https://").map(|rest| rest.split(['/', '?', '#']).next().unwrap_or_default());
    let has_host = authority.is_some_and(|authority| {
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse::<u16>().is_ok()),
            _ => (authority, true),
        };
        port && is_host(host)
    });
    if has_host && given.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Some(given);
    }
    let hint = "`letsencrypt`, `staging` (Let's Encrypt for trying out), or such as `https://ca.internal/acme/directory`";
    problems.add(&node.at, format!("`directory` must be an authority that speaks ACME over HTTPS, found `{given}`"), Some(hint.to_owned()));
    None
}

/// Chooses the proof where the file does not, and looks whether it can be given.
pub(crate) fn settle(listeners: &mut BTreeMap<ListenerName, Listener>, open: &BTreeMap<ListenerName, Open>, problems: &mut Problems) {
    let in_clear: Vec<u16> = listeners.values().filter(|listener| listener.tls.is_none()).map(|listener| listener.address.port()).collect();
    let mut seen: BTreeMap<String, (ListenerName, Acme)> = BTreeMap::new();
    for (name, listener) in listeners {
        let port = listener.address.port();
        let (Some(acme), Some(open)) = (listener.tls.as_mut().and_then(|tls| tls.acme.as_mut()), open.get(name)) else { continue };
        // One port that need not be open for anybody else: unless the file shows that it is port 80 that is.
        let fitting = if port != Challenge::TlsAlpn.port() && in_clear.contains(&80) { Challenge::Http } else { Challenge::TlsAlpn };
        acme.challenge = open.challenge.unwrap_or(fitting);
        if acme.challenge == Challenge::Http && in_clear.is_empty() {
            let hint = "add one, such as `plain: 0.0.0.0:80` in `listeners`, or say `challenge: tls-alpn-01`";
            problems.add(&open.at, "`http-01` needs a listener in clear: there the authority asks", Some(hint.to_owned()));
        }
        for domain in &acme.domains {
            let other = seen.entry(domain.clone()).or_insert_with(|| (name.clone(), acme.clone()));
            let asks_alike = |it: &Acme| (it.directory.clone(), it.ca.clone(), it.email.clone());
            if asks_alike(&other.1) != asks_alike(acme) {
                let message = format!("`{domain}` stands in `acme` of listeners `{}` and `{name}`, which ask differently", other.0);
                let hint = "give both the same `directory`, `ca` and `email`: a name has one certificate";
                problems.add(&open.at, message, Some(hint.to_owned()));
            }
        }
    }
}
