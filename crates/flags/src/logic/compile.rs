//! Compiles a rule from the set's text.
//!
//! **Invariant:** whatever the text says, a rule comes of it, and every part that can never do what it says is found, with its place.
//! Not here: `fractional` and `sem_ver` (`compile::own`).

mod own;

use serde_json::Value;

use super::operator::{Equality, OPERATORS, Operator};
use super::path::Path;
use super::rule::{Rule, Texts};
use crate::Bucketing;
use crate::document::{Entry, Node, NodeKind};
use crate::nearest::did_you_mean;

/// Rules within rules, `$ref`s followed: evaluation recurses as deeply.
const DEPTH_MAX: usize = 120;
/// Parts of one rule, `$ref`s followed: a `$ref` in a `$ref` in a `$ref` doubles what it stands for each time.
const PARTS_MAX: usize = 50_000;

/// Something about a rule: it cannot be evaluated, or only looks like a mistake.
#[derive(Debug)]
pub(crate) struct Finding {
    pub(crate) at: usize,
    pub(crate) is_fatal: bool,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

#[derive(Debug)]
pub(crate) struct Compiled {
    pub(crate) rule: Rule,
    pub(crate) findings: Vec<Finding>,
}

/// For the rule of one flag.
pub(crate) struct Compiler<'n> {
    pub(crate) flag_key: &'n str,
    pub(crate) bucketing: Bucketing,
    pub(crate) evaluators: &'n [Entry],
    depth: usize,
    parts: usize,
    findings: Vec<Finding>,
}

/// What `var` will see.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Data {
    Context,
    Item,
}

impl<'n> Compiler<'n> {
    pub(crate) fn new(flag_key: &'n str, bucketing: Bucketing, evaluators: &'n [Entry]) -> Self {
        Self { flag_key, bucketing, evaluators, depth: 0, parts: 0, findings: Vec::new() }
    }

    pub(crate) fn compile(mut self, node: &'n Node) -> Compiled {
        let rule = self.rule(node, Data::Context);
        Compiled { rule, findings: self.findings }
    }

    /// As if the rule stood inside of `map`: all data is an item.
    #[cfg(test)]
    pub(crate) fn compile_for_item(mut self, node: &'n Node) -> Compiled {
        let rule = self.rule(node, Data::Item);
        Compiled { rule, findings: self.findings }
    }

    fn fatal(&mut self, node: &Node, message: String, hint: Option<String>) -> Rule {
        self.findings.push(Finding { at: node.at, is_fatal: true, message, hint });
        Rule::NOTHING
    }

    fn doubt(&mut self, node: &Node, message: String, hint: Option<String>) {
        self.findings.push(Finding { at: node.at, is_fatal: false, message, hint });
    }

    fn rule(&mut self, node: &'n Node, data: Data) -> Rule {
        self.parts += 1;
        if self.depth >= DEPTH_MAX || self.parts > PARTS_MAX {
            let is_first = self.parts <= PARTS_MAX + 1;
            let message = format!("the rule is larger than {PARTS_MAX} parts or {DEPTH_MAX} levels, `$ref`s followed");
            let hint = Some("does an evaluator refer to itself?".to_owned());
            return if is_first { self.fatal(node, message, hint) } else { Rule::NOTHING };
        }
        self.depth += 1;
        let rule = match &node.kind {
            NodeKind::List(items) => list(items.iter().map(|item| self.rule(item, data)).collect()),
            NodeKind::Object(entries) => match entries.as_slice() {
                [entry] => self.operation(node, entry, data),
                [] => Rule::Literal(node.value()),
                [first, second, ..] => {
                    let message =
                        format!("an object with two names, `{}` and `{}`, is not a rule but a plain value", first.key, second.key);
                    self.doubt(node, message, Some("one object holds one operator; combine them with `and` or `if`".to_owned()));
                    Rule::Literal(node.value())
                }
            },
            _ => Rule::Literal(node.value()),
        };
        self.depth -= 1;
        rule
    }

    fn operation(&mut self, node: &'n Node, entry: &'n Entry, data: Data) -> Rule {
        if &*entry.key == "$ref" {
            return self.reference(node, &entry.value, data);
        }
        let Some((name, operator, least, most)) = OPERATORS.iter().find(|(name, ..)| *name == &*entry.key) else {
            let hint = did_you_mean(&entry.key, OPERATORS.iter().map(|(name, ..)| *name));
            let hint =
                hint.or_else(|| Some("flagd knows JsonLogic's operators, fractional, sem_ver, starts_with and ends_with".to_owned()));
            return self.fatal(node, format!("there is no operator `{}`", entry.key), hint);
        };
        let arguments = entry.value.items().unwrap_or(std::slice::from_ref(&entry.value));
        if arguments.len() < *least || arguments.len() > *most {
            let message = format!("`{name}` takes {}, not {}", how_many(*least, *most), arguments.len());
            self.doubt(node, message, None);
        }
        self.operator(node, *operator, arguments, data)
    }

    fn reference(&mut self, node: &'n Node, name: &'n Node, data: Data) -> Rule {
        let Some(name) = name.text() else {
            return self.fatal(node, format!("`$ref` names an evaluator, not {}", name.describe()), None);
        };
        match self.evaluators.iter().find(|entry| &*entry.key == name) {
            Some(entry) => self.rule(&entry.value, data),
            None => {
                let hint = did_you_mean(name, self.evaluators.iter().map(|entry| &*entry.key));
                let hint = hint.or_else(|| Some("rules that flags share stand in `$evaluators` at the top of the set".to_owned()));
                self.fatal(node, format!("there is no evaluator `{name}`"), hint)
            }
        }
    }

    fn operator(&mut self, node: &'n Node, operator: Operator, arguments: &'n [Node], data: Data) -> Rule {
        match operator {
            Operator::Fractional => self.fractional(arguments, data),
            Operator::SemVer => self.sem_ver(node, arguments, data),
            Operator::StartsWith | Operator::EndsWith if arguments.len() != 2 => Rule::NOTHING,
            Operator::StartsWith => Rule::StartsWith(Box::new(self.first(arguments, data))),
            Operator::EndsWith => Rule::EndsWith(Box::new(self.first(arguments, data))),
            Operator::Each(each) => Rule::Each(each, Box::new(self.over_list(arguments, data))),
            Operator::Reduce => {
                let [list, body] = self.over_list(arguments, data);
                let start = arguments.get(2).map_or(Rule::NOTHING, |start| self.rule(start, data));
                Rule::Reduce(Box::new([list, body, start]))
            }
            Operator::Not => Rule::Not(Box::new(self.only(arguments, data))),
            Operator::Truth => Rule::Truth(Box::new(self.only(arguments, data))),
            // A pure room writes nothing; the value goes through.
            Operator::Log => self.only(arguments, data),
            Operator::Equal(equality) => equal(equality, self.first(arguments, data)),
            Operator::In => contained(self.first(arguments, data)),
            Operator::Order(order) if arguments.len() < 3 => Rule::Order(order, Box::new(self.first::<2>(arguments, data))),
            Operator::Order(order) => Rule::Order(order, Box::new(self.first::<3>(arguments, data))),
            Operator::Var => var(self.all(arguments, data), data),
            Operator::Missing => Rule::Missing(self.all(arguments, data).into()),
            Operator::MissingSome => Rule::MissingSome(self.all(arguments, data).into()),
            Operator::If => Rule::If(self.all(arguments, data).into()),
            Operator::And => Rule::And(self.all(arguments, data).into()),
            Operator::Or => Rule::Or(self.all(arguments, data).into()),
            Operator::Arithmetic(arithmetic) => Rule::Arithmetic(arithmetic, self.all(arguments, data).into()),
            Operator::Cat => Rule::Cat(self.all(arguments, data).into()),
            Operator::Substr => Rule::Substr(self.all(arguments, data).into()),
            Operator::Merge => Rule::Merge(self.all(arguments, data).into()),
        }
    }

    fn all(&mut self, arguments: &'n [Node], data: Data) -> Vec<Rule> {
        arguments.iter().map(|argument| self.rule(argument, data)).collect()
    }

    /// So many; nothing for what is missing. What is too much is compiled too, as it may be wrong.
    fn first<const COUNT: usize>(&mut self, arguments: &'n [Node], data: Data) -> [Rule; COUNT] {
        let mut all = self.all(arguments, data).into_iter();
        std::array::from_fn(|_| all.next().unwrap_or(Rule::NOTHING))
    }

    fn only(&mut self, arguments: &'n [Node], data: Data) -> Rule {
        let [rule] = self.first(arguments, data);
        rule
    }

    /// A list, and what is done with its items.
    fn over_list(&mut self, arguments: &'n [Node], data: Data) -> [Rule; 2] {
        let mut nth = |place: usize, data| arguments.get(place).map_or(Rule::NOTHING, |argument| self.rule(argument, data));
        [nth(0, data), nth(1, Data::Item)]
    }
}

/// A list of literals is one literal.
fn list(parts: Vec<Rule>) -> Rule {
    if parts.iter().all(|part| part.literal().is_some()) {
        return Rule::Literal(parts.iter().filter_map(Rule::literal).cloned().collect());
    }
    Rule::List(parts.into())
}

fn var(mut parts: Vec<Rule>, data: Data) -> Rule {
    parts.truncate(2);
    let name = match parts.first().map(Rule::literal) {
        None | Some(Some(Value::Null)) => String::new(),
        Some(Some(Value::String(name))) => name.clone(),
        Some(Some(Value::Number(number))) => number.to_string(),
        _ => return Rule::VarNamed(parts.into()),
    };
    let default = if parts.len() > 1 { parts.pop().map(Box::new) } else { None };
    Rule::Var(Path::new(&name, data == Data::Context), default)
}

fn equal(equality: Equality, sides: [Rule; 2]) -> Rule {
    match sides {
        [rule, Rule::Literal(Value::String(text))] | [Rule::Literal(Value::String(text)), rule] => {
            Rule::EqualText(equality, Box::new((rule, text.into())))
        }
        sides => Rule::Equal(equality, Box::new(sides)),
    }
}

fn contained(sides: [Rule; 2]) -> Rule {
    let texts = match &sides[1] {
        Rule::Literal(Value::Array(list)) => list.iter().map(|item| item.as_str().map(Box::from)).collect::<Option<Vec<Box<str>>>>(),
        _ => None,
    };
    match texts {
        Some(texts) => {
            let [needle, _] = sides;
            Rule::InTexts(Box::new((needle, Texts::new(texts))))
        }
        None => Rule::In(Box::new(sides)),
    }
}

fn how_many(least: usize, most: usize) -> String {
    match (least, most) {
        (1, 1) => "one argument".to_owned(),
        (least, most) if least == most => format!("{least} arguments"),
        (least, usize::MAX) => format!("at least {least} argument{}", if least == 1 { "" } else { "s" }),
        (least, most) => format!("{least} to {most} arguments"),
    }
}
