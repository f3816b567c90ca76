//! `http.fetch`: what is behind a link.
//!
//! A fetcher that runs near other people's machines must not become a way
//! into them. So every address a name resolves to is checked before the
//! connection, the connection goes to exactly the addresses that were checked
//! (no second look-up in between), no proxy is asked, and each redirect is a
//! fresh start of the same checks. One address out of bounds refuses the name.
//!
//! `allow_private` lifts the address check. It is for the person who runs the
//! supervisor; a plan, a model or a page must never be able to set it, and the
//! offline planner never does.
//!
//! A page that fails does not fail the others of its item; an item whose
//! pages all fail does, with the first error.
//!
//! Deliberately absent: cookies, credentials in links, other methods than
//! GET, scripts, and `robots.txt` (give links you may read).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::LazyLock;
use std::time::Duration;

use async_trait::async_trait;
use regex::Regex;
use reqwest::{Client, Response, Url, header, redirect};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Aggregate, ItemResult, Skill, SkillError, bounded, counted, extract, listed, options, text_of,
};
use crate::input::Item;
use crate::text;

/// Most links fetched for one item.
pub const PAGES_MAX: usize = 20;
/// Most bytes of one page.
pub const PAGE_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Most characters of a page's text kept in the result.
pub const PAGE_TEXT_CHARS_MAX: usize = 50_000;
/// Longest time for one page, redirects included.
pub const PAGE_TIME_MAX: Duration = Duration::from_secs(20);
/// Longest time until one connection stands.
pub const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);
/// Most redirects followed for one page.
pub const REDIRECTS_MAX: usize = 5;

const USER_AGENT: &str = concat!("chargehand/", env!("CARGO_PKG_VERSION"));

/// `http.fetch`.
pub(super) struct Fetch;

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Options {
    /// Fetches this link instead of those in the item.
    url: Option<String>,
    /// Operator only: lets private addresses be fetched.
    allow_private: bool,
    /// Lower bound on a page than [`PAGE_BYTES_MAX`].
    bytes_max: Option<usize>,
    /// Lower time limit than [`PAGE_TIME_MAX`], in milliseconds.
    time_ms_max: Option<usize>,
}

/// What one fetch may do.
#[derive(Clone, Copy)]
struct Bounds {
    /// Says why an address is refused, if it is.
    refusal: fn(IpAddr) -> Option<&'static str>,
    bytes_max: usize,
    time_max: Duration,
}

impl Fetch {
    fn bounds(&self, options: &Options) -> Result<Bounds, SkillError> {
        let bytes = options.bytes_max.unwrap_or(PAGE_BYTES_MAX);
        let time_ms_max = PAGE_TIME_MAX.as_millis() as usize;
        let time_ms = options.time_ms_max.unwrap_or(time_ms_max);
        Ok(Bounds {
            refusal: if options.allow_private {
                |_| None
            } else {
                refusal
            },
            bytes_max: bounded(self.name(), "bytes_max", bytes, PAGE_BYTES_MAX)?,
            time_max: Duration::from_millis(bounded(
                self.name(),
                "time_ms_max",
                time_ms,
                time_ms_max,
            )? as u64),
        })
    }
}

#[async_trait]
impl Skill for Fetch {
    fn name(&self) -> &'static str {
        "http.fetch"
    }

    fn summary(&self) -> &'static str {
        "the text behind the links of an item (options `url`, `bytes_max`, `time_ms_max`)"
    }

    fn check(&self, given: &Value) -> Result<(), SkillError> {
        self.bounds(&options(self.name(), given)?).map(drop)
    }

    async fn run(&self, item: &Item, given: &Value) -> Result<Value, SkillError> {
        let options: Options = options(self.name(), given)?;
        let bounds = self.bounds(&options)?;
        let links = match options.url {
            Some(url) => vec![url],
            None => links(self.name(), item)?,
        };
        let mut pages = Vec::new();
        let mut errors: Vec<SkillError> = Vec::new();
        for link in &links {
            match page(link, bounds).await {
                Ok(page) => pages.push(page),
                Err(error) => {
                    pages.push(json!({"url": link, "error": error}));
                    errors.push(error);
                }
            }
        }
        if errors.len() < links.len() {
            return Ok(json!({"pages": pages}));
        }
        let retryable = errors.iter().any(|error| error.retryable);
        Err(SkillError {
            retryable,
            ..errors.swap_remove(0)
        })
    }

    fn aggregate(&self, results: &[ItemResult]) -> Aggregate {
        let pages: Vec<&Value> = results
            .iter()
            .filter_map(|result| result.output["pages"].as_array())
            .flatten()
            .collect();
        let failed = pages
            .iter()
            .filter(|page| page.get("error").is_some())
            .count();
        let bytes: u64 = pages.iter().filter_map(|page| page["bytes"].as_u64()).sum();
        let mut lines = vec![format!(
            "{} fetched, {failed} failed, {bytes} bytes",
            counted(pages.len() - failed, "page")
        )];
        lines.extend(listed(pages.iter().map(|page| page_line(page))));
        Aggregate {
            value: json!({
                "count": results.len(),
                "pages": pages.len(),
                "failed": failed,
                "bytes": bytes,
            }),
            text: lines.join("\n"),
        }
    }
}

fn page_line(page: &Value) -> String {
    let url = page["url"].as_str().unwrap_or("");
    match page["error"]["message"].as_str() {
        Some(message) => format!("  {url}: {message}"),
        None => format!(
            "  {url}: {} {}",
            page["status"],
            page["title"].as_str().unwrap_or("")
        ),
    }
}

/// The links in an item's text, each once.
fn links(skill: &str, item: &Item) -> Result<Vec<String>, SkillError> {
    let text = text_of(skill, item)?;
    let mut links: Vec<String> = Vec::new();
    for link in extract::links(&text) {
        if !links.contains(&link) && links.len() <= PAGES_MAX {
            links.push(link);
        }
    }
    if links.is_empty() {
        return Err(SkillError::fatal(
            "http.no_url",
            format!("{} names no http or https link", item.source),
            "Write links in full, such as https://example.org/page.",
        ));
    }
    if links.len() > PAGES_MAX {
        return Err(SkillError::fatal(
            "http.too_many",
            format!("{} names more than {PAGES_MAX} links", item.source),
            "Split the links over several items, for example one JSON Lines record each.",
        ));
    }
    Ok(links)
}

async fn page(link: &str, bounds: Bounds) -> Result<Value, SkillError> {
    let late = |_| {
        SkillError::retryable(
            "http.timeout",
            format!("{link} took longer than {} ms", bounds.time_max.as_millis()),
            "Try again later.",
        )
    };
    tokio::time::timeout(bounds.time_max, follow(link, bounds))
        .await
        .map_err(late)?
}

/// Follows redirects, each checked like the first link.
async fn follow(link: &str, bounds: Bounds) -> Result<Value, SkillError> {
    let mut url = parse(link)?;
    for _ in 0..=REDIRECTS_MAX {
        let response = get(&url, bounds).await?;
        let target = response
            .status()
            .is_redirection()
            .then(|| response.headers().get(header::LOCATION))
            .flatten();
        let Some(target) = target else {
            return read(link, &url, response, bounds.bytes_max).await;
        };
        let target = String::from_utf8_lossy(target.as_bytes()).into_owned();
        let joined = url
            .join(&target)
            .map_err(|error| bad_url(&target, &error.to_string()))?;
        url = parse(joined.as_str())?;
    }
    Err(SkillError::fatal(
        "http.too_many_redirects",
        format!("{link} redirects more than {REDIRECTS_MAX} times"),
        "Give the final address.",
    ))
}

fn parse(link: &str) -> Result<Url, SkillError> {
    let full = if link.to_ascii_lowercase().starts_with("www.") {
        format!("https://{link}")
    } else {
        link.to_owned()
    };
    let url = Url::parse(&full).map_err(|error| bad_url(link, &error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(bad_url(
            link,
            &format!("scheme `{}` is not http or https", url.scheme()),
        ));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(bad_url(link, "it carries credentials"));
    }
    Ok(url)
}

fn bad_url(link: &str, why: &str) -> SkillError {
    SkillError::fatal(
        "http.bad_url",
        format!("`{link}` cannot be fetched: {why}"),
        "Only http and https links without credentials are fetched.",
    )
}

/// One request, to an address that was checked, without following redirects.
async fn get(url: &Url, bounds: Bounds) -> Result<Response, SkillError> {
    let host = url
        .host_str()
        .ok_or_else(|| bad_url(url.as_str(), "it names no host"))?;
    let addresses =
        checked_addresses(host, url.port_or_known_default().unwrap_or(443), bounds).await?;
    let unreachable = |error: reqwest::Error| {
        SkillError::retryable(
            "http.unreachable",
            format!("{url} did not answer: {}", root_cause(&error)),
            "Check the link and the network, then try again.",
        )
    };
    let client = Client::builder()
        .no_proxy()
        .redirect(redirect::Policy::none())
        .resolve_to_addrs(host, &addresses)
        .connect_timeout(CONNECT_TIME_MAX)
        .user_agent(USER_AGENT)
        .build()
        .map_err(unreachable)?;
    client.get(url.clone()).send().await.map_err(unreachable)
}

/// The addresses of a host, if every one of them may be fetched from.
async fn checked_addresses(
    host: &str,
    port: u16,
    bounds: Bounds,
) -> Result<Vec<SocketAddr>, SkillError> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let addresses: Vec<SocketAddr> = match bare.parse::<IpAddr>() {
        Ok(address) => vec![SocketAddr::new(address, port)],
        Err(_) => tokio::net::lookup_host((bare, port))
            .await
            .map(Iterator::collect)
            .map_err(|error| {
                SkillError::retryable(
                    "http.unknown_host",
                    format!("`{host}` has no address: {error}"),
                    "Check the spelling and the network, then try again.",
                )
            })?,
    };
    let refused = addresses
        .iter()
        .find_map(|address| Some((address.ip(), (bounds.refusal)(address.ip())?)));
    match refused {
        Some((address, why)) => Err(SkillError::fatal(
            "http.private_address",
            format!("`{host}` is {address}, a {why} address, which is not fetched from"),
            "If this is meant, the operator may set option `allow_private`.",
        )),
        None => Ok(addresses),
    }
}

/// The addresses of a link, if every one of them is a public one.
pub(crate) async fn public_addresses(url: &Url) -> Result<Vec<SocketAddr>, SkillError> {
    let host = url
        .host_str()
        .ok_or_else(|| bad_url(url.as_str(), "it names no host"))?;
    let bounds = Bounds {
        refusal,
        bytes_max: PAGE_BYTES_MAX,
        time_max: PAGE_TIME_MAX,
    };
    checked_addresses(host, url.port_or_known_default().unwrap_or(443), bounds).await
}

/// Why an address is not part of the public internet, if it is not.
fn refusal(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => refusal_v4(address),
        IpAddr::V6(address) => refusal_v6(address),
    }
}

fn refusal_v4(address: Ipv4Addr) -> Option<&'static str> {
    let [a, b, c, _] = address.octets();
    Some(match (a, b, c) {
        (0, ..) => "unspecified",
        (127, ..) => "loopback",
        (10, ..) | (172, 16..=31, _) | (192, 168, _) => "private",
        (169, 254, _) => "link-local",
        (100, 64..=127, _) => "carrier-grade NAT",
        (192, 0, 0 | 2) | (198, 51, 100) | (203, 0, 113) | (198, 18..=19, _) | (192, 88, 99) => {
            "reserved"
        }
        (224..=239, ..) => "multicast",
        (240.., ..) => "reserved",
        _ => return None,
    })
}

fn refusal_v6(address: Ipv6Addr) -> Option<&'static str> {
    let segments = address.segments();
    // Forms that carry an IPv4 address: mapped, compatible, NAT64 and 6to4.
    let tail = Ipv4Addr::from(((u32::from(segments[6])) << 16) | u32::from(segments[7]));
    match segments {
        [0, 0, 0, 0, 0, 0, 0, 0] => Some("unspecified"),
        [0, 0, 0, 0, 0, 0, 0, 1] => Some("loopback"),
        [0, 0, 0, 0, 0, 0xffff | 0, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => {
            Some(refusal_v4(tail).unwrap_or("IPv4-in-IPv6"))
        }
        [0x64, 0xff9b, 1, ..] | [0x2002, ..] | [0x2001, 0, ..] => Some("tunnel"),
        [0x2001, 0xdb8, ..] | [0x100, 0, 0, 0, ..] => Some("reserved"),
        [first, ..] if first & 0xfe00 == 0xfc00 => Some("private"),
        [first, ..] if first & 0xffc0 == 0xfe80 => Some("link-local"),
        [first, ..] if first & 0xffc0 == 0xfec0 => Some("site-local"),
        [first, ..] if first & 0xff00 == 0xff00 => Some("multicast"),
        _ => None,
    }
}

async fn read(
    link: &str,
    url: &Url,
    mut response: Response,
    bytes_max: usize,
) -> Result<Value, SkillError> {
    let status = response.status();
    if !status.is_success() {
        let retryable = status.is_server_error() || matches!(status.as_u16(), 408 | 425 | 429);
        let error = SkillError::fatal(
            "http.status",
            format!("{url} answered {status}"),
            "Check the link, or try again later.",
        );
        return Err(SkillError { retryable, ..error });
    }
    let content_type = response
        .headers()
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let content_type = content_type.unwrap_or("").to_ascii_lowercase();
    let mut body: Vec<u8> = Vec::new();
    loop {
        let chunk = response.chunk().await.map_err(|error| {
            SkillError::retryable(
                "http.unreachable",
                format!("{url} broke off: {}", root_cause(&error)),
                "Try again.",
            )
        })?;
        let Some(chunk) = chunk else { break };
        if body.len() + chunk.len() > bytes_max {
            return Err(SkillError::fatal(
                "http.too_large",
                format!("{url} has more than {bytes_max} bytes"),
                "Fetch a smaller page.",
            ));
        }
        body.extend_from_slice(&chunk);
    }
    let mut page = json!({
        "url": link,
        "final_url": url.as_str(),
        "status": status.as_u16(),
        "content_type": content_type,
        "bytes": body.len(),
    });
    let is_text = ["text/", "json", "xml", "javascript"]
        .iter()
        .any(|kind| content_type.contains(kind));
    if is_text || (content_type.is_empty() && std::str::from_utf8(&body).is_ok()) {
        let content = String::from_utf8_lossy(&body);
        let (title, text) = if content_type.contains("html") {
            readable(&content)
        } else {
            (None, content.into_owned())
        };
        let kept: String = text.chars().take(PAGE_TEXT_CHARS_MAX).collect();
        page["title"] = title.into();
        page["text_truncated"] = (kept.len() < text.len()).into();
        page["text"] = kept.into();
    }
    Ok(page)
}

static TITLE: LazyLock<Regex> = LazyLock::new(|| text::pattern(r"(?is)<title[^>]*>(.*?)</title>"));
static UNSEEN: LazyLock<Regex> = LazyLock::new(|| {
    text::pattern(
        r"(?is)<!--.*?-->|<(?:script|style|head|noscript|template)\b.*?</(?:script|style|head|noscript|template)\s*>",
    )
});
static BREAK: LazyLock<Regex> = LazyLock::new(|| {
    text::pattern(
        r"(?i)</?(?:p|div|br|li|ul|ol|h[1-6]|tr|table|section|article|header|footer|blockquote|pre)\b[^>]*>",
    )
});
static TAG: LazyLock<Regex> = LazyLock::new(|| text::pattern(r"(?s)</?[a-zA-Z!][^>]*>"));

/// Title and visible text of HTML; rough, and never more than the page says.
fn readable(html: &str) -> (Option<String>, String) {
    let title = TITLE
        .captures(html)
        .map(|found| one_line(&entities(&found[1])));
    let seen = UNSEEN.replace_all(html, " ");
    let broken = BREAK.replace_all(&seen, "\n");
    let text = entities(&TAG.replace_all(&broken, " "));
    let lines: Vec<String> = text
        .lines()
        .map(one_line)
        .filter(|line| !line.is_empty())
        .collect();
    (title, lines.join("\n"))
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn entities(text: &str) -> String {
    let named = [
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&quot;", "\""),
        ("&#39;", "'"),
        ("&apos;", "'"),
        ("&nbsp;", " "),
    ];
    let text = named.iter().fold(text.to_owned(), |text, (entity, plain)| {
        text.replace(entity, plain)
    });
    text.replace("&amp;", "&")
}

/// The innermost error: the one that says what happened.
pub(crate) fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_outside_the_public_internet_is_refused() {
        let cases = [
            ("0.0.0.0", "unspecified"),
            ("0.1.2.3", "unspecified"),
            ("127.0.0.1", "loopback"),
            ("127.255.255.254", "loopback"),
            ("10.0.0.1", "private"),
            ("172.16.0.1", "private"),
            ("172.31.255.255", "private"),
            ("192.168.1.1", "private"),
            ("169.254.169.254", "link-local"),
            ("100.64.0.1", "carrier-grade NAT"),
            ("100.127.255.255", "carrier-grade NAT"),
            ("192.0.2.1", "reserved"),
            ("224.0.0.1", "multicast"),
            ("255.255.255.255", "reserved"),
            ("::", "unspecified"),
            ("::1", "loopback"),
            ("::ffff:127.0.0.1", "loopback"),
            ("::ffff:10.0.0.1", "private"),
            ("::ffff:8.8.8.8", "IPv4-in-IPv6"),
            ("::127.0.0.1", "loopback"),
            ("64:ff9b::a9fe:a9fe", "link-local"),
            ("2002:7f00:1::", "tunnel"),
            ("fc00::1", "private"),
            ("fdff::1", "private"),
            ("fe80::1", "link-local"),
            ("ff02::1", "multicast"),
        ];
        for (address, why) in cases {
            assert_eq!(refusal(address.parse().unwrap()), Some(why), "{address}");
        }
    }

    #[test]
    fn neighbours_of_refused_ranges_are_public() {
        for address in [
            "8.8.8.8",
            "11.0.0.1",
            "172.15.255.255",
            "172.32.0.0",
            "192.167.255.255",
            "169.253.255.255",
            "100.63.255.255",
            "100.128.0.0",
            "223.255.255.255",
            "2606:4700::1111",
        ] {
            assert_eq!(refusal(address.parse().unwrap()), None, "{address}");
        }
    }

    /// A public page cannot send the fetcher to a private address: here the
    /// address 127.0.0.1 plays the public part and 127.0.0.2 the private one.
    #[tokio::test]
    async fn a_redirect_is_checked_like_the_first_link() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let public = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let private = tokio::net::TcpListener::bind("127.0.0.2:0").await.unwrap();
        let target = format!("http://{}/", private.local_addr().unwrap());
        let link = format!("http://{}/", public.local_addr().unwrap());
        tokio::spawn(async move {
            let (mut stream, _) = public.accept().await.unwrap();
            let _ = stream.read(&mut [0; 1024]).await;
            let head =
                format!("HTTP/1.1 302 Found\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n");
            let _ = stream.write_all(head.as_bytes()).await;
        });
        let bounds = Bounds {
            refusal: |address| (address == Ipv4Addr::new(127, 0, 0, 2)).then_some("test"),
            bytes_max: PAGE_BYTES_MAX,
            time_max: PAGE_TIME_MAX,
        };
        let error = page(&link, bounds).await.unwrap_err();
        assert_eq!(error.code, "http.private_address", "{error}");
        let reached = tokio::time::timeout(Duration::from_millis(100), private.accept()).await;
        assert!(reached.is_err(), "the private address was connected to");
    }

    #[test]
    fn html_becomes_what_a_reader_sees() {
        let html = "<html><head><title>A &amp; B</title><style>p{}</style></head>\
                    <body><h1>Hi</h1><p>One <b>two</b>&nbsp;three</p><script>evil()</script>3 < 4</body></html>";
        let (title, text) = readable(html);
        assert_eq!(title.as_deref(), Some("A & B"));
        assert_eq!(text, "Hi\nOne two three\n3 < 4");
    }
}
