//! A failing run, written down: enough to run it again for ever, and to keep
//! it as a regression (`sim/tests/regressions/*.case.json`).

use serde::{Deserialize, Serialize};

use crate::plan::{By, Plan};

/// The format that this program writes and reads.
pub const FORMAT: u32 = 1;

/// A plan and all choices that were made while it was played.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// [`FORMAT`].
    pub format: u32,
    /// The version of castra that found it.
    pub version: String,
    /// The promise that was broken when it was found: `S1`.
    pub promise: String,
    /// The world.
    pub plan: Plan,
    /// What was chosen, in order; beyond the end every choice is 0.
    pub choices: Vec<u32>,
}

/// Why a text is no case.
#[derive(Debug, thiserror::Error)]
pub enum CaseError {
    /// Not JSON, or not of this shape.
    #[error("this is no case: {0}")]
    Shape(#[from] serde_json::Error),
    /// Another format.
    #[error("format {0} of a case is not known here (known: {FORMAT}); castra {1} wrote it")]
    Format(u32, String),
    /// A plan that no world can be made of.
    #[error("the plan makes no sense: {0}")]
    Plan(&'static str),
}

impl Case {
    /// A case of this version of castra.
    #[must_use]
    pub fn new(promise: impl Into<String>, plan: Plan, choices: Vec<u32>) -> Self {
        let version = env!("CARGO_PKG_VERSION").into();
        Self { format: FORMAT, version, promise: promise.into(), plan, choices }
    }

    /// Reads what [`Case::to_json`] wrote.
    ///
    /// # Errors
    /// Another shape or format, or a plan that no world can be made of.
    pub fn from_json(text: &str) -> Result<Self, CaseError> {
        let case: Self = serde_json::from_str(text)?;
        if case.format != FORMAT {
            return Err(CaseError::Format(case.format, case.version));
        }
        check(&case.plan).map_err(CaseError::Plan)?;
        Ok(case)
    }

    /// The case as a JSON document, a line a field, the choices on one.
    ///
    /// # Panics
    /// Never: all of it is plain data.
    #[must_use]
    pub fn to_json(&self) -> String {
        let Ok(value) = serde_json::to_value(self) else { unreachable!("plain data") };
        let fields = ["format", "version", "promise", "plan", "choices"];
        let lines: Vec<String> =
            fields.iter().map(|field| format!("  \"{field}\": {}", value[*field])).collect();
        format!("{{\n{}\n}}\n", lines.join(",\n"))
    }
}

/// Whether a world can be made of `plan`.
fn check(plan: &Plan) -> Result<(), &'static str> {
    let count = plan.guests.len();
    let known = |guest: usize| guest < count;
    if count == 0 || count > 100_000 {
        return Err("there must be 1 to 100000 guests");
    }
    if plan.interval_ms == 0 || plan.window_ms / 3 < plan.interval_ms {
        return Err("the window must hold at least three intervals");
    }
    if plan.network.latency_min_us > plan.network.latency_max_us {
        return Err("the shortest delay is longer than the longest");
    }
    if plan.network.buffer == 0 || plan.network.backlog == 0 {
        return Err("a buffer or a backlog of 0 carries nothing");
    }
    if !plan.faults.iter().all(|fault| known(fault.guest))
        || !plan.clients.iter().all(|client| known(client.guest))
    {
        return Err("a fault or a client names a guest that isn't there");
    }
    // One that nobody has, and the beginning of all, are names, too.
    if !plan.acts.iter().all(|act| known(act.guest) && act.other < count + 2) {
        return Err("an act names a guest that isn't there");
    }
    if !plan.couples.iter().all(|[one, other]| one != other && known(*one) && known(*other)) {
        return Err("a couple is not two guests");
    }
    if !plan.acts.iter().all(|act| act.by == By::Guest || act.deed.is_the_hosts()) {
        return Err("the operator does what only a guest can");
    }
    if plan.guests.iter().flat_map(|guest| &guest.inbox).any(|inbox| inbox.policies.is_empty()) {
        return Err("an inbox needs a policy for its first life");
    }
    if let Some(attach) = &plan.attach
        && (attach.guests.len() != count || !attach.steps.iter().all(|step| known(step.guest)))
    {
        return Err("managed attach names a guest that isn't there");
    }
    if !plan.faults.is_sorted_by_key(|fault| fault.at_ms) {
        return Err("the faults are not in the order of time");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::choice::Seeded;
    use crate::plan::Limits;

    fn case() -> Case {
        Case::new("S1", Plan::draw(&mut Seeded::new(3), &Limits::default()), vec![1, 0, 77])
    }

    #[test]
    fn a_case_is_read_as_it_was_written() {
        let text = case().to_json();
        assert_eq!(Case::from_json(&text).expect("what was written"), case());
        assert!(text.ends_with("  \"choices\": [1,0,77]\n}\n"), "{text}");
    }

    #[test]
    fn what_is_no_case_is_refused_with_the_reason() {
        let text = case().to_json();
        assert!(matches!(Case::from_json("{}"), Err(CaseError::Shape(_))));
        let later = text.replace("\"format\": 1", "\"format\": 2");
        assert!(matches!(Case::from_json(&later), Err(CaseError::Format(2, _))));
        for spoil in [
            (|plan: &mut Plan| plan.guests.clear()) as fn(&mut Plan),
            |plan| plan.interval_ms = 0,
            |plan| plan.window_ms = plan.interval_ms,
            |plan| plan.network.latency_max_us = 0,
            |plan| plan.network.buffer = 0,
            |plan| plan.guests.truncate(1),
        ] {
            let mut case = case();
            case.plan.network.latency_min_us = 1;
            case.plan.faults = Plan::draw(&mut Seeded::new(5), &Limits::default()).faults;
            case.plan.faults.truncate(1);
            case.plan.faults.iter_mut().for_each(|fault| fault.guest = 1);
            case.plan.guests = vec![case.plan.guests[0].clone(); 2];
            case.plan.clients.clear();
            case.plan.attach = None;
            case.plan.network.latency_max_us = 10;
            assert!(!case.plan.faults.is_empty() && Case::from_json(&case.to_json()).is_ok());
            spoil(&mut case.plan);
            assert!(matches!(Case::from_json(&case.to_json()), Err(CaseError::Plan(_))), "{:?}", case.plan);
        }
    }
}
