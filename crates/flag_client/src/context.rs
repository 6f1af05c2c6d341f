//! Who asks: what a program hands over as `&user`.
//!
//! **Invariant**: a [`Context`] is lent, never copied. Not here: what rules make of it (crate `flags`).

use std::borrow::Cow;

use flags::Context;

/// Something flags can be evaluated for. Implement it for your own user type; build the [`Context`] once per request where that is easy.
pub trait IntoContext {
    fn context(&self) -> Cow<'_, Context>;
}

impl IntoContext for Context {
    fn context(&self) -> Cow<'_, Context> {
        Cow::Borrowed(self)
    }
}

/// The targeting key alone.
impl IntoContext for str {
    fn context(&self) -> Cow<'_, Context> {
        Cow::Owned(Context::of(self))
    }
}

/// The targeting key alone.
impl IntoContext for String {
    fn context(&self) -> Cow<'_, Context> {
        self.as_str().context()
    }
}

impl<T: IntoContext + ?Sized> IntoContext for &T {
    fn context(&self) -> Cow<'_, Context> {
        (**self).context()
    }
}

/// The request that an evaluation belongs to: `requestId`, or the trace id of `traceparent` (W3C Trace Context, section 3.2).
pub(crate) fn request_id(context: &Context) -> Option<&str> {
    let text = |name| context.get(name).and_then(|value| value.as_str()).filter(|text| !text.is_empty());
    text("requestId").or_else(|| text("traceparent")?.split('-').nth(1).filter(|id| id.len() == 32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_is_named_or_the_trace_is() {
        let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let traced = Context::of("u").with("traceparent", trace);
        assert_eq!(request_id(&traced), Some("4bf92f3577b34da6a3ce929d0e0e4736"));
        assert_eq!(request_id(&traced.with("requestId", "r-1")), Some("r-1"));
        assert_eq!(request_id(&Context::of("u").with("traceparent", "rubbish")), None);
        assert_eq!(request_id(&Context::of("u")), None);
    }

    #[test]
    fn a_context_is_lent() {
        let user = Context::of("user-1");
        assert!(matches!(user.context(), Cow::Borrowed(_)));
        assert_eq!("user-1".context().targeting_key(), Some("user-1"));
    }
}
