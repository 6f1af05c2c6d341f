//! Numbers: sums, products and their like.
//!
//! **Invariant:** whole numbers stay whole unless they overflow, because `fractional` hashes and weighs whole numbers by their value.
//! Not here: comparison.

use super::coerce;
use super::evaluate::{Answer, Asked, Fault, Scope, evaluate as part_of};
use super::operator::Arithmetic;
use super::rule::Rule;
use super::value::Val;

pub(super) fn evaluate<'a>(operation: Arithmetic, parts: &'a [Rule], scope: &Scope<'_, 'a>, asked: &Asked<'a>) -> Answer<'a> {
    let numbers = parts.iter().map(|part| part_of(part, scope, asked).map(|value| Number::of(&value)));
    let result = match operation {
        Arithmetic::Sum => fold(numbers, Number::Whole(0), Number::plus)?,
        Arithmetic::Product => fold(numbers, Number::Whole(1), Number::times)?,
        Arithmetic::Min => best(numbers, |one, other| other < one)?,
        Arithmetic::Max => best(numbers, |one, other| other > one)?,
        Arithmetic::Difference => match two(numbers)? {
            (one, Some(other)) => one.minus(other),
            (one, None) => Number::Whole(0).minus(one),
        },
        Arithmetic::Quotient => match two(numbers)? {
            (one, Some(other)) => one.over(other)?,
            (_, None) => Number::Real(f64::NAN),
        },
        Arithmetic::Remainder => match two(numbers)? {
            (one, Some(other)) => one.modulo(other)?,
            (_, None) => Number::Real(f64::NAN),
        },
    };
    Ok(match result {
        Number::Whole(number) => Val::Whole(number),
        Number::Real(number) => Val::Real(number),
    })
}

type Numbers = Result<Number, Fault>;

fn fold(mut numbers: impl Iterator<Item = Numbers>, start: Number, step: impl Fn(Number, Number) -> Number) -> Numbers {
    numbers.try_fold(start, |sum, number| Ok(step(sum, number?)))
}

/// The first of the best. What is not a number is better than nothing, and nothing is better than it.
fn best(mut numbers: impl Iterator<Item = Numbers>, is_better: fn(f64, f64) -> bool) -> Numbers {
    let first = numbers.next().unwrap_or(Ok(Number::Real(f64::NAN)))?;
    fold(numbers, first, |one, other| if is_better(one.real(), other.real()) { other } else { one })
}

fn two(mut numbers: impl Iterator<Item = Numbers>) -> Result<(Number, Option<Number>), Fault> {
    Ok((numbers.next().transpose()?.unwrap_or(Number::Real(f64::NAN)), numbers.next().transpose()?))
}

#[derive(Clone, Copy)]
enum Number {
    Whole(i64),
    Real(f64),
}

impl Number {
    fn of(value: &Val<'_>) -> Self {
        match value {
            Val::Whole(number) => Self::Whole(*number),
            Val::Null => Self::Whole(0),
            Val::Bool(value) => Self::Whole(i64::from(*value)),
            other => Self::Real(coerce::number(other)),
        }
    }

    fn real(self) -> f64 {
        match self {
            Self::Whole(number) => number as f64,
            Self::Real(number) => number,
        }
    }

    fn with(self, other: Self, whole: fn(i64, i64) -> Option<i64>, real: fn(f64, f64) -> f64) -> Self {
        if let (Self::Whole(one), Self::Whole(other)) = (self, other)
            && let Some(number) = whole(one, other)
        {
            return Self::Whole(number);
        }
        Self::Real(real(self.real(), other.real()))
    }

    fn plus(self, other: Self) -> Self {
        self.with(other, i64::checked_add, |one, other| one + other)
    }

    fn times(self, other: Self) -> Self {
        self.with(other, i64::checked_mul, |one, other| one * other)
    }

    fn minus(self, other: Self) -> Self {
        self.with(other, i64::checked_sub, |one, other| one - other)
    }

    /// Every flagd core refuses to divide by zero.
    fn over(self, other: Self) -> Numbers {
        if other.real() == 0.0 { Err(Fault::DivisionByZero) } else { Ok(Self::Real(self.real() / other.real())) }
    }

    /// With the sign of the first, as in JavaScript.
    fn modulo(self, other: Self) -> Numbers {
        if other.real() == 0.0 { Err(Fault::DivisionByZero) } else { Ok(self.with(other, i64::checked_rem, |one, other| one % other)) }
    }
}
