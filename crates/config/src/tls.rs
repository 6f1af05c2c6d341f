//! `tls` of a listener and of a service: which files, never what is in them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use model::{Authorities, Certificate, ClientAuth, DefaultCertificate, ListenerTls, TargetTls};

use crate::acme;
use crate::node::{Kind, Node};
use crate::problems::Problems;
use crate::table::Table;
use crate::values::{choice, is_host, list, text};

const PAIR_HINT: &str = "such as `certificate: example.pem, key: example.key`";

/// With what of `acme` is settled when all listeners are known.
pub(crate) fn of_listener(
    node: &Node,
    listener: &str,
    folder: &Path,
    problems: &mut Problems,
) -> Option<(ListenerTls, Option<acme::Open>)> {
    let mut table = Table::open(node, format!("`tls` of {listener}"), problems)?;
    let asked = match (table.take("acme"), table.left_empty("acme")) {
        (Some(node), _) => acme::acme(node, listener, folder, problems).map(Some),
        (None, Some(node)) => {
            let hint = "such as `acme: { domains: [example.com], terms_agreed: true }`";
            problems.add(&node.at, "`acme` is empty", Some(hint.to_owned()));
            None
        }
        (None, None) => Some(None),
    };
    let has_acme = !matches!(asked, Some(None));
    let alone = ["names", "certificate", "key"].map(|field| table.take_entry(field));
    let certificates = match table.take("certificates") {
        Some(node) => {
            for (key, _) in alone.into_iter().flatten() {
                let hint = "put it into an entry of `certificates`, or leave `certificates` out";
                problems.add(&key.at, format!("`{}` stands beside `certificates`", key.text), Some(hint.to_owned()));
            }
            certificates(node, folder, problems)
        }
        None if has_acme && alone.iter().all(Option::is_none) => Some(Vec::new()),
        None if alone[1].is_none() && alone[2].is_none() => {
            table.missing("certificates", "such as `certificates: [{ certificate: example.pem, key: example.key }]`, or `acme`", problems);
            None
        }
        None => {
            let [names, certificate, key] = alone.map(|entry| entry.map(|(_, node)| node));
            pair(&table, names, certificate, key, folder, problems).map(|one| vec![one])
        }
    };
    let domains = asked.iter().flatten().flat_map(|(acme, _)| acme.domains.clone()).collect::<Vec<_>>();
    let default =
        table.take("default").map_or(Some(DefaultCertificate::First), |node| default(node, certificates.as_deref(), &domains, problems));
    let client_auth = client_auth(&mut table, folder, problems);
    table.finish(problems);
    let (acme, open) = asked?.unzip();
    Some((ListenerTls { certificates: certificates?, default: default?, client_auth: client_auth?, acme }, open))
}

fn certificates(node: &Node, folder: &Path, problems: &mut Problems) -> Option<Vec<Certificate>> {
    let items = list(node, "`certificates`", problems)?;
    if items.is_empty() {
        problems.add(&node.at, "`certificates` is empty", Some(PAIR_HINT.to_owned()));
        return None;
    }
    let one = |node: &Node, problems: &mut Problems| {
        let mut table = Table::open(node, "an entry of `certificates`", problems)?;
        let [names, certificate, key] = ["names", "certificate", "key"].map(|field| table.take(field));
        let pair = pair(&table, names, certificate, key, folder, problems);
        table.finish(problems);
        pair
    };
    let all: Vec<_> = items.iter().map(|node| one(node, problems)).collect();
    all.into_iter().collect()
}

fn pair(
    table: &Table<'_>,
    names: Option<&Node>,
    certificate: Option<&Node>,
    key: Option<&Node>,
    folder: &Path,
    problems: &mut Problems,
) -> Option<Certificate> {
    for (field, node) in [("certificate", certificate), ("key", key)] {
        if node.is_none() {
            table.missing(field, PAIR_HINT, problems);
        }
    }
    let names = names.map_or(Some(Vec::new()), |node| names_of(node, problems));
    let certificate = certificate.and_then(|node| file(node, "`certificate`", folder, problems));
    let key = key.and_then(|node| file(node, "`key`", folder, problems));
    Some(Certificate { names: names?, certificate: certificate?, key: key? })
}

fn names_of(node: &Node, problems: &mut Problems) -> Option<Vec<String>> {
    let items = list(node, "`names`", problems)?;
    if items.is_empty() {
        let hint = "leave `names` out to take those that the certificate names";
        problems.add(&node.at, "`names` is empty", Some(hint.to_owned()));
    }
    let mut seen = BTreeSet::new();
    let names: Vec<_> = items
        .iter()
        .map(|node| {
            let name = name(node, "a name of `names`", problems)?;
            if !seen.insert(name.clone()) {
                problems.add(&node.at, format!("`{name}` stands twice in `names`"), None);
            }
            Some(name)
        })
        .collect();
    names.into_iter().collect()
}

/// What clients ask for (SNI): a host's name, or `*.` and one.
fn name(node: &Node, what: &str, problems: &mut Problems) -> Option<String> {
    let given = text(node, what, problems)?.to_ascii_lowercase();
    let host = given.strip_prefix("*.").unwrap_or(&given);
    if host.parse::<std::net::IpAddr>().is_ok() || host.starts_with('[') {
        let hint = "clients that connect to an address name nobody; they get the `default`";
        problems.add(&node.at, format!("{what} must be a name, found the address `{given}`"), Some(hint.to_owned()));
        return None;
    }
    if is_host(host) {
        return Some(given);
    }
    let port = given.rsplit_once(':').filter(|(host, _)| is_host(host));
    let hint = port.map_or("such as `example.com` or `*.example.com`".to_owned(), |(host, _)| format!("leave the port out: `{host}`"));
    problems.add(&node.at, format!("{what} must be a host or `*.` and a host, found `{given}`"), Some(hint));
    None
}

fn default(node: &Node, certificates: Option<&[Certificate]>, asked: &[String], problems: &mut Problems) -> Option<DefaultCertificate> {
    if let Kind::Scalar(word) = &node.kind
        && let Some(known) = [("first", DefaultCertificate::First), ("none", DefaultCertificate::Nothing)].iter().find(|(it, _)| it == word)
    {
        return Some(known.1.clone());
    }
    let name = name(node, "`default`", problems)?;
    // Names that stand in the certificates are not known here.
    let all_are_given = certificates.is_some_and(|all| all.iter().all(|certificate| !certificate.names.is_empty()));
    if all_are_given && !asked.contains(&name) && !certificates.into_iter().flatten().any(|certificate| covers(&certificate.names, &name)) {
        let hint = "one of the `names` or `domains`, `first` or `none`";
        problems.add(&node.at, format!("no certificate has the name `{name}` of `default`"), Some(hint.to_owned()));
    }
    Some(DefaultCertificate::Name(name))
}

fn covers(names: &[String], wanted: &str) -> bool {
    let wildcard = wanted.split_once('.').map(|(_, suffix)| format!("*.{suffix}"));
    names.iter().any(|name| name == wanted || Some(name) == wildcard.as_ref())
}

fn client_auth(table: &mut Table<'_>, folder: &Path, problems: &mut Problems) -> Option<Option<ClientAuth>> {
    let (ca, auth) = (table.take("client_ca"), table.take("client_auth"));
    let empty = ["client_ca", "client_auth"].into_iter().find_map(|field| Some((field, table.left_empty(field)?)));
    if let Some((field, node)) = empty {
        // Left empty by mistake it would let everybody in.
        problems.add(&node.at, format!("`{field}` is empty"), Some("leave it out to ask clients for no certificate".to_owned()));
        return None;
    }
    let known = [("required", true), ("optional", false)];
    let required = auth.map_or(Some(true), |node| choice(node, "`client_auth`", &known, problems));
    match (ca, auth) {
        (Some(ca), _) => Some(Some(ClientAuth { ca: file(ca, "`client_ca`", folder, problems)?, required: required? })),
        (None, Some(auth)) => {
            let hint = "add `client_ca`: the file of the authorities that clients' certificates come from";
            problems.add(&auth.at, "`client_auth` without `client_ca`", Some(hint.to_owned()));
            None
        }
        (None, None) => Some(None),
    }
}

/// `tls` of a service; an empty one trusts the authorities of this machine.
pub(crate) fn of_service(table: &mut Table<'_>, folder: &Path, problems: &mut Problems) -> Option<Option<TargetTls>> {
    let place = format!("`tls` of {}", table.place);
    let mut table = match (table.take("tls"), table.left_empty("tls")) {
        (Some(node), _) => Table::open(node, place, problems)?,
        (None, Some(node)) => Table::empty(&node.at, place),
        (None, None) => return Some(None),
    };
    let [ca, name, certificate, key] = ["ca", "name", "certificate", "key"].map(|field| table.take(field));
    let ca = ca.map_or(Some(Authorities::System), |node| authorities(node, folder, problems));
    let name = name.map_or(Some(None), |node| target_name(node, problems).map(Some));
    for (field, other, has, has_other) in
        [("key", "certificate", key.is_some(), certificate.is_some()), ("certificate", "key", certificate.is_some(), key.is_some())]
    {
        if has_other && !has {
            table.missing(field, &format!("it belongs to `{other}`"), problems);
        }
    }
    let identity = match (certificate, key) {
        (Some(certificate), Some(key)) => {
            let (certificate, key) = (file(certificate, "`certificate`", folder, problems), file(key, "`key`", folder, problems));
            certificate.zip(key).map(Some)
        }
        _ => Some(None),
    };
    table.finish(problems);
    Some(Some(TargetTls { ca: ca?, name: name?, identity: identity? }))
}

pub(crate) fn authorities(node: &Node, folder: &Path, problems: &mut Problems) -> Option<Authorities> {
    if matches!(&node.kind, Kind::Scalar(word) if word == "system") {
        return Some(Authorities::System);
    }
    file(node, "`ca`", folder, problems).map(Authorities::File)
}

/// A host's name or an address, as it stands in the certificate.
fn target_name(node: &Node, problems: &mut Problems) -> Option<String> {
    let given = text(node, "`name`", problems)?.to_ascii_lowercase();
    if given.parse::<std::net::IpAddr>().is_ok() || is_host(&given) && !given.starts_with('[') {
        return Some(given);
    }
    let hint = "such as `app.internal`: what the targets' certificate names";
    problems.add(&node.at, format!("`name` must be a host or an address, found `{given}`"), Some(hint.to_owned()));
    None
}

fn file(node: &Node, what: &str, folder: &Path, problems: &mut Problems) -> Option<PathBuf> {
    let text = text(node, what, problems)?;
    if text.contains("-----BEGIN") || text.trim().is_empty() {
        let hint = "write it into a file, and its path here";
        problems.add(&node.at, format!("{what} must be the path of a file"), Some(hint.to_owned()));
        return None;
    }
    Some(folder.join(text))
}
