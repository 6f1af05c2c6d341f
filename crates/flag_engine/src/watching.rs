//! The watched files of the environments: what is good in them is in force, what is not is told.
//!
//! **Invariant**: an environment's files are tried together with all else that it serves before they are in force. Not here: reading
//! one file (files).

use std::collections::BTreeMap;
use std::sync::Arc;

use store::Batch;

use crate::effective::Sources;
use crate::files::{Good, sum};
use crate::flag::Origin;
use crate::meters::wall_ms;
use crate::registry::{Registry, compile, kept};

impl Registry {
    pub(crate) fn add_up(&mut self, index: usize) {
        let environment = &mut self.environments[index];
        let goods = environment.files.iter().filter_map(|file| Some((file.path.as_path(), file.good.as_ref()?)));
        match sum(goods) {
            Ok(sum) => environment.from_files = sum,
            Err(error) => environment.problem = Some(error),
        }
    }

    pub(crate) async fn look_at_files(&mut self) {
        for index in 0..self.environments.len() {
            for file in 0..self.environments[index].files.len() {
                if self.look_at_file(index, file).await {
                    self.publish(index);
                    let name = self.environments[index].config.name.clone();
                    self.renew_trials(&name).await;
                }
            }
        }
        self.note_problems();
    }

    /// Files of which nothing was good yet: before the environment is published, or what they say would be missing meanwhile. True
    /// when they say something.
    pub(crate) async fn look_at_new_files(&mut self, index: usize) -> bool {
        let mut is_new = false;
        for file in 0..self.environments[index].files.len() {
            is_new |= self.environments[index].files[file].good.is_none() && self.look_at_file(index, file).await;
        }
        is_new
    }

    /// True when it says something new, which is kept and can be published.
    async fn look_at_file(&mut self, index: usize, file: usize) -> bool {
        let environment = &mut self.environments[index];
        let Some(seen) = environment.files[file].look(environment.bucketing) else { return false };
        let (name, path) = (environment.config.name.clone(), environment.files[file].path.clone());
        let tried = seen.and_then(|good| self.try_file(index, file, good));
        let is_new = matches!(tried, Ok(Some(_)));
        match tried {
            Ok(None) => {}
            Ok(Some(good)) => {
                let good = good.dated(self.environments[index].files[file].good.as_ref(), wall_ms());
                let put = (format!("flagfile/{name}/{}", path.display()), kept(&(&name, &path, &good)));
                self.environments[index].files[file].good = Some(good);
                self.add_up(index);
                if let Err(error) = self.store.commit(Batch { puts: vec![put], ..Batch::default() }).await {
                    eprintln!("flags of {} cannot be kept: {error}", path.display());
                }
                self.tell("flags_file", format!("flags of {name}: {} is in force", path.display()));
            }
            Err(problem) => {
                let stays = "what was good before stays in force";
                eprintln!("error: flags of {name}: {problem}\n  hint: {stays}");
                self.tell("flags_refused", format!("flags of {name}: {problem}; {stays}"));
                self.environments[index].files[file].problem = Some(problem);
            }
        }
        let environment = &mut self.environments[index];
        environment.problem = environment.files.iter().find_map(|file| file.problem.clone());
        is_new
    }

    pub(crate) fn note_problems(&self) {
        let all: BTreeMap<String, String> =
            self.environments.iter().filter_map(|it| Some((it.config.name.clone(), it.problem.clone()?))).collect();
        if **self.problems.load() != all {
            self.problems.store(Arc::new(all));
        }
    }

    /// The whole environment with this file's new content, compiled. `None`: it says what it said before.
    pub(crate) fn try_file(&mut self, index: usize, file: usize, good: Good) -> Result<Option<Good>, String> {
        let environment = &mut self.environments[index];
        environment.files[file].problem = None;
        let path = environment.files[file].path.clone();
        let mut ours = good.flags.keys().filter_map(|key| self.flags.get(key)).filter(|flag| matches!(flag.origin, Origin::Store(_)));
        if let Some(flag) = ours.next() {
            // Code that still asks for an archived flag would get what the new one answers.
            let archived = if flag.archived.is_some() { " and is archived" } else { "" };
            let (path, key) = (path.display(), &flag.key);
            return Err(format!(
                "{path}: flag `{key}` was made with `changeover flags create`{archived}: give the one in the file another key"
            ));
        }
        if environment.files[file].good.as_ref().is_some_and(|now| now.says_the_same(&good)) {
            return Ok(None);
        }
        let others = environment.files.iter().enumerate().filter(|(other, _)| *other != file);
        let others = others.filter_map(|(_, other)| Some((other.path.as_path(), other.good.as_ref()?)));
        let files = sum(others.chain([(path.as_path(), &good)]))?;
        let sources = Sources { files: &files, ..self.sources(index) };
        compile(sources).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Some(good))
    }
}
