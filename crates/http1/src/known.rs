//! Fields that framing, persistence, routing or the rules of forwarding ask for, by a number instead of a text.

macro_rules! known {
    ($($variant:ident $name:literal)*) => {
        /// A field's name, when it is one that a proxy asks for.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Known { $($variant,)* Other }

        impl Known {
            /// In lower case; empty for `Other`.
            pub fn name(self) -> &'static str {
                match self { $(Known::$variant => $name,)* Known::Other => "" }
            }

            #[cfg(test)]
            const ALL: &[Known] = &[$(Known::$variant,)*];
        }
    };
}

known! {
    Authorization "authorization"
    Connection "connection"
    ContentLength "content-length"
    Cookie "cookie"
    Date "date"
    Expect "expect"
    Host "host"
    Http2Settings "http2-settings"
    KeepAlive "keep-alive"
    MaxForwards "max-forwards"
    ProxyAuthenticate "proxy-authenticate"
    ProxyAuthorization "proxy-authorization"
    ProxyConnection "proxy-connection"
    SetCookie "set-cookie"
    Te "te"
    Trailer "trailer"
    TransferEncoding "transfer-encoding"
    Upgrade "upgrade"
    Via "via"
    XForwardedClientCert "x-forwarded-client-cert"
    XForwardedFor "x-forwarded-for"
    XForwardedHost "x-forwarded-host"
    XForwardedProto "x-forwarded-proto"
}

impl Known {
    /// `name` is in lower case.
    pub fn of(name: &[u8]) -> Known {
        // By length first: most names are none of these, and are known as such by their length or one comparison.
        match name.len() {
            2 if name == b"te" => Known::Te,
            3 if name == b"via" => Known::Via,
            4 if name == b"host" => Known::Host,
            4 if name == b"date" => Known::Date,
            6 if name == b"cookie" => Known::Cookie,
            6 if name == b"expect" => Known::Expect,
            7 if name == b"upgrade" => Known::Upgrade,
            7 if name == b"trailer" => Known::Trailer,
            10 if name == b"connection" => Known::Connection,
            10 if name == b"set-cookie" => Known::SetCookie,
            10 if name == b"keep-alive" => Known::KeepAlive,
            12 if name == b"max-forwards" => Known::MaxForwards,
            13 if name == b"authorization" => Known::Authorization,
            14 if name == b"content-length" => Known::ContentLength,
            14 if name == b"http2-settings" => Known::Http2Settings,
            15 if name == b"x-forwarded-for" => Known::XForwardedFor,
            16 if name == b"x-forwarded-host" => Known::XForwardedHost,
            16 if name == b"proxy-connection" => Known::ProxyConnection,
            17 if name == b"transfer-encoding" => Known::TransferEncoding,
            17 if name == b"x-forwarded-proto" => Known::XForwardedProto,
            18 if name == b"proxy-authenticate" => Known::ProxyAuthenticate,
            19 if name == b"proxy-authorization" => Known::ProxyAuthorization,
            23 if name == b"x-forwarded-client-cert" => Known::XForwardedClientCert,
            _ => Known::Other,
        }
    }

    pub(crate) fn bit(self) -> u32 {
        1 << self as u8
    }
}

#[cfg(test)]
mod tests {
    use super::Known;

    #[test]
    fn each_known_name_is_known() {
        for known in Known::ALL {
            assert_eq!(Known::of(known.name().as_bytes()), *known);
        }
        assert!(Known::ALL.len() < 32, "one bit each");
        assert_eq!(Known::of(b"hosts"), Known::Other);
    }
}
