//! The evaluation context: who asks, in OpenFeature's sense.
//!
//! **Invariant:** names are sorted and unique, so that a rule finds a value without hashing. Not here: what rules make of it (`logic`).

use serde_json::{Map, Value};

/// The name under which rules and wires know the targeting key.
pub(crate) const TARGETING_KEY: &str = "targetingKey";

/// Up to so many values, comparing names one by one is faster: most differ in length already.
const SCAN_MAX: usize = 16;

/// The targeting key and named values; built once per request, read by many flags.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Context {
    targeting_key: Option<Value>,
    values: Vec<(Box<str>, Value)>,
}

impl Context {
    /// Nobody in particular.
    pub fn new() -> Self {
        Self::default()
    }

    /// Somebody, by targeting key.
    pub fn of(targeting_key: impl Into<String>) -> Self {
        Self { targeting_key: Some(Value::String(targeting_key.into())), values: Vec::new() }
    }

    /// With one more value; a name that is there already gets the new value. `targetingKey` is the targeting key.
    #[must_use]
    pub fn with(mut self, name: impl AsRef<str>, value: impl Into<Value>) -> Self {
        self.set(name.as_ref(), value.into());
        self
    }

    /// An object as it comes over the wire: `targetingKey` beside the other values.
    pub fn from_object(object: Map<String, Value>) -> Self {
        let mut context = Self { targeting_key: None, values: Vec::with_capacity(object.len()) };
        for (name, value) in object {
            context.set(&name, value);
        }
        context
    }

    fn set(&mut self, name: &str, value: Value) {
        if name == TARGETING_KEY {
            self.targeting_key = Some(value);
            return;
        }
        match self.values.binary_search_by(|(known, _)| (**known).cmp(name)) {
            Ok(place) => self.values[place].1 = value,
            Err(place) => self.values.insert(place, (name.into(), value)),
        }
    }

    /// A text that is not empty; anything else cannot be bucketed by.
    pub fn targeting_key(&self) -> Option<&str> {
        self.targeting_key.as_ref()?.as_str().filter(|key| !key.is_empty())
    }

    /// Every value with its name, the targeting key first.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        let key = self.targeting_key.iter().map(|key| (TARGETING_KEY, key));
        key.chain(self.values.iter().map(|(name, value)| (&**name, value)))
    }

    /// A value by name, `targetingKey` included.
    pub fn get(&self, name: &str) -> Option<&Value> {
        if name == TARGETING_KEY {
            return self.targeting_key.as_ref();
        }
        if self.values.len() <= SCAN_MAX {
            return self.values.iter().find(|(known, _)| **known == *name).map(|(_, value)| value);
        }
        let place = self.values.binary_search_by(|(known, _)| (**known).cmp(name)).ok()?;
        Some(&self.values[place].1)
    }
}
