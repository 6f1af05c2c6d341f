//! Applying the desired state: what would change (`plan`, pure), and changing it.

use model::{Desired, ServiceName};
use release::Service;
use store::Batch;

use crate::engine::Caretaker;

/// What `apply` would do, a line each.
pub(crate) fn plan(now: &Desired, next: &Desired) -> Vec<String> {
    let mut lines = Vec::new();
    for (name, listener) in &next.listeners {
        match now.listeners.get(name) {
            None => lines.push(format!("+ listener {name} on {}", listener.address)),
            Some(old) if old.address != listener.address => {
                lines.push(format!("~ listener {name}: {} → {}", old.address, listener.address));
            }
            Some(old) if old != listener => lines.push(format!("~ listener {name}: tls (at once, for new connections)")),
            Some(_) => {}
        }
    }
    lines.extend(now.listeners.keys().filter(|name| !next.listeners.contains_key(*name)).map(|name| format!("- listener {name}")));
    if now.access_log != next.access_log {
        lines.push("~ access_log (from the next start of `up` on)".to_owned());
    }
    match (&now.api, &next.api) {
        (old, new) if old == new => {}
        (None, Some(api)) => lines.push(format!("+ api on {}", api.listen)),
        (_, Some(api)) => lines.push(format!("~ api on {} (at once)", api.listen)),
        (_, None) => lines.push("- api".to_owned()),
    }
    match (&now.flags, &next.flags) {
        (old, new) if old == new => {}
        (None, Some(_)) => lines.push("+ flags".to_owned()),
        (_, Some(_)) => lines.push("~ flags (at once)".to_owned()),
        (_, None) => lines.push("- flags: they stay in the state, nobody is answered".to_owned()),
    }
    for (name, service) in &next.services {
        match now.services.get(name) {
            None => lines.push(format!("+ service {name}")),
            Some(old) if old != service => lines.push(format!("~ service {name}: {}", changed(old, service))),
            Some(_) => {}
        }
    }
    let gone = now.services.keys().filter(|name| !next.services.contains_key(*name));
    lines.extend(gone.map(|name| format!("- service {name}: its requests finish, its processes are stopped")));
    lines
}

fn changed(old: &model::Service, new: &model::Service) -> String {
    let mut parts = Vec::new();
    if old.routes != new.routes {
        parts.push("routes (at once)")
    }
    if old.run != new.run {
        parts.push("run (from the next deploy on, and for targets that start)")
    }
    if old.health != new.health {
        parts.push("health (at once)")
    }
    if old.strategy != new.strategy {
        parts.push("strategy (from the next deploy on)")
    }
    if old.tls != new.tls {
        parts.push("tls (at once, for new connections to targets)")
    }
    if parts.is_empty() {
        parts.push("settings (at once)")
    }
    parts.join(", ")
}

impl Caretaker {
    /// Makes `next` what is desired: persists it, listens, routes, starts and stops.
    pub(crate) async fn adopt_desired(&mut self, next: Desired) -> Result<Vec<String>, String> {
        let lines = plan(&self.desired, &next);
        if let Err(error) = self.keep_desired(&next).await {
            // It may still be written: what counts is what is in memory.
            self.unsaved = true;
            return Err(format!("{error}; nothing was changed"));
        }
        let old = std::mem::replace(&mut self.desired, next);
        self.shelved = None;
        self.follow_desired(&old).await;
        Ok(lines)
    }

    pub(crate) async fn keep_desired(&self, desired: &Desired) -> Result<(), String> {
        let batch = Batch { puts: vec![("desired".to_owned(), serde_json::to_string(desired).expect("plain data"))], ..Batch::default() };
        self.store.commit(batch).await.map_err(|error| error.to_string())
    }

    /// Brings everything to what is desired now; nothing in here fails for good.
    pub(crate) async fn follow_desired(&mut self, old: &Desired) {
        let new: Vec<ServiceName> = self.desired.services.keys().filter(|name| !self.services.contains_key(*name)).cloned().collect();
        for name in new {
            // A name that was used before goes on counting: its history stays.
            let numbers = self.store.values(&format!("release/{name}/")).await;
            let last = numbers.iter().filter_map(|(key, _)| key.rsplit('/').next()?.parse::<u64>().ok()).max().unwrap_or(0);
            self.services.insert(name.clone(), Service { next_number: last + 1, ..Service::new(name) });
        }
        self.flags.follow(self.desired.flags.as_ref());
        self.open_and_close(old);
        let rechecked: Vec<_> = self
            .targets
            .values()
            .filter(|entry| {
                let (was, is) = (old.services.get(&entry.kept.service), self.desired.services.get(&entry.kept.service));
                entry.checks.is_some() && was.map(|it| (&it.health, &it.tls)) != is.map(|it| (&it.health, &it.tls))
            })
            .map(|entry| entry.kept.id.clone())
            .collect();
        for id in rechecked {
            self.begin_checks(&id);
        }
        self.publish();
        let names: Vec<ServiceName> = self.services.keys().cloned().collect();
        for name in names {
            self.reconcile(&name).await;
            if !self.desired.services.contains_key(&name) && self.shelved.is_none() {
                self.forget_service(&name).await;
            }
        }
    }
}
