//! What an agent's environment says of a manager: the fallback where no handshake comes.

use castra_core::attach::{AttachId, AttachSettings, Hint, ManagerUrl, Secret};
use castra_core::attach::{InvalidAttachId, InvalidSecret, InvalidUrl};

use crate::exit::Failure;
use crate::paths::Surroundings;

const URL: &str = "PRIVATE_BEACH_MANAGER_URL";
const BEACH: &str = "PRIVATE_BEACH_ID";
const CODE: &str = "PRIVATE_BEACH_SESSION_PASSCODE";
const TOKEN: &str = "PRIVATE_BEACH_MANAGER_TOKEN";

/// What was found.
#[derive(Debug)]
pub(crate) struct Found {
    /// With the environment's manager first, then those of the command line.
    pub(crate) settings: AttachSettings,
    /// Something is missing: what, and what that means.
    pub(crate) warning: Option<String>,
}

/// Reads the environment. No value is ever shown: a URL may hold a password.
///
/// # Errors
/// A variable that is set says what it can't mean.
pub(crate) fn read(given: &[ManagerUrl], around: &Surroundings<'_>) -> Result<Found, Failure> {
    let text = |name| text(name, around);
    let (url, beach, code, token) = (text(URL)?, text(BEACH)?, text(CODE)?, text(TOKEN)?);
    let missing: Vec<&str> = [(URL, &url), (BEACH, &beach), (CODE, &code), (TOKEN, &token)]
        .into_iter()
        .filter_map(|(name, value)| value.is_none().then_some(name))
        .collect();
    let url: Option<ManagerUrl> = url
        .map(|url| match url.parse() {
            Ok(url @ ManagerUrl::Http(_)) => Ok(url),
            Ok(ManagerUrl::Link) | Err(InvalidUrl) => {
                Err(wrong(URL, "http(s)://HOST with an optional :PORT and nothing else"))
            }
        })
        .transpose()?;
    let beach: Option<AttachId> =
        beach.map(|beach| beach.parse().map_err(|error: InvalidAttachId| wrong(BEACH, error))).transpose()?;
    let secret = |name, value: Option<String>| {
        value
            .map(|value| value.parse::<Secret>().map_err(|error: InvalidSecret| wrong(name, error)))
            .transpose()
    };
    let (code, token) = (secret(CODE, code)?, secret(TOKEN, token)?);
    let mut managers: Vec<ManagerUrl> = url.iter().cloned().collect();
    managers.extend(given.iter().filter(|given| Some(*given) != url.as_ref()).cloned());
    let hint = match (url, beach, code, token) {
        (Some(manager), Some(beach), Some(code), Some(token)) => Some(Hint { manager, beach, code, token }),
        _ => None,
    };
    let warning = (1..=3).contains(&missing.len()).then(|| {
        format!(
            "{} {} not set: this guest attaches itself to no manager until a handshake says so",
            missing.join(", "),
            if missing.len() == 1 { "is" } else { "are" }
        )
    });
    Ok(Found { settings: AttachSettings { managers, hint, ..AttachSettings::default() }, warning })
}

/// A variable without the blanks around it; a blank one counts as none.
fn text(name: &'static str, around: &Surroundings<'_>) -> Result<Option<String>, Failure> {
    let Some(value) = (around.env)(name) else { return Ok(None) };
    let value = value.into_string().map_err(|_| wrong(name, "text"))?;
    let value = value.trim();
    Ok((!value.is_empty()).then(|| value.to_owned()))
}

fn wrong(name: &str, rule: impl std::fmt::Display) -> Failure {
    Failure::usage(format!("what is in {name} can't be used: {rule}"))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;

    use super::*;
    use crate::exit::Exit;

    fn found(vars: &[(&str, OsString)], given: &[&str]) -> Result<Found, Failure> {
        let env = |name: &str| vars.iter().find(|(key, _)| *key == name).map(|(_, value)| value.clone());
        let given: Vec<ManagerUrl> = given.iter().map(|url| url.parse().unwrap()).collect();
        read(&given, &Surroundings { env: &env, root: false })
    }

    fn all() -> [(&'static str, OsString); 4] {
        [
            (URL, " http://Manager.Example \n".into()),
            (BEACH, "beach".into()),
            (CODE, "CODE-42".into()),
            (TOKEN, "hush".into()),
        ]
    }

    #[test]
    fn a_whole_environment_is_a_hint_and_its_manager_comes_first() {
        let given = ["https://other.example", "http://manager.example:80"];
        let Found { settings, warning } = found(&all(), &given).unwrap();
        assert_eq!(warning, None);
        let managers: Vec<String> = settings.managers.iter().map(ToString::to_string).collect();
        assert_eq!(managers, ["http://manager.example:80", "https://other.example:443"]);
        let hint = settings.hint.unwrap();
        assert_eq!(
            (hint.beach.as_str(), hint.code.expose(), hint.token.expose()),
            ("beach", "CODE-42", "hush")
        );
        let Found { settings, warning } = found(&[], &given[..1]).unwrap();
        assert_eq!((settings.managers.len(), settings.hint, warning), (1, None, None));
    }

    #[test]
    fn an_incomplete_one_is_one_warning_that_names_what_is_missing() {
        let Found { settings, warning } = found(&all()[..2], &[]).unwrap();
        assert_eq!((settings.managers.len(), settings.hint), (1, None));
        let warning = warning.unwrap();
        assert!(warning.starts_with(&format!("{CODE}, {TOKEN} are not set: ")), "{warning}");
        let mut blank = all();
        blank[0].1 = " ".into();
        let Found { settings, warning } = found(&blank, &[]).unwrap();
        assert_eq!((settings.managers.len(), settings.hint), (0, None));
        assert!(warning.unwrap().starts_with(&format!("{URL} is not set: ")));
    }

    #[test]
    fn what_makes_no_sense_is_an_error_that_shows_no_value() {
        for (index, value) in [
            (0, "http://user:hush@host".into()),
            (0, "link:".into()),
            (1, "hush hush".into()),
            (2, "hush hush".into()),
            (3, "hüsh".into()),
            (3, OsString::from_vec(b"hush\xff".to_vec())),
        ] {
            let mut vars = all();
            vars[index].1 = value;
            let failure = found(&vars, &[]).unwrap_err();
            assert_eq!(failure.exit, Exit::Usage);
            assert!(failure.message.contains(vars[index].0) && !failure.message.contains("sh"), "{failure}");
        }
    }
}
