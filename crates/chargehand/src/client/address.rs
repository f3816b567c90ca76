//! Where the server is, and how what it has is named in a path.

use domain::error::{Code, Error};
use reqwest::Url;

/// The address of a server.
#[derive(Clone)]
pub(crate) struct Address(Url);

impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.as_str())
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.as_str())
    }
}

impl Address {
    /// Reads an address as people write it.
    ///
    /// # Errors
    /// [`Code::OutOfRange`], which never shows the text: by mistake it may have a secret in it.
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let refused = |fault: &str| {
            Error::new(Code::OutOfRange, format!("the server's address {fault}"))
                .hint("Write it as http://127.0.0.1:7420 or https://host/path.")
        };
        let url =
            Url::parse(text.trim()).map_err(|fault| refused(&format!("is not one: {fault}")))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(refused("begins with neither http:// nor https://"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(refused(
                "has a user or password in it; the key is given by itself",
            ));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(refused(
                "has a query or a fragment, which belongs to no server",
            ));
        }
        Ok(Self(url))
    }

    /// The path of these segments under the address.
    ///
    /// # Errors
    /// [`Code::NameMalformed`] for `.` and `..`, which every program on the way takes for a
    /// direction.
    pub(crate) fn path(&self, segments: &[&str]) -> Result<Url, Error> {
        if let Some(segment) = segments.iter().find(|text| matches!(**text, "." | "..")) {
            let text = format!("“{segment}” cannot be named in a path");
            return Err(Error::new(Code::NameMalformed, text).hint("Use another name over HTTP."));
        }
        let mut url = self.0.clone();
        match url.path_segments_mut() {
            Ok(mut path) => drop(path.pop_if_empty().extend(segments)),
            Err(()) => return Err(Error::new(Code::Internal, "the address has no path")),
        }
        Ok(url)
    }

    pub(crate) fn is_https(&self) -> bool {
        self.0.scheme() == "https"
    }

    /// Whether it is this machine, to which no proxy leads.
    pub(crate) fn is_loopback(&self) -> bool {
        self.0.host_str().is_some_and(|host| {
            let bare = host.trim_matches(['[', ']']);
            let ip: Option<std::net::IpAddr> = bare.parse().ok();
            bare == "localhost" || ip.is_some_and(|ip| ip.is_loopback())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_free_text_in_a_path() {
        let path = |base: &str, segments: &[&str]| {
            Address::parse(base)
                .unwrap()
                .path(segments)
                .unwrap()
                .to_string()
        };
        let plain = "http://127.0.0.1:7420";
        assert_eq!(
            path(plain, &["v1", "tasks"]),
            "http://127.0.0.1:7420/v1/tasks"
        );
        for base in ["https://host/a/b", "https://host/a/b/"] {
            assert_eq!(path(base, &["v1"]), "https://host/a/b/v1");
        }
        assert_eq!(
            path(plain, &["v1", "a/b?c#d%2e ü"]),
            "http://127.0.0.1:7420/v1/a%2Fb%3Fc%23d%252e%20%C3%BC"
        );
        let up = Address::parse(plain).unwrap().path(&["v1", ".."]);
        assert_eq!(up.unwrap_err().code, Code::NameMalformed);
    }

    #[test]
    fn what_is_not_an_address_is_refused_without_showing_it() {
        for bad in [
            "",
            "127.0.0.1:7420",
            "ftp://host",
            "http://",
            "http://me:hush@host",
            "http://host/?key=hush",
            "http://host/#hush",
        ] {
            let error = Address::parse(bad).unwrap_err();
            assert_eq!(error.code, Code::OutOfRange, "{bad}");
            assert!(!error.message.contains("hush"), "{error}");
        }
    }

    #[test]
    fn this_machine_is_known() {
        for (url, here) in [
            ("http://127.0.0.1:1", true),
            ("http://[::1]:1", true),
            ("http://localhost", true),
            ("http://10.0.0.1", false),
        ] {
            assert_eq!(Address::parse(url).unwrap().is_loopback(), here, "{url}");
        }
    }
}
