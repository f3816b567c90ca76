//! What people see on a terminal, while it happens: the program with a real one, of 90 columns.

use crate::chat::office;
use crate::world::{World, signal, until};
use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};

/// The program at a terminal, and everything that was written on it.
struct Terminal {
    child: Child,
    keys: File,
    screen: Arc<Mutex<String>>,
}

impl Terminal {
    fn start(world: &World, args: &[&str]) -> Self {
        let keys = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&keys).unwrap();
        unlockpt(&keys).unwrap();
        let size = Winsize {
            ws_row: 24,
            ws_col: 90,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&keys, size).unwrap();
        let name = ptsname(&keys, Vec::new()).unwrap();
        let path = name.to_str().unwrap();
        let own = || {
            let open = OpenOptions::new().read(true).write(true).open(path);
            Stdio::from(open.unwrap())
        };
        let mut command = world.command(args);
        command.stdin(own()).stdout(own()).stderr(own());
        command.env("TERM", "xterm");
        let child = command.spawn().unwrap();
        drop(command);
        let keys = File::from(keys);
        let mut pipe = keys.try_clone().unwrap();
        let screen: Arc<Mutex<String>> = Arc::default();
        let written = Arc::clone(&screen);
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            // Reading fails when nobody has the terminal any more.
            while let Ok(bytes @ 1..) = pipe.read(&mut piece) {
                let text = String::from_utf8_lossy(&piece[..bytes]);
                written.lock().unwrap().push_str(&text);
            }
        });
        Self {
            child,
            keys,
            screen,
        }
    }

    /// Until this was written.
    #[track_caller]
    fn shows(&self, text: &str) {
        until(text, || self.screen.lock().unwrap().contains(text));
    }

    fn types(&mut self, text: &str) {
        self.keys.write_all(text.as_bytes()).unwrap();
    }

    #[track_caller]
    fn ends(mut self, code: i32) {
        until("its end", || self.child.try_wait().unwrap().is_some());
        let status = self.child.wait().unwrap();
        let screen = self.screen.lock().unwrap();
        assert_eq!(status.code(), Some(code), "{screen}");
    }
}

#[test]
fn a_terminal_shows_what_several_agents_do_at_once() {
    let world = World::new();
    office(&world);
    let goal = "Note the letters";
    let run = Terminal::start(&world, &["run", goal, "--crew", "crew.yaml"]);
    // Two workers, each with its agent's last deed, while both still are at it.
    run.shows("clerk › letters.note {\"letter\":1}");
    until("two letters", || world.read("effects").lines().count() >= 2);
    run.shows("worker_2");
    world.file("go", "");
    run.shows("Three letters are noted [1] [3].");
    run.ends(0);
}

#[test]
fn somebody_at_a_terminal_is_asked_answered_and_may_stop_an_answer() {
    let world = World::new();
    office(&world);
    world.file("go", "");
    let mut chat = Terminal::start(&world, &["chat", "--crew", "crew.yaml"]);
    chat.shows("> ");
    chat.types("Hello\n");
    chat.shows("Good day. What can I do?");
    chat.types("Think long\n");
    until("it thinks", || {
        world.json(&["runs", "list"])["items"][0]["goal"] == "Think long"
    });
    signal(&chat.child, Signal::INT);
    chat.shows("stopped");
    chat.types("Note letter 9\n");
    chat.shows("letters.note {\"letter\":9}");
    chat.shows("It is noted.");
    // Ctrl-D.
    chat.types("\u{4}");
    chat.shows("chat --continue run_");
    chat.ends(1);
}
