//! JsonLogic (jsonlogic.com) with flagd's additions: rules compiled to trees, and evaluated.
//!
//! **Invariants**: values are coerced as JavaScript does it, which is what JsonLogic means; an evaluation ends, with a bounded amount of
//! work and memory, whatever the context holds. Not here: which variant an answer names (`set`).

mod arithmetic;
mod coerce;
mod compile;
mod evaluate;
mod fractional;
mod lists;
mod operator;
mod path;
mod rule;
mod truth;
mod value;
mod version;

pub(crate) use coerce::text;
pub(crate) use compile::Compiler;
pub(crate) use evaluate::{Asked, Fault, Scope, evaluate};
pub(crate) use rule::Rule;
pub(crate) use value::Val;

#[cfg(test)]
mod tests;
