//! The real cores of OpenFeature, asked through the small programs beside this file.
//!
//! **Invariant:** answers come in the order of the questions. Not here: what is asked.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

/// A core in another language.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Core {
    /// `@openfeature/flagd-core` 4.0.1: the second generation of bucketing.
    JavaScript,
    /// `openfeature-flagd-core` 2.0.0: the third.
    Python,
}

/// What came of a question, in the words that all cores share.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Answer {
    pub(crate) variant: Option<String>,
    pub(crate) reason: String,
    pub(crate) error: Option<String>,
    /// The name that a rule chose although it is no variant: told in the message.
    pub(crate) chose: Option<String>,
}

impl Core {
    /// What this core answers to each key and context with the flag set.
    pub(crate) fn answers(self, set: &str, questions: &[(String, Value)]) -> Vec<Answer> {
        let mut lines = vec![json!({ "flags": set })];
        lines.extend(questions.iter().map(|(key, context)| json!({ "key": key, "context": context })));
        let answers = self.lines(&lines);
        assert_eq!(answers.len(), questions.len(), "{:?}: {:?}", self, answers.first());
        answers.iter().map(|answer| self.answer(answer)).collect()
    }

    fn answer(self, answer: &Value) -> Answer {
        let text = |name: &str| answer[name].as_str().map(str::to_owned);
        let chose = text("message").and_then(|message| match self {
            Self::JavaScript => between(&message, "Variant '", "' not found"),
            Self::Python => between(&message, "Resolved variant ", " not in variants config"),
        });
        Answer { variant: text("variant"), reason: text("reason").unwrap_or_default(), error: text("error"), chose }
    }

    fn lines(self, lines: &[Value]) -> Vec<Value> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cores");
        let mut command = match self {
            Self::JavaScript => {
                let mut command = Command::new("node");
                command.arg(folder.join("core.cjs")).env("NODE_PATH", testbed::tools::node_modules());
                command
            }
            Self::Python => {
                let mut command = Command::new(testbed::tools::python());
                command.arg(folder.join("core.py"));
                command
            }
        };
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the core starts");
        let mut input = child.stdin.take().expect("its input");
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        // It answers while it is still being asked: a full pipe would stop both.
        let writer = std::thread::spawn(move || input.write_all(text.as_bytes()).expect("it reads"));
        let output = child.wait_with_output().expect("it ends");
        writer.join().expect("all is written");
        assert!(output.status.success(), "{self:?} failed");
        let text = String::from_utf8(output.stdout).expect("text");
        text.lines().map(|line| serde_json::from_str(line).expect("an answer")).collect()
    }
}

pub(crate) fn between(text: &str, before: &str, after: &str) -> Option<String> {
    let start = text.find(before)? + before.len();
    let end = text.rfind(after)?;
    text.get(start..end).map(str::to_owned)
}

/// What ours answers, in the same words.
pub(crate) fn ours(set: &flags::Set, key: &str, context: &Value) -> Answer {
    let context = flags::Context::from_object(context.as_object().expect("an object").clone());
    let now_s = std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_secs();
    match set.evaluate(key, &context, i64::try_from(now_s).expect("before the end of time")) {
        Ok(answer) => {
            Answer { variant: answer.variant.map(str::to_owned), reason: answer.reason.as_str().to_owned(), error: None, chose: None }
        }
        Err(error) => Answer {
            variant: None,
            reason: "ERROR".to_owned(),
            error: Some(error.code().to_owned()),
            chose: between(&error.to_string(), "chose `", "`, which is none"),
        },
    }
}
