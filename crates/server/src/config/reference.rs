//! The commented file with every default: what there is to read about the settings.

use super::setting::{OTHER_VARIABLES, SECTIONS, SETTINGS, Setting};

const HEAD: &str = "\
# The settings of Chargehand's server, each with its default.
# `chargehand config default` prints this file, and `chargehand config show` prints every value
# together with where it comes from.
#
# The default gives way to this file, the file to the environment, the environment to the command
# line (where `--set KEY=VALUE` takes every setting, also those without a flag of their own).
#
# The file is the one that `--config` or CHARGEHAND_CONFIG names; without either it is
# chargehand.toml in the folder where the server starts, if it is there. Paths start in that folder.
# Nothing secret stands in here: a key is in a file of its own, and only its path is a setting.
#
# Other variables of the environment that mean something:
";

/// The file that `docs/chargehand.toml` keeps. Every setting stands in it, turned off by a `#` directly
/// before its key, so that taking the `#` away changes nothing but makes a place to change.
pub fn reference() -> String {
    let mut file = HEAD.to_owned();
    for (name, what) in OTHER_VARIABLES {
        file += &format!("#   {name:<26} {what}\n");
    }
    let mut section = "";
    for setting in SETTINGS {
        let (of, name) = setting.key.rsplit_once('.').unwrap_or(("", setting.key));
        if of != section {
            section = of;
            let about = SECTIONS.iter().find(|(name, _)| *name == section);
            let about = about.map_or("", |(_, about)| about);
            file += &format!("\n{}[{section}]\n", comment(about));
        }
        let (help, says) = (comment(setting.help), comment(&said(setting)));
        file += &format!("\n{help}{says}#{name} = {}\n", setting.default().to_toml());
    }
    file
}

/// What a setting takes and who else can say it.
fn said(setting: &Setting) -> String {
    let takes = setting.takes();
    let mut letters = takes.chars();
    let takes: String = letters
        .next()
        .into_iter()
        .flat_map(char::to_uppercase)
        .chain(letters)
        .collect();
    let flag = setting
        .flag
        .map_or(String::new(), |flag| format!(", {flag}"));
    format!("{takes}. {}{flag}", setting.environment())
}

/// As lines of a comment that fit a screen.
fn comment(text: &str) -> String {
    const COLUMNS_MAX: usize = 100;
    let mut lines = vec![String::from("#")];
    for word in text.split_whitespace() {
        let last = lines.len() - 1;
        if lines[last].chars().count() + 1 + word.chars().count() > COLUMNS_MAX {
            lines.push(format!("# {word}"));
        } else {
            lines[last] += &format!(" {word}");
        }
    }
    lines.join("\n") + "\n"
}
