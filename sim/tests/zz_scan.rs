#![cfg(feature = "planted")]
//! scan
use castra_core::planted::Bug;
use castra_sim::choice::Seeded;
use castra_sim::{Limits, Plan, World};

#[test]
fn scan() {
    let most: u64 = std::env::var("N").ok().and_then(|t| t.parse().ok()).unwrap_or(2000);
    let only = std::env::var("BUG").ok();
    let print = std::env::var("PRINT").is_ok();
    if only.as_deref() == Some("none") {
        let first: u64 = std::env::var("FIRST").ok().and_then(|t| t.parse().ok()).unwrap_or(0);
        let mut bad = 0;
        for seed in first..first + most {
            let mut choice = Seeded::new(seed);
            let plan = Plan::draw(&mut choice, &Limits::default());
            if let Err(failure) = World::new(&plan, Box::new(choice)).run() {
                println!("{seed} {}", failure.violation);
                if std::env::var("STORY").is_ok() {
                    let mut choice = Seeded::new(seed);
                    let plan = Plan::draw(&mut choice, &Limits::default());
                    let (_, chronicle) = World::new(&plan, Box::new(choice)).tell();
                    println!("{plan:#?}\n{}", castra_sim::story::tell(&chronicle, None));
                }
                bad += 1;
                if bad > 30 {
                    break;
                }
            }
        }
        return;
    }
    for bug in Bug::ALL.iter().copied().filter(|b| only.as_deref().is_none_or(|o| o == b.as_str())) {
        let began = std::time::Instant::now();
        let mut promises = std::collections::BTreeMap::new();
        let mut first = None;
        for seed in 0..most {
            let mut choice = Seeded::new(seed);
            let plan = Plan::draw(&mut choice, &Limits::default());
            if let Err(failure) = World::planted(&plan, Box::new(choice), bug).run() {
                if print {
                    println!("{bug} {seed} {} {}", failure.outcome.events, failure.violation);
                }
                *promises.entry(failure.violation.promise).or_insert(0) += 1;
                first.get_or_insert((seed, failure.violation.to_string()));
                if promises.values().sum::<u32>() >= 20 {
                    break;
                }
            }
            if began.elapsed().as_secs() > 20 {
                break;
            }
        }
        println!("{bug:28} {promises:?} {first:?} {:.1?}", began.elapsed());
    }
}
