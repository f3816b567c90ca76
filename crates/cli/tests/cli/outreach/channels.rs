//! What the crew of the example speaks to, as far as it speaks to it: a mail server, Twilio, and the
//! people's desk. They keep what they got, and misbehave when they are told to.

use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// How a channel treats who speaks to it.
#[derive(Debug, Clone, Default)]
pub(crate) enum Mood {
    /// As it should.
    #[default]
    Good,
    /// It takes the first thing of each sender, and hangs up before it says so.
    Lossy,
    /// It refuses everything, and repeats whatever it was told, this included.
    Telling(String),
}

/// What a channel got.
#[derive(Debug, Default)]
struct Got {
    /// As it came: a mail, or the lines of a request.
    all: Vec<String>,
    /// What was said to prove who it is.
    proofs: BTreeSet<String>,
    /// To whom something was taken without saying so.
    lost: BTreeSet<String>,
    /// Messages that were sent, as Twilio tells of them.
    sent: Vec<Value>,
}

#[derive(Debug, Clone)]
pub(crate) struct Channel {
    pub(crate) port: u16,
    mood: Mood,
    got: Arc<Mutex<Got>>,
}

impl Channel {
    fn open(mood: Mood, serve: fn(&Channel, TcpStream) -> std::io::Result<()>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let channel = Self {
            port: listener.local_addr().expect("its port").port(),
            mood,
            got: Arc::default(),
        };
        let served = channel.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let served = served.clone();
                // A connection that breaks off is the sender's to notice.
                std::thread::spawn(move || serve(&served, stream));
            }
        });
        channel
    }

    /// A mail server.
    pub(crate) fn mail(mood: Mood) -> Self {
        Self::open(mood, smtp)
    }

    /// Twilio and the desk.
    pub(crate) fn web(mood: Mood) -> Self {
        Self::open(mood, http)
    }

    fn got<T>(&self, look: impl FnOnce(&mut Got) -> T) -> T {
        look(&mut self.got.lock().expect("nobody panics with it"))
    }

    /// All that came, as it came.
    pub(crate) fn all(&self) -> Vec<String> {
        self.got(|got| got.all.clone())
    }

    pub(crate) fn proofs(&self) -> BTreeSet<String> {
        self.got(|got| got.proofs.clone())
    }

    /// The messages that were sent by way of Twilio: to whom, and what.
    pub(crate) fn messages(&self) -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let told = |message: &Value| (text(&message["to"]), text(&message["body"]));
        self.got(|got| got.sent.iter().map(told).collect())
    }

    /// Whether this is the first thing of a sender that is to be lost.
    fn loses(&self, whose: &str) -> bool {
        matches!(self.mood, Mood::Lossy) && self.got(|got| got.lost.insert(whose.to_owned()))
    }
}

fn smtp(channel: &Channel, stream: TcpStream) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let say = |text: &str| (&stream).write_all(format!("{text}\r\n").as_bytes());
    say("220 here")?;
    while let Some(line) = lines.next().transpose()? {
        match line.split(' ').next().unwrap_or_default() {
            "ehlo" | "EHLO" => say("250-here\r\n250 AUTH PLAIN")?,
            "AUTH" => {
                let proof = line.rsplit(' ').next().unwrap_or_default().to_owned();
                channel.got(|got| got.proofs.insert(proof.clone()));
                match &channel.mood {
                    Mood::Telling(more) => say(&format!("535 not with {proof} {more}"))?,
                    _ => say("235 welcome")?,
                }
            }
            "data" | "DATA" => {
                say("354 go on")?;
                let mut mail = String::new();
                for line in lines.by_ref() {
                    match line? {
                        end if end == "." => break,
                        line => mail.push_str(&format!("{line}\n")),
                    }
                }
                let to = header(&mail, "To").to_owned();
                channel.got(|got| got.all.push(mail));
                if channel.loses(&to) {
                    return Ok(());
                }
                say("250 taken")?;
            }
            "quit" | "QUIT" => return say("221 bye"),
            _ => say("250 fine")?,
        }
    }
    Ok(())
}

/// A mail's header.
pub(crate) fn header<'a>(mail: &'a str, name: &str) -> &'a str {
    let lines = mail.lines().take_while(|line| !line.is_empty());
    let mut values = lines.filter_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    values.next().unwrap_or_default()
}

fn http(channel: &Channel, stream: TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line == "\r\n" {
            break;
        }
        head.push(line.trim_end().to_owned());
    }
    let value = |name: &str| {
        let mut lines = head.iter().filter_map(|line| line.split_once(": "));
        lines.find_map(|(key, value)| key.eq_ignore_ascii_case(name).then(|| value.to_owned()))
    };
    let length = value("content-length").and_then(|length| length.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body)?;
    let body = String::from_utf8_lossy(&body).into_owned();
    let request = head.first().cloned().unwrap_or_default();
    let proof = value("authorization").unwrap_or_default();
    channel.got(|got| {
        got.all.push(format!("{request}\n{body}"));
        got.proofs.insert(proof.clone());
    });
    let (status, said) = match (&channel.mood, request.as_str()) {
        (Mood::Telling(more), _) => {
            let text = format!("not with {proof} {more}");
            (401, json!({"message": text}))
        }
        (_, request) if request.starts_with("POST /threads") => {
            (201, json!({"thread_id": "thread-1"}))
        }
        (_, request) if request.starts_with("POST /2010-04-01/Accounts/") => {
            let form = form(&body);
            let message = channel.got(|got| {
                // Long ago by any clock but the newest: only what is new can be what is looked for.
                let message = json!({
                    "sid": format!("SM{}", got.sent.len() + 1), "to": form["To"], "body": form["Body"],
                    "date_created": "Fri, 01 Jan 2100 00:00:00 +0000",
                });
                got.sent.push(message.clone());
                message
            });
            if channel.loses(&form["To"]) {
                return Ok(());
            }
            (201, message)
        }
        (_, request) if request.starts_with("GET /2010-04-01/Accounts/") => (
            200,
            json!({"messages": channel.got(|got| got.sent.clone())}),
        ),
        _ => (404, json!({"message": "nothing is here"})),
    };
    let said = said.to_string();
    let length = said.len();
    write!(
        &stream,
        "HTTP/1.1 {status} so\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{said}"
    )
}

/// A form's fields.
fn form(body: &str) -> BTreeMap<String, String> {
    let plain = |text: &str| {
        let mut bytes = Vec::new();
        let mut rest = text.bytes();
        while let Some(byte) = rest.next() {
            bytes.push(match byte {
                b'+' => b' ',
                b'%' => {
                    let digits = [rest.next(), rest.next()].map(|digit| digit.unwrap_or(b'0'));
                    let digits = String::from_utf8_lossy(&digits).into_owned();
                    u8::from_str_radix(&digits, 16).expect("a form is encoded")
                }
                byte => byte,
            });
        }
        String::from_utf8(bytes).expect("a form is UTF-8")
    };
    let fields = body.split('&').filter_map(|field| field.split_once('='));
    fields
        .map(|(name, value)| (plain(name), plain(value)))
        .collect()
}
