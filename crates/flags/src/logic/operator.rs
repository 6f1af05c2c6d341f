//! The operators: JsonLogic's own and flagd's.
//!
//! **Invariant:** a name stands here once. Not here: what they do.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operator {
    Var,
    Missing,
    MissingSome,
    If,
    And,
    Or,
    Not,
    Truth,
    Equal(Equality),
    Order(Order),
    Arithmetic(Arithmetic),
    Cat,
    Substr,
    In,
    Merge,
    Log,
    Each(Each),
    Reduce,
    Fractional,
    SemVer,
    StartsWith,
    EndsWith,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Equality {
    pub(crate) strict: bool,
    pub(crate) negated: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arithmetic {
    Sum,
    Product,
    Difference,
    Quotient,
    Remainder,
    Min,
    Max,
}

/// What is done with every item of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Each {
    Map,
    Filter,
    All,
    None,
    Some,
}

const MANY: usize = usize::MAX;

const fn equality(strict: bool, negated: bool) -> Operator {
    Operator::Equal(Equality { strict, negated })
}

/// Name, meaning, and how many arguments make sense, at least and at most.
pub(crate) const OPERATORS: &[(&str, Operator, usize, usize)] = &[
    ("var", Operator::Var, 0, 2),
    ("missing", Operator::Missing, 0, MANY),
    ("missing_some", Operator::MissingSome, 2, 2),
    ("if", Operator::If, 1, MANY),
    ("?:", Operator::If, 1, MANY),
    ("and", Operator::And, 1, MANY),
    ("or", Operator::Or, 1, MANY),
    ("!", Operator::Not, 1, 1),
    ("!!", Operator::Truth, 1, 1),
    ("==", equality(false, false), 2, 2),
    ("!=", equality(false, true), 2, 2),
    ("===", equality(true, false), 2, 2),
    ("!==", equality(true, true), 2, 2),
    ("<", Operator::Order(Order::Less), 2, 3),
    ("<=", Operator::Order(Order::LessOrEqual), 2, 3),
    (">", Operator::Order(Order::Greater), 2, 3),
    (">=", Operator::Order(Order::GreaterOrEqual), 2, 3),
    ("+", Operator::Arithmetic(Arithmetic::Sum), 1, MANY),
    ("*", Operator::Arithmetic(Arithmetic::Product), 1, MANY),
    ("-", Operator::Arithmetic(Arithmetic::Difference), 1, 2),
    ("/", Operator::Arithmetic(Arithmetic::Quotient), 2, 2),
    ("%", Operator::Arithmetic(Arithmetic::Remainder), 2, 2),
    ("min", Operator::Arithmetic(Arithmetic::Min), 1, MANY),
    ("max", Operator::Arithmetic(Arithmetic::Max), 1, MANY),
    ("cat", Operator::Cat, 1, MANY),
    ("substr", Operator::Substr, 2, 3),
    ("in", Operator::In, 2, 2),
    ("merge", Operator::Merge, 0, MANY),
    ("log", Operator::Log, 1, 1),
    ("map", Operator::Each(Each::Map), 2, 2),
    ("filter", Operator::Each(Each::Filter), 2, 2),
    ("all", Operator::Each(Each::All), 2, 2),
    ("none", Operator::Each(Each::None), 2, 2),
    ("some", Operator::Each(Each::Some), 2, 2),
    ("reduce", Operator::Reduce, 2, 3),
    ("fractional", Operator::Fractional, 1, MANY),
    ("sem_ver", Operator::SemVer, 3, 3),
    ("starts_with", Operator::StartsWith, 2, 2),
    ("ends_with", Operator::EndsWith, 2, 2),
];
