//! Tokens are issued and revoked, and guests prove themselves with what they have.

use serde_json::{Value, json};

use crate::load::{Desk, Load, Random, Said, Site};
use crate::promises::Promise;
use crate::scripted::{Scripted, Verdict};

const NAMES: [&str; 3] = ["k0", "k1", "k2"];

pub(crate) struct Tokens {
    names: Vec<Named>,
    random: Random,
    desk: Desk,
}

struct Named {
    name: &'static str,
    token: Promise<Token>,
    /// Tokens that were good once.
    old: Vec<String>,
}

#[derive(Clone, PartialEq, Debug)]
enum Token {
    Never,
    Is(String),
    /// One was issued, and the answer that says which was lost.
    Unknown,
    Revoked,
}

impl Tokens {
    pub(crate) fn new(site: &Site, seed: u64) -> Self {
        let named = |name| Named {
            name,
            token: Promise::new(format!("the token of {name}"), Token::Never),
            old: vec![],
        };
        Self { names: NAMES.map(named).into(), random: Random(seed), desk: site.desk() }
    }
}

impl Named {
    /// What this broker has: as it lists it, and as it takes proofs.
    fn look(&mut self, site: &Site, listed: &Value) {
        let line = listed["tokens"].as_array().unwrap().iter().find(|line| line["guest"] == self.name);
        let now = match line.map(|line| line["valid"] == true) {
            None => Token::Never,
            Some(false) => Token::Revoked,
            Some(true) => {
                let known = self.tokens().into_iter().find(|token| self.opens(site, token));
                known.map_or(Token::Unknown, Token::Is)
            }
        };
        let mut shut = self.old.clone();
        self.token.seen(now.clone());
        if let Token::Is(token) = now {
            shut.retain(|old| *old != token);
        }
        for token in shut.iter().rev().take(2) {
            assert!(!self.opens(site, token), "broken promise: an old token of {} is good again", self.name);
        }
    }

    /// The tokens that it may have.
    fn tokens(&self) -> Vec<String> {
        self.old
            .iter()
            .rev()
            .filter(|token| self.token.may_be(&Token::Is((*token).clone())))
            .cloned()
            .collect()
    }

    fn opens(&self, site: &Site, token: &str) -> bool {
        loop {
            let guest = Scripted::connect(&site.link());
            match guest.map(|mut guest| guest.prove(self.name, Some(token), true)) {
                Some(Verdict::Ok) => return true,
                Some(Verdict::Refused(code)) if code == "bad-proof" => return false,
                // This machine was slower than a handshake may be.
                Some(Verdict::Refused(code)) if code == "timeout" => {}
                other => panic!("{}: {other:?}", self.name),
            }
        }
    }
}

impl Load for Tokens {
    fn check(&mut self, site: &Site) {
        let listed = self.desk.must("token_list", &json!({}));
        self.names.iter_mut().for_each(|named| named.look(site, &listed));
    }

    fn step(&mut self, site: &Site) -> Option<()> {
        let chosen = self.random.below(NAMES.len() as u64) as usize;
        let named = &mut self.names[chosen];
        match self.random.below(8) {
            0..=2 => {
                named.token.asks(Token::Unknown);
                match self.desk.ask("token_issue", &json!({"guest": named.name})) {
                    Said::Yes(data) => {
                        let token = data["token"].as_str().unwrap().to_owned();
                        named.token.is(Token::Is(token.clone()));
                        named.old.push(token);
                        site.count("tokens: issued");
                    }
                    Said::No(code) => assert_eq!(code, "timeout", "token_issue"),
                    Said::Lost => return None,
                }
            }
            3 => {
                // There is none, or there may be one.
                let none = matches!(named.token.known(), Some(Token::Never | Token::Revoked));
                let may = !none;
                if may {
                    named.token.asks(Token::Revoked);
                }
                match self.desk.ask("token_revoke", &json!({"guest": named.name})) {
                    Said::Yes(_) => {
                        assert!(may, "a token of {} was revoked that was not there", named.name);
                        named.token.is(Token::Revoked);
                        site.count("tokens: revoked");
                    }
                    Said::No(code) if may && code == "timeout" => {}
                    Said::No(code) => {
                        assert_eq!((code.as_str(), none), ("unknown_guest", true), "{}", named.name);
                        site.count("tokens: nothing to revoke");
                    }
                    Said::Lost => return None,
                }
            }
            _ => {
                // Old ones are tried, too.
                let back = self.random.below(2) as usize;
                let token = named.old.iter().rev().nth(back).cloned();
                let mut guest = Scripted::connect(&site.link())?;
                let verdict = guest.prove(named.name, token.as_deref(), true);
                let good = match (named.token.known()?, token) {
                    (Token::Never, _) => true,
                    (Token::Is(now), Some(token)) => *now == token,
                    _ => false,
                };
                match verdict {
                    Verdict::Lost => return None,
                    Verdict::Ok => assert!(good, "{} came in with a wrong token", named.name),
                    Verdict::Refused(code) => {
                        let busy = matches!(code.as_str(), "busy" | "name-in-use" | "timeout");
                        assert!(busy || !good && code == "bad-proof", "{}, good {good}: {code}", named.name);
                    }
                }
                site.count(if good { "tokens: proofs" } else { "tokens: wrong proofs" });
            }
        }
        Some(())
    }

    fn end(&mut self, site: &Site) {
        self.check(site);
    }
}
