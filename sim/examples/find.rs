use castra_sim::terminals::{Outcome, TerminalsPlayer};
fn main() {
    let args: Vec<u64> = std::env::args().skip(1).map(|a| a.parse().unwrap()).collect();
    std::panic::set_hook(Box::new(|i| eprintln!("{i}")));
    let mut total = Outcome::default();
    let (mut bad, mut n) = (0, 0);
    for seed in args[0]..args[1] {
        n += 1;
        let t = std::time::Instant::now();
        match TerminalsPlayer::default().play(seed) {
            Ok(o) => total += &o,
            Err(f) => { bad += 1; println!("{seed}: {}", f.violation); }
        }
        let e = t.elapsed();
        if e.as_millis() > 3000 { println!("{seed}: took {e:?}"); }
    }
    println!("{bad} bad of {n}");
    if args.len() > 2 { println!("{total:#?}"); }
}
